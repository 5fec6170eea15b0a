"""Overlap of texts: known answers in both languages, and sacrebleu's and rouge-score's where they are installed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.evaluation.overlap import (
    chrf_counts,
    exact_match,
    leading_sentences,
    rouge_l,
    sentences,
    token_f1,
    units,
)

TEXTS = st.text(alphabet="abc de.水车转动，", max_size=25)
ENGLISH = ["The cat sat on the mat.", "A cat is on the mat", "dogs bark", ""]
CHINESE = ["水车在河边转动。", "水车转动", "今天下雨", ""]


def test_units_are_words_and_chinese_characters():
    assert units("The Mill’s 水车, Ａ1!") == ["the", "mill", "s", "水", "车", "a1"]
    assert units("東京タワー") == ["東", "京", "タ", "ワ", "ー"]


@pytest.mark.parametrize(
    ("written", "references", "exact", "f1"),
    [
        (" The yellow.", ["yellow"], 1.0, 1.0),
        ("yellow and red", ["yellow"], 0.0, 0.5),
        ("黄色。", ["黄色", "黄"], 1.0, 1.0),
        ("是黄色", ["黄色"], 0.0, 0.8),
        ("", ["yellow"], 0.0, 0.0),
    ],
)
def test_answers_are_compared_as_squad_does(written, references, exact, f1):
    assert exact_match(written, references) == exact
    assert token_f1(written, references) == pytest.approx(f1)


def test_rouge_l_is_the_longest_common_subsequence():
    assert rouge_l("the cat sat", ["the cat on the mat sat"]) == pytest.approx(2 * 3 / 9)
    assert rouge_l("水车转", ["水车在河边转"]) == pytest.approx(2 * 3 / 9)
    assert rouge_l("", ["x"]) == 0.0


@given(TEXTS, TEXTS)
def test_scores_are_shares_and_one_for_the_text_itself(first, second):
    for measure in (token_f1, rouge_l, exact_match):
        assert 0 <= measure(first, [second]) <= 1
        assert measure(first, [second, first]) in (1.0, 0.0 if not units(first) else 1.0)
    assert 0 <= chrf_counts(first, [second]).score <= 100 + 1e-9


def test_chrf_is_sacrebleus_of_sentences_and_of_a_corpus():
    sacrebleu = pytest.importorskip("sacrebleu")
    for texts in (ENGLISH, CHINESE):
        pairs = [(first, second) for first in texts for second in texts]
        for written, reference in pairs:
            theirs = sacrebleu.sentence_chrf(written, [reference]).score
            assert chrf_counts(written, [reference]).score == pytest.approx(theirs, abs=1e-9)
        whole = [chrf_counts(written, [reference]) for written, reference in pairs]
        wanted = sacrebleu.corpus_chrf([each for each, _ in pairs], [[each for _, each in pairs]]).score
        assert sum(whole[1:], whole[0]).score == pytest.approx(wanted, abs=1e-9)


def test_rouge_l_is_rouge_scores_for_english_words():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    for written in ENGLISH:
        for reference in ENGLISH:
            theirs = scorer.score(reference, written)["rougeL"].fmeasure
            assert rouge_l(written, [reference]) == pytest.approx(theirs)


def test_sentences_end_in_either_writing():
    assert sentences("It rained. Did it? “Yes!” 下雨了。真的吗？\n是") == [
        "It rained.",
        "Did it?",
        "“Yes!”",
        "下雨了。",
        "真的吗？",
        "是",
    ]
    assert leading_sentences("一。二。三。四。") == "一。 二。 三。"
