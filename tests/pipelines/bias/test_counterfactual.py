"""Texts with a group's name swapped: unequal rules are caught, and the shipped ones are looked at."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.bias import counterfactual
from pipelines.bias.counterfactual import by_group, counterfactuals
from pipelines.bias.disparity import GROUPS
from pipelines.bias.trial import LANGUAGES, NEUTRAL, filled, names
from pipelines.policy import ComplianceRules, PolicyConfig
from pipelines.signals.keywords import identity_counter
from pipelines.signals.measure import SignalsConfig
from pipelines.stage import Resource

KINDS = ("work", "health", "counter-speech", "news", "support", "history")


@pytest.fixture(scope="module")
def shipped() -> list[counterfactual.Swap]:
    return counterfactuals(SignalsConfig(), PolicyConfig())


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_group_and_every_kind_of_text_is_there(language: str, shipped: list[counterfactual.Swap]) -> None:
    own = [swap for swap in shipped if swap.language == language]
    assert {swap.group for swap in own} == {NEUTRAL, *GROUPS}
    assert tuple(dict.fromkeys(swap.template for swap in own)) == KINDS
    assert min(Counter(swap.group for swap in own if swap.group != NEUTRAL).values()) >= 5 * len(KINDS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_lists_of_signals_know_most_of_the_names(language: str) -> None:
    """A group that is swapped in but not counted would be audited in one half and not in the other."""
    count = identity_counter()
    swapped = [(name.group, name.several) for name in names(language) if name.group != NEUTRAL]
    unknown = [several for group, several in swapped if group not in count(several)]
    assert len(unknown) <= len(swapped) // 10, unknown


def test_no_group_is_dropped_for_its_name(shipped: list[counterfactual.Swap]) -> None:
    """Whatever a rule thinks of a text, it is kept with the name of one group where it is kept with none."""
    assert [swap for swap in shipped if swap.decision_changed] == []


def test_texts_of_daily_life_are_kept(shipped: list[counterfactual.Swap]) -> None:
    """Work, illness, protest, support and history: none of it is abuse, quality or language trouble."""
    assert [swap for swap in shipped if swap.failed_rules and swap.template != "news"] == []


@pytest.mark.parametrize(
    ("language", "word", "group"), [("en", "lesbians", "orientation"), ("zh", "穆斯林", "religion")]
)
def test_a_word_list_that_takes_a_name_for_an_insult_is_caught(
    tmp_path: Path, language: str, word: str, group: str
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"# category: abuse\n{word}\n", encoding="utf-8")
    signals = SignalsConfig(keyword_lexicons=(Resource("0", str(listed)),))
    policy = replace(PolicyConfig(), compliance=ComplianceRules(min_keyword_hits=2, max_abuse_per_1000_words=5.0))
    found = counterfactuals(signals, policy)
    caught = [row for row in by_group(found) if row["decisions_changed"]]
    assert [(row["language"], row["group"]) for row in caught] == [(language, group)]
    assert "abuse_density" in caught[0]["rules"]
    assert caught[0]["max_abuse_gap"] > 5


def test_names_are_put_in_as_they_are() -> None:
    assert filled("{One} and {ones}; {Ones}, {one}.", "a {ones}", "ünder") == "A {ones} and ünder; Ünder, a {ones}."
