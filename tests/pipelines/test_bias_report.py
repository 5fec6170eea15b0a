"""The bias section of a built corpus: what the card states, and what breaks the recipe's bound."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from corpora import config, run, source, text_of

from pipelines.bias.disparity import AuditConfig
from pipelines.bias.report import bias_facts, bias_section, bias_summary, broken_bounds
from pipelines.bias.toxicity import ToxicityTraining
from pipelines.bias.toxicity_stage import ToxicityModelConfig
from pipelines.digest import digest_file
from pipelines.policy import ComplianceRules, PolicyConfig, QualityRules, rules_for
from pipelines.signals.measure import SignalsConfig
from pipelines.stage import Resource
from pipelines.store import Manifest, Store

NUM = 240
BOUNDS = AuditConfig(min_group_documents=20)
NAMED = ("\nThe women of the village met a nurse.", "\n村里的女人见到了一位护士。")
BRACKETS = ("\nShe wrote { in the margin.", "\n她在页边写了一个{。")
RULES = PolicyConfig(quality=replace(config().policy.quality or QualityRules(), drop_curly_bracket=True))


def built(folder: Path, *, marked: int, order: int = 1) -> tuple[Store, dict[str, Manifest]]:
    """Half in each language; every third names women, and the first of these, `marked` in all, hold what a rule drops."""
    rows, left = [], marked
    for idx in range(NUM):
        text = text_of(idx)
        if idx % 3 == 0:
            text += NAMED[idx % 2]
            text, left = (text + BRACKETS[idx % 2], left - 1) if left else (text, 0)
        rows.append({"text": text, "url": f"https://s{idx % 5}.example/{idx}", "fetched_at": "2024-01-03T00:00:00Z"})
    folder.mkdir(parents=True, exist_ok=True)
    paths = [_written(folder / f"{part}.jsonl", rows[part::2]) for part in range(2)][::order]
    store = Store(folder / "store")
    done = run(store, [source(path) for path in paths], config(policy=RULES))
    return store, {name: result.manifest for name, result in done.items()}


def _written(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def facts_of(corpus: tuple[Store, dict[str, Manifest]], bounds: AuditConfig = BOUNDS) -> dict[str, Any]:
    return bias_facts(*corpus, config(policy=RULES), bounds)


@pytest.fixture(scope="module")
def unequal(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return facts_of(built(tmp_path_factory.mktemp("unequal"), marked=40))


def test_a_corpus_whose_filters_treat_all_alike_breaks_nothing(tmp_path: Path) -> None:
    facts = facts_of(built(tmp_path, marked=0))
    assert broken_bounds(facts) == []
    assert facts["disparity"]["documents"] == NUM


def test_a_rule_that_drops_texts_on_a_group_shows_as_a_disparity(unequal: dict[str, Any]) -> None:
    rows = {(row["rule"], row["group"], row["language"]): row for row in unequal["disparity"]["rows"]}
    for language in ("en", "zh"):
        row = rows["c4_curly_bracket", "gender", language]
        assert (row["num_documents"], row["num_removed"], row["num_rest_removed"]) == (40, 20, 0)
        assert row["finding"] == "disparity"
    assert any("gender" in line for line in broken_bounds(unequal))


def test_the_card_names_rule_group_rates_ratio_and_interval(unequal: dict[str, Any]) -> None:
    card = "\n".join(bias_section(unequal))
    line = next(line for line in card.splitlines() if line.startswith("| c4_curly_bracket | gender | zh"))
    assert "20 of 40 (50.0 %)" in line
    assert "0 of 80 (0.0 %)" in line
    assert " to " in line
    assert line.endswith("| yes |")
    for heading in (
        "## Disparity of filters",
        "### Texts with the group's name swapped",
        "### Mentions per million words",
    ):
        assert heading in card
    assert "### Associations in kept text: zh" in card


def test_what_stands_beside_whom_is_counted_in_kept_text(unequal: dict[str, Any]) -> None:
    for each, word in zip(unequal["associations"], ("nurse", "护士"), strict=True):
        row = next(row for row in each["pmi"] if (row["people"], row["attribute"]) == ("female", word))
        assert row["together"] == 20


def test_facts_are_plain_values_and_the_same_in_any_order(tmp_path: Path, unequal: dict[str, Any]) -> None:
    text = json.dumps(unequal, allow_nan=False, sort_keys=True)
    again = facts_of(built(tmp_path, marked=40, order=-1))
    assert json.dumps(again, allow_nan=False, sort_keys=True) == text


def test_every_filter_off_removes_nobody(tmp_path: Path) -> None:
    store, done = built(tmp_path, marked=5)
    off = replace(config(), policy=PolicyConfig(compliance=None, language=None, quality=None, bias=None, pii=None))
    facts = bias_facts(store, done, off, BOUNDS)
    assert not any(row["changed"] or row["dropped"] for row in facts["counterfactual"]["rows"])


def test_every_rule_is_audited_also_one_that_removed_nothing(unequal: dict[str, Any]) -> None:
    rules = unequal["disparity"]["rules"]
    assert {rule.name for rule in rules_for("en", RULES)} <= set(rules)
    assert rules["c4_curly_bracket"] == 40
    assert rules["rights_disallow"] == 0


def test_the_card_states_how_harmless_statements_fare_and_the_summary_its_rate(unequal: dict[str, Any]) -> None:
    assert "### Harmless statements that name a group (bound 5 %)" in "\n".join(bias_section(unequal))
    found = bias_summary(unequal)
    assert found["identity_false_positive_rate"] == {"en": 0.0, "zh": 0.0}
    assert any("c4_curly_bracket" in line for line in found["breaches"])


def test_a_list_that_takes_a_name_for_an_insult_breaks_the_bound_of_a_build(tmp_path: Path) -> None:
    """And with a classifier in the graph, the card says what it was trained on."""
    listed = tmp_path / "list.txt"
    listed.write_text("# category: abuse\nlesbians\n女同志\n", encoding="utf-8")
    strict = replace(RULES, compliance=ComplianceRules(min_keyword_hits=1))
    wanted = config(
        policy=strict,
        signals=SignalsConfig(keyword_lexicons=(Resource(digest_file(listed), str(listed)),)),
        toxicity_model=ToxicityModelConfig(training=ToxicityTraining(num_updates=60)),
    )
    (tmp_path / "pages").mkdir()
    rows = [{"text": text_of(idx), "url": f"https://s.example/{idx}"} for idx in range(30)]
    store = Store(tmp_path / "store")
    results = run(store, [source(_written(tmp_path / "pages" / "a.jsonl", rows))], wanted)
    facts = bias_facts(store, {name: result.manifest for name, result in results.items()}, wanted, BOUNDS)
    broken = broken_bounds(facts)
    assert [line for line in broken if "harmless statements that name orientation (en)" in line]
    assert [line for line in broken if "harmless statements that name orientation (zh)" in line]
    card = "\n".join(bias_section(facts))
    assert "- classifier (en): trained on our own sentences and 0 of the recipe's (0 abusive)" in card
    assert sum(facts["toxicity"]["documents"]) == 30
    unbound = facts | {"bounds": facts["bounds"] | {"max_identity_false_positive_rate": None}}
    assert not [line for line in broken_bounds(unbound) if "harmless" in line]
