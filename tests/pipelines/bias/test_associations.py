"""Associations: counts by hand, published formulas, and planted contrasts that must be found."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.bias.associations import contrasts, count_associations, log_odds, pmi
from pipelines.bias.disparity import GROUPS
from pipelines.bias.vectors import CONTRASTS, VectorsConfig, contrast, tokens, train_vectors, weat
from pipelines.bias.wordlists import LANGUAGES, TermFinder, group_terms, is_han, units, word_sets

FAR = {"en": " ".join(f"w{idx}x" for idx in range(30)), "zh": "的" * 45}
CONFIG = VectorsConfig(max_words=300, min_count=2, num_dimensions=20, num_permutations=2000)


def beside(texts: Sequence[str], language: str) -> dict[tuple[str, str], int]:
    return dict(count_associations(texts, language).beside)


@pytest.mark.parametrize(
    ("language", "text", "wanted"),
    [
        ("en", "The muslims here are teachers; one teacher is kind.", {"teacher": 1, "kind": 1}),
        ("en", f"A muslim. {FAR['en']} The nurse.", {}),
        ("en", "A muslim " + "x " * 9 + "nurse " + "x " * 9 + "doctor", {"nurse": 1}),
        ("zh", "那位穆斯林是护士，也很善良。", {"护士": 1, "善良": 1}),
        ("zh", f"穆斯林{FAR['zh']}护士", {}),
        ("zh", "穆斯林" + "的" * 19 + "护士" + "的" * 30 + "医生", {"护士": 1}),
    ],
)
def test_what_stands_within_the_window_is_beside(language: str, text: str, wanted: dict[str, int]) -> None:
    found = {word: count for (name, word), count in beside([text], language).items() if name == "religion"}
    assert found == wanted


def test_each_occurrence_counts_once_however_often_the_group_is_named() -> None:
    assert beside(["muslims, muslims and muslims: nurse, nurse"], "en")["religion", "nurse"] == 2


@pytest.mark.parametrize(("language", "group", "word"), [("en", "muslim", "nurse"), ("zh", "穆斯林", "护士")])
def test_pmi_is_the_logarithm_of_how_much_likelier(language: str, group: str, word: str) -> None:
    """Everywhere beside the group, in a window that covers part of the text: log2 of one over that part."""
    unit = f"{group} {word}. {FAR[language]} "
    total = count_associations([unit * 20], language)
    row = next(row for row in pmi(total) if row["people"] == "religion")
    assert row["together"] == row["seen"] == 20
    assert row["pmi_bits"] == pytest.approx(math.log2(total.num_units / total.covered["religion"]), abs=1e-3)
    assert row["pmi_bits"] > 0


def test_a_word_spread_evenly_has_no_association() -> None:
    rng = random.Random(3)
    words = [*["filler"] * 20, "nurse", "muslim"]
    total = count_associations([" ".join(rng.choices(words, k=150_000 // 7)) for _ in range(4)], "en")
    assert abs(next(row for row in pmi(total) if row["people"] == "religion")["pmi_bits"]) < 0.05


def test_log_odds_by_hand() -> None:
    """Monroe et al. 2008, equations 16, 19 and 22, for two words and a prior of 10 spread 3 to 1."""
    found = log_odds({"a": 6, "b": 2}, {"a": 1, "b": 7}, {"a": 30, "b": 10}, prior=10)
    delta = math.log((6 + 7.5) / (8 + 10 - 13.5)) - math.log((1 + 7.5) / (8 + 10 - 8.5))
    assert found["a"] == pytest.approx(delta / math.sqrt(1 / 13.5 + 1 / 8.5))
    assert found["a"] > 0 > found["b"]


counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 40))


@given(counts, counts)
def test_log_odds_change_sign_with_the_sides(ours: dict[str, int], theirs: dict[str, int]) -> None:
    background = dict.fromkeys("abcdef", 5)
    there, back = log_odds(ours, theirs, background), log_odds(theirs, ours, background)
    assert all(there[word] == pytest.approx(-back[word]) for word in background)


@pytest.mark.parametrize(
    ("language", "she", "he", "nurse", "doctor"),
    [("en", "she", "he", "nurse", "doctor"), ("zh", "她", "他", "护士", "医生")],
)
def test_a_planted_contrast_is_listed_on_its_side(language: str, she: str, he: str, nurse: str, doctor: str) -> None:
    texts = [f"{she} {nurse} {FAR[language]} {he} {doctor} {FAR[language]}"] * 60
    row = contrasts(count_associations(texts, language))[0]
    assert [word for word, _ in row["toward_one"]] == [nurse]
    assert [word for word, _ in row["toward_other"]] == [doctor]


def test_too_little_is_not_listed() -> None:
    row = contrasts(count_associations(["she nurse"], "en"))[0]
    assert row["toward_one"] == row["toward_other"] == []


def test_contrast_by_hand() -> None:
    """Caliskan et al. 2017: X on A, Y on B is the largest effect that two and two words can have, p is 1 of 6."""
    right, up = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    d, p = contrast(
        np.array([right, right]), np.array([up, up]), np.array([right]), np.array([up]), config=VectorsConfig()
    )
    assert d == pytest.approx(2 / np.std([1, 1, -1, -1], ddof=1))
    assert p == pytest.approx(1 / 6)


def test_contrast_of_equal_sets_is_none() -> None:
    same = np.eye(3)
    assert contrast(same, same, np.eye(3)[:2], np.eye(3)[:2], config=VectorsConfig()) == (0.0, 1.0)


def test_a_sampled_permutation_test_is_near_the_exact_one_and_repeats() -> None:
    rng = np.random.default_rng(0)
    x, y, a, b = (rng.standard_normal((6, 8)) for _ in range(4))
    exact = contrast(x, y, a, b, config=VectorsConfig(num_permutations=10_000))
    sampled = contrast(x, y, a, b, config=VectorsConfig(num_permutations=900))
    assert exact[0] == sampled[0]
    assert sampled[1] == pytest.approx(exact[1], abs=0.06)
    assert sampled == contrast(x, y, a, b, config=VectorsConfig(num_permutations=900))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_planted_stereotype_is_found_and_its_reverse_has_the_other_sign(language: str) -> None:
    sets = word_sets("targets", language)
    planted, turned = (
        _planted(language, pairs)
        for pairs in ({"female": "family", "male": "career"}, {"female": "career", "male": "family"})
    )
    d, p = _first(planted, language)
    other_d, other_p = _first(turned, language)
    assert d > 1.2
    assert p < 0.01
    assert other_d < -1.2
    assert other_p > 0.99
    assert len(sets["female"]) >= 10


def _planted(language: str, pairs: dict[str, str]) -> list[str]:
    rng = random.Random(11)
    sets = word_sets("targets", language)
    filler = [f"q{idx}z" for idx in range(40)] if language == "en" else [chr(0x4E10 + idx) for idx in range(40)]
    lines = []
    for _ in range(1500):
        people, things = rng.choice(sorted(pairs.items()))
        words = [rng.choice(sets[people]), rng.choice(sets[things]), *rng.choices(filler, k=4)]
        lines.append((" " if language == "en" else "").join(words))
    return lines


def _first(texts: list[str], language: str) -> tuple[float, float]:
    row = weat(train_vectors(texts, language, CONFIG), word_sets("targets", language), CONFIG)[0]
    assert row["contrast"] == "female : male :: family : career"
    return row["effect_size"], row["p"]


@pytest.mark.parametrize("texts", [[], [""], ["。"], ["word"], ["one two one two"]])
def test_too_little_text_gives_no_figures(texts: list[str]) -> None:
    for language in LANGUAGES:
        rows = weat(train_vectors(texts, language, CONFIG), word_sets("targets", language), CONFIG)
        assert [row["effect_size"] for row in rows] == [None] * len(CONTRASTS)
        assert pmi(count_associations(texts, language)) == []


def test_listed_words_are_tokens_of_their_own() -> None:
    finder = TermFinder(["女人", "办公室", "old man"])
    assert tokens("那个女人在办公室。The old man's OFFICE", finder) == [
        *"那个",
        "女人",
        "在",
        "办公室",
        "the",
        "old man",
        "s",
        "office",
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_word_lists_are_whole(language: str) -> None:
    """No word twice in its set, none in both sides of a contrast, and each in the script of its language."""
    for name in ("targets", "attributes"):
        for words in word_sets(name, language).values():
            assert len(words) == len(set(words)) >= 7
            assert all(is_han(word) == (language == "zh") for word in words)
    sets = word_sets("targets", language)
    for one, other, *things in CONTRASTS:
        assert not set(sets[one]) & set(sets[other])
        assert not set(sets[things[0]]) & set(sets[things[1]])
    assert tuple(group_terms(language)) == GROUPS
    assert all(group_terms(language).values())


def test_the_same_kinds_of_words_are_looked_for_in_both_languages() -> None:
    for name in ("targets", "attributes"):
        assert list(word_sets(name, "en")) == list(word_sets(name, "zh"))


@given(st.text(max_size=60))
def test_units_are_found_where_they_stand(text: str) -> None:
    text = text.lower()
    words, starts = units(text)
    assert all(text.startswith(word, start) for word, start in zip(words, starts.tolist(), strict=True))
