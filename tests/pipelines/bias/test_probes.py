"""Harmless statements on every group: what ships drops none, and a rule that does is caught."""

from collections import Counter
from pathlib import Path

import pytest

from pipelines.bias.disparity import GROUPS
from pipelines.bias.probes import _statements, beyond, identity_false_positives
from pipelines.bias.seeds import seeds
from pipelines.bias.toxicity_stage import ToxicityConfig
from pipelines.bias.trial import LANGUAGES, NEUTRAL
from pipelines.policy import ComplianceRules, PolicyConfig
from pipelines.signals.measure import SignalsConfig
from pipelines.stage import Resource

STRICT = PolicyConfig(compliance=ComplianceRules(min_keyword_hits=1))


def test_every_group_is_asked_about_in_both_languages_and_none_is_dropped() -> None:
    rows = identity_false_positives(SignalsConfig(), ToxicityConfig(), STRICT)
    assert [(row["language"], row["group"]) for row in rows] == [
        (language, group) for language in LANGUAGES for group in (NEUTRAL, *GROUPS)
    ]
    assert all(row["texts"] >= 50 for row in rows if row["group"] != NEUTRAL)
    assert [row for row in rows if row["dropped"]] == []
    assert beyond(rows, 0.0) == []


@pytest.mark.parametrize(
    ("language", "word", "group"), [("en", "lesbians", "orientation"), ("zh", "穆斯林", "religion")]
)
def test_a_list_that_takes_a_name_for_an_insult_breaks_the_bound(
    tmp_path: Path, language: str, word: str, group: str
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"# category: abuse\n{word}\n", encoding="utf-8")
    signals = SignalsConfig(keyword_lexicons=(Resource("0", str(listed)),))
    rows = identity_false_positives(signals, ToxicityConfig(keyword_lexicons=signals.keyword_lexicons), STRICT)
    (row,) = beyond(rows, 0.05)
    assert (row["language"], row["group"]) == (language, group)
    assert "abuse_density" in row["rules"]
    low, high = row["interval"]
    assert low < row["rate"] < high
    assert beyond(rows, None) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_statement_is_trained_on(language: str) -> None:
    own = {text for text, _ in seeds(language)}
    assert not [text for _, text in _statements(language) if text in own]
    assert Counter(kind for kind, _ in _statements(language)).keys() >= {
        "neutral",
        "positive",
        "self",
        "counter-speech",
    }
