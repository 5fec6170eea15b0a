"""Flow runs whose processes ended with `up`, or with their worker: none stays RUNNING, and each goes on with the next worker.

A run of a deployment is scheduled again, at once; the store has what it finished. One that was being cancelled is
cancelled. Runs below another begin anew with it, so they only end.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from flows.deployed.automations import MAX_CRASHES
from flows.up.api import PrefectApi
from pipelines.errors import TransientError

_PAGE = 200
_UNFINISHED = ("RUNNING", "PENDING", "CANCELLING")
_MESSAGE = "Its process ended with corpusmill up."


def hand_on(api: PrefectApi, ended: set[str], *, is_all: bool, message: str = _MESSAGE) -> list[str]:
    """Set the states of flow runs whose processes have ended, with a message; gives the names of those that go on later.

    `is_all`: no flow run has a process, so that every unfinished one is left over. Raises TransientError.
    """
    runs = {run["id"]: run for run in _unfinished(api) if is_all or run["id"] in ended}
    below = {run["id"]: run for parent in ended for run in _below(api, parent)}
    for each in ended - runs.keys():
        try:
            runs[each] = api.get(f"/flow_runs/{each}")
        except TransientError:
            continue  # somebody deleted it
    later = []
    for run in (*below.values(), *runs.values()):
        if run["state_type"] == "SCHEDULED":  # an automation was quicker
            later.append(str(run["name"]))
        elif _end(api, run, message):
            _schedule(api, run, message)
            later.append(str(run["name"]))
    return later


def _end(api: PrefectApi, run: dict[str, Any], message: str) -> bool:
    """Give a run that did not end a last state. Whether it is to go on."""
    state = run["state_type"]
    if state == "CANCELLING":
        _set_state(api, run, {"type": "CANCELLED", "name": "Cancelled", "message": message})
        return False
    if state in _UNFINISHED:
        _set_state(api, run, {"type": "CRASHED", "name": "Crashed", "message": message})
    elif state != "CRASHED":
        return False
    is_own = run.get("deployment_id") is not None and run.get("parent_task_run_id") is None
    return is_own and int(run.get("run_count") or 0) < MAX_CRASHES


def _schedule(api: PrefectApi, run: dict[str, Any], message: str) -> None:
    now = datetime.now(UTC).isoformat()
    state = {
        "type": "SCHEDULED",
        "name": "AwaitingRetry",
        "message": message,
        "state_details": {"scheduled_time": now},
    }
    _set_state(api, run, state)


def _set_state(api: PrefectApi, run: dict[str, Any], state: dict[str, Any]) -> None:
    """Not by force: Prefect's rules give back the slots of its concurrency limits."""
    api.post(f"/flow_runs/{run['id']}/set_state", {"state": state, "force": False})


def _unfinished(api: PrefectApi) -> Iterator[dict[str, Any]]:
    yield from _pages(api, {"flow_runs": {"state": {"type": {"any_": list(_UNFINISHED)}}}})


def _below(api: PrefectApi, flow_run_id: str) -> Iterator[dict[str, Any]]:
    for run in _pages(api, {"flow_runs": {"parent_flow_run_id": {"any_": [flow_run_id]}}}):
        yield run
        yield from _below(api, run["id"])


def _pages(api: PrefectApi, wanted: dict[str, Any]) -> Iterator[dict[str, Any]]:
    offset = 0
    while found := api.post("/flow_runs/filter", {**wanted, "limit": _PAGE, "offset": offset}):
        yield from found
        offset += len(found)
