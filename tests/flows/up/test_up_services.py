"""`corpusmill up` as a person meets it: it starts, says where it is, is alone, and leaves nothing behind."""

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from deadline import wait_for
from up_processes import Up, belonging, command_lines, environment, started

from flows.settings import read_settings

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def migrated(tmp_path, prefect_url) -> Path:
    """A workspace whose Prefect has a database already, that of the tests' server: to make one takes ten seconds."""
    root = tmp_path / "w"
    (root / "prefect").mkdir(parents=True)
    with (
        closing(sqlite3.connect(Path(os.environ["PREFECT_HOME"]) / "prefect.db")) as theirs,
        closing(sqlite3.connect(root / "prefect" / "prefect.db")) as ours,
    ):
        theirs.backup(ours)
    return root


def test_it_starts_says_where_and_is_alone_and_stops_without_a_trace(migrated, monkeypatch):
    root = migrated
    monkeypatch.delenv("PREFECT_API_URL")  # that of the tests' server, which would go first
    with started(root) as up:
        facts = up.wait_until_up().facts
        assert up.get(f"{facts['prefect_api']}/admin/version") == 200
        assert up.get(f"{facts['mlflow']}/version") == 200
        assert up.get(f"{facts['prefect']}/") == 200
        assert all(host in facts[name] for name, host in {"prefect": "127.0.0.1", "mlflow": "127.0.0.1"}.items())
        with urllib.request.urlopen(f"{facts['mlflow']}/ajax-api/3.0/mlflow/ui-telemetry") as answer:
            assert json.loads(answer.read())["disable_ui_telemetry"] is True
        workers = [command for command in belonging(root).values() if "worker start" in command]
        assert {pool for pool in ("cpu", "gpu") for command in workers if f"--pool {pool}" in command} == {"cpu", "gpu"}
        found = read_settings(root)
        assert (found.prefect_api_url, found.mlflow_tracking_uri) == (facts["prefect_api"], facts["mlflow"])
        assert stat.S_IMODE((root / "logs").stat().st_mode) == 0o700
        assert {path.name for path in (root / "logs").iterdir()} >= {
            "prefect-server.log",
            "mlflow-server.log",
            "worker-cpu.log",
        }

        second = subprocess.run(
            [sys.executable, "-m", "flows.cli", "up", "--workspace", root],
            capture_output=True,
            text=True,
            check=False,
            env=environment(),
        )
        assert second.returncode == 1
        assert second.stderr.count("\n") == 1
        assert f"by process {up.process.pid} on " in second.stderr
        assert facts["prefect"] in second.stderr

        assert up.stop(signal.SIGINT) == 0
        assert belonging(root) == {}
        assert read_settings(root).prefect_api_url is None
    assert "stopped." in up.err()


@pytest.mark.slow
def test_not_even_kill_9_leaves_a_process_behind_and_the_next_one_starts(tmp_path):
    root = tmp_path / "w"
    with started(root) as up:
        up.wait_until_up()
        assert len(belonging(root)) >= 4
        up.process.kill()
        up.process.wait()
        assert read_settings(root).prefect_api_url is None or belonging(root)
        wait_for("every process had ended", lambda: not belonging(root), 60)
    with started(root) as again:
        again.wait_until_up()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prefect-server", "mlflow-server", "worker-cpu"])
def test_a_service_that_dies_is_started_again(tmp_path, name):
    root = tmp_path / "w"
    words = {
        "prefect-server": "prefect server start",
        "mlflow-server": "child mlflow server",
        "worker-cpu": "--pool cpu",
    }[name]
    with started(root) as up:
        facts = up.wait_until_up().facts
        before = {pid for pid, command in belonging(root).items() if words in command}
        assert before
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for("it was said", lambda: f"{name} was killed by SIGKILL" in up.err(), 20)
        wait_for(
            "another one", lambda: {pid for pid, command in belonging(root).items() if words in command} - before, 60
        )
        if name != "worker-cpu":
            url = f"{facts['prefect_api']}/health" if name == "prefect-server" else f"{facts['mlflow']}/health"

            def is_up() -> bool:
                try:
                    return up.get(url) == 200
                except OSError:
                    return False

            wait_for("it answered", is_up, 120)


@pytest.mark.slow
def test_beyond_loopback_both_servers_ask_for_a_password(tmp_path):
    root = tmp_path / "w"
    with started(root, host="0.0.0.0") as up:
        facts = up.wait_until_up().facts
        path = root / "auth" / "secrets.env"
        assert facts["secrets"] == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        values = dict(line.split("=", 1) for line in path.read_text().splitlines())
        prefect_auth = values["PREFECT_API_AUTH_STRING"]
        mlflow_auth = f"{values['MLFLOW_TRACKING_USERNAME']}:{values['MLFLOW_TRACKING_PASSWORD']}"
        mlflow = read_settings(root).mlflow_tracking_uri
        asked = {
            f"{facts['prefect_api']}/admin/version": prefect_auth,
            f"{mlflow}/": mlflow_auth,
            f"{mlflow}/api/2.0/mlflow/experiments/get?experiment_id=0": mlflow_auth,
            f"{mlflow}/ajax-api/2.0/mlflow/experiments/get?experiment_id=0": mlflow_auth,
            f"{mlflow}/api/2.0/mlflow-artifacts/artifacts": mlflow_auth,
        }
        for url, auth in asked.items():
            assert up.get(url) == 401, url
            assert up.get(url, "corpusmill:wrong") == 401, url
            assert up.get(url, auth) == 200, url
        crawled = subprocess.run(
            [sys.executable, "-m", "flows.cli", "crawl", "run", "--workspace", root],
            capture_output=True,
            text=True,
            check=False,
            env=environment(),
        )
        assert crawled.returncode == 0, crawled.stderr
        user, _, password = prefect_auth.partition(":")
        runs = httpx.post(f"{facts['prefect_api']}/flow_runs/filter", json={}, auth=(user, password)).json()
        assert [(run["name"], run["state_type"]) for run in runs] == [("crawl demo", "COMPLETED")]
        passwords = [
            prefect_auth.partition(":")[2],
            mlflow_auth.partition(":")[2],
            values["MLFLOW_FLASK_SERVER_SECRET_KEY"],
        ]
        seen = command_lines() + up.err() + up.logs() + json.dumps(facts)
        assert not [each for each in passwords if each in seen]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stop", "kill"])
def test_a_run_that_is_broken_off_goes_on_with_the_next_up(tmp_path, number):
    pytest.importorskip("flows.deployed.deployment")
    root = tmp_path / "w"

    def refresh(up: Up) -> dict[str, Any]:
        return next((run for name, run in up.flow_runs().items() if "refresh" in name), {})

    with started(root, has_deployments=True, run_now=True) as up:
        up.wait_until_up()
        wait_for("the run had begun", lambda: refresh(up).get("state_type") == "RUNNING", 120)
        up.stop(number)
        wait_for("every process had ended", lambda: not belonging(root), 90)
    with started(root, has_deployments=True) as again:
        again.wait_until_up()
        wait_for("the run had gone on to its end", lambda: refresh(again)["state_type"] == "COMPLETED", 300)
        assert refresh(again)["run_count"] == 2
        assert {run["state_type"] for run in again.flow_runs().values()} == {"SCHEDULED", "COMPLETED"}
