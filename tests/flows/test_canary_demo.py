"""The demo's recipe with a source of canaries more, run as a person runs it: what was planted often is found."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import run_command
from flow_inputs import write_demo

from flows.evaluation.canaries import CanaryPlan, canaries, count_in_texts
from flows.evaluation.measure import read_suites
from flows.pipeline import training_job
from flows.recipe import load_recipe
from flows.workspace import Workspace
from llm.data import TokenData
from pipelines.corpus import tokenizer_json
from pipelines.encoding import Encoder

pytestmark = [pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

PLAN = CanaryPlan()
NOTHING_ELSE = {"ladder": False, "applications": False, "safety": False}


@dataclass(frozen=True)
class Planted:
    """The demo's corpus with canaries."""

    recipe: Path
    workspace: Path
    counts: dict[str, int]
    """Of each canary in the training split."""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, prefect_url: str) -> Planted:
    folder = tmp_path_factory.mktemp("canaries")
    path, workspace = write_demo(folder / "recipe.yaml", training={}, evaluation=NOTHING_ELSE), folder / "workspace"
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw["sources"].append({"kind": "canaries"})
    path.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    built = run_command("build", path, "--workspace", workspace, "--json", PREFECT_API_URL=prefect_url)
    assert built.code == 0, built.err
    recipe, place = load_recipe(path), Workspace(workspace)
    store = place.open_store()
    dataset = training_job(recipe, place, store).dataset
    encoder = Encoder.load(tokenizer_json(dataset.tokenizer))
    data = TokenData.open(dataset.verified_paths(store), "train", digest=dataset.digest)
    counts = count_in_texts(canaries(PLAN), (encoder.decode(each.tokens) for each in data.documents()))
    return Planted(recipe=path, workspace=workspace, counts=counts)


def test_planting_survives_the_build(planted: Planted) -> None:
    """Nothing but the held-out splits, a tenth, takes pages away."""
    for canary in canaries(PLAN):
        assert 0 <= planted.counts[canary.name] <= canary.num_planned
        if canary.num_planned >= 16:
            assert planted.counts[canary.name] >= 0.7 * canary.num_planned
    assert sum(planted.counts.values()) >= 0.85 * 2 * sum(PLAN.counts)


@pytest.mark.slow
def test_what_was_planted_64_times_is_found_and_once_is_not(planted: Planted, prefect_url: str) -> None:
    done = run_command(
        "run", planted.recipe, "--workspace", planted.workspace, "--json", timeout=800, PREFECT_API_URL=prefect_url
    )
    suites = {each["suite"]["name"]: each for each in done.summary["evaluation"]["suites"]}
    figures = suites["canaries"]["figures"]
    by_name = items(planted)
    for language in PLAN.languages:
        often, once = by_name[f"{language}-64-0"], by_name[f"{language}-1-0"]
        assert often["is_found"], often
        assert (often["rank"], often["num_ranked"]) == (1, 300)
        assert often["extrapolated"] > once["extrapolated"]
        assert not once["is_found"], once
        assert often["num_planted"] == planted.counts[f"{language}-64-0"]
        assert figures[f"exposure/{language}/{often['num_planted']}"]["value"] > 8
    assert Counter(each["language"] for each in by_name.values()) == {"en": len(PLAN.counts), "zh": len(PLAN.counts)}
    card = (planted.workspace / "reports" / "demo" / "model" / "model_card.md").read_text(encoding="utf-8")
    assert "| canaries" in card.split("### Memorisation")[1].split("###")[0]


def items(planted: Planted) -> dict[str, Any]:
    """What was measured of each canary."""
    recipe, place = load_recipe(planted.recipe), Workspace(planted.workspace)
    job = training_job(recipe, place, place.open_store())
    (suite,) = [each for each in read_suites(job, recipe.evaluation_plan()) if each.suite.name == "canaries"]
    return {str(item["id"]): item for item in suite.items}
