"""Canaries as they are planted, and whether their pages survive what drops copies."""

import json
import math
from itertools import combinations
from pathlib import Path

import pytest

from flows.evaluation.canaries import CanaryPlan, canaries, canary_pages, count_in_texts, probes, write_canary_pages
from pipelines.errors import ConfigError

PLAN = CanaryPlan(counts=(1, 4, 16), num_each=2)


def test_each_page_holds_its_canary_once_and_no_other() -> None:
    planted = {canary.name: canary for canary in canaries(PLAN)}
    pages = list(canary_pages(PLAN))
    assert len(pages) == 2 * 2 * (1 + 4 + 16)
    for page in pages:
        held = [canary.name for canary in planted.values() if canary.sentence in page["text"]]
        assert page["text"].count(planted[held[0]].sentence) == 1
        assert len(held) == 1
        assert page["url"].startswith(f"https://{held[0]}-")
    assert count_in_texts(list(planted.values()), (page["text"] for page in pages)) == {
        canary.name: canary.num_planned for canary in planted.values()
    }


@pytest.mark.parametrize("language", ["en", "zh"])
def test_pages_of_one_canary_are_not_alike(language: str) -> None:
    """Far from the 0.8 from which the build drops one, by shingles of five words or characters; hosts differ."""
    plan = CanaryPlan(counts=(64,), languages=(language,))
    pages = list(canary_pages(plan))
    assert len({page["url"].split("/")[2] for page in pages}) == 64

    def shingles(text: str) -> set[tuple[str, ...]]:
        units = text.split() if language == "en" else list(text)
        return {tuple(units[at : at + 5]) for at in range(len(units) - 4)}

    every = [shingles(page["text"]) for page in pages]
    assert max(len(one & other) / len(one | other) for one, other in combinations(every, 2)) < 0.65


def test_a_plan_gives_its_bytes_whatever_else_is_planned(tmp_path: Path) -> None:
    num_pages = write_canary_pages(tmp_path / "a" / "one.jsonl", PLAN)
    write_canary_pages(tmp_path / "two.jsonl", PLAN)
    one = (tmp_path / "a" / "one.jsonl").read_bytes()
    assert one == (tmp_path / "two.jsonl").read_bytes()
    assert [set(json.loads(line)) for line in one.splitlines()] == [{"url", "text"}] * num_pages
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["one.jsonl"]
    words = {canary.name: canary.words for canary in canaries(PLAN)}
    more = {canary.name: canary.words for canary in canaries(CanaryPlan(counts=(1, 2, 4, 16), num_each=3))}
    assert all(more[name] == each for name, each in words.items())
    other = {canary.name: canary.words for canary in canaries(CanaryPlan(seed=1, counts=(1, 4, 16), num_each=2))}
    assert all(other[name] != each for name, each in words.items())


def test_keys_are_apart_and_held_out_secrets_are_of_the_same_format() -> None:
    planted = canaries(PLAN)
    assert len({(each.language, each.key) for each in planted}) == len(planted)
    asked = probes(PLAN, dict.fromkeys((each.name for each in planted), 3), num_held_out=50)
    for canary, probe in zip(planted, asked, strict=True):
        assert probe.context + probe.secret in " " + canary.sentence
        assert len(set(probe.held_out) - {probe.secret}) == 50
        assert {len(each.replace("、", " ").split()) for each in probe.held_out} == {5}
        assert probe.num_planted == 3
        assert probe.log2_space == pytest.approx(5 * math.log2(80))


@pytest.mark.parametrize(
    "options", [{"languages": ("en", "fr")}, {"counts": ()}, {"counts": (0, 1)}, {"counts": (2, 2)}, {"num_each": 100}]
)
def test_plans_that_cannot_be_are_refused(options) -> None:
    with pytest.raises(ConfigError, match="got"):
        CanaryPlan(**options)
