"""The team's services run for real: Postgres, the broker, Prefect in two parts, MLflow behind passwords, S3, the proxy, workers.

Their commands, environment and health checks are read from infra/compose.yaml. One scheduled run goes through all of
them, what it recorded is copied, lost and brought back, and nothing is left when they stop.
"""

import base64
import fcntl
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deadline import wait_for
from deployment_files import INFRA
from flow_inputs import article_records, write_recipe, write_warc
from object_storage import s3_server
from services import Services, found, missing, processes_that_mention, services

from flows import cli

pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(bool(missing()), reason=f"needs Debian's packages {', '.join(missing())}"),
]

RUN_SECONDS = 420.0
RECIPE = "small.yaml"
COUNTED = {"prefect": "flow_run", "mlflow": "runs", "mlflow_auth": "users"}
"""Of each database, a table that is not empty."""


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def stack(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Everything that Compose starts, well."""
    folder = tmp_path_factory.mktemp("services")
    write_warc(folder / "recipes" / "a.warc.gz", article_records()[:20])
    write_recipe(folder / "recipes" / RECIPE, {"kind": "warc", "paths": ["a.warc.gz"]})
    with services(folder, s3, RECIPE=RECIPE, CRON="* * * * *") as stack:
        stack.start("worker-cpu", "worker-gpu")
        if found("caddy"):
            stack.start("proxy")
        if any(
            command.callback is not None and command.callback.__name__ == "metrics"
            for command in cli.app.registered_commands
        ):
            stack.start("metrics")
        yield stack


class Prefect:
    """The API, asked as its clients ask it."""

    def __init__(self, stack: Services, password: str | None = None) -> None:
        self._url = f"http://{stack.address('prefect-server', 4200)}/api"
        user = f"admin:{stack.secret('prefect_password') if password is None else password}"
        self._authorization = "Basic " + base64.b64encode(user.encode()).decode()
        self._token: dict[str, str] | None = None

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """GET, or POST of a body with the token that keeps strangers' pages from posting."""
        headers = {"Authorization": self._authorization, "Content-Type": "application/json"}
        if body is not None:
            if self._token is None:
                token = self.ask("/csrf-token?client=tests")["token"]
                self._token = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "tests"}
            headers |= self._token
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self._url + path, data, headers), timeout=30) as answer:
            return json.loads(answer.read() or "null")

    def text(self, path: str) -> str:
        """GET of what is not JSON."""
        request = urllib.request.Request(self._url + path, headers={"Authorization": self._authorization})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(answer.read().decode())

    def runs(self, flow: str, state: str | None = None) -> list[dict[str, Any]]:
        body: dict[str, Any] = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_ASC"}
        if state is not None:
            body["flow_runs"] = {"state": {"type": {"any_": [state]}}}
        return list(self.ask("/flow_runs/filter", body))


@pytest.fixture(scope="module")
def prefect(stack: Services) -> Prefect:
    return Prefect(stack)


@pytest.fixture(scope="module")
def refreshed(stack: Services, prefect: Prefect) -> dict[str, Any]:
    """The first scheduled run that has finished."""

    def first() -> Any:
        failed = prefect.runs("refresh", "FAILED") + prefect.runs("refresh", "CRASHED")
        assert not failed, stack.log("worker-cpu")[-4000:]
        return [run for run in prefect.runs("refresh", "COMPLETED") if run["state"]["name"] == "Completed"]

    return dict(wait_for("a scheduled refresh", first, RUN_SECONDS)[0])


def objects(stack: Services, bucket: str) -> list[str]:
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        bucket, endpoint=stack.s3_endpoint, access_key_id="x", secret_access_key="x", region="us-east-1",
        client_options={"allow_http": True},
    )  # fmt: skip
    return [item["path"] for chunk in obstore.list(store) for item in chunk]


def mlflow_client(stack: Services, monkeypatch: pytest.MonkeyPatch, user: str, secret: str) -> Any:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", stack.secret(secret))
    return MlflowClient(f"http://{stack.address('mlflow', 5000)}")


def test_every_service_is_well(stack: Services) -> None:
    assert {"postgres", "valkey", "prefect-server", "prefect-services", "mlflow", "worker-cpu"} <= stack.running.keys()
    assert [name for name in stack.running if not stack.is_well(name)] == []


def test_the_health_check_of_the_background_services_can_fail(stack: Services, prefect: Prefect) -> None:
    """Where nobody reads what the API says, and not before."""
    check = ("python", "/opt/corpusmill/infra/images/healthy.py", "--reads-events", "/run/secrets/valkey_url", "3")
    assert stack.run("prefect-services", *check).returncode == 0
    stack.stop("prefect-services")
    prefect.ask("/variables/", {"name": f"said_{time.monotonic_ns()}", "value": "x"})
    wait_for("an event that nobody reads", lambda: stack.run("prefect-services", *check).returncode == 1, 60)
    stack.start("prefect-services")
    wait_for("it to be read", lambda: stack.run("prefect-services", *check).returncode == 0, 60)


