"""Each rule at its threshold and one step beyond, in English and Chinese; order, reasons, missing values, batches."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.blocklists import BlockList, BlockListKind
from pipelines.digest import digest_value
from pipelines.errors import ConfigError
from pipelines.policy import (
    CHINESE_THRESHOLDS,
    POLICY_INPUT,
    BiasRules,
    Comparison,
    ComplianceRules,
    LanguageRules,
    PiiRules,
    PolicyConfig,
    QualityRules,
    decide,
    evaluate,
    rules_for,
)
from pipelines.schemas import DECISION
from pipelines.stage import Resource

DEFAULT = PolicyConfig()
OFF = PolicyConfig(compliance=None, language=None, quality=None, bias=None, pii=None)


def good(**changes: Any) -> dict[str, Any]:
    """A row of SIGNALS like those of ordinary English documentation prose: nothing wrong with it."""
    row: dict[str, Any] = {field.name: 0 for field in POLICY_INPUT}
    row |= {
        "doc_id": "d",
        "url": "https://docs.example/page",
        "problem": None,
        "language": "en",
        "language_score": 0.97,
        "num_words": 400,
        "mean_word_length": 4.8,
        "alpha_word_ratio": 0.95,
        "num_stop_words": 7,
        "num_sentences": 25,
        "line_punctuation_ratio": 0.7,
        "short_line_ratio": 0.3,
        "newline_to_word_ratio": 0.05,
        "top_2_gram_char_ratio": 0.02,
        "dup_5_gram_char_ratio": 0.05,
        "has_lorem_ipsum": False,
        "has_curly_bracket": True,
        "rights": "unknown",
        "license": None,
        "license_class": "unknown",
        "keyword_counts": [],
        "identity_counts": [],
        "pii_counts": [],
        "abuse_in_context": [],
        "toxicity": None,
        "classifier_scores": [],
    }
    return row | changes


def chinese(**changes: Any) -> dict[str, Any]:
    """A row like those of a Chinese article: a word is a character, phrases repeat, some lines are long."""
    usual = {
        "language": "zh",
        "num_words": 600,
        "mean_word_length": 1.2,
        "alpha_word_ratio": 0.85,
        "short_line_ratio": 0.75,
        "dup_5_gram_char_ratio": 0.25,
        "dup_char_ratio": 0.03,
        "num_sentences": 12,
    }
    return good(**usual | changes)


def counts(label: str, **numbers: int) -> list[dict[str, Any]]:
    return [{label: name, "count": count} for name, count in numbers.items()]


def check(rows: list[dict[str, Any]], config: PolicyConfig = DEFAULT) -> list[dict[str, Any]]:
    batch = pa.RecordBatch.from_pylist(rows, schema=POLICY_INPUT)
    decided = list(decide([batch], config))
    assert all(out.schema == DECISION for out in decided)
    result = [row for out in decided for row in out.to_pylist()]
    assert [row["doc_id"] for row in result] == [row["doc_id"] for row in rows]
    return result


def reasons(row: dict[str, Any], config: PolicyConfig = DEFAULT) -> list[str]:
    return check([row], config)[0]["failed_rules"]


def test_ordinary_documents_are_kept() -> None:
    assert (
        check([good(), chinese()])
        == [
            {
                "doc_id": "d",
                "decision": "keep",
                "reason": None,
                "value": None,
                "threshold": None,
                "failed_rules": [],
                "blocked_by": None,
            }
        ]
        * 2
    )


NUMERIC = [
    (language, rule)
    for language in ("en", "zh")
    for rule in rules_for(language, DEFAULT)
    if rule.group in ("quality", "language") and not isinstance(rule.threshold, tuple)
]


@pytest.mark.parametrize(("language", "rule"), NUMERIC, ids=lambda value: getattr(value, "name", value))
def test_each_numeric_rule_at_and_beyond_its_threshold(language: str, rule: Any) -> None:
    column = POLICY_INPUT.field(rule.signal).type
    step = math.inf if rule.comparison is Comparison.AT_MOST else -math.inf
    at = rule.threshold
    if pa.types.is_boolean(column):
        at, beyond = False, True
    elif pa.types.is_integer(column):
        at, beyond = int(at), int(at) + (1 if step > 0 else -1)
    else:
        beyond = float(np.nextafter(np.float32(at), np.float32(step)))
    make = chinese if language == "zh" else good
    assert reasons(make(**{rule.signal: at})) == []
    failed = check([make(**{rule.signal: beyond})])[0]
    assert (failed["decision"], failed["reason"], failed["failed_rules"]) == ("drop", rule.name, [rule.name])
    assert failed["value"] == pytest.approx(float(beyond))
    assert failed["threshold"] == pytest.approx(rule.threshold)


def test_published_english_values() -> None:
    thresholds = {rule.name: rule.threshold for rule in rules_for("en", DEFAULT)}
    published = {
        "language_score": 0.65,
        "gopher_short_doc": 50,
        "gopher_long_doc": 100_000,
        "gopher_below_avg_threshold": 3,
        "gopher_above_avg_threshold": 10,
        "gopher_too_many_bullets": 0.9,
        "gopher_below_alpha_threshold": 0.8,
        "gopher_enough_stop_words": 2,
        "gopher_dup_line_frac": 0.3,
        "gopher_top_2_gram": 0.2,
        "gopher_duplicated_10_n_grams": 0.1,
        "c4_too_few_sentences": 5,
        "fineweb_line_punctuation": 0.12,
        "fineweb_short_line": 0.67,
        "fineweb_char_dup": 0.01,
        "fineweb_list": 0.3,
    }
    assert {name: thresholds[name] for name in published} == published
    assert "c4_curly_bracket" not in thresholds
    assert "gopher_below_avg_threshold" not in {rule.name for rule in rules_for("zh", DEFAULT)}


@pytest.mark.parametrize(
    ("changes", "config", "expected"),
    [
        ({"rights": "disallow"}, ComplianceRules(), ["rights_disallow"]),
        ({"rights": None}, ComplianceRules(), ["rights_disallow"]),
        ({"rights": "mystery"}, ComplianceRules(), ["rights_disallow"]),
        ({"rights": "unknown"}, ComplianceRules(unknown_rights="drop"), ["rights_unknown"]),
        ({"rights": "disallow"}, ComplianceRules(unknown_rights="drop"), ["rights_disallow"]),
        ({"rights": "allow"}, ComplianceRules(unknown_rights="drop"), []),
        ({"num_blocked_ai_agents": 1}, ComplianceRules(), ["rights_ai_agents"]),
        ({"num_blocked_ai_agents": None}, ComplianceRules(), ["rights_ai_agents"]),
        ({"num_blocked_ai_agents": 1, "rights": "allow"}, ComplianceRules(), ["rights_ai_agents"]),
        (
            {"num_blocked_ai_agents": 3, "rights": "disallow"},
            ComplianceRules(),
            ["rights_disallow", "rights_ai_agents"],
        ),
        ({"num_blocked_ai_agents": 3}, ComplianceRules(max_blocked_ai_agents=3), []),
        ({"num_blocked_ai_agents": 4}, ComplianceRules(max_blocked_ai_agents=3), ["rights_ai_agents"]),
        ({"num_blocked_ai_agents": 9}, ComplianceRules(max_blocked_ai_agents=None), []),
        ({"license": "CC-BY-4.0"}, ComplianceRules(allowed_licenses=("CC-BY-4.0",)), []),
        ({"license": "CC-BY-NC-4.0"}, ComplianceRules(allowed_licenses=("CC-BY-4.0",)), ["license_not_allowed"]),
        ({"license": None}, ComplianceRules(allowed_licenses=("CC-BY-4.0",)), ["license_not_allowed"]),
        ({"keyword_counts": counts("category", adult=4)}, ComplianceRules(), []),  # 10 per 1,000 words
        ({"keyword_counts": counts("category", adult=5)}, ComplianceRules(), ["adult_density"]),
        ({"keyword_counts": counts("category", abuse=5, spam=9)}, ComplianceRules(), ["abuse_density", "spam_density"]),
        ({"keyword_counts": counts("category", politics=99)}, ComplianceRules(), []),
        ({"keyword_counts": counts("category", abuse=2), "num_words": 100}, ComplianceRules(), []),  # too few hits
        (
            {"keyword_counts": None},
            ComplianceRules(),
            ["adult_density", "abuse_density", "spam_density"],
        ),
        ({"keyword_counts": counts("category", abuse=50)}, ComplianceRules(max_abuse_per_1000_words=None), []),
    ],
)
def test_compliance(changes: dict[str, Any], config: ComplianceRules, expected: list[str]) -> None:
    policy = PolicyConfig(compliance=config, bias=None)
    assert reasons(good(**changes), policy) == expected
    assert reasons(chinese(**{"num_words": 400} | changes), policy) == expected


@pytest.mark.parametrize(
    ("abuse", "identity", "expected"),
    [(0, 90, []), (3, 0, []), (2, 90, []), (3, 2, []), (3, 3, ["identity_abuse_density"]), (1, 1, [])],
)
def test_bias_is_about_abuse_beside_identity(abuse: int, identity: int, expected: list[str]) -> None:
    groups = counts("group", gender=identity // 2, religion=identity - identity // 2)
    row = good(keyword_counts=counts("category", abuse=abuse), identity_counts=groups)
    assert reasons(row, PolicyConfig(compliance=None)) == expected
    assert reasons(row, PolicyConfig(compliance=None, bias=None)) == []


def test_language_and_pii() -> None:
    assert reasons(good(language="fr")) == ["language_not_allowed"]
    assert reasons(good(language=None, language_score=None)) == ["language_not_allowed", "missing_signal"]
    assert reasons(good(language="fr"), PolicyConfig(language=LanguageRules(allowed=("fr",)))) == []
    assert reasons(good(pii_counts=counts("kind", email=12, ip=8))) == []
    assert reasons(good(pii_counts=counts("kind", email=12, ip=9))) == ["pii_findings"]
    assert reasons(good(pii_counts=counts("kind", email=99)), PolicyConfig(pii=PiiRules(max_findings=None))) == []


def test_a_problem_is_the_only_reason_even_with_everything_off() -> None:
    row = good(problem="not_text", num_words=0, mean_word_length=None)
    for config in (DEFAULT, OFF):
        decision = check([row], config)[0]
        assert (decision["decision"], decision["reason"], decision["failed_rules"]) == (
            "drop",
            "not_text",
            ["not_text"],
        )
        assert [(r.name, r.passed) for r in evaluate(row, config)] == [("not_text", False)]
    assert check([good(language="fr", num_words=1, rights="disallow")], OFF)[0]["decision"] == "keep"


@pytest.mark.parametrize("problem", ["robots_disallowed", "reserved"])
def test_a_page_that_was_withdrawn_is_dropped_with_its_own_reason(problem: str) -> None:
    for config in (DEFAULT, OFF):
        decision = check([good(problem=problem, rights="disallow", num_blocked_ai_agents=2)], config)[0]
        assert (decision["decision"], decision["reason"], decision["failed_rules"]) == ("drop", problem, [problem])


def test_missing_ratio_is_named_once_after_what_explains_it() -> None:
    row = good(num_words=0, mean_word_length=None, alpha_word_ratio=None, num_sentences=0)
    assert reasons(row) == ["gopher_short_doc", "missing_signal", "c4_too_few_sentences"]
    only = check([good(mean_word_length=None)])[0]
    assert (only["reason"], only["value"], only["threshold"]) == ("missing_signal", None, 3)


def test_reason_is_the_first_rule_and_order_is_by_group() -> None:
    row = good(
        rights="disallow",
        language="fr",
        num_words=1,
        dup_line_ratio=0.9,
        has_lorem_ipsum=True,
        short_line_ratio=1.0,
        pii_counts=counts("kind", email=99),
    )
    assert reasons(row) == [
        "rights_disallow",
        "language_not_allowed",
        "gopher_short_doc",
        "gopher_dup_line_frac",
        "c4_lorem_ipsum",
        "fineweb_short_line",
        "pii_findings",
    ]


def test_overrides_by_language() -> None:
    quality = QualityRules(
        min_words=60, max_dup_line_ratio=None, drop_curly_bracket=True, per_language={"zh": {"min_words": 200}}
    )
    config = PolicyConfig(quality=quality)

    def threshold(language: str, name: str) -> Any:
        return next((rule.threshold for rule in rules_for(language, config) if rule.name == name), None)

    assert [threshold(language, "gopher_short_doc") for language in ("en", "zh", "yue", "fr")] == [60, 200, 80, 60]
    assert [threshold(language, "gopher_dup_line_frac") for language in ("en", "zh")] == [None, None]
    assert threshold("zh", "fineweb_char_dup") == CHINESE_THRESHOLDS["max_dup_char_ratio"]
    assert reasons(good(has_curly_bracket=True), config) == ["c4_curly_bracket"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: QualityRules(min_words=-1),
        lambda: QualityRules(max_dup_line_ratio=math.nan),
        lambda: QualityRules(per_language={"zh": {"min_wrods": 3}}),
        lambda: QualityRules(per_language={"zh": {"min_words": -3}}),
        lambda: LanguageRules(allowed=()),
        lambda: LanguageRules(min_score=1.5),
        lambda: ComplianceRules(unknown_rights="maybe"),
        lambda: ComplianceRules(min_keyword_hits=-1),
        lambda: ComplianceRules(allowed_license_classes=("free",)),
        lambda: ComplianceRules(allowed_license_classes=()),
        lambda: ComplianceRules(max_keywords_per_1000_words={"A.1": 0}),
        lambda: ComplianceRules(max_keywords_per_1000_words={"A.1": math.nan}),
        lambda: ComplianceRules(max_blocked_ai_agents=-1),
        lambda: BiasRules(max_identity_abuse_per_1000_words=-0.1),
        lambda: PiiRules(max_findings=-1),
    ],
)
def test_impossible_configs_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"^got "):
        make()


ROWS = st.builds(
    lambda base, changes: base(**changes),
    st.sampled_from([good, chinese]),
    st.fixed_dictionaries(
        {},
        optional={
            "problem": st.sampled_from([None, "no_text"]),
            "language": st.sampled_from(["en", "zh", "fr", None]),
            "num_words": st.integers(0, 200),
            "mean_word_length": st.none() | st.floats(0, 20, width=32),
            "dup_line_ratio": st.none() | st.floats(0, 1, width=32),
            "rights": st.sampled_from(["allow", "disallow", "unknown"]),
            "keyword_counts": st.integers(0, 9).map(lambda count: counts("category", abuse=count)),
        },
    ),
)


@given(st.lists(ROWS, max_size=12), st.integers(1, 5))
def test_decide_agrees_with_evaluate_and_ignores_batching(rows: list[dict[str, Any]], size: int) -> None:
    rows = [row | {"doc_id": str(idx)} for idx, row in enumerate(rows)]
    whole = check(rows)
    parts = [decision for start in range(0, len(rows), size) for decision in check(rows[start : start + size])]
    assert parts == whole
    for row, decision in zip(rows, whole, strict=True):
        results = evaluate(row, DEFAULT)
        failed = [result for result in results if not result.passed]
        assert (decision["decision"] == "keep") == (not failed)
        assert (decision["reason"] is None) == (not failed)
        if failed and decision["reason"] != "missing_signal":
            assert decision["reason"] == failed[0].name


def test_config_has_an_identity() -> None:
    assert digest_value(DEFAULT) == digest_value(PolicyConfig())
    assert digest_value(DEFAULT) != digest_value(PolicyConfig(quality=QualityRules(min_words=51)))
    assert hash(rules_for("zh", DEFAULT)) == hash(rules_for("yue", DEFAULT))


@pytest.mark.parametrize(
    ("changes", "config", "expected"),
    [
        ({"license_class": "open"}, ComplianceRules(allowed_license_classes=("open",)), []),
        ({"license_class": "nc"}, ComplianceRules(allowed_license_classes=("open",)), ["license_class_not_allowed"]),
        ({"license_class": None}, ComplianceRules(allowed_license_classes=("open",)), ["license_class_not_allowed"]),
        ({"license_class": "nc-nd"}, ComplianceRules(allowed_license_classes=("nc",)), ["license_class_not_allowed"]),
        ({"license_class": "nc-nd"}, ComplianceRules(allowed_license_classes=("nc", "nd")), []),
        ({"license_class": "all-rights-reserved"}, ComplianceRules(), []),
        ({"keyword_counts": counts("category", politics=4)}, {"politics": 10}, []),  # 10 per 1,000 words
        ({"keyword_counts": counts("category", politics=5)}, {"politics": 10}, ["keyword_density"]),
        ({"keyword_counts": counts("category", politics=2)}, {"politics": 0.1}, []),  # too few hits
        ({"keyword_counts": counts("category", **{"A.1.2": 3, "A.1.3": 3})}, {"A.1": 10}, ["keyword_density"]),
        ({"keyword_counts": counts("category", **{"A.1.2": 3, "A.1.3": 3})}, {"A.1.2": 10, "A.10": 1}, []),
        ({"keyword_counts": counts("category", **{"A.11": 9})}, {"A.1": 1}, []),
        ({"keyword_counts": None}, {"politics": 10}, ["keyword_density"]),
    ],
)
def test_licence_classes_and_own_categories(changes, config, expected):
    own = {"max_adult_per_1000_words": None, "max_abuse_per_1000_words": None, "max_spam_per_1000_words": None}
    rules = (
        config if isinstance(config, ComplianceRules) else ComplianceRules(max_keywords_per_1000_words=config, **own)
    )
    policy = PolicyConfig(compliance=rules, bias=None)
    assert reasons(good(**changes), policy) == expected
    assert reasons(chinese(**{"num_words": 400} | changes), policy) == expected


@pytest.fixture
def block_lists(tmp_path):
    (tmp_path / "domains").write_text("bad.example\n", encoding="utf-8")
    (tmp_path / "urls").write_text("a.example/x\n", encoding="utf-8")
    return tuple(
        BlockList(name=f"our/{kind}", kind=kind, file=Resource(kind, str(tmp_path / kind))) for kind in BlockListKind
    )


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://www.bad.example/p", "our/domains: bad.example"),
        ("http://a.example/x/y", "our/urls: a.example/x"),
        ("https://fine.example/", None),
        (None, None),
    ],
)
def test_block_lists_drop_what_lies_under_an_entry(block_lists, url, found):
    config = PolicyConfig(block_lists=block_lists)
    for make in (good, chinese):
        (decision,) = check([make(url=url)], config)
        assert decision["blocked_by"] == found
        assert decision["failed_rules"] == (["block_listed"] if found else [])
        rule = next(result for result in evaluate(make(url=url), config) if result.name == "block_listed")
        assert (rule.value, rule.passed) == ((found, False) if found else (None, True))
    assert reasons(good(url=url), PolicyConfig(block_lists=block_lists, compliance=None)) == []
    (dropped,) = check([good(url=url, problem="no_text")], config)
    assert (dropped["reason"], dropped["blocked_by"]) == ("no_text", found)


def test_lists_are_read_once_and_asked_whatever_the_batches(block_lists):
    rows = [good(doc_id=str(n), url=f"https://{'bad' if n % 3 else 'fine'}.example/{n}") for n in range(20)]
    config = PolicyConfig(block_lists=block_lists)
    parts = [decision for start in range(0, 20, 7) for decision in check(rows[start : start + 7], config)]
    assert parts == check(rows, config)
