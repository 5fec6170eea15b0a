"""The audit of filters: planted disparities are found, chance and other causes are not taken for them."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import schemas
from pipelines.bias.disparity import (
    ANY_GROUP,
    ANY_RULE,
    DECISION_COLUMNS,
    GROUPS,
    OUTCOME_COLUMNS,
    SIGNAL_COLUMNS,
    AuditConfig,
    Disparity,
    Tally,
    audit,
    count_removals,
    empty_tally,
    merge,
    representation,
)
from pipelines.errors import ConfigError
from pipelines.signals.keywords import identity_counter

CONFIG = AuditConfig(num_site_buckets=8)
SCHEMA = pa.schema(
    [
        *(schemas.SIGNALS.field(name) for name in SIGNAL_COLUMNS),
        *(schemas.DECISION.field(name) for name in DECISION_COLUMNS if name != "doc_id"),
        *(schemas.OUTCOME.field(name) for name in OUTCOME_COLUMNS if name != "doc_id"),
    ]
)
Row = dict[str, Any]


def document(
    *groups: str,
    failed: Sequence[str] = (),
    dedup: str | None = None,
    language: str | None = "en",
    words: int = 300,
    url: str | None = "https://a.example/",
) -> Row:
    reason = failed[0] if failed else dedup
    return {
        "doc_id": "",
        "url": url,
        "problem": None,
        "language": language,
        "num_words": words,
        "identity_counts": [{"group": group, "count": 2} for group in groups],
        "failed_rules": list(failed),
        "decision": "drop" if reason else "keep",
        "reason": reason,
    }


def batch_of(rows: Sequence[Row]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(rows), schema=SCHEMA)


def audited(rows: Sequence[Row], config: AuditConfig = CONFIG) -> dict[tuple[str, str, str], Disparity]:
    found = audit(count_removals([batch_of(rows)], config), config)
    return {(each.rule, each.group, each.language): each for each in found}


def removed(group: str, num: int, num_removed: int, rule: str = "r", **changes: Any) -> list[Row]:
    """Documents that mention a group ("": none), of which the first few fail a rule."""
    groups = (group,) if group else ()
    return [document(*groups, failed=(rule,) if idx < num_removed else (), **changes) for idx in range(num)]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("group", GROUPS)
def test_a_rule_that_removes_a_group_is_found(group: str, language: str) -> None:
    rows = removed(group, 200, 60, language=language) + removed("", 1000, 100, language=language)
    found = audited(rows)
    flagged = {key for key, each in found.items() if each.is_flagged}
    assert flagged == {
        (rule, which, where) for rule in ("r", ANY_RULE) for which in (group, ANY_GROUP) for where in (language, "all")
    }
    each = found["r", group, language]
    assert (each.num_documents, each.num_removed, each.num_rest, each.num_rest_removed) == (200, 60, 1000, 100)
    assert each.ratio is not None
    assert each.ratio.value == pytest.approx(3)
    assert each.retention_ratio == pytest.approx(0.7 / 0.9)


def test_equal_rates_are_no_finding() -> None:
    found = audited(removed("religion", 400, 40) + removed("", 4000, 400))
    assert not any(each.finding for each in found.values())


def test_few_documents_prove_nothing() -> None:
    found = audited(removed("religion", 99, 50) + removed("", 1000, 10))
    assert found["r", "religion", "en"].finding == "few"
    assert audited(removed("religion", 100, 50) + removed("", 1000, 10))["r", "religion", "en"].is_flagged


def test_chance_is_not_called_a_disparity() -> None:
    assert audited(removed("age", 100, 3) + removed("", 1000, 20))["r", "age", "en"].finding == "unproven"


@pytest.mark.parametrize("by", ["words", "url", "language"])
def test_length_site_and_language_do_not_pose_as_identity(by: str) -> None:
    """Within each stratum both are removed at one rate; the group is only more often where much is removed."""
    here, there = {
        "words": (60, 5000),
        "url": ("https://a.example/", "https://b.example/"),
        "language": ("en", "zh"),
    }[by]
    rows = removed("gender", 400, 200, **{by: here}) + removed("", 100, 50, **{by: here})
    rows += removed("gender", 100, 5, **{by: there}) + removed("", 1000, 50, **{by: there})
    each = audited(rows)["r", "gender", "all"]
    assert each.ratio is not None
    assert each.ratio.low > 1.25
    assert each.matched_ratio is not None
    assert each.matched_ratio.value == pytest.approx(1)
    assert not each.finding


def test_a_disparity_that_the_whole_hides_is_found_within_strata() -> None:
    rows = removed("disability", 100, 90, words=60) + removed("", 1000, 500, words=60)
    rows += removed("disability", 1000, 60, words=5000) + removed("", 100, 1, words=5000)
    each = audited(rows)["r", "disability", "en"]
    assert each.ratio is not None
    assert each.ratio.value < 1
    assert each.is_flagged


def test_too_little_is_left_although_most_goes_on_either_side() -> None:
    """Four fifths of what is retained: 95 and 90 % removed is a ratio of 1.06, but half as much is left."""
    each = audited(removed("orientation", 1000, 950) + removed("", 4000, 3600))["r", "orientation", "en"]
    assert each.ratio is not None
    assert each.ratio.value < 1.25
    assert each.is_flagged


def test_dedup_is_judged_on_what_the_policy_left() -> None:
    rows = [document("age", failed=("r",)) for _ in range(50)]
    rows += [document("age", dedup="near_duplicate" if idx < 30 else None) for idx in range(150)]
    rows += [document(dedup="near_duplicate" if idx < 100 else None) for idx in range(1000)]
    found = audited(rows)
    each = found["near_duplicate", "age", "en"]
    assert (each.num_documents, each.num_removed) == (150, 30)
    assert each.is_flagged
    assert found[ANY_RULE, "age", "en"].num_removed == 80


def test_a_rule_that_needs_a_mention_is_reported_and_not_bound() -> None:
    found = audited(removed("age", 200, 100, rule="identity_abuse_density") + removed("", 1000, 0))
    assert found["identity_abuse_density", "age", "en"].finding == "on_mentions"
    assert found[ANY_RULE, "age", "en"].is_flagged


def test_documents_without_text_do_not_count() -> None:
    empty = document() | {"problem": "http_404", "decision": "drop", "reason": "http_404", "failed_rules": ["http_404"]}
    total = count_removals([batch_of([empty, document("age")])], CONFIG)
    assert total.seen[:, 0].sum() == 1
    assert not total.removed.get("http_404", np.zeros(1)).any()


def test_hostile_urls_and_unknown_groups_are_taken() -> None:
    urls = ["http://[", "", None, "https://" + "a" * 70_000, "mailto:x", "http://\udc80/"]
    rows = [document("region", url=url, language=None) for url in urls if url != "http://\udc80/"]
    total = count_removals([batch_of(rows)], CONFIG)
    assert total.seen[:, 0].sum() == len(rows)
    assert not total.seen[:, 1:].any()


def test_groups_are_those_that_signals_count() -> None:
    count = identity_counter()
    texts = ("woman", "asian", "muslim", "gay", "deaf", "teenager", "mexican")
    assert [tuple(count(text)) for text in texts] == [(group,) for group in GROUPS]
    texts = ("女性", "藏族", "穆斯林", "同性恋", "残疾", "老人", "日本人")
    assert [tuple(count(text)) for text in texts] == [(group,) for group in GROUPS]


def test_memory_does_not_grow_with_sites_or_languages() -> None:
    rows = [document("age", url=f"https://s{idx}.example/", language=f"l{idx}", words=idx) for idx in range(2000)]
    total = count_removals([batch_of(rows)], CONFIG)
    assert total.seen.shape == empty_tally(CONFIG).seen.shape
    assert set(total.mentions) == {"other"}


documents = st.builds(
    document,
    *[st.sampled_from(GROUPS)] * 2,
    failed=st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True),
    dedup=st.sampled_from([None, "near_duplicate"]),
    language=st.sampled_from(["en", "zh", "fr", None]),
    words=st.integers(0, 20_000),
    url=st.sampled_from(["https://a.example/x", "https://b.example/", None]),
).map(lambda row: row | {"identity_counts": list({each["group"]: each for each in row["identity_counts"]}.values())})


@given(st.lists(documents, max_size=12), st.integers(0, 12), st.randoms(use_true_random=False))
def test_parts_in_any_order_add_up_to_the_whole(rows: list[Row], cut: int, rng: random.Random) -> None:
    whole = count_removals([batch_of(rows)], CONFIG)
    rng.shuffle(rows)
    parts = [count_removals([batch_of(part)], CONFIG) for part in (rows[:cut], rows[cut:])]
    merge(parts[0], parts[1])
    assert audit(parts[0], CONFIG) == audit(whole, CONFIG)
    assert representation(parts[0]) == representation(whole)
    _check_sums(whole, rows)


def _check_sums(total: Tally, rows: Sequence[Row]) -> None:
    assert total.seen[:, 0].sum() == len(rows)
    for counts in total.removed.values():
        assert (counts <= total.seen).all()
        assert (counts[:, 1:] <= counts[:, :1]).all()


def test_mentions_are_counted_per_million_words() -> None:
    rows = [document("age", "gender", words=1000), document("age", words=1000, failed=("r",)), document(words=2000)]
    found = {row["group"]: row for row in representation(count_removals([batch_of(rows)], CONFIG))}
    assert found["age"]["per_million_words"] == 1000
    assert found["age"]["per_million_words_kept"] == pytest.approx(666.7)
    assert found["gender"]["ratio"] == pytest.approx(4 / 3, abs=1e-3)
    assert found["religion"]["ratio"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"max_disparity_ratio": 0.9},
        {"max_disparity_ratio": float("nan")},
        {"on_disparity": "ignore"},
        {"min_group_documents": 0},
        {"num_site_buckets": 0},
        {"max_false_discovery_rate": 0.0},
        {"length_edges_words": (5, 3)},
    ],
)
def test_impossible_bounds_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        replace(CONFIG, **changes)
