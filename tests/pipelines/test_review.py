"""The facts of the review page: counts that are exact, samples that depend on nothing but the build, no personal data."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import Page, config, run, source, write_file
from hypothesis import given
from hypothesis import strategies as st

from pipelines.corpus import CorpusConfig, read_aligned
from pipelines.evidence import MAX_NUM_SPANS, Span, apart, locate
from pipelines.policy import Comparison, Rule, evaluate
from pipelines.review import EXCERPT_NUM_CHARS, MAX_NUM_EXCERPTS, _windows, review_facts, threshold_grid
from pipelines.schemas import SIGNALS, TOXICITY
from pipelines.signals.keywords import keyword_finder
from pipelines.store import Manifest, Store

Built = tuple[Store, dict[str, Manifest], CorpusConfig]


def built(folder: Path, parts: Sequence[Sequence[Page]]) -> Built:
    sources = [source(write_file(folder / f"{idx}.warc.gz", pages)) for idx, pages in enumerate(parts)]
    store, wanted = Store(folder / "store"), config(min_words=120)
    return store, {name: result.manifest for name, result in run(store, sources, wanted).items()}, wanted


PAGES = [
    *(Page(text=number, url=number) for number in range(40)),
    Page(text=3, url=90, day=1),
    Page(text=50, url=50, fate="opt_out"),
    Page(text=51, url=51, fate="gone"),
]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return built(tmp_path_factory.mktemp("review"), [PAGES[:20], PAGES[20:]])


@pytest.fixture(scope="module")
def facts(build: Built) -> dict[str, Any]:
    return review_facts(*build, num_per_rule=4, seed=1)


def rule_of(facts: dict[str, Any], name: str) -> dict[str, Any]:
    (rule,) = (rule for rule in facts["rules"] if rule["name"] == name)
    return rule


def judged(build: Built) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each document without a problem, and what each rule found in it, by the policy itself."""
    store, done, wanted = build
    names = tuple(name for name in SIGNALS.names if name not in ("text_digest", "exact_digest", "minhash"))
    parts = (
        (done["signals"], names),
        (done["toxicity"], TOXICITY.names),
        (done["dedup"], ("doc_id", "decision", "reason")),
    )
    rows = [row for _, batch in read_aligned(store, *parts) for row in batch.to_pylist() if row["problem"] is None]
    return [(row, {each.name: each for each in evaluate(row, wanted.policy)}) for row in rows]


def test_every_count_is_the_policys(build: Built, facts: dict[str, Any]) -> None:
    documents = judged(build)
    assert facts["documents"] == {"in": 43, "kept": sum(row["decision"] == "keep" for row, _ in documents), "dropped": 43 - sum(row["decision"] == "keep" for row, _ in documents)}  # fmt: skip
    seen = 0
    for rule in facts["rules"]:
        if rule["signal"] is None:
            continue
        failed = [found for _, found in documents if rule["name"] in found and not found[rule["name"]].passed]
        assert rule["num_failed"] == len(failed)
        assert rule["num_alone"] == sum(sum(not each.passed for each in found.values()) == 1 for found in failed)
        for panel in rule["panels"]:
            seen += 1
            _check_panel(rule, panel, documents)
    assert seen > 30
    assert rule_of(facts, "gopher_short_doc")["num_failed"] > 3
    assert {rule["name"] for rule in facts["rules"] if rule["signal"] is None} >= {"http_404", "duplicate_exact"}


