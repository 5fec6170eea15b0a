"""A Prefect server on loopback for the length of a run, where none is configured.

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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.settings import Settings
from flows.workspace import Workspace
from pipelines.errors import TerminalError

_START_SECONDS = 180
_STOP_SECONDS = 15


@contextmanager
def prefect_server(settings: Settings, workspace: Workspace) -> Iterator[None]:
    """Point this process at a Prefect server; start one if none is configured, and stop it at the end.

    Sets the environment that Prefect reads when it is imported, so enter this before importing it.
    Raises TerminalError with the end of the server's log where it does not come up.
    """
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED", "false")
    if settings.prefect_api_url is not None:
        yield
        return
    workspace.prefect_home.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    os.environ["PREFECT_HOME"] = str(workspace.prefect_home)
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    log_path = workspace.prefect_home / "server.log"
    process = _start_server(port, log_path)
    try:
        _wait_until_healthy(process, port, log_path)
        yield
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        _stop(process)


def _start_server(port: int, log_path: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    environment.pop("PREFECT_API_URL", None)
    with log_path.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
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
