"""The record of a run: MLflow runs that name each other, and the Prefect flow run that they name."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from flow_inputs import article_records, write_recipe, write_warc
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow_server import free_port
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.inspection import doctor
from flows.recipe import load_recipe
from flows.settings import Settings
from flows.tracker import execution, runs, tracking
from flows.tracker.tracking import open_tracker
from flows.tracker.training_run import TrainingRun
from flows.workspace import Workspace, writing
from pipelines.errors import TerminalError

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

NOTE = "mlflow.note.content"
KINDS = ("corpus", "training", "evaluation")
STAGES = (
    "extract",
    "signals",
    "toxicity",
    "policy",
    "sources",
    "bands",
    "index",
    "near",
    "lines",
    "dedup",
    "sample",
    "tokenizer",
    "tokenize",
    "report",
    "train",
    "evaluate",
)


@dataclass(frozen=True)
class Recorded:
    """A finished run of a small recipe, and where to ask about it."""

    recipe: Path
    workspace: Path
    summary: dict[str, Any]
    client: MlflowClient
    prefect_url: str

    def runs(self, kind: str) -> list[Run]:
        experiment = self.client.get_experiment_by_name("small")
        assert experiment is not None
        return list(
            self.client.search_runs([experiment.experiment_id], filter_string=f"tags.`corpusmill.kind` = '{kind}'")
        )

    def the(self, kind: str) -> Run:
        (run,) = self.runs(kind)
        return run

    def ask(self, what: str, condition: dict[str, Any]) -> list[dict[str, Any]]:
        answer = httpx.post(f"{self.prefect_url}/{what}/filter", json=condition).raise_for_status()
        return list(answer.json())


@pytest.fixture(scope="module")
def flows(prefect_url: str) -> Iterator[Callable[..., dict[str, Any]]]:
    from flows.pipeline import pipeline

    with temporary_settings(updates={PREFECT_API_URL: prefect_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield lambda recipe, workspace, until="evaluate": pipeline(str(recipe), str(workspace), 0, until)


@pytest.fixture(scope="module")
def recorded(flows: Any, prefect_url: str, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recorded")
    write_warc(folder / "a.warc.gz", article_records()[:20])
    recipe = write_recipe(folder / "r.yaml", {"kind": "warc", "paths": ["a.warc.gz"]})
    summary = flows(recipe, folder / "w")
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'w' / 'mlflow.db'}")
    return Recorded(recipe, folder / "w", summary, client, prefect_url)


@pytest.mark.parametrize("kind", KINDS)
def test_each_part_has_one_finished_run_that_names_the_dataset(recorded: Recorded, kind: str) -> None:
    run = recorded.the(kind)
    digest = recorded.summary["dataset_digest"]
    of = digest if kind == "corpus" else recorded.summary["training"]["folder"]
    assert (run.info.status, run.info.run_name) == ("FINISHED", f"{kind} {of[:8]}"), "told apart in MLflow's lists"
    assert run.data.tags["corpusmill.recipe"] == "small"
    assert run.data.tags["corpusmill.dataset_digest"] == digest
    (entry,) = run.inputs.dataset_inputs
    assert digest.startswith(entry.dataset.digest)
    tags = {tag.key: tag.value for tag in entry.tags}
    assert tags == {"mlflow.data.context": kind, "corpusmill.digest": digest}


def test_the_runs_name_each_other(recorded: Recorded) -> None:
    corpus, training, evaluation = (recorded.the(kind) for kind in KINDS)
    assert training.data.tags["corpusmill.corpus_run_id"] == corpus.info.run_id
    assert evaluation.data.tags["corpusmill.corpus_run_id"] == corpus.info.run_id
    assert evaluation.data.tags["corpusmill.training_run_id"] == training.info.run_id
    assert evaluation.data.tags["corpusmill.training_key"] == training.data.tags["corpusmill.training_key"]
    inputs = recorded.client.get_run(evaluation.info.run_id).inputs  # a search leaves models out
    measured = [each.model_id for each in inputs.model_inputs]
    assert measured == [training.data.tags["corpusmill.model_id"]]
    assert training.data.tags["corpusmill.model_folder"] == recorded.summary["training"]["folder"]
    assert training.data.tags["corpusmill.parameters_digest"] == recorded.summary["training"]["parameters_digest"]


def test_parameters_are_those_of_the_recipe(recorded: Recorded) -> None:
    corpus, training, evaluation = (recorded.the(kind).data.params for kind in KINDS)
    assert corpus["tokenizer.vocab_size"] == "400"
    assert (training["model.n_layer"], training["training.max_steps"]) == ("1", "6")
    assert training["training.weight_decay"] == "0.1", "defaults are there too"
    assert evaluation["evaluation.sample_tokens"] == "4"


def test_metrics_are_those_of_the_summary(recorded: Recorded) -> None:
    corpus, training, evaluation = (recorded.the(kind).data.metrics for kind in KINDS)
    documents = recorded.summary["documents"]
    assert (corpus["documents/in"], corpus["documents/kept"]) == (documents["in"], documents["kept"])
    assert corpus["tokens"] == recorded.summary["tokens"]
    assert corpus["shards_computed/extract"] == 1
    assert training["final/final_val_loss"] == pytest.approx(recorded.summary["training"]["final_val_loss"])
    assert evaluation["evaluation/bits_per_byte"] == pytest.approx(recorded.summary["evaluation"]["bits_per_byte"])
    run_id = recorded.the("training").info.run_id
    steps = [metric.step for metric in recorded.client.get_metric_history(run_id, "train/loss")]
    assert sorted(steps) == [1, 2, 3, 4, 5, 6]
    validated = [metric.step for metric in recorded.client.get_metric_history(run_id, "validation/loss")]
    assert sorted(validated) == [0, 2, 4, 6]


def test_the_data_card_and_the_samples_are_artifacts(recorded: Recorded, tmp_path: Path) -> None:
    corpus, evaluation = recorded.the("corpus").info.run_id, recorded.the("evaluation").info.run_id
    card = recorded.client.download_artifacts(corpus, "data_card.md", str(tmp_path))
    report = recorded.workspace / "reports" / "small" / "data_card.md"
    assert Path(card).read_text(encoding="utf-8") == report.read_text(encoding="utf-8")
    assert {item.path for item in recorded.client.list_artifacts(corpus)} == {
        "data_card.md",
        "data_card.json",
        "eu_summary.md",
        "figures",
        "review",
    }
    assert {item.path for item in recorded.client.list_artifacts(corpus, "figures")} == {
        "figures/funnel.png",
        "figures/signals-1.png",
    }
    run_id = recorded.the("evaluation").info.run_id
    tables = {item.path for item in recorded.client.list_artifacts(run_id, "tables")}
    assert {"tables/samples.json", "tables/held_out.json"} <= tables
    path = recorded.client.download_artifacts(run_id, "tables/held_out.json", str(tmp_path))
    table = json.loads(Path(path).read_text())
    assert table["columns"][:3] == ["id", "score", "weight"]
    assert len(table["data"]) == recorded.summary["evaluation"]["num_documents"]
    samples = Path(recorded.client.download_artifacts(evaluation, "samples.md", str(tmp_path)))
    assert recorded.summary["evaluation"]["samples"][0]["text"] in samples.read_text(encoding="utf-8")


def test_the_flow_run_that_they_name_is_complete_in_prefect(recorded: Recorded) -> None:
    (flow_run_id,) = {recorded.the(kind).data.tags["prefect.flow_run_id"] for kind in KINDS}
    (root,) = recorded.ask("flow_runs", {"flow_runs": {"id": {"any_": [flow_run_id]}}})
    assert root["state_type"] == "COMPLETED"
    assert root["parameters"]["recipe"] == str(recorded.recipe)
    children = recorded.ask("flow_runs", {"flow_runs": {"parent_flow_run_id": {"any_": [flow_run_id]}}})
    flows = recorded.ask("flows", {"flows": {"id": {"any_": [child["flow_id"] for child in children]}}})
    assert {flow["name"] for flow in flows} == {"crawl", "build_corpus", "train", "evaluate"}
    assert {child["state_type"] for child in children} == {"COMPLETED"}
    ids = [child["id"] for child in children]
    # Prefect's client sends the states of task runs as events, which the server takes in a moment later.
    task_runs = wait_for(
        lambda: recorded.ask("task_runs", {"flow_runs": {"id": {"any_": ids}}}),
        lambda found: {task["state_type"] for task in found} == {"COMPLETED"} and len(found) == len(STAGES),
    )
    assert sorted(task["name"] for task in task_runs) == sorted(STAGES)
    artifacts = recorded.ask("artifacts", {"flow_runs": {"id": {"any_": ids}}})
    (funnel,) = [artifact for artifact in artifacts if artifact["key"] == "small-funnel"]
    rows = {row["step"]: row["documents"] for row in json.loads(funnel["data"])}
    assert (rows["pages in"], rows["kept"]) == (
        recorded.summary["documents"]["in"],
        recorded.summary["documents"]["kept"],
    )
    assert {artifact["key"] for artifact in artifacts} >= {"small-funnel", "small-data-card"}


def wait_for(ask: Callable[[], Any], is_there: Callable[[Any], bool], num_tries: int = 100) -> Any:
    """What was asked for, as soon as it is there; else what there is after some ten seconds."""
    import time

    for _ in range(num_tries):
        found = ask()
        if is_there(found):
            break
        time.sleep(0.1)
    return found


def test_the_review_page_is_an_artifact(recorded: Recorded, tmp_path: Path) -> None:
    run_id = recorded.the("corpus").info.run_id
    assert [item.path for item in recorded.client.list_artifacts(run_id, "review")] == ["review/index.html"]
    page = Path(recorded.client.download_artifacts(run_id, "review/index.html", str(tmp_path))).read_text("utf-8")
    assert page == (recorded.workspace / "reports" / "small" / "review" / "index.html").read_text("utf-8")
    assert f"<strong>{recorded.summary['documents']['in']:,}</strong> documents" in page
    assert 'id="rule-gopher_short_doc"' in page
    assert len(page.encode()) <= 4 << 20


def test_the_runs_of_an_execution_lie_below_its_own_which_leads_to_them(recorded: Recorded) -> None:
    parent = recorded.the("pipeline")
    parts = {kind: recorded.the(kind) for kind in KINDS}
    assert parent.info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in parts.values()} == {parent.info.run_id}
    assert parent.data.tags["prefect.flow_run_id"] == parts["corpus"].data.tags["prefect.flow_run_id"]
    for kind, run in parts.items():
        assert parent.data.tags[f"corpusmill.{kind}_run_id"] == run.info.run_id
        assert f"[{kind}](#/experiments/{run.info.experiment_id}/runs/{run.info.run_id})" in parent.data.tags[NOTE]
    bits = parts["evaluation"].data.metrics["evaluation/bits_per_byte"]
    assert parent.data.metrics["evaluation/bits_per_byte"] == bits
    assert not (recorded.workspace / "execution.json").exists()


def test_an_execution_that_evaluates_anew_leads_to_the_training_that_was_there(
    recorded: Recorded, flows: Any, tmp_path: Path
) -> None:
    workspace = tmp_path / "w"
    shutil.copytree(recorded.workspace, workspace)
    text = recorded.recipe.read_text()
    (recorded.recipe.parent / "other.yaml").write_text(text.replace("sample_tokens: 4", "sample_tokens: 5"))
    flows(recorded.recipe.parent / "other.yaml", workspace)
    client = MlflowClient(tracking_uri=f"sqlite:///{workspace / 'mlflow.db'}")
    ids = [recorded.the("training").info.experiment_id]
    new, old = client.search_runs(ids, "tags.`corpusmill.kind` = 'pipeline'", order_by=["start_time DESC"])
    assert new.data.tags["corpusmill.training_run_id"] == recorded.the("training").info.run_id
    assert new.data.tags["corpusmill.corpus_run_id"] == recorded.the("corpus").info.run_id
    assert new.data.tags["corpusmill.evaluation_run_id"] != old.data.tags["corpusmill.evaluation_run_id"]


def test_an_execution_that_fails_or_is_killed_says_so(recorded: Recorded, tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    settings = Settings(workspace=tmp_path, num_workers=0, prefect_api_url=None, mlflow_tracking_uri=None)
    recipe = load_recipe(recorded.recipe)
    client = MlflowClient(tracking_uri=place.mlflow_uri)

    def record(flow_run_id: str) -> str:
        found = open_tracker(settings, place, recipe.name, flow_run_id)
        with found.run("corpus", {}):
            pass
        assert found.parent_run_id is not None
        return found.parent_run_id

    @runs.execution(settings, place, recipe)
    def fail() -> None:
        parents = {record("a"), record("a"), open_tracker(settings, place, recipe.name, "z").parent_run_id}
        raise ValueError(*parents)

    with mock.patch.object(runs, "_flow_run_id", return_value="a"), pytest.raises(ValueError) as raised:  # noqa: PT011
        fail()
    (failed,) = {*raised.value.args} - {None}
    assert len(raised.value.args) == 2, "one run for an execution, none for who is no part of it"
    assert client.get_run(failed).info.status == "FAILED"
    execution.begin(place, "b")
    killed = record("b")
    with mock.patch.object(runs, "_flow_run_id", return_value="c"), runs.execution(settings, place, recipe):
        assert client.get_run(killed).info.status == "RUNNING"
    assert client.get_run(killed).info.status == "KILLED"
    assert not (tmp_path / "execution.json").exists()
    execution.begin(place, "d")
    left = record("d")
    place.open_store()
    with writing(place):
        (check,) = [each for each in doctor(tmp_path)["checks"] if each["name"] == "runs"]
        assert check["ok"]
    assert f"execution {left}" in check["found"]
    assert client.get_run(left).info.status == "KILLED"
    (check,) = [each for each in doctor(tmp_path)["checks"] if each["name"] == "runs"]
    assert check["found"] == "none is left open"


def test_no_run_is_left_open_whoever_died_when(recorded: Recorded, tmp_path: Path) -> None:
    """A process that was killed, a tracker that died before it heard of the end, an answer that was lost."""
    place = Workspace(tmp_path)
    settings = Settings(workspace=tmp_path, num_workers=0, prefect_api_url=None, mlflow_tracking_uri=None)
    recipe = load_recipe(recorded.recipe)
    client = MlflowClient(tracking_uri=place.mlflow_uri)

    def found() -> dict[str, list[str]]:
        ids = [each.experiment_id for each in client.search_experiments()]
        kinds: dict[str, list[str]] = {}
        for run in client.search_runs(ids):
            kinds.setdefault(run.data.tags["corpusmill.kind"], []).append(run.info.status)
        return {kind: sorted(statuses) for kind, statuses in kinds.items()}

    def twice(self: MlflowClient, *arguments: Any, **options: Any) -> Run:
        create_run(self, *arguments, **options)  # whose answer is lost
        return create_run(self, *arguments, **options)

    create_run = MlflowClient.create_run
    execution.begin(place, "a")  # and is killed
    with mock.patch.object(MlflowClient, "create_run", twice):
        tracker = open_tracker(settings, place, recipe.name, "a")
        tracker.open_run("corpus", {})
    training = tracker.open_run("training", {})
    (tmp_path / "models" / "m").mkdir(parents=True)
    (tmp_path / "models" / "m" / "mlflow_run_id").write_text(training.run_id)
    assert found() == {"pipeline": ["RUNNING"] * 2, "corpus": ["RUNNING"] * 2, "training": ["RUNNING"]}
    tags = {"corpusmill.kind": "corpus", "prefect.flow_run_id": "elsewhere"}
    other = client.create_run(tracker.experiment_id, tags=tags)

    with mock.patch.object(runs, "_flow_run_id", return_value="b"), runs.execution(settings, place, recipe):
        pass  # and has nothing to record
    others = "KILLED", "KILLED", "RUNNING"
    assert found() == {"pipeline": ["KILLED"] * 2, "corpus": [*others], "training": ["RUNNING"]}
    assert client.get_run(other.info.run_id).info.status == "RUNNING", "another workspace's"

    with mock.patch.object(runs, "_flow_run_id", return_value="c"):

        @runs.execution(settings, place, recipe)
        def record() -> None:
            with tracking.unless_down("the corpus"), open_tracker(settings, place, recipe.name, "c").run("corpus", {}):
                pass

        with mock.patch.object(tracking.TrackedRun, "end", side_effect=ConnectionError("gone")):
            record()
    assert found()["pipeline"] == ["FINISHED", "KILLED", "KILLED"]
    assert found()["corpus"] == ["KILLED", *others]
    assert not (tmp_path / "execution.json").exists()


def test_a_run_that_computes_nothing_is_no_new_run(
    recorded: Recorded, flows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {kind: recorded.the(kind).info.run_id for kind in KINDS}
    monkeypatch.setattr(runs, "review_facts", None)  # nor is a page made that nobody would see
    flows(recorded.recipe, recorded.workspace)
    assert {kind: recorded.the(kind).info.run_id for kind in KINDS} == before


def test_a_training_that_fails_ends_as_failed_in_both_records(recorded: Recorded, flows: Any) -> None:
    hopeless = {"max_steps": 6, "micro_batch_size": 4, "tokens_per_step": 128, "learning_rate": 1e30, "device": "cpu"}
    recipe = write_recipe(
        recorded.recipe.with_name("hopeless.yaml"), {"kind": "warc", "paths": ["a.warc.gz"]}, training=hopeless
    )
    before = {run.info.run_id for run in recorded.runs("training")}
    with pytest.raises(TerminalError, match="wanted finite"):
        flows(recipe, recorded.workspace, "train")
    (failed,) = [run for run in recorded.runs("training") if run.info.run_id not in before]
    assert failed.info.status == "FAILED"
    assert failed.info.end_time is not None
    (root,) = recorded.ask("flow_runs", {"flow_runs": {"id": {"any_": [failed.data.tags["prefect.flow_run_id"]]}}})
    assert root["state_type"] == "FAILED"
    assert "wanted finite" in root["state"]["message"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_could_not_be_recorded_is_recorded_by_the_next_run(
    flows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    open_run = tracking.Tracker.open_run

    def down(self: Any, name: str, *arguments: Any, **options: Any) -> Any:
        if name == kind:
            raise ConnectionError("no tracker")
        return open_run(self, name, *arguments, **options)

    write_warc(tmp_path / "a.warc.gz", article_records()[:20])
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["a.warc.gz"]})
    nobody = f"http://127.0.0.1:{free_port()}"  # a process of its own tells of the training: it sees no patch
    with monkeypatch.context() as patch:
        patch.setattr(tracking.Tracker, "open_run", down)
        if kind == "training":
            patch.setattr(runs, "TrainingRun", lambda **values: TrainingRun(**{**values, "tracking_uri": nobody}))
        flows(recipe, tmp_path / "w")
    assert (nobody if kind == "training" else "no tracker") in caplog.text
    again = flows(recipe, tmp_path / "w")
    assert {stage["computed"] for stage in again["stages"] if stage["name"] in STAGES[: STAGES.index("report")]} == {0}
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'w' / 'mlflow.db'}")
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert sorted(each.data.tags["corpusmill.kind"] for each in found) == sorted([*KINDS, "pipeline", "pipeline"])
    assert {each.info.status for each in found} == {"FINISHED"}
    (training,) = [each for each in found if each.data.tags["corpusmill.kind"] == "training"]
    steps = [metric.step for metric in client.get_metric_history(training.info.run_id, "train/loss")]
    assert sorted(steps) == [1, 2, 3, 4, 5, 6]
