"""Flow runs whose processes ended with `up`, or with their worker: none stays RUNNING, and each goes on with the next worker.

A run of a deployment is scheduled again, at once; the store has what it finished. One that was being cancelled is
cancelled. Runs below another begin anew with it, so they only end.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flows.deployed.automations import BROKEN_OFF, MAX_CRASHES, num_crashes
from flows.up.api import PrefectApi
from pipelines.errors import TransientError

_PAGE = 200
_UNFINISHED = ("RUNNING", "PENDING", "CANCELLING")
_MESSAGE = "Its process ended with corpusmill up."


@dataclass(frozen=True, slots=True)
class HandedOn:
    """Runs that did not end."""

    later: list[str] = field(default_factory=list)
    """Names of those that go on later."""
    given_up: dict[str, str] = field(default_factory=dict)
    """Names of those that do not, by id: they crashed too often."""

    def told(self, what_goes_on: str) -> list[str]:
        """What to say of them; of those that go on with these words."""
        found = [f"{len(self.later)} runs {what_goes_on}: {', '.join(self.later)}."] if self.later else []
        if self.given_up:
            found.append(
                f"got {len(self.given_up)} runs that crashed {MAX_CRASHES} times or more ({', '.join(self.given_up.values())}), "
                "wanted runs that end: they are not begun again; look at what their machine lacked (memory, disk), then "
                "run their deployments anew."
            )
        return found


def hand_on(
    api: PrefectApi,
    stopped: AbstractSet[str] = frozenset(),
    *,
    lost: AbstractSet[str] = frozenset(),
    is_all: bool = False,
) -> HandedOn:
    """Set the states of flow runs whose processes have ended: `stopped` just now, in good order, or `lost`.

    `is_all`: no flow run has a process, so that every unfinished one is left over. Raises TransientError.
    """
    gone = stopped | lost
    runs = {run["id"]: run for run in unfinished(api) if is_all or run["id"] in gone}
    below = {parent: {run["id"]: run for run in _below(api, parent)} for parent in gone}
    for each in gone - runs.keys():
        try:
            runs[each] = api.get(f"/flow_runs/{each}")
        except TransientError:
            continue  # somebody deleted it
    found = HandedOn()
    in_order = stopped.union(*(below[parent] for parent in stopped))
    for run in (*(run for runs_below in below.values() for run in runs_below.values()), *runs.values()):
        message = BROKEN_OFF if run["id"] in in_order else _MESSAGE
        if run["state_type"] == "SCHEDULED":  # an automation was quicker
            found.later.append(str(run["name"]))
        elif _end(api, run, message):
            if message != BROKEN_OFF and _num_crashes(api, run) >= MAX_CRASHES:
                found.given_up[str(run["id"])] = str(run["name"])
            else:
                _schedule(api, run, message)
                found.later.append(str(run["name"]))
    return found


def _end(api: PrefectApi, run: dict[str, Any], message: str) -> bool:
    """Give a run that did not end a last state. Whether it is one that can go on."""
    state = run["state_type"]
    if state == "CANCELLING":
        _set_state(api, run, {"type": "CANCELLED", "name": "Cancelled", "message": message})
        return False
    if state in _UNFINISHED:
        _set_state(api, run, {"type": "CRASHED", "name": "Crashed", "message": message})
    elif state != "CRASHED":
        return False
    return run.get("deployment_id") is not None and run.get("parent_task_run_id") is None


def _num_crashes(api: PrefectApi, run: dict[str, Any]) -> int:
    """Not Prefect's `run_count`, to which each wait for the workspace adds as well."""
    states = api.get(f"/flow_run_states/?flow_run_id={run['id']}")
    ordered = sorted(states, key=lambda state: datetime.fromisoformat(state["timestamp"]))
    return num_crashes((state["type"], state["message"]) for state in ordered)


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


def unfinished(api: PrefectApi) -> Iterator[dict[str, Any]]:
    """The flow runs that a process should have. Raises TransientError."""
    yield from _pages(api, {"flow_runs": {"state": {"type": {"any_": list(_UNFINISHED)}}}})


def crashed(api: PrefectApi) -> Iterator[dict[str, Any]]:
    """The deployments' runs whose last state is Crashed. Raises TransientError."""
    is_ours = {"deployment_id": {"is_null_": False}}
    yield from _pages(api, {"flow_runs": {"state": {"type": {"any_": ["CRASHED"]}}, **is_ours}})


def _below(api: PrefectApi, flow_run_id: str) -> Iterator[dict[str, Any]]:
    for run in _pages(api, {"flow_runs": {"parent_flow_run_id": {"any_": [flow_run_id]}}}):
        yield run
        yield from _below(api, run["id"])


def _pages(api: PrefectApi, wanted: dict[str, Any]) -> Iterator[dict[str, Any]]:
    offset = 0
    while found := api.post("/flow_runs/filter", {**wanted, "limit": _PAGE, "offset": offset}):
        yield from found
        offset += len(found)
