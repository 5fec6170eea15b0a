"""A night and its accidents: deployments on real workers of a real server, runs that are cancelled, killed and crowded."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from deadline import wait_for
from flow_inputs import OFF, SMALL, article_records, write_recipe, write_warc
from mlflow import MlflowClient
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling
from prefect_workers import Worker, processes_with, start_run, state_of, wait_for_state, worker

from flows.deployed import deployment
from flows.deployed.worker import RUN_GRACE_SECONDS
from flows.watching.run_state import read_state
from flows.workspace import Workspace, writing
from llm import checkpoint
from llm.journal import JOURNAL, read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

LONG = {
    **SMALL["training"],
    "max_steps": 200_000,
    "eval_every_steps": 1000,
    "checkpoint_every_steps": 500,
    "spike_sigmas": None,  # it would go back past bad data, and steps be done again
}
"""A training that ends in no test."""


@pytest.fixture
def client(prefect_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    with temporary_settings(updates={PREFECT_API_URL: prefect_url}), get_client(sync_client=True) as client:
        yield client


class Site:
    """A recipe that is deployed, and its workspace."""

    def __init__(self, folder: Path, name: str, training: dict[str, Any]) -> None:
        self.name = name
        self.pages = write_warc(folder / "pages" / "a.warc.gz", article_records()[:20])
        source = {"kind": "warc", "paths": ["pages/*.warc.gz"]}
        self.recipe = write_recipe(folder / "recipe.yaml", source, name=name, training=training, **OFF)
        self.place = Workspace(folder / "w")
        deployment.deploy(self.recipe, self.place.root, paused=True)

    def model_folder(self) -> Path:
        (folder,) = self.place.root.glob("models/*")
        return folder

    def step(self) -> int:
        """The newest step in the journal of the only training."""
        journals = list(self.place.root.glob(f"models/*/{JOURNAL}"))
        return max((each.facts["step"] for path in journals for each in read(path) if each.kind == "step"), default=-1)

    def mlflow(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.place.mlflow_uri)

    def mlflow_run(self) -> Any:
        return self.mlflow().get_run((self.model_folder() / "mlflow_run_id").read_text())


@pytest.fixture
def site(tmp_path: Path, client: SyncPrefectClient, request: pytest.FixtureRequest) -> Callable[..., Site]:
    return lambda training=SMALL["training"]: Site(tmp_path, f"r{os.getpid()}-{request.node.name[:24]}", training)


@pytest.fixture
def work(prefect_url: str, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Workers for the length of the test."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda pool, name="worker", **variables: stack.enter_context(
            worker(prefect_url, pool, tmp_path / f"{pool}-{name}", **variables)
        )


def runs_of(client: SyncPrefectClient, name: str) -> list[Any]:
    known = client.read_deployment_by_name(name)
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[known.id]))
    )


def logs_of(client: SyncPrefectClient, run_id: UUID) -> str:
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    lines = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id])), limit=200)
    return "\n".join(line.message for line in lines)


def test_a_night(site: Any, client: SyncPrefectClient, work: Any) -> None:
    """Refresh, train because no model is there, evaluate; then a refresh that changes nothing, and a take-down."""
    made = site()
    cpu, gpu = work("cpu"), work("gpu")
    first = start_run(client, f"refresh/{made.name}")
    wait_for_state(client, first, "Completed")
    recorded = read_state(made.place)["runs"]
    assert {recorded[f"{flow} {made.name}"]["outcome"] for flow in ("refresh", "crawl", "build_corpus")} == {"finished"}
    assert recorded[f"refresh {made.name}"]["flow_run_id"] == str(first)
    decision = json.loads((made.place.report_folder(made.name) / "train_decision.json").read_text())["values"]
    assert (decision["is_to_train"], decision["reason"]) == (True, "no model was trained yet")
    (training,) = wait_for("training", lambda: runs_of(client, f"train/{made.name}"))
    wait_for_state(client, training.id, "Completed")
    assert "Training begins." in (made.model_folder() / "train.log").read_text()
    wait_for("its lines in Prefect's log", lambda: "Training begins." in logs_of(client, training.id), 30)
    (evaluation,) = wait_for("evaluation", lambda: runs_of(client, f"evaluate/{made.name}"))
    wait_for_state(client, evaluation.id, "Completed")

    again = start_run(client, f"refresh/{made.name}", {"train_share": 0.0})
    wait_for_state(client, again, "Completed")
    decision = json.loads((made.place.report_folder(made.name) / "train_decision.json").read_text())["values"]
    assert (decision["is_to_train"], decision["share"]) == (False, 0.0)

    url = article_records()[3].split(b"WARC-Target-URI: ")[1].split(b"\r\n")[0].decode()
    asked = {"scope": "url", "value": url, "reason": "asked for", "by": "a person"}
    wait_for_state(client, start_run(client, f"takedown/{made.name}", asked), "Completed")
    (certificate,) = made.place.takedown_folder.glob("*.md")
    assert url in certificate.read_text()

    backups = made.place.root.parent / "backups"
    kept = start_run(client, f"maintenance/{made.name}", {"backup_folder": str(backups), "keep_days": 0})
    wait_for_state(client, kept, "Completed")
    assert len(list(backups.glob("*.tar.gz"))) == 1
    assert len(runs_of(client, f"train/{made.name}")) == 1, "nothing changed"
    for each in (cpu, gpu):
        wait_for("end of all processes", lambda each=each: not each.started(), 30)


def test_cancelled_while_it_trains(site: Any, client: SyncPrefectClient, work: Any) -> None:
    """As Prefect's UI does it. Everything is gone within 15 s, and the next run goes on in the same MLflow run."""
    made = site(LONG)
    gpu = work("gpu")
    work("cpu")
    wait_for_state(client, start_run(client, f"refresh/{made.name}", {"train_share": 0.0}), "Completed")
    (training,) = wait_for("training", lambda: runs_of(client, f"train/{made.name}"))
    wait_for("steps", lambda: made.step() > 700, 180)
    mlflow_run = (made.model_folder() / "mlflow_run_id").read_text()

    began = time.monotonic()
    client.set_flow_run_state(training.id, Cancelling())
    wait_for("end of all processes", lambda: not gpu.started(), 15)
    seconds = time.monotonic() - began
    wait_for_state(client, training.id, "Cancelled")
    stopped_at = made.step()
    newest = checkpoint.newest_valid(made.model_folder())
    assert newest is not None
    assert checkpoint.step_of(newest) == stopped_at, "written because of the stop"
    assert made.mlflow_run().info.status == "KILLED"
    assert seconds < 15

    following = start_run(client, f"train/{made.name}")
    wait_for("more steps", lambda: made.step() > stopped_at + 200, 180)
    assert (made.model_folder() / "mlflow_run_id").read_text() == mlflow_run
    wait_for("run that goes on", lambda: made.mlflow_run().info.status == "RUNNING", 60)
    client.set_flow_run_state(following, Cancelling())
    wait_for_state(client, following, "Cancelled")
    steps = [each.facts["step"] for each in read(made.model_folder() / JOURNAL) if each.kind == "step"]
    assert steps == sorted(set(steps)), "no step was lost or done twice"


