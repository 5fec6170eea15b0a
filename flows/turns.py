"""A run among other runs: late ones that nobody needs any more, ones that crash again and again, ones that wait."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.runtime import flow_run
from prefect.states import Running

from pipelines.errors import TerminalError

_logger = logging.getLogger(__name__)

MAX_CRASHES = 5
"""Of a run, after which it counts as one that crashes whatever it runs on."""


class CrashLoopError(TerminalError):
    """The run crashed each time that it was begun."""


def refuse_to_crash_again() -> None:
    """Raises CrashLoopError in a run that crashed too often: else it would be taken up for ever."""
    if not flow_run.id:
        return
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(UUID(flow_run.id))
    count = sum(state.type == StateType.CRASHED for state in states)
    if count >= MAX_CRASHES:
        raise CrashLoopError(
            f"got a run that crashed {count} times, wanted one that ends: look at what its machines lacked (memory, "
            "disk), then run the deployment anew."
        )


def is_superseded() -> str | None:
    """Why a scheduled run need not do its work: another one of its deployment began after it was due, and completed.

    None for a run that nobody scheduled, or that has work to do. So of all runs that were due while no worker was up,
    one does the work.
    """
    if not flow_run.id:
        return None
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(flow_run.id))
        if not run.auto_scheduled or run.deployment_id is None or run.expected_start_time is None:
            return None
        later = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[run.deployment_id]),
                start_time=FlowRunFilterStartTime(after_=run.expected_start_time),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED])),
            ),
            limit=5,
        )
    others = [each for each in later if each.id != run.id and each.state_name != "Superseded"]
    if not others:
        return None
    return f"{others[0].name} began after this one was due, and did its work."


@contextmanager
def show_waiting() -> Iterator[Callable[[str | None], None]]:
    """A call that says what a run waits for, in its log and by the state Waiting; None ends that."""
    is_waiting = False

    def show(sentence: str | None) -> None:
        nonlocal is_waiting
        if sentence is not None:
            _logger.warning("waiting: %s", sentence)
        if flow_run.id and (sentence is not None or is_waiting):
            state = Running() if sentence is None else Running(name="Waiting", message=sentence)
            _set_state(UUID(flow_run.id), state)
        is_waiting = sentence is not None

    yield show


def _set_state(run_id: UUID, state: Any) -> None:
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run_id, state)  # by force, it would lose its deployment's concurrency slot
    except Exception as error:  # noqa: BLE001 - a state that is not shown is no reason to fail
        _logger.warning("got %s from Prefect for the state %s; the run goes on.", error, state.name)
