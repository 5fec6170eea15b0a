"""Two models of one workspace compared: the verdict, the items that both have, what differs, and the run that keeps it."""

import json
from pathlib import Path
from typing import Any

import pytest
from flow_inputs import article_records, write_recipe, write_warc
from mlflow import MlflowClient

from flows.tracker.comparison import compare_runs, comparison_lines
from pipelines.errors import InputError

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def compared(prefect_url: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.pipeline import pipeline

    folder = tmp_path_factory.mktemp("compared")
    write_warc(folder / "a.warc.gz", article_records())
    split = {"validation_ratio": 0.1, "test_ratio": 0.4}
    recipe = write_recipe(folder / "r.yaml", {"kind": "warc", "paths": ["a.warc.gz"]}, dedup=split)
    longer = folder / "longer.yaml"
    longer.write_text(
        recipe.read_text().replace("max_steps: 6", "max_steps: 60").replace("name: small", "name: longer")
    )
    with temporary_settings(updates={PREFECT_API_URL: prefect_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        summaries = [pipeline(str(path), str(folder / "w"), 0, "evaluate") for path in (recipe, longer)]
    return folder / "w", summaries


def test_the_longer_training_is_better_on_the_same_documents(compared: Any) -> None:
    workspace, (short, long) = compared
    found = compare_runs(workspace, long["training"]["folder"], short["training"]["folder"][:8])
    (held_out,) = [each for each in found["suites"] if each["name"] == "held_out"]
    assert held_out["verdict"] == "better"
    assert held_out["difference"]["high"] < 0
    assert held_out["difference"]["num_items"] == short["evaluation"]["num_documents"]
    gap = long["evaluation"]["bits_per_byte"] - short["evaluation"]["bits_per_byte"]
    assert held_out["difference"]["value"] == pytest.approx(gap)
    assert found["differs"]["config"] == {"training.max_steps": ["60", "6"]}
    assert (found["differs"]["data"], found["differs"]["code"]) == ({}, {})
    assert found["verdict"][0].startswith("The first is better on")
    lines = "\n".join(comparison_lines(found))
    rows = [[cell.strip() for cell in line.split("|")] for line in lines.splitlines() if line.startswith("| ")]
    assert rows[0][1:4] == ["suite", "verdict", "metric"]
    assert ["held_out", "better", "bits_per_byte"] in [row[1:4] for row in rows]
    ranks = [["better", "worse", "incomparable", "noise"].index(row[2]) for row in rows[1:]]
    assert ranks == sorted(ranks)
    assert len({line.rindex("|") for line in lines.splitlines() if line.startswith("| ")}) == 1
    assert lines.endswith(f"In MLflow: run {found['run_id']}.")
    assert "Same data." in lines
    assert "- training.max_steps: 60 | 6" in lines


def test_a_comparison_is_one_run_that_keeps_it(compared: Any, tmp_path: Path) -> None:
    workspace, (short, long) = compared
    client = MlflowClient(tracking_uri=f"sqlite:///{workspace / 'mlflow.db'}")
    found = [compare_runs(workspace, long["training"]["folder"], short["training"]["folder"]) for _ in range(2)]
    assert found[0]["run_id"] == found[1]["run_id"]
    run = client.get_run(found[0]["run_id"])
    assert run.info.status == "FINISHED"
    assert "better" in run.data.tags["mlflow.note.content"]
    kept = json.loads(Path(client.download_artifacts(run.info.run_id, "comparison.json", str(tmp_path))).read_text())
    assert kept["suites"] == json.loads(json.dumps(found[0]["suites"]))
    (metric,) = [value for name, value in run.data.metrics.items() if name == "difference/held_out"]
    assert metric < 0
    turned = compare_runs(workspace, found[0]["second"]["training_run_id"], found[0]["first"]["evaluation_run_id"])
    assert turned["run_id"] != found[0]["run_id"]
    assert [each["verdict"] for each in turned["suites"] if each["name"] == "held_out"] == ["worse"]


def test_a_pipeline_run_stands_for_its_evaluation(compared: Any) -> None:
    workspace, (short, _) = compared
    client = MlflowClient(tracking_uri=f"sqlite:///{workspace / 'mlflow.db'}")
    ids = [client.get_experiment_by_name("small").experiment_id]  # type: ignore[union-attr]
    (parent,) = client.search_runs(ids, "tags.`corpusmill.kind` = 'pipeline'")
    found = compare_runs(workspace, parent.info.run_id, short["training"]["folder"])
    assert {each["verdict"] for each in found["suites"]} <= {"noise", "incomparable"}
    assert found["first"]["evaluation_run_id"] == found["second"]["evaluation_run_id"]


@pytest.mark.parametrize("asked", ["", "nobody", "0" * 32, "'; drop"])
def test_who_is_not_there_is_said_so(compared: Any, asked: str) -> None:
    with pytest.raises(InputError, match="wanted the id of an MLflow run"):
        compare_runs(compared[0], asked, asked)


def test_a_corpus_has_no_evaluation(compared: Any) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{compared[0] / 'mlflow.db'}")
    ids = [client.get_experiment_by_name("small").experiment_id]  # type: ignore[union-attr]
    (corpus,) = client.search_runs(ids, "tags.`corpusmill.kind` = 'corpus'")
    with pytest.raises(InputError, match="of kind corpus without an evaluation"):
        compare_runs(compared[0], corpus.info.run_id, corpus.info.run_id)
