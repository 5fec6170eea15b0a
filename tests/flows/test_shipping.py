"""From the journal to MLflow: every step once, through servers that die, never come, or never answer."""

import contextlib
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from flow_inputs import article_records, write_recipe, write_warc
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow_server import MlflowServer, free_port, serve_mlflow

from flows.jobs import Dataset, JobResult, TrainingJob
from flows.recipe import Recipe, load_recipe
from flows.settings import Settings
from flows.tracker import runs, shipper, shipping
from flows.tracker.tracking import Measured, open_tracker
from flows.tracker.training_run import left_trainings
from flows.workspace import Workspace
from llm.journal import JOURNAL, Journal, is_left, journal, last_entry
from llm.reports import StepReport, StepSeconds, TrainEvent
from pipelines.stage import Resource

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

SECONDS = StepSeconds(data=0.1, forward=1.0, backward=2.0, optimizer=0.5, log=0.0, checkpoint=0.0, whole=3.6)
QUICK = shipper.Pace(between_looks=0.05, between_tries=0.2)
RESULT = JobResult(
    values={
        "steps": 60,
        "checkpoint": "step-00000060",
        "first_val_loss": 6.0,
        "final_val_loss": 5.0,
        "final_train_loss": 4.0,
        "parameters_digest": "ab" * 32,
    },
    is_reused=False,
    seconds=1.0,
)


def step_report(step: int, **changes: Any) -> StepReport:
    fields: dict[str, Any] = {
        "num_tokens": 128 * step,
        "loss": 6.0 - step / 100,
        "learning_rate": 1e-3,
        "grad_norm": 0.5,
        "tokens_per_second": 1e5,
        "mfu": 0.4,
        "seconds": SECONDS,
        "val_loss": 5.0 if step % 10 == 0 else None,
        "batch_digest": None if step == 0 else f"{step:016x}",
    }
    return StepReport(step=step, **{**fields, **changes})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with serve_mlflow(tmp_path_factory.mktemp("mlflow")) as started:
        yield started


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper, "PACE", QUICK)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def urls_of(doc_ids: Sequence[str]) -> dict[str, str]:
    return {doc_id: f"https://a.test/[{doc_id}](b)" for doc_id in doc_ids if doc_id != "gone"}


