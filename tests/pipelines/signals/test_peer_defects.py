"""Defects found in other curation tools, each as a test that ours has not got it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.policy import PolicyConfig, rules_for
from pipelines.signals.language import identify
from pipelines.signals.minhash import minhash, text_digest, text_digest_and_minhash
from pipelines.signals.quality import measure_quality
from pipelines.signals.repetition import measure_repetition
from pipelines.signals.words import Scratch, split_words

CHINESE = "今天的天气很好，孩子们带着朋友的狗去了公园，后来又到了后面的湖边，谁也不想回家。"
OTHER = "图书馆在城市的北边，每个周末都有许多学生来这里读书写字，安静得只听见翻页的声音。"


def estimate(a, b) -> float:
    """Share of equal minima: an unbiased estimate of the Jaccard similarity, of standard error sqrt(s * (1 - s) / 112)."""
    return float((a == b).mean())


@pytest.mark.parametrize(("one", "other"), [("Hello world", "Good bye"), ("你好", "再见"), ("你好世界", "你好")])
def test_short_texts_have_signatures_that_match_only_where_they_are_equal(one: str, other: str) -> None:
    """datatrove gives a text of fewer than five words none, so that it is never a duplicate."""
    first, same, second = minhash(one), minhash(f" {one}! "), minhash(other)
    assert first is not None
    assert same is not None
    assert second is not None
    assert estimate(first, same) == 1.0
    assert estimate(first, second) < 0.1


def test_chinese_without_spaces_is_not_one_token() -> None:
    """data-juicer splits at spaces: all Chinese documents get one empty signature, and all but one are removed."""
    first, second, edited = minhash(CHINESE), minhash(OTHER), minhash(CHINESE * 3 + OTHER[:8])
    assert first is not None
    assert second is not None
    assert edited is not None
    assert estimate(first, second) < 0.1
    assert estimate(first, edited) > 0.6  # marin checks its candidates by words between white space


@given(st.lists(st.sampled_from(["the 12 cats", "34 dogs", CHINESE, OTHER, "Ünï 5", "12"]), min_size=1, max_size=8))
def test_a_signature_does_not_depend_on_what_was_measured_before(texts: list[str]) -> None:
    """data-juicer's and datatrove's results depend on the order of documents."""
    scratch = Scratch()
    for text in texts:
        digest, signature = text_digest_and_minhash(text, scratch)
        alone = minhash(text)
        assert digest == text_digest(text)
        assert signature is not None
        assert alone is not None
        assert np.array_equal(signature, alone)


def test_what_is_remembered_of_a_mega_document_is_given_back() -> None:
    scratch = Scratch()
    split_words("a " * 500_000, scratch=scratch)
    assert sum(array.nbytes for array, _ in scratch._arrays.values()) > 30_000_000
    split_words("a text as others are", scratch=scratch)
    assert sum(array.nbytes for array, _ in scratch._arrays.values()) < 3_000_000


@pytest.mark.parametrize("unit", ["图书馆开放时间", "open daily from nine to five "])
def test_a_repetitive_page_fails_the_repetition_rules(unit: str) -> None:
    """MAP-NEO tests a tuple for truth, so that its rule never drops."""
    text = unit * 100
    language = "en" if unit.isascii() else "zh"
    values = measure_repetition(split_words(text))
    rules = [rule for rule in rules_for(language, PolicyConfig()) if rule.signal.startswith(("top_", "dup_10"))]
    assert len(rules) == 4
    for rule in rules:
        value = values[rule.signal]
        assert value is not None
        assert isinstance(rule.threshold, float)
        assert value > rule.threshold, rule.name


def test_a_top_n_gram_of_chinese_is_not_inflated_by_spaces_that_are_not_there() -> None:
    """datatrove joins words by spaces, so that FineWeb-2's limit for Cantonese is above 1."""
    text = "天地" * 50
    value = measure_repetition(split_words(text))["top_2_gram_char_ratio"]
    assert value == pytest.approx(50 * 2 / 100)


@pytest.mark.parametrize(
    ("simplified", "traditional"), [("我们学习汉语，听说读写都要练习。", "我們學習漢語，聽說讀寫都要練習。")]
)
def test_traditional_text_is_measured_as_simplified_is(simplified: str, traditional: str) -> None:
    """ChineseWebText drops a page for a single traditional character."""
    first, second = identify(simplified * 10, None), identify(traditional * 10, None)
    assert (first.code, first.script, first.is_mixed) == ("zh", "Hans", False)
    assert (second.code, second.script, second.is_mixed) == ("zh", "Hant", False)
    measures = [measure_quality(text, split_words(text), "zh") for text in (simplified, traditional)]
    assert measures[0] == measures[1]


@pytest.mark.parametrize("line", ["他说：“我们走吧。”", "「走吧！」", "他愣住了……", "（已经很晚了。）", "他说 “yes.”"])
def test_a_chinese_line_that_ends_in_a_quote_or_ellipsis_is_finished(line: str) -> None:
    """FineWeb's set of terminal marks has no closing quote, bracket or Chinese ellipsis. In text with spaces between
    words it is applied as published (test_quality.py), since the published threshold was set with it.
    """
    assert measure_quality(line, split_words(line), None)["line_punctuation_ratio"] == 1.0
