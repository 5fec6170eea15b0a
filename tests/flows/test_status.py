"""What runs, what is due, what failed and what to do: with no server, a dead one, a slow one, beside a run that holds the lock."""

import json
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock
from urllib.error import HTTPError

import httpx
import pytest
from conftest import environment, run_command

from flows.control_plane import prefect_server
from flows.settings import Settings
from flows.takedown import add
from flows.up.api import PrefectApi
from flows.watching import status as look
from flows.watching.asking import ask
from flows.watching.run_state import recorded, state_path
from flows.workspace import Workspace, writing
from pipelines.errors import StorageError, TerminalError

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_URI", "CORPUSMILL_STORE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def place(tmp_path) -> Workspace:
    return Workspace(tmp_path / "workspace")


def run(place: Workspace, flow: str = "build_corpus", recipe: str = "demo"):
    return recorded(place, flow, recipe, recipe_path="/r/demo.yaml", flow_run_id=None)


def fail(place: Workspace, flow: str, message: str) -> None:
    with writing(place), pytest.raises(TerminalError), run(place, flow):
        raise TerminalError(message)


def shown(place: Workspace) -> str:
    return "\n".join(look.status_lines(look.status(place.root)))


@contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """A server that takes connections and says this, or nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                held.append(connection)
                if answer is not None:
                    connection.recv(65536)
                    connection.sendall(answer)
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        listening.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()
        thread.join()


# what there is to see


def test_where_there_is_no_workspace_it_says_how_to_begin(place):
    found = look.status(place.root)
    assert found["ok"]
    assert not found["is_begun"]
    assert look.status_lines(found) == [f"there is no workspace at {place.root} yet: run `corpusmill run` to begin"]
    assert not place.root.exists(), "to look makes nothing"


def test_an_empty_workspace_is_fine(place):
    with writing(place):
        pass
    text = shown(place)
    assert "running     nothing" in text
    assert "failed      nothing" in text
    assert "none waits" in text
    assert "GiB free" in text


def test_a_run_that_is_going_on_is_seen_without_waiting_for_it(place):
    script = f"""
import sys
from pathlib import Path
from flows.watching.run_state import recorded
from flows.workspace import Workspace, writing
place = Workspace(Path({str(place.root)!r}))
with writing(place), recorded(place, "pipeline", "demo", recipe_path=None, flow_run_id="abc") as record:
    with recorded(place, "build_corpus", "demo", recipe_path=None, flow_run_id="def"):
        record.progress("signals", 3, 7, "1,234 rows")
        record.write()
        print("there", flush=True)
        sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "there\n"
        with pytest.raises(StorageError), writing(place):
            pass  # it holds the lock
        started = time.monotonic()
        (running,) = look.status(place.root)["running"]
        assert time.monotonic() - started < 5
        assert (running["what"], running["flow"], running["pid"]) == ("pipeline demo", "build_corpus", process.pid)
        assert (running["stage"], running["done"], running["of"]) == ("signals", 3, 7)
        assert f"pipeline demo, signals 3/7 1,234 rows, since {running['since']}, process {process.pid} on" in shown(
            place
        )
        process.kill()
    found = look.status(place.root)
    assert found["running"] == []
    (failed,) = found["failed"]
    assert (failed["what"], failed["message"]) == ("pipeline demo", "its process is gone")
    assert failed["do"] == f"corpusmill run --workspace {place.root}"
    assert not found["ok"]


def test_a_command_that_holds_the_workspace_is_seen(place):
    with writing(place):
        (running,) = look.status(place.root)["running"]
        assert running["pid"] == os.getpid()
        with writing(place):  # to look took no lock
            pass
    assert look.status(place.root)["running"] == []


def test_a_failure_is_told_once_with_the_next_command_until_it_is_mended(place):

    def diverge() -> None:
        with writing(place), run(place, "pipeline"):
            with run(place, "crawl"):
                pass
            with run(place, "train"):
                raise TerminalError("got a loss that is not finite, wanted one that is: lower the learning rate.")

    with pytest.raises(TerminalError):
        diverge()
    found = look.status(place.root)
    (failed,) = found["failed"]
    assert failed["what"] == "pipeline demo"
    assert "lower the learning rate" in failed["message"]
    assert shlex.split(failed["do"]) == ["corpusmill", "run", "/r/demo.yaml", "--workspace", str(place.root)]
    assert f"  next: {failed['do']}" in shown(place)
    assert not found["ok"]
    with writing(place), run(place, "train"):  # the part that failed
        pass
    assert look.status(place.root)["ok"]


def test_a_stop_is_no_failure(place):
    with writing(place), pytest.raises(KeyboardInterrupt), run(place):
        raise KeyboardInterrupt
    found = look.status(place.root)
    assert found["ok"]
    assert found["runs"][0]["outcome"] == "stopped"


