"""A real MLflow server on loopback that a test may kill and start again, with the same runs, at the same address."""

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

import httpx

_START_SECONDS = 120


class MlflowServer:
    """`mlflow server` on SQLite in a folder; its port stays its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--workers": "1",
            "--backend-store-uri": f"sqlite:///{self.folder / 'mlflow.db'}",
            "--artifacts-destination": str(self.folder / "artifacts"),
        }
        command = [sys.executable, "-m", "mlflow", "server", *(part for option in options.items() for part in option)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "DO_NOT_TRACK": "1"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise AssertionError((self.folder / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        """End it at once, as a machine that fails does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def history(self, run_id: str, metric: str) -> list[tuple[int, int, float]]:
        """Every (step, timestamp in ms, value) of a metric, asked without MLflow's client."""
        rows, token = [], ""
        while True:
            asked = {"run_id": run_id, "metric_key": metric, "max_results": "1000", "page_token": token}
            answer = httpx.get(f"{self.url}/api/2.0/mlflow/metrics/get-history", params=asked).raise_for_status().json()
            rows += [
                (int(each.get("step", 0)), int(each["timestamp"]), float(each["value"]))
                for each in answer.get("metrics", [])
            ]
            token = answer.get("next_page_token", "")
            if not token:
                return sorted(rows)


@contextmanager
def serve_mlflow(folder: Path) -> Iterator[MlflowServer]:
    """A server for the length of the block."""
    server = MlflowServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