def test_a_container_that_is_stopped_while_it_trains(site: Any, client: SyncPrefectClient, work: Any) -> None:
    """SIGTERM to the container's first process alone: the training writes its checkpoint, and the next worker goes on with it."""
    made = site(LONG)
    work("cpu")
    gpu = work("gpu", is_as_in_containers=True)
    wait_for_state(client, start_run(client, f"refresh/{made.name}", {"train_share": 0.0}), "Completed")
    (training,) = wait_for("training", lambda: runs_of(client, f"train/{made.name}"))
    wait_for("steps", lambda: made.step() > 700, 180)

    gpu.process.send_signal(signal.SIGTERM)
    assert gpu.process.wait(RUN_GRACE_SECONDS) == 0, gpu.log.read_text()[-3000:]
    assert gpu.started() == {}
    stopped_at = made.step()
    newest = checkpoint.newest_valid(made.model_folder())
    assert newest is not None
    assert checkpoint.step_of(newest) == stopped_at, "written because of the stop"
    assert stopped_at % LONG["checkpoint_every_steps"], "and not because it was due"
    assert made.mlflow_run().info.status == "KILLED"
    assert state_of(client, training.id) == "AwaitingRetry"

    work("gpu", "next", is_as_in_containers=True)
    wait_for("more steps", lambda: made.step() > stopped_at + 200, 180)
    assert len(runs_of(client, f"train/{made.name}")) == 1, "the same run"
    client.set_flow_run_state(training.id, Cancelling())
    wait_for_state(client, training.id, "Cancelled")