def _check_panel(
    rule: dict[str, Any], panel: dict[str, Any], documents: list[tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    mine = [
        (row, found)
        for row, found in documents
        if rule["name"] in found and float(found[rule["name"]].threshold) == panel["threshold"]
    ]
    valued = [(row, found) for row, found in mine if found[rule["name"]].value is not None]
    assert panel["num_missing"] == len(mine) - len(valued)
    assert sum(panel["kept"]) == sum(row["decision"] == "keep" for row, _ in valued)
    assert sum(panel["dropped"]) == sum(row["decision"] == "drop" for row, _ in valued)
    others_pass = [
        found[rule["name"]].value
        for _, found in valued
        if all(each.passed for name, each in found.items() if name != rule["name"])
    ]
    assert panel["num_failing_others"] == len(valued) - len(others_pass)
    kept_now = sum(all(each.passed for each in found.values()) for _, found in valued)
    assert panel["would_keep"][panel["threshold_idx"]] == kept_now
    for threshold, would_keep in zip(panel["grid"], panel["would_keep"], strict=True):
        limits = threshold * (1 - 1e-5), threshold * (1 + 1e-5)  # the grid is shown with six digits
        if rule["comparison"] == "at_most":
            low, high = (sum(value <= limit for value in others_pass) for limit in limits)
        else:
            high, low = (sum(value >= limit for value in others_pass) for limit in limits)
        assert low <= would_keep <= high


def test_a_sample_depends_on_the_build_and_the_seed_alone(build: Built, facts: dict[str, Any], tmp_path: Path) -> None:
    other = built(tmp_path, [PAGES[30:], PAGES[:30][::-1]])
    assert json.dumps(review_facts(*other, num_per_rule=4, seed=1)["rules"]) == json.dumps(facts["rules"])
    again = review_facts(*build, num_per_rule=4, seed=2)
    names = [[row["doc_id"] for row in rule_of(each, "gopher_short_doc")["kept"]] for each in (facts, again)]
    assert names[0] != names[1]
    fewer = rule_of(review_facts(*build, num_per_rule=2, seed=1), "gopher_short_doc")
    assert fewer["kept"] == rule_of(facts, "gopher_short_doc")["kept"][:2]


def test_each_side_holds_what_it_says(facts: dict[str, Any]) -> None:
    for rule in facts["rules"]:
        assert len(rule["dropped"]) == min(4, rule["num_failed"])
        assert all(row["decision"] == "keep" for row in rule["kept"])
        if rule["signal"]:
            assert all(rule["name"] in row["failed_rules"] for row in rule["dropped"])
    (opted_out,) = rule_of(facts, "rights_disallow")["dropped"]
    assert opted_out["notes"] == ["x-robots-tag: noai"]
    (duplicate,) = rule_of(facts, "duplicate_exact")["dropped"]
    (original,) = rule_of(facts, "duplicate_exact")["kept"]
    assert duplicate["notes"][-1].startswith(f"duplicate_exact of {original['doc_id']}")
    assert duplicate["excerpts"][0]["pieces"] == original["excerpts"][0]["pieces"]


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 600)), max_size=20),
    st.lists(st.sampled_from(["word ", "longerword", "汉字，", "\n", "x" * 50]), min_size=1, max_size=300),
)
def test_excerpts_show_evidence_whole_and_nothing_twice(places: list[tuple[int, int]], parts: list[str]) -> None:
    text = "".join(parts)
    spans = apart(Span(start, min(start + size, len(text)), "x") for start, size in sorted(places) if start < len(text))
    windows = _windows(text, spans)
    assert len(windows) <= MAX_NUM_EXCERPTS
    assert all(0 <= start < end <= len(text) for start, end in windows)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(windows))
    assert all(end - start <= 2 * EXCERPT_NUM_CHARS + 60 for start, end in windows)
    if spans:
        for start, end in windows:
            assert any(span.start < end and span.end > start for span in spans)
        for span in spans:
            if span.end - span.start <= 300:  # a longer one may be cut: it is recognised by its beginning
                assert all(span.end <= start or span.start >= end or start <= span.start for start, end in windows)


