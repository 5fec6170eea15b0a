"""A run that is taken up again: it goes on, unless it was cancelled before it crashed, or crashes again and again."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from flow_inputs import write_recipe
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling, Completed, Crashed, Running, Scheduled

from flows.deployed import deployment, turns
from flows.deployed.automations import BROKEN_OFF

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def client(prefect_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncPrefectClient]:
    folder = tmp_path_factory.mktemp("turns")
    with pytest.MonkeyPatch.context() as patch, temporary_settings(updates={PREFECT_API_URL: prefect_url}):
        patch.setenv("PREFECT_API_URL", prefect_url)
        recipe = write_recipe(folder / "r.yaml", {"kind": "warc", "paths": ["a.warc.gz"]}, name="turns")
        deployment.deploy(recipe, folder / "w", paused=True)
        with get_client(sync_client=True) as client:
            for each in client.read_automations():  # what they do is not what is tested here
                client.pause_automation(each.id)
            yield client


@pytest.fixture
def run(client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch) -> Callable[..., UUID]:
    """Make this process that of a run which has been in these states."""

    def run(*states: State) -> UUID:
        known = client.read_deployment_by_name("train/turns")
        run_id = client.create_flow_run_from_deployment(known.id).id
        for state in states:
            client.set_flow_run_state(run_id, state, force=True)
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(run_id))
        return run_id

    return run


@flow(name="stand-in", validate_parameters=False)
def stand_in(workspace: str) -> None:
    """A flow that writes a workspace."""


@task(name="stand-in")
def stand_in_task() -> None:
    """The task of it that began another flow."""


AGAIN = (Running(), Crashed(), Scheduled(name="AwaitingRetry"))


def test_a_run_goes_on_after_a_crash(run: Callable[..., UUID]) -> None:
    for states in ((Running(),), (*AGAIN, Running()), (*AGAIN, *AGAIN, *AGAIN, *AGAIN, Running())):
        run(*states)
        assert turns.nothing_to_do() is None


def test_a_run_that_was_cancelled_before_it_crashed_ends(run: Callable[..., UUID]) -> None:
    run(*AGAIN, Running(), Cancelling(), Crashed(), Scheduled(name="AwaitingRetry"), Running())
    ended = turns.nothing_to_do()
    assert ended is not None
    assert (ended.type.value, ended.message) == ("CANCELLED", "It was cancelled, and did not hear it at once.")


def test_a_run_that_crashes_again_and_again_is_given_up(run: Callable[..., UUID]) -> None:
    run(*(5 * AGAIN), Running())
    with pytest.raises(turns.CrashLoopError, match=r"got a run that crashed 5 times, wanted one that ends: .*anew\."):
        turns.nothing_to_do()


def test_stops_of_up_are_no_crashes(run: Callable[..., UUID]) -> None:
    """Whether `up` said that it crashed or the process itself, which does not know why it is stopped."""
    told = (Running(), Crashed(message=BROKEN_OFF), Scheduled(name="AwaitingRetry", message=BROKEN_OFF))
    by_itself = (Running(), Crashed(message="a signal"), Scheduled(name="AwaitingRetry", message=BROKEN_OFF))
    run(*(3 * told), *(3 * by_itself), *(4 * AGAIN), Running())
    assert turns.nothing_to_do() is None
    run(*(3 * told), *(3 * by_itself), *(5 * AGAIN), Running())
    with pytest.raises(turns.CrashLoopError, match="crashed 5 times"):
        turns.nothing_to_do()


def test_of_many_late_runs_the_one_that_worked_is_found(
    client: SyncPrefectClient, run: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others, which had nothing to do, are newer, and more than the server tells of at once."""
    late = run(Scheduled(scheduled_time=datetime.now(UTC) - timedelta(hours=1)), Running())
    read = SyncPrefectClient.read_flow_run

    def as_scheduled(client: SyncPrefectClient, run_id: UUID) -> FlowRun:
        return read(client, run_id).model_copy(update={"auto_scheduled": True})  # only the server itself makes such

    monkeypatch.setattr(SyncPrefectClient, "read_flow_run", as_scheduled)

    def superseded() -> None:
        run(Running(), Completed(name="Superseded"))
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(late))

    superseded()
    assert turns.nothing_to_do(is_periodic=True) is None, "nobody did the work"
    worked = client.read_flow_run(run(Running(), Completed())).name
    for _ in range(21):
        superseded()
    ended = turns.nothing_to_do(is_periodic=True)
    assert ended is not None
    assert (ended.name, ended.message) == ("Superseded", f"{worked} began after this one was due, and did its work.")


def test_a_run_that_a_person_began_is_never_superseded(run: Callable[..., UUID]) -> None:
    run(Running())
    assert turns.nothing_to_do(is_periodic=True) is None


def test_a_run_shows_what_it_waits_for(run: Callable[..., UUID], client: SyncPrefectClient) -> None:
    run_id = run(Running())
    with turns.show_waiting() as show:
        show("got a workspace in use")
        waiting = client.read_flow_run(run_id)
        show(None)
    assert (waiting.state_name, waiting.state and waiting.state.message) == ("Waiting", "got a workspace in use")
    assert client.read_flow_run(run_id).state_name == "Running"


def test_outside_of_a_run_there_is_nothing_to_ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PREFECT__FLOW_RUN_ID", raising=False)
    assert turns.nothing_to_do(is_periodic=True) is None
    with turns.show_waiting() as show:
        show("nobody looks")


def test_who_has_the_workspace_ends_runs_that_say_they_write_it(
    client: SyncPrefectClient, run: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead one, and one below this run from before it crashed; none that waits, just began, or writes elsewhere."""
    train = client.read_deployment_by_name("train/turns").id
    ours = client.read_deployment(train).parameters["workspace"]

    def begun(workspace: str, name: str = "Running", parent: UUID | None = None) -> UUID:
        made = client.create_flow_run(stand_in, parameters={"workspace": workspace}, parent_task_run_id=parent).id
        client.set_flow_run_state(made, Running(name=name), force=True)
        return made

    own = run(Running())
    task_run = client.create_task_run(stand_in_task, flow_run_id=own, dynamic_key="0").id
    dead, waits, elsewhere = begun(ours), begun(ours, "Waiting"), begun("/elsewhere")
    below = begun("/not/asked", parent=task_run)

    def states() -> list[str | None]:
        return [client.read_flow_run(each).state_name for each in (own, dead, waits, elsewhere, below)]

    turns.end_lost_runs(Path(ours))
    assert states() == ["Running", "Running", "Waiting", "Running", "Crashed"]
    monkeypatch.setattr(turns, "_BEGINNING", timedelta())
    assert client.read_flow_run(dead).name in turns.end_lost_runs(Path(ours))
    assert states() == ["Running", "Crashed", "Waiting", "Running", "Crashed"]
    for each in (waits, elsewhere):
        client.set_flow_run_state(each, Crashed(), force=True)