def test_killed_while_it_trains(site: Any, client: SyncPrefectClient, work: Any) -> None:
    """SIGKILL of the flow's process: nothing is left, the run crashes, and is taken up by itself where it stopped."""
    made = site(LONG)
    work("cpu")
    gpu = work("gpu")
    wait_for_state(client, start_run(client, f"refresh/{made.name}", {"train_share": 0.0}), "Completed")
    (training,) = wait_for("training", lambda: runs_of(client, f"train/{made.name}"))
    wait_for("steps", lambda: made.step() > 700, 180)
    flow = gpu.pid_of("prefect.engine")
    assert flow is not None
    before = set(gpu.started())
    os.kill(flow, signal.SIGKILL)
    wait_for("end of its processes", lambda: not before & set(processes_with(gpu.mark)), 15)
    stopped_at = made.step()
    wait_for("more steps", lambda: made.step() > stopped_at + 200, 300)
    flows = [command for command in gpu.started().values() if command.endswith("prefect.engine")]
    assert len(flows) == 1, "a worker tells of a crash twice"
    states = [state.name for state in client.read_flow_run_states(training.id)]
    assert states.index("Crashed") < states.index("AwaitingRetry")
    assert len(runs_of(client, f"train/{made.name}")) == 1, "the same run"
    client.set_flow_run_state(training.id, Cancelling())
    wait_for_state(client, training.id, "Cancelled")


def test_a_machine_that_dies_is_found_out_and_its_run_resumed_by_another(
    site: Any, client: SyncPrefectClient, work: Any
) -> None:
    """Worker and flow are killed at once, so nobody is left to say so: the heartbeats stop."""
    made = site(LONG)
    work("cpu")
    first = work("gpu", "first")
    wait_for_state(client, start_run(client, f"refresh/{made.name}", {"train_share": 0.0}), "Completed")
    (training,) = wait_for("training", lambda: runs_of(client, f"train/{made.name}"))
    wait_for("steps", lambda: made.step() > 700, 180)
    for pid in sorted(processes_with(first.mark), reverse=True):
        os.kill(pid, signal.SIGKILL)
    wait_for("end of the machine", lambda: not processes_with(first.mark), 15)
    began, stopped_at = time.monotonic(), made.step()
    work("gpu", "second")
    wait_for("more steps", lambda: made.step() > stopped_at + 200, 400)
    print(f"resumed {time.monotonic() - began:.0f} s after the machine died")  # noqa: T201
    assert "Crashed" in [state.name for state in client.read_flow_run_states(training.id)]
    client.set_flow_run_state(training.id, Cancelling())
    wait_for_state(client, training.id, "Cancelled")


def test_a_worker_that_dies_alone_loses_no_run(site: Any, client: SyncPrefectClient, work: Any) -> None:
    """What it ran goes on until it writes a line, which nobody reads; then it crashes, and is taken up by another."""
    made = site()
    cpu = work("cpu")
    run_id = start_run(client, f"refresh/{made.name}")
    wait_for_state(client, run_id, "Running")
    cpu.kill()
    work("cpu", "second")
    wait_for("completion", lambda: state_of(client, run_id) == "Completed", 400)