def test_servers_ask_for_a_password(stack: Services) -> None:
    for password in ("", "wrong"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            Prefect(stack, password).ask("/flows/count", {})
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"http://{stack.address('mlflow', 5000)}/api/2.0/mlflow/experiments/get?experiment_id=0")
    with pytest.raises(AssertionError):
        assert stack.run("worker-cpu", "prefect", "work-pool", "ls", CORPUSMILL_SECRETS="").returncode == 0


def test_status_asks_a_server_that_wants_a_token_of_who_posts(stack: Services) -> None:
    told = json.loads(stack.run("worker-cpu", "corpusmill", "status", "--json").stdout)["prefect"]
    assert told["answers"] is True, told["problem"]


def test_prometheus_is_answered(stack: Services, prefect: Prefect) -> None:
    assert "prefect_events_emitted_total" in prefect.text("/metrics")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        Prefect(stack, "wrong").text("/metrics")
    if "metrics" in stack.running:
        with urllib.request.urlopen(f"http://{stack.address('metrics', 9310)}/metrics", timeout=30) as answer:
            assert "corpusmill_build_info" in answer.read().decode()


def test_a_scheduled_run_goes_through_all_of_them(
    stack: Services, prefect: Prefect, refreshed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refreshed["created_by"]["type"] == "SCHEDULE"
    assert refreshed["auto_scheduled"]
    assert refreshed["work_pool_name"] == "cpu"
    tasks = wait_for(
        "its task runs",
        lambda: prefect.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [refreshed["id"]]}}}),
        30,
    )
    assert tasks, "the recorder of task runs is another process: it read them from the broker"
    assert [name for name in objects(stack, "corpusmill") if name.startswith("store/objects/")]
    client = mlflow_client(stack, monkeypatch, "worker", "mlflow_worker_password")
    experiment = client.get_experiment_by_name("small")
    assert experiment.artifact_location.startswith("mlflow-artifacts:/")
    corpus = client.search_runs([experiment.experiment_id], "tags.`corpusmill.kind` = 'corpus'")[0]
    assert corpus.info.status == "FINISHED"
    artifacts = [name for name in objects(stack, "mlflow") if corpus.info.run_id in name]
    assert artifacts
    assert not list(stack.folder.glob("workspace/store/objects")), "the store is in the bucket, and nowhere else"
    assert not list(stack.folder.glob("workspace/mlflow.db"))


def test_an_automation_of_the_other_process_trains_what_changed(
    stack: Services, prefect: Prefect, refreshed: dict[str, Any]
) -> None:
    """The event crosses the broker, the automation starts a run, the worker of the other pool takes it."""

    def trained() -> Any:
        assert not prefect.runs("train", "FAILED"), stack.log("worker-gpu")[-4000:]
        return prefect.runs("train", "COMPLETED")

    run = wait_for("a training after the refresh", trained, RUN_SECONDS)[0]
    assert run["work_pool_name"] == "gpu"
    assert run["created_by"]["type"] == "AUTOMATION"
    assert list(stack.folder.glob("workspace/models/*/training.json"))


def test_secrets_are_nowhere_but_where_they_belong(stack: Services, refreshed: dict[str, Any]) -> None:
    secrets = {path.name: path.read_text() for path in (stack.folder / "secrets").iterdir() if path.is_file()}
    passwords = [
        text
        for name, text in secrets.items()
        if name.endswith(("password", "_secret_key", "session_key", "signing_key"))
    ]
    logs = "".join(stack.log(name) for name in stack.seconds if (stack.folder / "logs" / f"{name}.log").exists())
    assert logs
    for password in passwords:
        assert password not in logs
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text()
        except OSError:
            continue
        assert not [password for password in passwords if password in words]
    dump = stack.run_sql_dump("prefect")
    for password in passwords:
        assert password not in dump


@pytest.mark.skipif(found("caddy") is None, reason="needs caddy")
def test_the_proxy_speaks_tls_and_leads_by_name(stack: Services) -> None:
    context = ssl.create_default_context(cafile=str(stack.folder / "secrets" / "ca.crt"))

    def ask(name: str, path: str, user: str = "") -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPSConnection(name, stack.ports["proxy", 8443], context=context, timeout=30)
        connection._create_connection = lambda address, *rest: socket.create_connection(
            ("127.0.0.1", address[1]), *rest
        )
        connection.request("GET", path, headers={"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"})
        answer = connection.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()

    assert ask("prefect.localhost", "/api/health")[0] == 200
    assert ask("prefect.localhost", "/api/admin/version")[0] == 401
    assert ask("prefect.localhost", "/api/admin/version", stack.secret("prefect_auth"))[0] == 200
    status, headers, _ = ask("prefect.localhost", "/ui-settings")
    assert status == 200
    assert headers["strict-transport-security"]
    assert ask("prefect.localhost", "/api/metrics", stack.secret("prefect_auth"))[0] == 404, (
        "for Prometheus, from inside"
    )
    assert ask("mlflow.localhost", "/")[0] == 401
    status, _, page = ask("mlflow.localhost", "/", f"admin:{stack.secret('mlflow_admin_password')}")
    assert (status, b"MLflow" in page) == (200, True)
    with pytest.raises(ssl.SSLError, match="alert"):
        ask("unknown.localhost", "/")


