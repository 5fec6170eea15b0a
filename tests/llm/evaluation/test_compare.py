"""Pairs are compared on shared items, what was scored otherwise is not compared, and records keep everything."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from llm.evaluation.compare import compare, from_json, to_json, verdict_lines
from llm.evaluation.statistics import Figure, mean_figure
from llm.evaluation.suite import Suite, SuiteResult

SUITE = Suite(
    name="qa",
    version=1,
    protocol="p",
    metric="acc",
    higher_is_better=True,
    dataset_digest="ab" * 32,
    noise_floor=0.0,
    language="zh",
)


def result(scores: Any, suite: Suite = SUITE, **more: Any) -> SuiteResult:
    items = [{"id": f"q{idx}", "score": float(score), **more} for idx, score in enumerate(scores)]
    return SuiteResult(suite=suite, figures={suite.metric: mean_figure(scores)}, items=items)


def test_the_better_of_two_is_named_and_noise_is_not() -> None:
    scores = np.random.default_rng(0).random(200)
    (found,) = compare([result(scores + 0.05)], [result(scores)])
    assert (found.verdict, found.reason) == ("better", "")
    assert found.difference is not None
    assert found.difference.value == pytest.approx(0.05)
    lower = replace(SUITE, higher_is_better=False)
    assert compare([result(scores + 0.05, lower)], [result(scores, lower)])[0].verdict == "worse"
    floor = replace(SUITE, noise_floor=0.1)
    assert compare([result(scores + 0.05, floor)], [result(scores, floor)])[0].verdict == "noise"
    assert list(verdict_lines([found])) == ["The first is better on qa."]
    assert list(verdict_lines(compare([result(scores)], [result(scores)]))) == [
        "No difference above noise on 1 suites."
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [(0.5, 0.8, "better"), (0.2, 0.5, "worse"), (0.2, 0.45, "worse"), (0.55, 0.9, "better"), (0.2, 0.8, "noise")],
)
def test_of_a_suite_with_a_target_the_nearer_one_is_better(ours: float, theirs: float, verdict: str) -> None:
    """Shares of pairs that stereotype: as far below one half is as bad as above."""
    suite = replace(SUITE, metric="share_stereotyping", higher_is_better=False, target=0.5)
    drawn = np.random.default_rng(1).random(1000)
    mine, other = (result((drawn < share).astype(float), suite) for share in (ours, theirs))
    (found,) = compare([mine], [other])
    assert found.verdict == verdict
    assert found.difference is not None
    assert found.difference.value == pytest.approx(abs(ours - 0.5) - abs(theirs - 0.5), abs=0.05)
    (back,) = compare([other], [mine])
    assert back.verdict == {"better": "worse", "worse": "better", "noise": "noise"}[verdict]
    assert compare([mine], [replace(other, suite=replace(suite, target=None))])[0].reason.endswith("another target")
    assert from_json(json.loads(json.dumps(to_json(mine)))).suite.target == 0.5


def test_only_shared_items_of_the_same_weight_count() -> None:
    ours, theirs = result([1.0, 1.0, 9.0]), result([0.0, 0.0])
    (found,) = compare([ours], [theirs])
    assert found.difference is not None
    assert (found.difference.value, found.difference.num_items) == (1.0, 2)
    found = compare([result([1.0], weight=2.0)], [result([1.0], weight=3.0)])
    assert found[0].reason == "items weigh otherwise in each (see the two intervals)"
    assert list(verdict_lines(found)) == [f"Not compared, since {found[0].reason}: qa."]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "another version"),
        ({"protocol": "q"}, "another protocol"),
        ({"metric": "f1"}, "another metric"),
    ],
)
def test_what_was_scored_in_another_way_is_not_compared(change: dict[str, Any], reason: str) -> None:
    (found,) = compare([result([1.0, 2.0])], [result([1.0, 2.0], replace(SUITE, **change))])
    assert found.verdict == "incomparable"
    assert reason in found.reason


def test_a_suite_of_one_model_alone_or_one_skipped_says_so() -> None:
    skipped = SuiteResult(suite=SUITE, figures={}, skipped="no file")
    assert [each.reason for each in compare([result([1.0])], [skipped])] == ["the second skipped it: no file"]
    assert [each.reason for each in compare([], [result([1.0])])] == [
        "the second was not measured on it"[:4] + "first was not measured on it"
    ]


def test_records_keep_everything() -> None:
    whole = replace(
        result([0.5, 1.0]),
        figures={"acc": mean_figure([0.5, 1.0]), "x": Figure(value=2.0, low=None, high=None, num_items=1)},
    )
    assert to_json(from_json(json.loads(json.dumps(to_json(whole))))) == to_json(whole)
    nothing = replace(whole, figures={"acc": Figure(value=math.nan, low=None, high=None, num_items=0)})
    assert math.isnan(from_json(json.loads(json.dumps(to_json(nothing), allow_nan=False))).figure.value)