class Training:
    """A training of which only the reports are real."""

    def __init__(self, folder: Path, uri: str | None, name: str = "a") -> None:
        self.place = Workspace(folder / "w")
        self.settings = Settings(
            workspace=self.place.root, num_workers=0, prefect_api_url=None, mlflow_tracking_uri=uri
        )
        path = write_recipe(folder / "r.yaml", {"kind": "warc", "paths": ["a.warc.gz"]}, name=folder.name)
        self.recipe: Recipe = load_recipe(path)
        key = (name * 64)[:64]
        self.job = TrainingJob(
            model=self.recipe.model.config(400),
            training=self.recipe.training,
            dataset=Dataset(
                outcomes_digest="o" * 64,
                shards=(),
                num_train_tokens={},
                digest="cd" * 32,
                tokenizer=Resource("ef" * 32, ""),
                vocab_size=400,
                eot_token=0,
            ),
            folder=self.place.model_folder(key),
            key=key,
        )

    @property
    def path(self) -> Path:
        return self.job.folder / JOURNAL

    def recorded(self) -> Any:
        return runs.recorded_training(self.settings, self.place, self.recipe, self.job, urls_of)

    def run_id(self) -> str:
        return (self.job.folder / "mlflow_run_id").read_text()

    def wait_until_shipped(self) -> None:
        """Until the run has all that the journal holds."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            known = self.job.folder / "shipped.json"
            if known.exists() and json.loads(known.read_bytes())["offset"] == self.path.stat().st_size:
                return
            time.sleep(0.01)
        raise AssertionError("not shipped within a minute")


@pytest.fixture
def training(tmp_path: Path) -> Callable[..., Training]:
    return lambda uri, name="a": Training(tmp_path, uri, name)


def test_a_run_shows_what_a_reviewer_looks_for(server: MlflowServer, training: Any, tmp_path: Path) -> None:
    made = training(server.url)
    with made.recorded() as on_end:
        with journal(made.job.folder) as written:
            written.write(step_report(0, loss=None, learning_rate=None, grad_norm=None, seconds=None, mfu=None))
            for step in range(1, 4):
                written.write(step_report(step))
            written.write(
                TrainEvent(kind="step_skipped", step=3, message="Loss rose.", facts={"doc_ids": ["x", "gone"]})
            )
            written.write(TrainEvent(kind="checkpoint_written", step=3, message="Written.", facts={}))
            written.write(TrainEvent(kind="step_skipped", step=4, message="Again.", facts={"norm": math.inf}))
            written.write(step_report(4, loss=math.nan, grad_norm=math.inf))
        on_end(RESULT)
    run_id = made.run_id()
    client = MlflowClient(tracking_uri=server.url)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    names = {"data", "forward", "backward", "optimizer", "log", "checkpoint", "whole"}
    busy = {name for name in run.data.metrics if name.startswith("system/")}
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= busy
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert run.data.tags["corpusmill.model_id"] == model.model_id
    assert model.tags["corpusmill.training_key"] == made.job.key
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert set(run.data.metrics) - busy == {
        *(f"train/{name}" for name in ("loss", "learning_rate", "grad_norm", "tokens_per_second", "mfu")),
        *(f"train/seconds/{name}" for name in names),
        "validation/loss",
        *(f"final/{name}" for name in ("first_val_loss", "final_val_loss", "final_train_loss")),
        "events/step_skipped",
        "events/rolled_back",
    }
    assert [(step, value) for step, _, value in server.history(run_id, "train/loss")][:3] == [
        (1, 5.99),
        (2, 5.98),
        (3, 5.97),
    ]
    assert math.isnan(server.history(run_id, "train/loss")[3][2])
    assert math.isnan(server.history(run_id, "train/grad_norm")[3][2]), "infinite is no point of a curve"
    assert [(step, value) for step, _, value in server.history(run_id, "events/step_skipped")] == [
        (0, 0.0),
        (3, 1.0),
        (4, 2.0),
    ]
    assert [(step, value) for step, _, value in server.history(run_id, "events/rolled_back")] == [(0, 0.0)]
    assert "step 4, step_skipped: Again." in run.data.tags["mlflow.note.content"]
    assert "checkpoint_written" not in run.data.tags["mlflow.note.content"]
    events = Path(client.download_artifacts(run_id, "events.jsonl", str(tmp_path))).read_text().splitlines()
    assert [json.loads(line)["kind"] for line in events] == [
        "step_skipped",
        "checkpoint_written",
        "step_skipped",
        "ended",
    ]
    assert json.loads(events[0])["facts"] == {"doc_ids": ["x", "gone"]}
    assert json.loads(events[0])["urls"] == {"x": "https://a.test/[x](b)"}
    assert "urls" not in json.loads(events[1])
    assert "Loss rose. Pages: https://a.test/\\[x\\](b)." in run.data.tags["mlflow.note.content"]
    assert run.data.params["model.n_layer"] == "1"
    assert runs.is_training_recorded(made.job)


def test_a_server_that_dies_and_comes_back_gets_every_step_once(training: Any, tmp_path: Path) -> None:
    with serve_mlflow(tmp_path / "mlflow") as server:
        made = training(server.url)
        with made.recorded() as on_end:
            with journal(made.job.folder) as written:
                for step in range(1, 21):
                    written.write(step_report(step))
                made.wait_until_shipped()
                server.kill()
                for step in range(21, 41):
                    written.write(step_report(step))
                server.start()
                for step in range(41, 61):
                    written.write(step_report(step))
                made.wait_until_shipped()
            on_end(RESULT)
        (run_id,) = [run.info.run_id for run in all_runs(server.url)]
        assert [step for step, _, _ in server.history(run_id, "train/loss")] == list(range(1, 61))
        assert [step for step, _, _ in server.history(run_id, "validation/loss")] == [10, 20, 30, 40, 50, 60]
        assert MlflowClient(tracking_uri=server.url).get_run(run_id).info.status == "FINISHED"


def test_a_replay_of_the_whole_journal_adds_nothing(server: MlflowServer, training: Any) -> None:
    made = training(server.url)
    with made.recorded() as on_end:
        with journal(made.job.folder) as written:
            for step in range(200):
                written.write(step_report(step, loss=math.nan if step == 7 else 3.0 / (step + 1)))
        on_end(RESULT)
    names = ("train/loss", "train/mfu", "validation/loss", "events/step_skipped")
    before = {name: server.history(made.run_id(), name) for name in names}
    assert len(before["train/loss"]) == 200
    (made.job.folder / "shipped.json").unlink()
    tracker = open_tracker(made.settings, made.place, made.recipe.name, None)
    shipping.ship(tracker.open_run("training", {}, run_id=made.run_id()), made.job.folder)
    after = {name: server.history(made.run_id(), name) for name in names}
    assert str(after) == str(before)  # nan is equal to nan as a text


@pytest.mark.parametrize("kind", ["dead", "silent", "refusing"])
def test_a_training_ends_without_a_tracker_and_the_next_command_ships_it(
    server: MlflowServer, training: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    with useless_tracker(kind) as url, monkeypatch.context() as patch:
        patch.setattr(shipper, "PACE", replace(QUICK, silence=0.5))
        made = training(url)
        with made.recorded() as on_end:
            began = time.thread_time()
            with journal(made.job.folder) as written:
                for step in range(1, 61):
                    written.write(step_report(step))
            assert time.thread_time() - began < 1
            on_end(RESULT)
        assert not runs.is_training_recorded(made.job)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert str(made.path) in warning
    assert "`corpusmill train`" in warning
    assert "\n" not in warning

    again = training(server.url)
    with again.recorded() as on_end, journal(again.job.folder):
        on_end(RESULT)
    assert runs.is_training_recorded(made.job)
    found = [run for run in all_runs(server.url) if run.info.run_id == again.run_id()]
    assert [run.info.status for run in found] == ["FINISHED"]
    written_at = [entry.at_ms for entry in shipping.read(made.path) if entry.kind == "step"]
    history = server.history(again.run_id(), "train/loss")
    assert [(step, at_ms) for step, at_ms, _ in history] == list(enumerate(written_at, start=1)), (
        "the times of the steps"
    )


@contextmanager
def useless_tracker(kind: str) -> Iterator[str]:
    """An address where nobody listens, where nobody answers, or where every request is refused."""
    if kind == "dead":
        yield f"http://127.0.0.1:{free_port()}"
    elif kind == "silent":
        with socket.create_server(("127.0.0.1", 0)) as listening:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    else:

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_error(403, "Invalid Host header")

            do_POST = do_GET  # noqa: N815 - the name that http.server looks for

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as refusing:
            thread = threading.Thread(target=refusing.serve_forever)
            thread.start()
            yield f"http://127.0.0.1:{refusing.server_address[1]}"
            refusing.shutdown()
            thread.join()


KILLED = """
import os, signal, sys
from pathlib import Path
from test_shipping import QUICK, Training, step_report
from flows.tracker import shipper
from llm.journal import journal

