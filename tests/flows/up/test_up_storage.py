"""`corpusmill up` on Postgres, and with artifacts in a bucket: real servers, nothing shown that is secret."""

import json
import os
import signal
import urllib.parse
from pathlib import Path

import httpx
import pytest
from deadline import wait_for
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from postgres_server import PASSWORD, USER, found, postgres_server
from up_processes import command_lines, started

from flows.settings import read_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]


@pytest.mark.skipif(found("initdb") is None, reason="needs Postgres's initdb (Debian: apt-get install postgresql)")
def test_both_servers_keep_their_records_in_databases_of_their_own(tmp_path):
    root = tmp_path / "w"
    with postgres_server() as server:
        url = f"postgresql://{USER}:{urllib.parse.quote(PASSWORD, safe='')}@127.0.0.1:{server.port}/team"
        address = f"postgresql://{USER}@127.0.0.1:{server.port}/postgres"
        with started(root, variables={"CORPUSMILL_POSTGRES": address, "PGPASSWORD": PASSWORD}) as up:
            facts = up.wait_until_up().facts
            assert facts["postgres"] == address
            assert not (root / "prefect" / "prefect.db").exists()
            assert not (root / "mlflow.db").exists()
            assert server.ask("postgres_prefect", "SELECT count(*) FROM work_pool")[0] == "2"
            client = MlflowClient(facts["mlflow"])
            run = client.create_run(client.create_experiment("e"))
            client.log_metric(run.info.run_id, "loss", 1.5, step=3)
            client.log_param(run.info.run_id, "size", "nano")
            client.set_tag(run.info.run_id, "kind", "训练")
            (one,) = client.search_runs(
                [run.info.experiment_id], "metrics.loss > 1 and params.size = 'nano' and tags.kind LIKE '训%'"
            )
            assert one.info.run_id == run.info.run_id
            client.create_registered_model("m")
            client.create_model_version("m", f"runs:/{run.info.run_id}/model", run.info.run_id)
            assert [each.version for each in client.search_model_versions("name = 'm'")] in (["1"], [1])
            client.create_logged_model(run.info.experiment_id, "step-1", run.info.run_id, {"a": "b"}, {"c": "d"})
            assert len(client.search_logged_models([run.info.experiment_id])) == 1
            assert server.ask("postgres_mlflow", "SELECT value FROM metrics") == ["1.5"]

            seen = command_lines() + up.err() + up.logs() + json.dumps(facts)
            assert PASSWORD not in seen
            assert urllib.parse.quote(PASSWORD, safe="") not in seen

            server.stop(signal.SIGKILL)
            server.start()

            def counts() -> bool:
                try:
                    return up.get(f"{facts['prefect_api']}/ready") == 200 and len(client.search_experiments()) == 2
                except (OSError, MlflowException):
                    return False

            wait_for("both had found their databases again", counts, 120)
            assert up.stop() == 0
            seen = up.err() + up.logs()
            assert PASSWORD not in seen
            assert urllib.parse.quote(PASSWORD, safe="") not in seen
        server.stop()
        with started(tmp_path / "x", variables={"CORPUSMILL_POSTGRES": url}) as refused:
            assert refused.process.wait(60) == 1
            assert "wanted two databases there: start the server, or CREATE DATABASE team_prefect and" in refused.err()
            assert urllib.parse.quote(PASSWORD, safe="") not in refused.err()


def test_artifacts_go_to_the_bucket_through_the_server(tmp_path, bucket, monkeypatch):
    root = tmp_path / "w"
    place = f"{bucket.url}/runs"
    with started(
        root, artifacts=place, variables={name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    ) as up:
        facts = up.wait_until_up().facts
        with monkeypatch.context() as patched:
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                patched.delenv(name)  # a client needs none of it
            client = MlflowClient(facts["mlflow"])
            run = client.create_run(client.create_experiment("e"))
            assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
            client.log_text(run.info.run_id, "hello", "notes/a.txt")
            assert [item.path for item in client.list_artifacts(run.info.run_id, "notes")] == ["notes/a.txt"]
            path = client.download_artifacts(run.info.run_id, "notes/a.txt", str(tmp_path))
            assert Path(path).read_text() == "hello"
        assert not (root / "mlartifacts").exists()
    assert [name for name in bucket.names() if name.startswith("runs/") and name.endswith("notes/a.txt")]


@pytest.mark.skipif(found("initdb") is None, reason="needs Postgres's initdb (Debian: apt-get install postgresql)")
def test_a_refresh_runs_through_a_worker_with_passwords_postgres_and_the_bucket(tmp_path, bucket, monkeypatch):
    pytest.importorskip("flows.deployed.deployment")
    root = tmp_path / "w"
    with postgres_server() as server:
        variables = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        variables |= {
            "CORPUSMILL_POSTGRES": f"postgresql://{USER}@127.0.0.1:{server.port}/postgres",
            "PGPASSWORD": PASSWORD,
        }
        options = {"artifacts": f"{bucket.url}/runs", "host": "0.0.0.0", "run_now": True, "has_deployments": True}
        with started(root, variables=variables, **options) as up:
            facts = up.wait_until_up().facts
            secrets = dict(line.split("=", 1) for line in (root / "auth" / "secrets.env").read_text().splitlines())
            user, _, password = secrets["PREFECT_API_AUTH_STRING"].partition(":")

            def refresh() -> str:
                url = f"{facts['prefect_api']}/flow_runs/filter"
                found = httpx.post(url, json={}, auth=(user, password), timeout=60).raise_for_status().json()
                return next((run["state_type"] for run in found if run["name"].startswith("refresh")), "")

            wait_for("the refresh had ended", lambda: refresh() in ("COMPLETED", "FAILED", "CRASHED"), 480)
            assert refresh() == "COMPLETED", up.logs()
            for name, value in secrets.items():
                monkeypatch.setenv(name, value)
            client = MlflowClient(read_settings(root).mlflow_tracking_uri)
            experiment = client.get_experiment_by_name("demo")
            assert experiment is not None
            (run,) = client.search_runs([experiment.experiment_id], "tags.`corpusmill.kind` = 'corpus'")
            assert run.info.status == "FINISHED"
            assert {item.path for item in client.list_artifacts(run.info.run_id)} >= {"data_card.md", "review"}
        assert [name for name in bucket.names() if name.startswith("runs/") and name.endswith("data_card.md")]
