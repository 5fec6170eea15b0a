"""A run that asks for its own state: when it stops itself, and in which state it ends."""

import signal
import threading
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from deadline import wait_for
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import Abort
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Cancelling, Crashed, Running

from flows.deployed import cancelled
from flows.deployed.cancelled import Watch, ending_when_told

pytestmark = pytest.mark.filterwarnings("ignore")

RUNNING, CANCELLING, CANCELLED, CRASHED = (
    StateType.RUNNING,
    StateType.CANCELLING,
    StateType.CANCELLED,
    StateType.CRASHED,
)


@pytest.mark.parametrize(
    ("seen", "is_orphan", "stopped_at"),
    [
        ([(0, RUNNING), (3, RUNNING)], True, None),
        ([(0, CANCELLING), (4, CANCELLING), (5, CANCELLING), (8, CANCELLING)], True, 5),
        ([(0, CANCELLING), (30, CANCELLING), (44, CANCELLING), (45, CANCELLING)], False, 45),
        ([(0, RUNNING), (3, CANCELLED)], False, 3),
        ([(0, RUNNING), (3, CRASHED)], False, 3),
        ([(0, CANCELLING), (3, CANCELLED), (20, CANCELLED), (45, CANCELLED)], False, 45),
        ([(0, CANCELLING), (3, RUNNING), (6, CANCELLING), (9, CANCELLING), (11, CANCELLING)], True, 11),
        ([(0, CANCELLING), (4, None), (9, OSError), (10, CANCELLING)], True, None),
        ([(0, OSError), (3, ValueError), (6, CANCELLED)], True, 6),
    ],
    ids=[
        "runs",
        "without worker",
        "worker lives",
        "ended by others",
        "thought dead",
        "impatient person",
        "anew",
        "no state",
        "no answer",
    ],
)
def test_when_it_stops(
    seen: list[tuple[float, StateType | type[Exception] | None]], is_orphan: bool, stopped_at: float | None
) -> None:
    now, stops = [0.0], []
    answer: list[StateType | type[Exception] | None] = [None]

    def ask() -> StateType | None:
        found = answer[0]
        if isinstance(found, type):
            raise found
        return found

    watch = Watch(ask, lambda: is_orphan, lambda: stops.append(now[0]), lambda: now[0])
    for at, state in seen:
        now[0], answer[0] = at, state
        watch.look()
    watch.look()
    assert stops == ([] if stopped_at is None else [stopped_at]), "once"
    assert watch.has_stopped == bool(stops)


def test_after_its_end_nobody_is_asked_to_stop() -> None:
    watch = Watch(lambda: CANCELLED, lambda: True, lambda: pytest.fail("it had ended"))
    watch.close()
    watch.look()
    watch.run()
    assert not watch.has_stopped


class StoppedError(BaseException):
    """As a handler of SIGTERM raises it."""


@pytest.fixture
def client(prefect_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    monkeypatch.setattr(cancelled, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(cancelled, "_UNHEARD_SECONDS", 0.0)

    def stop(*_: object) -> None:
        raise StoppedError

    before = signal.signal(signal.SIGTERM, stop)
    with temporary_settings(updates={PREFECT_API_URL: prefect_url}), get_client(sync_client=True) as client:
        yield client
    signal.signal(signal.SIGTERM, before)


@flow(name="stand-in")
def stand_in() -> None:
    """A flow."""


@pytest.fixture
def run(client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch) -> Callable[[State], UUID]:
    """Make this process that of a run in a state."""

    def run(state: State) -> UUID:
        run_id = client.create_flow_run(stand_in, state=state).id
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(run_id))
        return run_id

    return run


def never() -> None:
    """Wait for what does not come."""
    assert not threading.Event().wait(60), "it was asked to stop"


@pytest.mark.parametrize(
    ("told", "end"),
    [(Cancelling(), "CANCELLED"), (Cancelled(), "CANCELLED"), (Crashed(), "CRASHED")],
    ids=["cancelling", "cancelled", "crashed"],
)
def test_a_run_that_is_ended_stops_and_leaves_its_state_alone(
    client: SyncPrefectClient, run: Callable[[State], UUID], told: State, end: str
) -> None:
    """`Abort` makes Prefect's engine give it no state."""
    run_id = run(told)
    with pytest.raises(Abort) as raised, ending_when_told():
        never()
    assert isinstance(raised.value.__cause__, StoppedError)
    state = client.read_flow_run(run_id).state
    assert state is not None
    assert state.type.value == end
    if told.type == CANCELLING:
        assert state.message is not None
        assert state.message.startswith("It was cancelled, and ended itself")


def test_a_cancelled_run_that_dies_without_its_worker_ends_as_cancelled(
    client: SyncPrefectClient, run: Callable[[State], UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that nobody reads is the end of it (Prefect's console calls `exit`)."""
    monkeypatch.setattr(cancelled, "_POLL_SECONDS", 60.0)
    run_id = run(Cancelling())
    monkeypatch.setattr(cancelled.os, "getppid", iter([1, 2]).__next__)
    with pytest.raises(Abort), ending_when_told():
        raise SystemExit(1)
    assert client.read_flow_run(run_id).state_name == "Cancelled"


def test_what_fails_or_is_stopped_by_its_worker_is_left_alone(
    client: SyncPrefectClient, run: Callable[[State], UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelled, "_POLL_SECONDS", 60.0)
    run_id = run(Cancelling())
    for error in (StoppedError, ValueError):
        with pytest.raises(error), ending_when_told():
            raise error
    run(Running())
    monkeypatch.setattr(cancelled.os, "getppid", iter([1, 2]).__next__)
    with pytest.raises(StoppedError), ending_when_told():
        raise StoppedError
    assert client.read_flow_run(run_id).state_name == "Cancelling", "the worker says so"


def test_no_thread_is_left(client: SyncPrefectClient, run: Callable[[State], UUID]) -> None:
    run(Running())
    with ending_when_told():
        pass
    wait_for("end of the thread", lambda: "own state" not in {each.name for each in threading.enumerate()}, 20)


def test_outside_of_a_run_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT__FLOW_RUN_ID", raising=False)
    monkeypatch.setattr(cancelled, "get_client", lambda **_: pytest.fail("asked"))
    with ending_when_told():
        pass
