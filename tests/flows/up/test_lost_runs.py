"""Runs that Prefect believes to be under way, and that have no process."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from deadline import wait_for
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Crashed, Pending, Running
from up_processes import environment

from flows.deployed.automations import automations_of, is_taking_up
from flows.up import lost_runs
from flows.up.api import PrefectApi
from flows.up.processes import FLOW_RUN

LATER = timedelta(seconds=61)


@pytest.fixture
def client(prefect_url: str) -> Iterator[SyncPrefectClient]:
    from prefect import get_client

    with temporary_settings(updates={PREFECT_API_URL: prefect_url}), get_client(sync_client=True) as found:
        yield found


@pytest.fixture
def deployed(client: SyncPrefectClient) -> Callable[[str], UUID]:
    """The id of a new deployment on a pool of a type."""

    def make(kind: str) -> UUID:
        pool = client.create_work_pool(WorkPoolCreate(name=f"{kind}-{uuid4()}", type=kind))
        flow = client.create_flow_from_name(f"lost-{uuid4()}")
        return client.create_deployment(flow, "lost", work_pool_name=pool.name)

    return make


@pytest.fixture
def deployment(deployed: Callable[[str], UUID]) -> UUID:
    return deployed("process")


def test_a_run_without_a_process_goes_on(client: SyncPrefectClient, deployment: UUID, prefect_url: str) -> None:
    taken, silent, living, ended = (client.create_flow_run_from_deployment(deployment).id for _ in range(4))
    client.set_flow_run_state(taken, Pending(name="Submitting"))
    for each in (silent, living, ended):
        client.set_flow_run_state(each, Running(), force=True)
    client.set_flow_run_state(ended, Completed(), force=True)
    api = PrefectApi(url=prefect_url)
    wait = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    marks = {FLOW_RUN: str(living)}  # of a worker that somebody started beside `up`
    with subprocess.Popen(wait, stdin=-1, stdout=-1, env=environment(**marks)) as process:
        assert process.stdout is not None
        process.stdout.readline()

        def found(after: timedelta, *, is_alone: bool) -> set[str]:
            ours = {str(each) for each in (taken, silent, living, ended)}
            return ours & lost_runs.lost_runs(api, datetime.now(UTC) + after, is_alone=is_alone)

        assert found(timedelta(0), is_alone=True) == set(), "it may be about to begin"
        assert found(LATER, is_alone=True) == {str(taken), str(silent)}
        assert found(LATER, is_alone=False) == set(), "it may run elsewhere"
        assert found(3 * LATER, is_alone=False) == {str(taken)}
        process.kill()


def test_a_crash_that_nobody_answered_is_unless_that_is_switched_off(
    client: SyncPrefectClient, deployment: UUID, prefect_url: str
) -> None:
    run = client.create_flow_run_from_deployment(deployment)
    client.set_flow_run_state(run.id, Crashed(message="a machine died"), force=True)
    api = PrefectApi(url=prefect_url)

    def found(after: float) -> bool:
        return str(run.id) in lost_runs.forgotten_runs(api, datetime.now(UTC) + timedelta(seconds=after))

    assert [found(after) for after in (100, 200, 8 * 86_400)] == [False, True, False]
    (wanted,) = (
        each
        for each in automations_of(
            client, "r", Path("w"), dict.fromkeys(("train", "evaluate"), deployment), alert_block=None
        )
        if is_taking_up(each.name)
    )
    known = client.create_automation(wanted.model_copy(update={"enabled": False}))
    assert not found(200)
    client.delete_automation(known)
    assert found(200)


def test_a_container_may_wait_for_its_machine(
    client: SyncPrefectClient, deployed: Callable[[str], UUID], prefect_url: str
) -> None:
    runs = [client.create_flow_run_from_deployment(deployed(kind)).id for kind in ("kubernetes", "process")]
    for each in runs:
        client.set_flow_run_state(each, Pending(name="InfrastructurePending"))
    api = PrefectApi(url=prefect_url)
    found = lost_runs.lost_runs(api, datetime.now(UTC) + 3 * LATER, is_alone=False)
    assert [str(each) in found for each in runs] == [False, True]


def test_the_watch_lets_it_go_on_and_ends_when_asked(
    client: SyncPrefectClient, deployment: UUID, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = client.create_flow_run_from_deployment(deployment)
    client.set_flow_run_state(run.id, Pending(name="Submitting"))
    monkeypatch.setattr(lost_runs, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(lost_runs, "_STRANGE", timedelta(0))
    told: list[str] = []
    stop = threading.Event()
    for url, is_told in (("http://127.0.0.1:9/api", False), (prefect_url, True)):
        stop.clear()
        api = PrefectApi(url=url)
        watching = threading.Thread(target=lost_runs.watch, args=(api, told.append, stop), kwargs={"is_alone": False})
        watching.start()
        if is_told:
            wait_for("run that goes on", lambda: any(run.name in each for each in told), 60)
        stop.set()
        watching.join(30)
        assert not watching.is_alive()
    names = [state.name for state in client.read_flow_run_states(run.id)]
    assert names[-2:] == ["Crashed", "AwaitingRetry"]