def test_a_training_is_cancelled_after_its_worker_was_killed(site: Any, client: SyncPrefectClient, work: Any) -> None:
    """The next worker does not know it. It stops by itself, as if its own worker had asked."""
    made = site({**LONG, "eval_every_steps": 100_000, "checkpoint_every_steps": 100_000})  # silent: a line would end it
    work("cpu")
    gpu = work("gpu")
    wait_for_state(client, start_run(client, f"refresh/{made.name}", {"train_share": 0.0}), "Completed")
    (training,) = wait_for("training", lambda: runs_of(client, f"train/{made.name}"))
    wait_for("steps", lambda: made.step() > 300, 180)
    gpu.kill()
    work("gpu", "second")
    after = made.step()
    wait_for("more steps", lambda: made.step() > after + 100, 60)
    assert gpu.pid_of("prefect.engine") is not None, "it lives without its worker"

    began = time.monotonic()
    client.set_flow_run_state(training.id, Cancelling())
    wait_for("end of all processes", lambda: not gpu.started(), 40)
    print(f"gone {time.monotonic() - began:.1f} s after the cancel")  # noqa: T201
    wait_for_state(client, training.id, "Cancelled", seconds=5)
    newest = checkpoint.newest_valid(made.model_folder())
    assert newest is not None
    assert checkpoint.step_of(newest) == made.step(), "written because of the stop"
    assert made.mlflow_run().info.status == "KILLED"
    names = [state.name for state in client.read_flow_run_states(training.id)]
    assert "Crashed" not in names, names


def test_a_run_that_waits_is_cancelled_after_its_worker_was_killed(
    site: Any, client: SyncPrefectClient, work: Any
) -> None:
    made = site()
    cpu = work("cpu")
    with writing(made.place):
        run_id = start_run(client, f"refresh/{made.name}")
        wait_for_state(client, run_id, "Waiting")
        cpu.kill()
        assert cpu.pid_of("prefect.engine") is not None, "it lives without its worker"
        client.set_flow_run_state(run_id, Cancelling())
        wait_for("end of all processes", lambda: not cpu.started(), 30)
    wait_for_state(client, run_id, "Cancelled", seconds=5)
    assert "Crashed" not in [state.name for state in client.read_flow_run_states(run_id)]


def test_a_run_waits_for_the_workspace_and_says_so(site: Any, client: SyncPrefectClient, work: Any) -> None:
    made = site()
    work("cpu")
    with writing(made.place):
        run_id = start_run(client, f"refresh/{made.name}")
        wait_for_state(client, run_id, "Waiting")
        refused = start_run(client, f"maintenance/{made.name}", {"wait_minutes": 0})
        wait_for_state(client, refused, "Failed")
        assert f"in use by process {os.getpid()}" in str(client.read_flow_run(refused).state.message)  # type: ignore[union-attr]
        late = start_run(client, f"evaluate/{made.name}", {"max_hours": 0.001})
        work("gpu")
        wait_for_state(client, late, "Failed")
        assert "got no end after 0.00 hours, wanted one by then" in str(client.read_flow_run(late).state.message)  # type: ignore[union-attr]
    wait_for_state(client, run_id, "Completed")
    assert "waiting: got a workspace in use" in logs_of(client, run_id)


def test_of_runs_that_were_due_while_no_worker_was_up_one_does_the_work(
    site: Any, client: SyncPrefectClient, work: Any
) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleUpdate, DeploymentUpdate
    from prefect.client.schemas.schedules import IntervalSchedule

    made = site()
    known = client.read_deployment_by_name(f"refresh/{made.name}")
    quick = DeploymentScheduleUpdate(
        schedule=IntervalSchedule(interval=timedelta(seconds=20)), active=True, slug="quick"
    )
    client.update_deployment(known.id, DeploymentUpdate(schedules=[quick], paused=False))

    def late() -> list[Any]:
        return [run for run in runs_of(client, f"refresh/{made.name}") if run.state_name == "Late"]

    wait_for("late runs", lambda: len(late()) >= 3, 240)
    client.update_deployment(known.id, DeploymentUpdate(paused=True))
    due = {run.id for run in runs_of(client, f"refresh/{made.name}") if run.state_name in ("Late", "Scheduled")}
    work("cpu")
    ends = {"Completed", "Superseded"}
    wait_for(
        "end of all", lambda: all(state_of(client, run_id) in ends for run_id in due if _is_there(client, run_id)), 400
    )
    states = [state_of(client, run_id) for run_id in due if _is_there(client, run_id)]
    assert states.count("Completed") == 1, states
    assert len(states) >= 3


def _is_there(client: SyncPrefectClient, run_id: UUID) -> bool:
    """Pausing a deployment removes the runs that are not due yet."""
    from prefect.exceptions import ObjectNotFound

    try:
        client.read_flow_run(run_id)
    except ObjectNotFound:
        return False
    return True
