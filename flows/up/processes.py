"""The processes that belong to a workspace's services, found by a mark in their environment, and how they are ended.

Flow runs lead sessions of their own, and so do the ranks of a training, so no process group holds them all. A mark that
every child inherits does. It names the workspace, so that a later `up` finds what an earlier one left.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "CORPUSMILL_UP"
"""The variable that holds the workspace's folder."""
FLOW_RUN = "PREFECT__FLOW_RUN_ID"
"""Prefect's variable in each process of a flow run."""
RUN_GRACE_SECONDS = 25.0
"""For a flow run to write down where it stands."""
SERVICE_GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Process:
    """A process that carries the mark."""

    pid: int
    parent_pid: int
    group: int
    flow_run_id: str | None


def marked(root: Path) -> list[Process]:
    """The living processes of this user that carry a workspace's mark, but this one; none where there is no /proc."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) != os.getpid():
            process = _read(folder, f"{MARK}={root}".encode())
            if process is not None:
                found.append(process)
    return found


def flow_runs(processes: Iterable[Process]) -> dict[str, list[Process]]:
    """Of some processes those of flow runs, by the flow run's id."""
    found: dict[str, list[Process]] = {}
    for process in processes:
        if process.flow_run_id is not None:
            found.setdefault(process.flow_run_id, []).append(process)
    return found


def end_flow_runs(root: Path, grace_seconds: float, is_impatient: Callable[[], bool] = lambda: False) -> list[str]:
    """End the flow runs of a workspace as Prefect's cancel does: SIGTERM to each one's group, SIGKILL after a grace.

    Each is asked once: a second SIGTERM would break off what it writes down. Gives the ids of all that were found.
    """
    deadline = time.monotonic() + grace_seconds
    asked: set[str] = set()
    while True:
        running = flow_runs(marked(root))
        for flow_run_id in running.keys() - asked:
            for group in _leading_groups(running[flow_run_id]):
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGTERM)
            asked.add(flow_run_id)
        if not running:
            return sorted(asked)
        if time.monotonic() > deadline or is_impatient():
            kill([process.pid for found in running.values() for process in found])
            return sorted(asked)
        time.sleep(_POLL_SECONDS)


def end_all(root: Path, run_grace_seconds: float = RUN_GRACE_SECONDS) -> list[str]:
    """End every marked process: flow runs first, while a server may still hear from them. Gives the flow runs' ids."""
    ended = end_flow_runs(root, run_grace_seconds)
    services = [process.pid for process in marked(root)]
    for pid in services:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + SERVICE_GRACE_SECONDS
    while marked(root) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    kill([process.pid for process in marked(root)])
    return ended


def kill(pids: Sequence[int]) -> None:
    """End processes at once; those that have ended are no error."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _leading_groups(processes: Sequence[Process]) -> set[int]:
    """The groups whose parents are no part of the run: its engine's. What it started, it ends itself."""
    own = {process.pid for process in processes}
    return {process.group for process in processes if process.parent_pid not in own and process.group == process.pid}


def _read(folder: Path, mark: bytes) -> Process | None:
    try:
        variables = (folder / "environ").read_bytes().split(b"\0")
        if mark not in variables:
            return None
        # After the command's name, which may hold anything: state, parent, group.
        state, parent_pid, group = (folder / "stat").read_bytes().rpartition(b") ")[2].split()[:3]
    except OSError:
        return None  # another user's, or gone meanwhile
    if state in (b"Z", b"X"):
        return None
    run = next((each for each in variables if each.startswith(f"{FLOW_RUN}=".encode())), None)
    flow_run_id = run.partition(b"=")[2].decode() if run is not None else None
    return Process(int(folder.name), int(parent_pid), int(group), flow_run_id or None)
