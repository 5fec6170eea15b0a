"""Which runs go on with the next `up`, on a real server: those that were stopped, always; those that crash, for a while."""

from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling, Completed, Crashed, Running

from flows.deployed.automations import BROKEN_OFF, MAX_CRASHES
from flows.up.api import PrefectApi
from flows.up.handover import HandedOn, hand_on

pytestmark = pytest.mark.filterwarnings("ignore")


@flow(name="handed-on")
def handed_on() -> None:
    """A flow that is deployed."""


@pytest.fixture
def api(prefect_url: str) -> PrefectApi:
    return PrefectApi(url=prefect_url)


@pytest.fixture
def client(prefect_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    with temporary_settings(updates={PREFECT_API_URL: prefect_url}), get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def begun(client: SyncPrefectClient) -> Callable[[], UUID]:
    """Make a run of a deployment that says it runs."""

    def begun() -> UUID:
        deployment = client.create_deployment(client.create_flow(handed_on), name="handed-on")
        run_id = client.create_flow_run_from_deployment(deployment).id
        client.set_flow_run_state(run_id, Running(), force=True)
        return run_id

    return begun


def test_a_run_that_is_stopped_every_evening_always_goes_on(
    api: PrefectApi, client: SyncPrefectClient, begun: Callable[[], UUID]
) -> None:
    """Whether its process had the time to say that it crashed or not; five real crashes count as before."""
    run_id = begun()
    name = client.read_flow_run(run_id).name
    for evening in range(MAX_CRASHES + 2):
        if evening % 2:
            client.set_flow_run_state(run_id, Crashed(message="a termination signal"), force=True)
        assert hand_on(api, {str(run_id)}, is_all=False) == HandedOn(later=[name])
        state = client.read_flow_run(run_id).state
        assert state is not None
        assert (state.name, state.message) == ("AwaitingRetry", BROKEN_OFF)
        client.set_flow_run_state(run_id, Running(name="Waiting"), force=True)
        client.set_flow_run_state(run_id, Running(), force=True)
    for _ in range(MAX_CRASHES - 1):
        assert name in hand_on(api, set(), is_all=True).later
        client.set_flow_run_state(run_id, Running(), force=True)
    assert hand_on(api, {str(run_id)}, is_all=False).later == [name], "a stop, still"
    client.set_flow_run_state(run_id, Running(), force=True)
    last = hand_on(api, set(), is_all=True)
    assert name in last.given_up.values()
    assert name not in last.later
    assert client.read_flow_run(run_id).state_name == "Crashed"


def test_what_was_cancelled_or_is_over_does_not_go_on(
    api: PrefectApi, client: SyncPrefectClient, begun: Callable[[], UUID]
) -> None:
    cancelled, done = begun(), begun()
    client.set_flow_run_state(cancelled, Cancelling(), force=True)
    client.set_flow_run_state(done, Completed(), force=True)
    assert hand_on(api, {str(cancelled), str(done)}, is_all=False) == HandedOn()
    assert [client.read_flow_run(each).state_name for each in (cancelled, done)] == ["Cancelled", "Completed"]


def test_what_is_told() -> None:
    assert HandedOn().told("go on") == []
    later, given_up = HandedOn(["a", "b"], {"1": "c"}).told("go on now")
    assert later == "2 runs go on now: a, b."
    assert given_up.startswith("got 1 runs that crashed 5 times or more (c), wanted runs that end: ")