def test_excerpts_cut_no_word() -> None:
    text = "alpha beta gamma " * 100
    for start, end in _windows(text, [Span(603, 607, "x")]):
        assert text[start:end].strip().split()[0] in ("alpha", "beta", "gamma")
        assert text[start:end].strip().split()[-1] in ("alpha", "beta", "gamma")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_no_personal_data_is_shown(tmp_path: Path, place: int) -> None:
    address = "zhang.san@qq.com"
    lines = ["A day at sea is long.", f"casino 邮箱{address}，casino {address}", f"{address}。"]
    rows = [{"url": f"https://a.test/{address}", "text": "\n".join([*lines[place:], *lines[:place]] * 20)}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    pages = source(write_file(tmp_path / "pages.warc.gz", [Page(text=number, url=number) for number in range(4)]))
    store, wanted = Store(tmp_path / "store"), config()
    done = {name: result.manifest for name, result in run(store, [source(path), pages], wanted).items()}
    text = json.dumps(review_facts(store, done, wanted, num_per_rule=9, seed=0), ensure_ascii=False)
    assert "<EMAIL>" in text
    for part in ("zhang", "san@", "qq.com"):
        assert part not in text


@pytest.mark.parametrize(
    ("signal", "comparison", "threshold"),
    [
        ("num_words", "at_least", 50.0),
        ("num_words", "at_most", 160_000.0),
        ("num_stop_words", "at_least", 2.0),
        ("num_pii_findings", "at_most", 20.0),
        ("num_sentences", "at_least", 0.0),
        ("dup_char_ratio", "at_most", 0.01),
        ("dup_char_ratio", "at_most", 0.0),
        ("alpha_word_ratio", "at_least", 0.735),
        ("mean_word_length", "at_most", 10.0),
        ("spam_per_1000_words", "at_most", 7.5),
        ("log_probability", "at_least", -10.0),
        ("perplexity", "at_most", 2095.0),
    ],
)
def test_a_grid_holds_the_recipes_threshold(signal: str, comparison: str, threshold: float) -> None:
    rule = Rule(name="r", group="g", signal=signal, comparison=Comparison(comparison), threshold=threshold)
    grid = threshold_grid(rule)
    assert np.isclose(grid, threshold).any()
    assert (np.diff(grid) > 0).all()
    assert 10 <= grid.size <= 90
    assert grid[0] <= threshold <= grid[-1]


# Evidence

NO_KEYWORDS = keyword_finder(())
REPEATED = "one line of text\nanother line\none line of text\n\n这是一行\n这是一行\n"


@pytest.mark.parametrize(
    ("signal", "text", "evidence"),
    [
        ("dup_line_ratio", REPEATED, ["one line of text", "这是一行"]),
        ("dup_char_ratio", REPEATED, ["one line of text", "这是一行"]),
        ("dup_paragraph_ratio", "a b\nc\n\nd\n\na b\nc", ["a b\nc"]),
        ("bullet_line_ratio", "text\n• first\n- second\n", ["• first", "- second"]),
        ("ellipsis_line_ratio", "wait ...\nno.\n等一下……\n", ["wait ...", "等一下……"]),
        ("ellipsis_to_word_ratio", "a... b… c", ["...", "…"]),
        ("hash_to_word_ratio", "# a #b", ["#", "#"]),
        ("has_lorem_ipsum", "And Lorem Ipsum there.", ["Lorem Ipsum"]),
        ("has_curly_bracket", "f(x) { y", ["{"]),
        (
            "policy_line_ratio",
            "We use cookies here.\nA day at sea.\n隐私政策\n渔船。",
            ["We use cookies here.", "隐私政策"],
        ),
        ("line_punctuation_ratio", "A heading\nA sentence.\n标题\n一句话。”", ["A heading", "标题"]),
        ("top_2_gram_char_ratio", "the cat and the cat or the cat", ["the cat"] * 3),
        ("top_2_gram_char_ratio", "渔船回港渔船出海", ["渔船", "渔船"]),
        ("dup_5_gram_char_ratio", "a b c d e f. a b c d e g", ["a b c d e"]),
        ("dup_5_gram_char_ratio", "今天天气很好，今天天气很好。", ["今天天气很"]),
        ("num_words", "few words", []),
        ("rights", "text", []),
    ],
)
def test_evidence(signal: str, text: str, evidence: list[str]) -> None:
    assert [text[span.start : span.end] for span in locate(signal, text, NO_KEYWORDS)] == evidence


def test_listed_words_are_marked_as_they_are_written() -> None:
    text = "Play at the on\u200bline CASINO now。代 开 发 票。"
    shown = [text[span.start : span.end] for span in locate("spam_per_1000_words", text, NO_KEYWORDS)]
    assert shown == ["on\u200bline CASINO", "代 开 发 票"]


@pytest.mark.parametrize("piece", ["a", "a\n", "的", " ", "{", "- \n", "...", "a b ", "casino "])
def test_evidence_is_bounded(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    signals = [name for name in SIGNALS.names if name.endswith("_ratio") or name.startswith("has_")]
    for signal in (*signals, "spam_per_1000_words"):
        spans = locate(signal, text, NO_KEYWORDS)
        assert len(spans) <= MAX_NUM_SPANS
        assert all(before.end <= after.start for before, after in itertools.pairwise(spans))