def test_last_runs_take_downs_and_disk_are_told(place):
    with writing(place), run(place, "crawl"), run(place, "build_corpus"):
        pass
    fail(place, "build_corpus", "got nothing, wanted pages: name some.")
    add(place.root, "domain", "a.test", by="me", reason="asked")
    found = look.status(place.root)
    assert [(each["flow"], each["outcome"]) for each in found["runs"]] == [
        ("build_corpus", "failed"),
        ("crawl", "finished"),
    ]
    assert found["runs"][0]["succeeded_at"] is not None
    assert len(found["takedowns_waiting"]) == 1
    assert "run `corpusmill build` for each recipe" in shown(place)
    assert found["disk"]["workspace_bytes"] > 0
    assert found["disk"]["free_bytes"] > 0


def test_alerts_of_deployed_runs_are_told_for_two_days(place):
    with writing(place):
        pass
    now = datetime.now(UTC)
    lines = [
        {
            "at": (now - timedelta(days=days)).isoformat(timespec="seconds"),
            "kind": "disk-low",
            "recipe": "r",
            "message": f"{days} days",
        }
        for days in (3, 1)
    ]
    (place.root / "alerts.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = look.status(place.root)
    assert [each["message"] for each in found["alerts"]] == ["1 days"]
    assert "alerts      r, disk-low (" in shown(place)
    assert found["ok"]


def test_a_damaged_ledger_is_a_failure_with_what_to_do(place):
    folder = place.crawl_folder("demo-web")
    folder.mkdir(parents=True)
    (folder / "frontier.sqlite").write_bytes(b"no database at all, but long enough to be read as one" * 100)
    (place.root / "takedowns.jsonl").write_text('{"no": "chain"}\n')
    found = look.status(place.root)
    assert {each["what"] for each in found["failed"]} == {"crawl demo-web", "take-downs"}
    assert "move it away" in shown(place)


def test_a_damaged_state_is_nothing_known(place):
    with writing(place), run(place):
        pass
    state_path(place).write_text("{")
    assert look.status(place.root)["runs"] == []


# servers


def test_a_dead_server_is_told_at_once(place, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    monkeypatch.setenv("PREFECT_API_URL", f"http://planted:hunter2word@127.0.0.1:{port}/api")
    with writing(place):
        pass
    started = time.monotonic()
    found = look.status(place.root)
    assert time.monotonic() - started < 2
    assert found["prefect"]["answers"] is False
    assert "start it" in found["prefect"]["problem"]
    assert found["ok"], "that the server is down is told, and is no failed run"
    assert "hunter2" not in json.dumps(found)


@pytest.mark.parametrize(
    "answer", [None, b"HTTP/1.1 200 OK\r\n\r\nnot json", b"garbage", b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"]
)
def test_a_server_that_says_nothing_or_nonsense_is_not_waited_for(place, monkeypatch, answer):
    with writing(place), answering(answer) as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        started = time.monotonic()
        found = look.status(place.root)
        assert time.monotonic() - started < 6
    assert found["prefect"]["answers"] is False
    assert found["champion_problem"]
    assert found["ok"]


def test_a_server_that_keeps_strangers_pages_from_posting_is_asked_with_a_token(place, monkeypatch):
    """As in infra/compose.yaml. The same goes for what `up` and workers post."""
    protection = {"PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true"}
    own = Settings(workspace=place.root, num_workers=0, prefect_api_url=None, mlflow_tracking_uri=None)
    with (
        mock.patch.dict(os.environ, environment(**protection), clear=True),
        prefect_server(own, place) as wait_until_up,
    ):
        wait_until_up()
        url = os.environ["PREFECT_API_URL"]
        with pytest.raises(HTTPError, match="403"):
            ask(f"{url}/flow_runs/filter", None, {})
        assert PrefectApi(url=url).post("/flow_runs/filter", {}) == []
        found = look.status(place.root)["prefect"]
        assert found["answers"] is True, found["problem"]


def certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate for localhost that nobody knows."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(pem, plain, serialization.NoEncryption()))
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    return folder / "key.pem", folder / "cert.pem"


def test_a_server_with_a_certificate_of_ones_own_is_asked(place, monkeypatch, tmp_path):
    """As behind the reverse proxy of a team: where its authority is named, and not otherwise."""
    key, cert = certificate(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(422 if "/csrf-token" in self.path else 200)
            self.end_headers()
            self.wfile.write(b"true")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_arguments: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with writing(place), ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PREFECT_API_URL", f"https://localhost:{server.server_address[1]}/api")
        refused = look.status(place.root)["prefect"]
        monkeypatch.setenv("PREFECT_API_SSL_CERT_FILE", str(cert))
        known = look.status(place.root)["prefect"]
        server.shutdown()
    assert refused["answers"] is False
    assert "CERTIFICATE_VERIFY_FAILED" in refused["problem"]
    assert known["answers"] is True, known["problem"]


def test_the_services_of_up_are_asked_and_their_secrets_read(place, monkeypatch):
    with writing(place), answering(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n") as url:
        secrets = place.root / "auth" / "secrets.env"
        secrets.parent.mkdir()
        secrets.write_text("PREFECT_API_AUTH_STRING=corpusmill:hunter2word\n")
        told = {"prefect_api": url, "prefect_ui": "", "mlflow": url, "metrics": None, "credentials": str(secrets)}
        (place.root / "up.json").write_text(json.dumps(told))
        found = look.status(place.root)
    assert found["prefect"]["url"] == url
    assert "401" in found["prefect"]["problem"]
    assert "hunter2" not in json.dumps(found)


def test_schedules_late_runs_and_failures_of_prefect_are_told(place, monkeypatch, prefect_url):
    """Of this workspace only."""
    with writing(place):
        pass
    now = datetime.now(UTC)
    with httpx.Client(base_url=prefect_url, timeout=30) as api:
        flow = api.post("/flows/", json={"name": f"status-{os.getpid()}"}).json()["id"]
        names = ("nightly", "failing", "elsewhere")
        made = {
            name: api.post("/deployments/", json={"name": f"{name}-{os.getpid()}", "flow_id": flow}).json()["id"]
            for name in names
        }

        def run_of(name: str, workspace: str, state: dict[str, object]) -> str:
            body = {
                "name": name,
                "flow_id": flow,
                "deployment_id": made[name],
                "parameters": {"workspace": workspace},
                "state": state,
            }
            return str(api.post("/flow_runs/", json=body).json()["id"])

        def scheduled(at: datetime) -> dict[str, object]:
            return {"type": "SCHEDULED", "state_details": {"scheduled_time": at.isoformat()}}

        run_of("nightly", str(place.root), scheduled(now + timedelta(hours=3)))
        run_of("nightly", str(place.root), scheduled(now - timedelta(hours=2)))
        run_of("elsewhere", "/another/workspace", scheduled(now - timedelta(hours=2)))
        failing = run_of("failing", str(place.root), scheduled(now))
        for state in ({"type": "RUNNING"}, {"type": "FAILED", "message": "got x, wanted y: do z."}):
            api.post(f"/flow_runs/{failing}/set_state", json={"state": state, "force": True})
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    found = look.status(place.root)
    assert found["prefect"]["answers"] is True, found["prefect"]
    ours = f"-{os.getpid()}"
    assert [each["what"] for each in found["due"]["schedules"] if each["what"].endswith(ours)] == [f"nightly{ours}"]
    (late,) = [each for each in found["overdue"] if each["what"].endswith(ours)]
    assert late["what"] == f"nightly{ours}"
    assert "worker" in late["do"]
    (failed,) = [each for each in found["failed"] if each["what"].endswith(ours)]
    assert failed["what"] == f"deployment failing{ours}"
    assert "wanted y: do z." in failed["message"]
    assert f"prefect flow-run retry {failing}" in failed["do"]
    assert not found["ok"]
    assert "overdue" in shown(place)


def test_the_champion_is_read_from_the_workspace(place, demo):
    from mlflow import MlflowClient

    with writing(place):
        shutil.copy(demo.workspace / "mlflow.db", place.root)
    assert look.status(place.root)["champions"] == []
    client = MlflowClient(tracking_uri=place.mlflow_uri, registry_uri=place.mlflow_uri)
    client.create_registered_model("harbour")
    client.create_model_version("harbour", "file:///nowhere")
    client.create_model_version("harbour", "file:///nowhere")
    client.set_registered_model_alias("harbour", "challenger", "1")
    client.set_registered_model_alias("harbour", "champion", "2")
    assert look.status(place.root)["champions"] == [{"name": "harbour", "version": "2"}]


# the command


def test_the_command_says_by_its_exit_whether_all_is_fine(place):
    with writing(place), run(place):
        pass
    done = run_command("status", "--workspace", place.root, "--json")
    assert (done.code, done.err) == (0, "")
    assert done.json["runs"][0]["flow"] == "build_corpus"
    fail(place, "build_corpus", "got nothing, wanted pages: name some.")
    done = run_command("status", "--workspace", place.root)
    assert done.code == 1
    assert "next: corpusmill build /r/demo.yaml" in done.out


def test_it_is_quick_and_brings_no_orchestrator(place):
    script = f"""
import sys
from pathlib import Path
from flows.watching import status
status.status(Path({str(place.root)!r}))
print([name for name in ("prefect", "mlflow", "torch", "fastapi") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
