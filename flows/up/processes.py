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
"""The variable that holds the workspace's folder, or what else tells these processes from others."""
POOL = "CORPUSMILL_UP_POOL"
"""A variable of workers, and of what they start: the work pool."""
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
    is_worker: bool


def marked(root: Path | str) -> list[Process]:
    """The living processes of this user that carry a mark, a workspace's or another, but this one; none where there is no /proc."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) != os.getpid():
            process = _read(folder, f"{MARK}={root}".encode())
            if process is not None:
                found.append(process)
    return found


def living_flow_runs() -> set[str]:
    """The ids of flow runs that have a process of this user on this machine, whoever began it; none where there is no /proc."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # another user's, or gone meanwhile; a dead one's is empty
            values = (each.partition(b"=") for each in path.read_bytes().split(b"\0"))
            found |= {value.decode() for name, _, value in values if name == FLOW_RUN.encode()}
    return found


def flow_runs(processes: Iterable[Process]) -> dict[str, list[Process]]:
    """Of some processes those of flow runs, by the flow run's id."""
    found: dict[str, list[Process]] = {}
    for process in processes:
        if process.flow_run_id is not None:
            found.setdefault(process.flow_run_id, []).append(process)
    return found


def end_flow_runs(
    root: Path | str, grace_seconds: float, is_impatient: Callable[[], bool] = lambda: False
) -> list[str]:
    """End the flow runs that carry a mark as Prefect's cancel does: SIGTERM to each one's group, SIGKILL after a grace.

    Workers are halted first, and stay so: asked to end, Prefect's kill their runs at once, and until then they begin
    others. A process is asked once: a second SIGTERM would break off what it writes down. Gives the ids of all runs.
    """
    deadline = time.monotonic() + grace_seconds
    asked: set[int] = set()
    found: set[str] = set()
    while True:
        processes = marked(root)
        _signal([process.pid for process in processes if process.is_worker], signal.SIGSTOP)
        running = flow_runs(processes)
        found |= running.keys()
        for group in {group for each in running.values() for group in _leading_groups(each)} - asked:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGTERM)
            asked.add(group)
        if not running:
            return sorted(found)
        if time.monotonic() > deadline or is_impatient():
            kill([process.pid for each in running.values() for process in each])
            return sorted(found)
        time.sleep(_POLL_SECONDS)


def end_all(root: Path, run_grace_seconds: float = RUN_GRACE_SECONDS) -> list[str]:
    """End every marked process: flow runs first, while a server may still hear from them. Gives the flow runs' ids."""
    ended = end_flow_runs(root, run_grace_seconds)
    left = marked(root)
    kill([process.pid for process in left if process.is_worker])
    _signal([process.pid for process in left if not process.is_worker], signal.SIGTERM)
    deadline = time.monotonic() + SERVICE_GRACE_SECONDS
    while marked(root) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    kill([process.pid for process in marked(root)])
    return ended


def kill(pids: Sequence[int]) -> None:
    """End processes at once; those that have ended are no error."""
    _signal(pids, signal.SIGKILL)


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


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
    values = dict(each.partition(b"=")[::2] for each in variables)
    flow_run_id = values.get(FLOW_RUN.encode(), b"").decode() or None
    is_worker = POOL.encode() in values and flow_run_id is None
    return Process(int(folder.name), int(parent_pid), int(group), flow_run_id, is_worker)
