"""A run that is taken up again: it goes on, unless it was cancelled before it crashed, or crashes again and again."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from flow_inputs import write_recipe
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling, Crashed, Running, Scheduled

from flows import deployment, turns

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
