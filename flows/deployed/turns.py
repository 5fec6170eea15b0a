"""A run among other runs: late ones that nobody needs any more, ones that crash again and again, ones that wait."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Crashed, Running

from flows.deployed.automations import MAX_CRASHES, num_crashes
from pipelines.errors import TerminalError

_logger = logging.getLogger(__name__)

_BEGINNING = timedelta(seconds=120)
"""For a run to get from its start to the workspace, or to say that it waits for it."""
_SUPERSEDED = "Superseded"
_LOST = "Its process is gone: another run has the workspace for itself."


class CrashLoopError(TerminalError):
    """The run crashed each time that it was begun."""


def nothing_to_do(*, is_periodic: bool = False) -> State[Any] | None:
    """The state in which a run ends that has nothing to do; None where it has.

    A run that was cancelled while it could not hear it crashed, and was scheduled again: it ends as Cancelled. A scheduled
    run that fell due before another one of its deployment began, which completed, ends as Superseded where each does the
    same work: so of all that were due while no worker was up, one does it. Raises CrashLoopError in a run that crashed
    too often: else it would be taken up for ever. A stop of the worker, or of `corpusmill up`, is no crash.
    """
    if not flow_run.id:
        return None
    with get_client(sync_client=True) as client:
        states = sorted(client.read_flow_run_states(UUID(flow_run.id)), key=lambda state: state.timestamp)
        if _was_cancelled(states):
            return Cancelled(message="It was cancelled, and did not hear it at once.")
        count = num_crashes((state.type.value, state.message) for state in states)
        if count >= MAX_CRASHES:
            raise CrashLoopError(
                f"got a run that crashed {count} times, wanted one that ends: look at what its machines lacked (memory, "
                "disk), then run the deployment anew."
            )
        if is_periodic and (other := _later_run(client, UUID(flow_run.id))) is not None:
            return Completed(name=_SUPERSEDED, message=f"{other} began after this one was due, and did its work.")
    return None


def _was_cancelled(ordered: Sequence[State[Any]]) -> bool:
    """Whether the newest crash came of a cancel."""
    crashes = [idx for idx, state in enumerate(ordered) if state.type == StateType.CRASHED]
    return bool(crashes) and crashes[-1] > 0 and ordered[crashes[-1] - 1].type == StateType.CANCELLING


def _later_run(client: SyncPrefectClient, run_id: UUID) -> str | None:
    run = client.read_flow_run(run_id)
    if not run.auto_scheduled or run.deployment_id is None or run.expected_start_time is None:
        return None
    later = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[run.deployment_id]),
            start_time=FlowRunFilterStartTime(after_=run.expected_start_time),
            state=FlowRunFilterState(
                type=FlowRunFilterStateType(any_=[StateType.COMPLETED]),
                # Where many were due most are superseded, and of the answer's beginning perhaps all.
                name=FlowRunFilterStateName(not_any_=[_SUPERSEDED]),
            ),
        ),
        limit=2,
    )
    return next((each.name for each in later if each.id != run.id), None)


def end_lost_runs(workspace: Path) -> list[str]:
    """Set to Crashed the runs that say they write a workspace which this run has for itself; gives their names.

    Their processes are gone: one that was killed before its first heartbeat, or with its worker and server, is told by
    nothing else, and one below another run by nobody. Call it with the workspace held. A run that waits for its turn says
    so, and one that began a moment ago may not have got to it.
    """
    if not flow_run.id:
        return []
    own = UUID(flow_run.id)
    begun = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])))
    before = datetime.now(UTC) - _BEGINNING
    with get_client(sync_client=True) as client:
        below = client.read_flow_runs(
            flow_run_filter=begun.model_copy(update={"parent_flow_run_id": FlowRunFilterParentFlowRunId(any_=[own])})
        )
        others = client.read_flow_runs(
            flow_run_filter=begun.model_copy(update={"start_time": FlowRunFilterStartTime(before_=before)})
        )
        lost = {run.id: run for run in below}  # of the same run, before it crashed
        lost |= {run.id: run for run in others if _writes(run, workspace) and run.id != own}
        for run_id in lost:
            client.set_flow_run_state(run_id, Crashed(message=_LOST))
    return sorted(run.name for run in lost.values())


def _writes(run: FlowRun, workspace: Path) -> bool:
    return run.state_name == Running().name and run.parameters.get("workspace") == str(workspace)


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
            client.set_flow_run_state(run_id, state)
    except Exception as error:  # noqa: BLE001 - a state that is not shown is no reason to fail
        _logger.warning("got %s from Prefect for the state %s; the run goes on.", error, state.name)