def test_what_was_recorded_is_copied_lost_and_brought_back(
    stack: Services, prefect: Prefect, refreshed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.stop("worker-cpu", "worker-gpu")
    commands = {
        "RUN_IN_POSTGRES": " ".join(stack.as_postgres()),
        "RUN_IN_WORKER": str(_in_worker(stack, tmp_path)),
    }

    def script(name: str, argument: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | commands | variables
        return subprocess.run([INFRA / name, argument], env=environment, capture_output=True, text=True, check=False)

    with (stack.folder / "workspace" / "lock").open("a+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held = script("backup.sh", tmp_path / "partial", WAIT_MINUTES="0")
    assert held.returncode == 1
    assert "got a workspace in use by " in held.stderr
    (kept_databases,) = (tmp_path / "partial").iterdir()
    assert {path.name for path in kept_databases.iterdir()} == {"digests.sha256", *(f"{name}.dump" for name in COUNTED)}
    assert f"beside the databases, which are in {kept_databases}: run it again" in held.stderr

    backup = script("backup.sh", tmp_path / "backups")
    assert backup.returncode == 0, backup.stderr
    assert "not in this copy: s3://corpusmill/store, with shards and records." in backup.stderr
    folder = Path(backup.stdout.strip())
    assert folder.stat().st_mode & 0o777 == 0o700
    refused = script("restore.sh", folder)
    assert refused.returncode == 1
    assert "stop everything but postgres" in refused.stderr
    before = {run["id"] for run in prefect.runs("refresh", "COMPLETED")}
    counted = {database: stack.psql(database, f"SELECT count(*) FROM {table}") for database, table in COUNTED.items()}

    stack.stop("prefect-services", "prefect-server", "mlflow", *(["proxy"] if "proxy" in stack.running else []))
    for database in COUNTED:
        stack.psql("postgres", f"DROP DATABASE {database} WITH (FORCE)")
    records = [path for path in stack.folder.glob("workspace/models/*/*.json") if path.is_file()]
    kept = {path: path.read_bytes() for path in records}
    for path in records:
        path.unlink()
    again = script("restore.sh", folder)
    assert again.returncode == 0, again.stderr
    assert kept
    assert {path: path.read_bytes() for path in records} == kept

    weights = next(stack.folder.glob("workspace/models/*/step-*/*.safetensors"))
    weights.write_bytes(weights.read_bytes()[::-1])
    lacking = script("restore.sh", folder)
    assert lacking.returncode == 1
    assert f"damaged: {weights.relative_to(stack.folder / 'workspace')}" in lacking.stderr
    weights.write_bytes(weights.read_bytes()[::-1])

    stack.start("prefect-services", "mlflow")
    for database, table in COUNTED.items():
        assert int(stack.psql(database, f"SELECT count(*) FROM {table}")) >= int(counted[database]) > 0
    assert before <= {run["id"] for run in Prefect(stack).runs("refresh", "COMPLETED")}
    client = mlflow_client(stack, monkeypatch, "worker", "mlflow_worker_password")
    assert client.get_experiment_by_name("small") is not None

    (folder / "prefect.dump").write_bytes(b"x")
    assert "damaged backup" in script("restore.sh", folder).stderr
    assert script("restore.sh", tmp_path).returncode == 2


def _in_worker(stack: Services, folder: Path) -> Path:
    """A command that does what `docker compose exec worker-cpu` does: the container's settings, and no entrypoint before it."""
    script = folder / "in-worker"
    script.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        f"words = [word.replace('/opt/corpusmill', {str(INFRA.parent)!r}) for word in sys.argv[1:]]\n"
        f"os.execvpe(words[0], words, {stack.environment('worker-cpu')!r})\n"
    )
    script.chmod(0o755)
    return script


def test_nothing_is_written_but_into_volumes_and_tmp(stack: Services) -> None:
    """A container's own file system is read-only; what lies in the folder where a service was started would have failed."""
    assert [path for path in (stack.folder / "root").rglob("*") if path.is_file()] == []
    assert (stack.folder / "tmp" / "prefect-server" / "ui").is_dir(), "Prefect unpacks its pages where it is told to"


def test_they_end_cleanly_and_leave_nothing(stack: Services) -> None:
    running = list(stack.running)
    stack.end()
    assert running
    assert processes_that_mention(stack.folder) == []
    assert not processes_that_mention(stack._postgres_home())
