"""Real Prefect workers on a test's server, the runs that they start, and every process that these leave."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from deadline import wait_for

MARK = "CORPUSMILL_TEST_MARK"
ROOT = Path(__file__).parents[2]
_PROGRAM = """
import os, signal
from llm.starter import end_with_starter
end_with_starter(signal.SIGTERM)
from prefect.cli import app
app()
"""
"""A worker that ends with the tests, however they end."""


def processes_with(mark: str) -> dict[int, str]:
    """Living processes that have a mark in their environment, which their children inherit: id to command."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):  # it has ended since
            if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX":
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return found


class Worker:
    """A process worker of a pool, and what it started."""

    def __init__(self, process: "subprocess.Popen[bytes]", mark: str, log: Path) -> None:
        self.process, self.mark, self.log = process, mark, log

    def started(self) -> dict[int, str]:
        """What lives of all that this worker started, but for itself."""
        return {pid: command for pid, command in processes_with(self.mark).items() if pid != self.process.pid}

    def pid_of(self, part: str) -> int | None:
        """A process that it started, by a part of its command."""
        return next((pid for pid, command in sorted(self.started().items()) if part in command), None)

    def kill(self) -> None:
        """End the worker alone, as a crash does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def worker(
    api_url: str, pool: str, folder: Path, *, is_as_in_containers: bool = False, **variables: str
) -> Iterator[Worker]:
    """A worker for the length of the block, and nothing of it after that; started by Prefect's command, or as in containers."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    ours = ("CORPUSMILL_", "PREFECT_", "MLFLOW_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        MARK: mark,
        **variables,
    }
    command = [sys.executable, "-c", _PROGRAM, "worker", "start", "--pool", pool]
    if is_as_in_containers:
        command = [sys.executable, "-m", "flows.deployed.worker", pool]
    command += ["--name", f"{pool}-{mark[:4]}"]
    log = folder / "worker.log"
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield Worker(process, mark, log)
    finally:
        for pid in processes_with(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def start_run(client: Any, name: str, parameters: Mapping[str, Any] | None = None) -> UUID:
    """Make a run of a deployment, by FLOW/RECIPE."""
    deployment = client.read_deployment_by_name(name)
    return UUID(str(client.create_flow_run_from_deployment(deployment.id, parameters=dict(parameters or {})).id))


def state_of(client: Any, run_id: UUID) -> str:
    """The name of a run's state."""
    return str(client.read_flow_run(run_id).state_name)


def wait_for_state(client: Any, run_id: UUID, *names: str, seconds: float = 180) -> str:
    """Wait until a run is in one of these states; one that ends in another is shown with its message."""
    ends = {"Completed", "Failed", "Crashed", "Cancelled", "TimedOut"} - set(names)

    def found() -> str | None:
        run = client.read_flow_run(run_id)
        if run.state_name in ends:
            raise AssertionError(f"{run.name}: {run.state_name}: {run.state and run.state.message}")
        return run.state_name if run.state_name in names else None

    return str(wait_for(f"state {' or '.join(names)}", found, seconds))
