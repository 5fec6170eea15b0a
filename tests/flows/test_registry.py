"""Gates, the registry behind them, promotion to champion, and what a take-down does to a version."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from flow_inputs import article_records, write_recipe, write_warc
from mlflow import MlflowClient
from transformers import AutoModelForCausalLM

from flows.recipe import load_recipe
from flows.tracker import registry
from flows.tracker.gates import Gate, GateResult, RegistrySection, check_champion, check_gates, registration_lines
from llm.evaluation.compare import compare
from llm.evaluation.statistics import mean_figure
from llm.evaluation.suite import Suite, SuiteResult
from pipelines.errors import ConfigError, InputError, TerminalError

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

EXPORT = {"max_logit_difference": 1e-6, "loaded_by": "transformers"}


def result(name: str, scores: list[float], **more: Any) -> SuiteResult:
    suite = Suite(
        name=name, version=1, protocol="p", metric="acc", higher_is_better=True, dataset_digest="ab" * 32, noise_floor=0
    )
    items = [{"id": idx, "score": score} for idx, score in enumerate(scores)]
    return SuiteResult(**{"suite": suite, "figures": {"acc": mean_figure(scores)}, "items": items, **more})


def gates(*wanted: Gate, suites: Any = (), export: Any = EXPORT, takedowns: Any = ()) -> dict[str, bool]:
    section = RegistrySection(name="m", gates=wanted)
    found = check_gates(section, suites, export=export, takedowns=takedowns)
    return {each.gate: each.is_passed for each in found}


def test_a_gate_is_passed_within_its_bounds_and_never_without_a_figure() -> None:
    suites = [result("qa", [0.0, 1.0]), result("bias", [], skipped="no file", figures={})]
    assert gates(Gate(suite="qa", at_least=0.5), suites=suites)["qa acc >= 0.5"]
    assert not gates(Gate(suite="qa", at_least=0.6), suites=suites)["qa acc >= 0.6"]
    assert not gates(Gate(suite="qa", at_least=0.1, at_most=0.4), suites=suites)["qa acc <= 0.4 and >= 0.1"]
    assert not gates(Gate(suite="bias", at_most=1), suites=suites)["bias acc <= 1"]
    assert not gates(Gate(suite="gone", at_most=1), suites=suites)["gone <= 1"]
    assert not gates(Gate(suite="qa", metric="f1", at_most=1), suites=suites)["qa f1 <= 1"]


def test_an_export_that_was_not_compared_and_a_page_taken_down_close_the_gate() -> None:
    assert all(gates().values())
    assert [name for name, passed in gates(export={}).items() if not passed] == [
        "the export computes what the checkpoint does"
    ]
    assert [name for name, passed in gates(takedowns=["r1"]).items() if not passed] == [
        "no page that it was trained on is taken down"
    ]


def test_what_is_worse_than_the_champion_or_cannot_be_compared_does_not_pass() -> None:
    section = RegistrySection(name="m", not_worse_than_champion=("qa",))
    good, bad = result("qa", [1.0] * 50), result("qa", [0.0] * 50)
    for ours, theirs, passes in ((good, bad, True), (good, good, True), (bad, good, False)):
        (found,) = check_champion(section, compare([ours], [theirs]))
        assert found.is_passed == passes
    assert not check_champion(section, compare([good], []))[0].is_passed
    assert not check_champion(section, [])[0].is_passed


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({}, "registry"),
        ({"name": "a b"}, "letters"),
        ({"name": "m", "gates": [{"suite": "x"}]}, "without a bound"),
        ({"name": "m", "gates": [{"suite": "x", "at_mots": 1}]}, "registry"),
        ({"name": "m", "champion": 1}, "unknown key"),
    ],
)
def test_a_wrong_section_is_said_with_its_field(tmp_path: Path, section: dict[str, Any], words: str) -> None:
    path = write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["a.warc.gz"]}, registry=section)
    with pytest.raises(ConfigError, match=words):
        load_recipe(path)


@pytest.fixture(scope="module")
def trained(prefect_url: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three models of one corpus, registered in turn: short, long, and one that fails its gate."""
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.pipeline import pipeline

    folder = tmp_path_factory.mktemp("registered")
    write_warc(folder / "a.warc.gz", article_records())
    summaries = []
    with temporary_settings(updates={PREFECT_API_URL: prefect_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        for steps, most in ((6, 9.0), (60, 9.0), (8, 0.1)):
            recipe = write_recipe(
                folder / f"r{steps}.yaml",
                {"kind": "warc", "paths": ["a.warc.gz"]},
                dedup={"validation_ratio": 0.1, "test_ratio": 0.4},
                registry={"name": "m", "gates": [{"suite": "held_out", "metric": "bits_per_byte", "at_most": most}]},
            )
            body = yaml.safe_load(recipe.read_text())
            body["training"]["max_steps"] = steps
            recipe.write_text(yaml.safe_dump(body, allow_unicode=True))
            summaries.append(pipeline(str(recipe), str(folder / "w"), 0, "evaluate"))
        again = pipeline(str(recipe), str(folder / "w"), 0, "evaluate")
    return folder / "w", [*summaries, again]


def client_of(workspace: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{workspace / 'mlflow.db'}")


def test_what_passes_is_a_version_that_transformers_loads(trained: Any, tmp_path: Path) -> None:
    workspace, summaries = trained
    client = client_of(workspace)
    told = [each["registration"] for each in summaries]
    assert [(each["passed"], each["version"]) for each in told] == [
        (True, "1"),
        (True, "2"),
        (False, None),
        (False, None),
    ]
    assert told[2] == told[3]
    assert [gate["is_passed"] for gate in told[2]["gates"]] == [True, True, False]
    version = client.get_model_version("m", "2")
    assert version.tags["corpusmill.training_key"]
    run = client.get_run(version.tags["corpusmill.evaluation_run_id"])
    assert run.data.tags["corpusmill.gates"] == "passed"
    folder = client.download_artifacts(run.info.run_id, "model", str(tmp_path))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.num_parameters() == summaries[1]["training"]["num_parameters"]


def test_a_challenger_becomes_champion_and_a_worse_one_does_not(trained: Any) -> None:
    workspace, _ = trained
    client = client_of(workspace)
    assert str(client.get_model_version_by_alias("m", "challenger").version) == "2"
    first = registry.promote(workspace, "m", None, by="a", reason=None, force=False)
    assert (first["version"], first["champion_before"]) == ("2", None)
    assert str(client.get_model_version_by_alias("m", "champion").version) == "2"
    with pytest.raises(TerminalError, match=r"held_out: not worse than the champion: worse by \+"):
        registry.promote(workspace, "m", "1", by="a", reason=None, force=False)
    with pytest.raises(TerminalError, match="with --reason"):
        registry.promote(workspace, "m", "1", by="a", reason=None, force=True)
    forced = registry.promote(workspace, "m", "1", by="b", reason="a test", force=True)
    assert forced["forced"]
    tags = client.get_model_version("m", "1").tags
    assert (tags["corpusmill.promoted_by"], tags["corpusmill.promotion_reason"]) == ("b", "a test")
    back = registry.promote(workspace, "m", "2", by="a", reason=None, force=False)
    assert back["champion_before"] == "1"
    assert any("version 2 is the champion" in line for line in registry.promotion_lines(back))


def test_a_take_down_marks_the_version_and_bars_it(trained: Any) -> None:
    workspace, _ = trained
    client = client_of(workspace)
    key = client.get_model_version("m", "1").tags["corpusmill.training_key"]
    assert registry.tag_versions(client, ["r1"], [key]) == ["m/1"]
    registry.tag_versions(client, ["r2", "r1"], [key])
    assert client.get_model_version("m", "1").tags["corpusmill.takedown"] == "r1,r2"
    with pytest.raises(TerminalError, match="no page that it was trained on is taken down: r1,r2"):
        registry.promote(workspace, "m", "1", by="a", reason=None, force=False)


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [
        ("m", "99", "wanted one of 1, 2"),
        ("m", None, "got no challenger of 'm' among versions 1, 2"),
        ("nobody", None, r"wanted a registered one \(m\)"),
        ("nobody", "1", r"wanted a registered one \(m\)"),
    ],
)
def test_a_version_that_is_not_there_is_said_so(trained: Any, name: str, version: str | None, words: str) -> None:
    client = client_of(trained[0])
    client.delete_registered_model_alias("m", "challenger")
    with pytest.raises(InputError, match=words):
        registry.promote(trained[0], name, version, by="a", reason=None, force=False)


def test_a_workspace_without_runs_is_said_so_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="where no run is recorded"):
        registry.promote(tmp_path / "w", "m", None, by="a", reason=None, force=False)
    assert not (tmp_path / "w").exists()


def test_a_version_says_why_it_may_be_used_and_leads_to_what_it_was_judged_by(trained: Any) -> None:
    version = client_of(trained[0]).get_model_version("m", "2")
    assert version.description.startswith("All 3 gates of m are passed.")
    assert "| held_out bits_per_byte &lt;= 9 | yes |" in version.description
    assert f"/runs/{version.run_id}/artifacts/page/index.html)" in version.description
    assert f"[training](#/experiments/1/runs/{version.tags['corpusmill.training_run_id']})" in version.description


def test_a_version_says_how_it_does_beside_the_champion(trained: Any, tmp_path: Path) -> None:
    client = client_of(trained[0])
    client.set_registered_model_alias("m", "champion", "2")
    short, passed = client.get_model_version("m", "1"), GateResult(gate="g", is_passed=True, got="1")
    told = registry.register(client, RegistrySection(name="m"), short.run_id, tmp_path, [passed])
    assert told["version"] == "1"
    described = client.get_model_version("m", "1").description
    beside = described.split("Beside the champion, version 2 (this one is the first): ")[1]
    assert "held_out" in beside.split("The first is worse on ")[1]


def test_a_gate_that_is_not_passed_is_shown_where_people_look(trained: Any) -> None:
    workspace, summaries = trained
    told = summaries[2]["registration"]
    lines = list(registration_lines(told))
    assert lines[0] == "Registry: 1 of 3 gates of m are not passed: held_out bits_per_byte <= 0.1."
    assert lines[1].startswith("  not passed: held_out bits_per_byte <= 0.1, got ")
    client = client_of(workspace)
    (run,) = client.search_runs(["1"], "tags.`corpusmill.gates` = 'failed'")
    assert run.data.tags["mlflow.note.content"].startswith("1 of 3 gates of m are not passed")
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert (
        f"[gates](#/experiments/1/runs/{run.info.run_id}/artifacts/gates.md) failed"
        in parent.data.tags["mlflow.note.content"]
    )


def test_gates_are_kept_beside_the_evaluation(trained: Any, tmp_path: Path) -> None:
    workspace, summaries = trained
    client = client_of(workspace)
    found = client.search_runs(
        [each.experiment_id for each in client.search_experiments()], "tags.`corpusmill.gates` = 'failed'"
    )
    (run,) = found
    kept = json.loads(Path(client.download_artifacts(run.info.run_id, "gates.json", str(tmp_path))).read_text())
    assert kept == summaries[2]["registration"]["gates"]


def test_a_version_whose_recipe_got_stricter_is_not_promoted(trained: Any, tmp_path: Path) -> None:
    client = client_of(trained[0])
    judged_by = client.get_model_version("m", "2").run_id
    failed = GateResult(gate="qa f1 >= 1", is_passed=False, got="0")
    told = registry.register(client, RegistrySection(name="m"), judged_by, tmp_path, [failed])
    assert told["version"] is None
    assert client.get_model_version("m", "2").description.startswith("1 of 1 gates of m are not passed: qa f1 >= 1.")
    with pytest.raises(TerminalError, match="the gates of its recipe: failed"):
        registry.promote(trained[0], "m", "2", by="a", reason=None, force=False)
