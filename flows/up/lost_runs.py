"""Flow runs that Prefect believes to be under way and that have no process: they are ended, and go on with a worker.

A run whose process dies while Prefect's database cannot hear of it stays PENDING or RUNNING, and holds its deployment's
only place, so that no later run begins; one that crashed while the servers went down is taken up by nobody. The automations of
a recipe tell it by events; events are lost with a server or a database that dies. What runs on this machine can be seen.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from flows.deployed.automations import is_taking_up
from flows.up.api import PrefectApi
from flows.up.handover import crashed, hand_on, unfinished
from flows.up.processes import living_flow_runs
from pipelines.errors import TransientError

_LOOK_SECONDS = 15.0
_OWN = timedelta(seconds=60)
"""From a worker's word that it takes a run until the run's process is there; and from its end until the worker told it."""
_FORGOTTEN = timedelta(seconds=150)
"""After a crash, which an automation answers after a minute."""
_REMEMBERED = timedelta(days=7)
"""A crash that is older was left alone by everybody."""
_STRANGE = timedelta(seconds=180)
"""Where workers of other machines may have begun it, and Prefect would have heard of that by then."""


def watch(api: PrefectApi, tell: Callable[[str], None], stop: threading.Event, *, is_alone: bool) -> None:
    """Look every quarter of a minute until asked to stop."""
    given_up: set[str] = set()
    while not stop.wait(_LOOK_SECONDS):
        try:
            now = datetime.now(UTC)
            lost = lost_runs(api, now, is_alone=is_alone) | forgotten_runs(api, now)
            found = hand_on(api, lost=lost - given_up)
            given_up |= found.given_up.keys()  # and told once
            for sentence in found.told("had lost their processes, and go on"):
                tell(sentence)
        except TransientError:
            continue  # a server that is down is told of by who starts it again


def lost_runs(api: PrefectApi, now: datetime, *, is_alone: bool) -> set[str]:
    """The ids of deployments' runs that have no process. Raises TransientError.

    `is_alone`: no other machine has workers for this server. Otherwise only runs count that no process began, in a pool of
    processes: what runs elsewhere is told by its heartbeats, and a container may wait for its image or its machine.
    """
    patience = _OWN if is_alone else _STRANGE
    waiting = [
        run
        for run in unfinished(api)
        if run["deployment_id"] is not None
        and (is_alone or run["state_type"] == "PENDING")
        and now - datetime.fromisoformat(run["state"]["timestamp"]) > patience
    ]
    if waiting and not is_alone:
        pools = {pool["name"] for pool in api.post("/work_pools/filter", {}) if pool["type"] == "process"}
        waiting = [run for run in waiting if run["work_pool_name"] in pools]
    return {str(run["id"]) for run in waiting} - living_flow_runs() if waiting else set()


def forgotten_runs(api: PrefectApi, now: datetime, patience: timedelta = _FORGOTTEN) -> set[str]:
    """The ids of deployments' runs that crashed and that nobody took up. Raises TransientError.

    None of a recipe for which an operator switched off that crashed runs are taken up.
    """
    found = [
        run for run in crashed(api) if patience < now - datetime.fromisoformat(run["state"]["timestamp"]) < _REMEMBERED
    ]
    if not found:
        return set()
    off = {
        deployment
        for each in api.post("/automations/filter", {})
        if is_taking_up(each["name"]) and not each["enabled"]
        for deployment in each["trigger"]["match_related"]["prefect.resource.id"]
    }
    return {str(run["id"]) for run in found if f"prefect.deployment.{run['deployment_id']}" not in off}
