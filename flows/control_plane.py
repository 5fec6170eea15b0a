"""A Prefect server on loopback for the length of a run, where none is configured and `corpusmill up` runs none.

Prefect's ephemeral API loses task history, so it is not used. The server's database lies in the
workspace; starting it takes some 14 seconds the first time (it creates the database), 4 after that, and
overlaps with the rest of the start-up.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.settings import Settings
from flows.up.addresses import Addresses, without_services
from flows.up.credentials import to_environment
from flows.workspace import Workspace
from pipelines.errors import TerminalError

_START_SECONDS = 180
_STOP_SECONDS = 15
_ANSWER_SECONDS = 5


@contextmanager
def prefect_server(settings: Settings, workspace: Workspace) -> Iterator[Callable[[], None]]:
    """Point this process at a Prefect server; start one if none is configured, and stop it at the end.

    Sets the environment that Prefect reads when it is imported, so enter this before importing it. Yields a call that
    waits until the server answers: importing Prefect meanwhile saves seconds. It raises TerminalError with the end of
    the server's log where it does not come up.
    """
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED", "false")
    services, api_url = settings.services, settings.prefect_api_url
    if services is not None and api_url == services.prefect_api:
        with _served_by(services, workspace) as wait_until_up:
            yield wait_until_up
    elif api_url is not None:
        yield lambda: check_answers("PREFECT_API_URL", api_url)
    else:
        with without_services(workspace.root) as begun_meanwhile:
            server = _own_server(workspace) if begun_meanwhile is None else _served_by(begun_meanwhile, workspace)
            with server as wait_until_up:
                yield wait_until_up


@contextmanager
def _served_by(services: Addresses, workspace: Workspace) -> Iterator[Callable[[], None]]:
    """Use the server of `corpusmill up`."""
    is_ours = "PREFECT_API_URL" not in os.environ
    if services.credentials is not None:
        to_environment(Path(services.credentials), os.environ)
    os.environ["PREFECT_HOME"] = str(workspace.prefect_home)
    os.environ["PREFECT_API_URL"] = services.prefect_api
    try:
        yield lambda: check_answers("corpusmill up", services.prefect_api)
    finally:
        _send_what_waits()
        if is_ours:
            os.environ.pop("PREFECT_API_URL", None)


@contextmanager
def _own_server(workspace: Workspace) -> Iterator[Callable[[], None]]:
    """Start a server, and stop it at the end."""
    workspace.prefect_home.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    os.environ["PREFECT_HOME"] = str(workspace.prefect_home)
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    log_path = workspace.prefect_home / "server.log"
    process = _start_server(port, log_path)
    try:
        yield lambda: _wait_until_healthy(process, port, log_path)
    finally:
        _send_what_waits()
        os.environ.pop("PREFECT_API_URL", None)
        _stop(process)


@contextmanager
def no_heartbeats() -> Iterator[None]:
    """Flows in the block send no heartbeats: at its end each would wait for up to a second, and a person is watching."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings(updates={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def check_answers(variable: str, url: str) -> None:
    """Raise TerminalError where no server answers at the address that an environment variable names."""
    if not url.startswith("http"):
        return  # a database of MLflow's
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=_ANSWER_SECONDS):  # noqa: S310 - the user's own setting
            return
    except urllib.error.HTTPError:
        return  # an answer: what it means, the server's client knows
    except (OSError, ValueError) as error:
        raise TerminalError(
            f"{variable}: got no answer from {url} ({error}), wanted a server that is up: "
            "start it, or unset the variable to keep the record in the workspace."
        ) from error


def _send_what_waits() -> None:
    """Logs and events of the last moments go to the server while it is there to take them."""
    if "prefect" in sys.modules:
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker

        EventsWorker.drain_all(timeout=_ANSWER_SECONDS)
        APILogWorker.drain_all(timeout=_ANSWER_SECONDS)


def _start_server(port: int, log_path: Path) -> subprocess.Popen[bytes]:
    arguments = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "flows.prefect_process", *arguments]
    environment = os.environ | {
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    environment.pop("PREFECT_API_URL", None)
    with log_path.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, log_path: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    tail = " | ".join(log_path.read_text(errors="replace").strip().splitlines()[-3:])
    raise TerminalError(
        f"got no answer from the Prefect server on port {port} ({tail}), wanted it up within {_START_SECONDS} s: "
        f"read {log_path}, or set PREFECT_API_URL to a server that runs."
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
