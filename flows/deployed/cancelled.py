"""A run that somebody ended, and that nobody tells: its worker, which passes a cancel on, was killed.

A worker knows the runs that it began itself, so the next one does not end those of a dead one, and they go on for as long
as their time limit lets them. Here a run asks for its own state, and where that says it is to end, asks itself to stop
as a worker does (SIGTERM: a training writes its checkpoint). A worker that lives goes first, always: a second
SIGTERM would break off what the first one made the run write down.
"""

import contextvars
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import Abort
from prefect.runtime import flow_run
from prefect.states import Cancelled

_POLL_SECONDS = 3.0
_ORPHAN_SECONDS = 5.0
"""Between a cancel and a stop where the process that began the run is gone; that may have passed it on just before."""
_UNHEARD_SECONDS = 45.0
"""The same where it lives: Prefect sends SIGTERM at once and SIGKILL 30 s later, so no such process is left by then."""
_MESSAGE = "It was cancelled, and ended itself: the worker that began it was gone, or did not pass the cancel on."


class Watch:
    """Asks the process to stop, once, when its run is cancelled or was ended by others."""

    def __init__(
        self,
        ask: Callable[[], StateType | None],
        is_orphan: Callable[[], bool],
        stop: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._is_orphan, self._stop, self._clock = ask, is_orphan, stop, clock
        self._since: float | None = None
        self._was_cancelling = False
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self.has_stopped = False

    def look(self) -> None:
        """Ask for the state once. A server that does not answer, or answers nonsense, ends no run."""
        try:
            state = self._ask()
        except Exception:  # noqa: BLE001 - whatever a server does, the work goes on
            return
        if state not in (StateType.CANCELLING, StateType.CANCELLED, StateType.CRASHED):
            self._since, self._was_cancelling = None, False
            return
        now = self._clock()
        self._since = now if self._since is None else self._since
        # A person who is impatient sets Cancelled while a worker waits for the checkpoint: still the worker's turn.
        self._was_cancelling = self._was_cancelling or state == StateType.CANCELLING
        if now - self._since >= self._patience():
            with self._lock:
                if not self._is_closed.is_set():
                    self._is_closed.set()
                    self.has_stopped = True
                    self._stop()

    def run(self) -> None:
        """Look again and again, until the end."""
        while not self._is_closed.wait(_POLL_SECONDS):
            self.look()

    def close(self) -> None:
        """After this it asks nobody to stop."""
        with self._lock:
            self._is_closed.set()

    def _patience(self) -> float:
        if not self._was_cancelling:
            return 0.0
        return _ORPHAN_SECONDS if self._is_orphan() else _UNHEARD_SECONDS


@contextmanager
def ending_when_told() -> Iterator[None]:
    """Stop the block when its flow run is cancelled or ended by others, even where no worker says so.

    Enter it in the main thread of a process that SIGTERM stops by an exception. A run that is stopped so, or that dies
    while it is cancelled and has no worker, ends as Cancelled: Prefect's engine would make it Crashed, as nobody told it
    why. One that others ended keeps the state that they gave it.
    """
    if not flow_run.id:
        yield
        return
    run_id, starter = UUID(flow_run.id), os.getppid()

    def is_orphan() -> bool:
        return os.getppid() != starter

    with get_client(sync_client=True) as client:
        watch = Watch(
            lambda: client.read_flow_run(run_id).state_type,
            is_orphan,
            lambda: os.kill(os.getpid(), signal.SIGTERM),
        )
        context = contextvars.copy_context()  # Prefect's settings are found there
        threading.Thread(target=context.run, args=(watch.run,), name="own state", daemon=True).start()
        try:
            yield
            watch.close()
        except BaseException as error:
            watch.close()
            # Without a reader of what it writes, Prefect's console makes any line the end of the process.
            is_unheard = not isinstance(error, Exception) and is_orphan()
            if (watch.has_stopped or is_unheard) and _keeps_its_state(run_id, watch.has_stopped):
                raise Abort("Its state was given by others.") from error  # the engine leaves that as it is
            raise


def _keeps_its_state(run_id: UUID, is_told: bool) -> bool:  # noqa: FBT001
    """Whether the run has its last state, which one that is being cancelled gets here, as do those below it."""
    try:
        with get_client(sync_client=True) as client:
            if client.read_flow_run(run_id).state_type != StateType.CANCELLING:
                return is_told
            client.set_flow_run_state(run_id, Cancelled(message=_MESSAGE))
            unfinished = FlowRunFilter(
                parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run_id]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])),
            )
            for below in client.read_flow_runs(flow_run_filter=unfinished):
                client.set_flow_run_state(below.id, Cancelled(message=_MESSAGE), force=True)
    except Exception:  # noqa: BLE001 - then it crashes, is begun again, and sees there that it was cancelled
        return False
    return True