shipper.PACE = QUICK
made = Training(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
with made.recorded(), journal(made.job.folder) as written:
    for step in range(1, 31):
        written.write(step_report(step))
    made.wait_until_shipped()
    for step in range(31, 41):
        written.write(step_report(step))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def train_and_die(folder: Path, url: str, name: str) -> None:
    here = str(Path(__file__).parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([here, str(Path(__file__).parents[2])])}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, folder, url, name], env=environment, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr  # and pipes that are closed: nobody is left who holds them


def test_a_killed_training_goes_on_in_its_run_and_one_that_is_left_is_set_killed(
    server: MlflowServer, training: Any, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        train_and_die(tmp_path, server.url, name)
    left, resumed = training(server.url, "a"), training(server.url, "b")
    run_id = resumed.run_id()
    assert is_left(resumed.path)
    with resumed.recorded() as on_end:
        with journal(resumed.job.folder) as written:
            for step in range(25, 61):  # from the checkpoint of step 24
                written.write(step_report(step, tokens_per_second=2e5))
        on_end(RESULT)
    assert resumed.run_id() == run_id
    assert [step for step, _, _ in server.history(run_id, "train/loss")] == list(range(1, 61))
    client = MlflowClient(tracking_uri=server.url)
    assert client.get_run(run_id).info.status == "FINISHED"
    killed = client.get_run(left.run_id())
    assert killed.info.status == "KILLED"
    assert [step for step, _, _ in server.history(left.run_id(), "train/loss")] == list(range(1, 41))
    assert last_entry(left.path).facts["how"] == "killed"  # type: ignore[union-attr]
    assert not is_left(left.path)

    back = training(server.url, "a")  # the recipe that was left is run again after all
    with back.recorded() as on_end:
        with journal(back.job.folder) as written:
            for step in range(41, 61):
                written.write(step_report(step))
        on_end(RESULT)
    assert back.run_id() == killed.info.run_id
    assert client.get_run(back.run_id()).info.status == "FINISHED"
    assert [step for step, _, _ in server.history(back.run_id(), "train/loss")] == list(range(1, 61))


@pytest.mark.parametrize("how", ["finished", "failed"])
def test_a_run_whose_end_the_tracker_did_not_hear_of_ends_with_the_next_look(
    server: MlflowServer, training: Any, how: str
) -> None:
    made = training(server.url, f"unheard-{how}")

    def train() -> None:
        with made.recorded() as on_end:
            with journal(made.job.folder) as written:
                for step in range(3):
                    written.write(step_report(step))
                if how == "failed":
                    raise ValueError
            on_end(RESULT)

    with pytest.raises(ValueError) if how == "failed" else contextlib.nullcontext():  # noqa: PT011
        train()
    client = MlflowClient(tracking_uri=server.url)
    assert not left_trainings(made.place), "it was told"
    client.update_run(made.run_id(), "RUNNING")
    (made.job.folder / "mlflow_told").unlink()
    assert runs.end_left_runs(made.settings, made.place) == [f"training {made.job.folder.name}"]
    assert client.get_run(made.run_id()).info.status == how.upper()
    assert not left_trainings(made.place)
    (made.job.folder / "mlflow_told").unlink()  # as after an older version
    assert runs.end_left_runs(made.settings, made.place) == []
    assert not left_trainings(made.place), "asked once"


def test_a_run_that_was_made_while_the_answer_was_lost_is_found_again(server: MlflowServer, training: Any) -> None:
    made = training(server.url)
    with made.recorded(), journal(made.job.folder) as written:
        written.write(step_report(1))
    run_id = made.run_id()
    (made.job.folder / "mlflow_run_id").unlink()
    (made.job.folder / "training_run.json").unlink()
    with made.recorded(), journal(made.job.folder) as written:
        written.write(step_report(2))
    assert made.run_id() == run_id
    assert [step for step, _, _ in server.history(run_id, "train/loss")] == [1, 2]


@pytest.mark.parametrize(
    ("error", "status", "how"),
    [(ValueError("bad"), "FAILED", "failed"), (KeyboardInterrupt(), "KILLED", "stopped")],
)
def test_a_training_that_does_not_finish_says_how_it_ended(
    training: Any, error: BaseException, status: str, how: str
) -> None:
    """With the SQLite file that a workspace has where no server is configured."""
    made = training(None)

    def train() -> None:
        with made.recorded(), journal(made.job.folder) as written:
            written.write(step_report(1))
            raise error

    with pytest.raises(type(error)):
        train()
    run = MlflowClient(tracking_uri=made.place.mlflow_uri).get_run(made.run_id())
    assert (run.info.status, run.data.metrics["train/loss"]) == (status, 5.99)
    assert last_entry(made.path).facts["how"] == how  # type: ignore[union-attr]
    assert not runs.is_training_recorded(made.job)


def test_a_training_that_fails_before_its_first_report_is_no_killed_one(training: Any) -> None:
    made = training(None)

    def train() -> None:
        with made.recorded():
            raise ValueError("no such shard")

    with pytest.raises(ValueError, match="no such shard"):
        train()
    run = MlflowClient(tracking_uri=made.place.mlflow_uri).get_run(made.run_id())
    assert run.info.status == "FAILED"
    assert not is_left(made.path)


class FlakyRun:
    """Takes what is new, as MLflow does, and fails as it is told: before it took a batch, or after."""

    run_id = "r"

    def __init__(self, failures: list[str]) -> None:
        self.failures = failures
        self.rows: set[Measured] = set()

    def send(self, metrics: list[Measured]) -> None:
        assert len(metrics) <= 1000
        failure = self.failures.pop() if self.failures else ""
        if failure == "before":
            raise ConnectionError("refused")
        self.rows |= set(metrics)
        if failure == "after":
            raise TimeoutError("no answer")


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(1, 150), st.lists(st.sampled_from(["", "before", "after"]), max_size=4)),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_whatever_fails_every_line_is_shipped_once(groups: list[tuple[int, list[str]]], forgets: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = FlakyRun([])
        wanted = 0
        with Journal(folder) as written:
            for number, failures in groups:
                for _ in range(number):
                    wanted += 1
                    written.write(step_report(wanted))
                written.write(TrainEvent(kind="rolled_back", step=wanted, message="", facts={}))
                run.failures = list(failures)
                while True:
                    try:
                        shipping.ship(run, folder)  # type: ignore[arg-type]
                    except (ConnectionError, TimeoutError):
                        continue
                    break
                if forgets:
                    (folder / "shipped.json").unlink()
        of_loss = sorted((each.step, each.value) for each in run.rows if each.name == "train/loss")
        assert of_loss == [(step, 6.0 - step / 100) for step in range(1, wanted + 1)]
        counts = sorted(each.value for each in run.rows if each.name == "events/rolled_back")
        assert counts == [float(count) for count in range(len(groups) + 1)]


def all_runs(uri: str) -> list[Any]:
    client = MlflowClient(tracking_uri=uri)
    return list(client.search_runs([each.experiment_id for each in client.search_experiments()]))


def test_the_whole_flow_with_a_tracker_that_is_down_first(
    server: MlflowServer, corpusmill: Any, tmp_path: Path
) -> None:
    write_warc(tmp_path / "a.warc.gz", article_records()[:20])
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["a.warc.gz"]}, name="whole-flow")
    run = ("run", recipe, "--workspace", tmp_path / "w", "--workers", 0, "--json")
    first = corpusmill(*run, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    assert first.summary["training"]["steps"] == 6
    assert "MLFLOW_TRACKING_URI: got no answer" in first.err
    assert "Traceback" not in first.err
    again = corpusmill(*run, MLFLOW_TRACKING_URI=server.url)
    assert {stage["computed"] for stage in again.summary["stages"] if stage["name"] != "report"} == {0}
    found = [each for each in all_runs(server.url) if each.data.tags["corpusmill.recipe"] == "whole-flow"]
    assert sorted(each.data.tags["corpusmill.kind"] for each in found) == [
        "corpus",
        "evaluation",
        "pipeline",
        "training",
    ]
    assert {each.info.status for each in found} == {"FINISHED"}
    (trained,) = [each for each in found if each.data.tags["corpusmill.kind"] == "training"]
    assert [step for step, _, _ in server.history(trained.info.run_id, "train/loss")] == [1, 2, 3, 4, 5, 6]
    (evaluated,) = [each for each in found if each.data.tags["corpusmill.kind"] == "evaluation"]
    assert evaluated.data.tags["corpusmill.training_run_id"] == trained.info.run_id
