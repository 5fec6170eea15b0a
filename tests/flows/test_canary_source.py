"""Canaries as a source of a recipe: planted, trained on, measured; a changed plan is a changed source."""

from pathlib import Path
from typing import Any

import pytest
from flow_inputs import SMALL, article_records, write_recipe, write_warc

from flows.evaluation.canaries import CanaryPlan, canary_pages, num_held_out
from flows.recipe import load_recipe
from pipelines.errors import ConfigError

PLAN = {"kind": "canaries", "name": "planted", "counts": [1, 6], "seed": 3}


def recipe_with(folder: Path, *plans: dict[str, Any]) -> Path:
    return write_recipe(folder / "r.yaml", {"kind": "warc", "paths": ["a.warc.gz"]}, *plans)


def test_a_plan_is_planted_and_measured(tmp_path: Path, pipeline: Any) -> None:
    write_warc(tmp_path / "a.warc.gz", article_records()[:12])
    found = pipeline(recipe_with(tmp_path, PLAN), tmp_path / "w")
    (suite,) = [each for each in found["evaluation"]["suites"] if each["suite"]["name"] == "canaries"]
    assert suite["items"] == 4
    assert {"share_found", "baseline/unseen_exposure"} <= suite["figures"].keys()
    card = (tmp_path / "w" / "reports" / "small" / "data_card.md").read_text(encoding="utf-8")
    assert "planted (canaries)" in card
    again = pipeline(recipe_with(tmp_path, PLAN), tmp_path / "w")
    assert not any(stage["computed"] for stage in again["stages"])
    changed = pipeline(recipe_with(tmp_path, PLAN | {"seed": 4}), tmp_path / "w", until="build")
    stages = {stage["name"]: stage for stage in changed["stages"]}
    assert (stages["extract"]["computed"], stages["extract"]["reused"]) == (1, 1)
    assert changed["dataset_digest"] != found["dataset_digest"]
    without = pipeline(recipe_with(tmp_path), tmp_path / "w")
    assert not any(each["suite"]["name"] == "canaries" for each in without["evaluation"]["suites"])


def test_the_plan_enters_the_evaluation_and_its_pages_hang_on_it_alone(tmp_path: Path) -> None:
    plan = load_recipe(recipe_with(tmp_path, PLAN)).evaluation_plan().canaries
    assert plan == CanaryPlan(counts=(1, 6), seed=3)
    assert list(canary_pages(plan)) == list(canary_pages(CanaryPlan(counts=(1, 6), seed=3)))
    assert SMALL["evaluation"]["safety"] is False  # canaries are measured all the same: the recipe planted them


def test_as_many_are_held_out_as_finding_one_needs() -> None:
    assert num_held_out(CanaryPlan()) == 299
    assert num_held_out(CanaryPlan(num_each=4)) == 20 * 56 - 1


@pytest.mark.parametrize(
    ("plans", "said"),
    [
        ([PLAN | {"count": 3}], r"sources\.1\.count: got an unknown key, wanted a known one: did you mean 'counts'"),
        ([PLAN | {"languages": ["fr"]}], "got canaries in 'fr', wanted en or zh"),
        ([PLAN | {"counts": [2, 2]}], r"sources\.1: got canary counts"),
        ([PLAN, {"kind": "canaries"}], "two sources of kind canaries, wanted one"),
    ],
)
def test_a_wrong_plan_is_said_with_its_field(tmp_path: Path, plans: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_recipe(recipe_with(tmp_path, *plans))
