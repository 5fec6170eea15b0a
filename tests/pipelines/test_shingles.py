"""How alike two texts are: against a slow reference, on labelled pairs, and what does not count as alike."""

import json
import os
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dedup import DedupConfig
from pipelines.signals.minhash import UNSPACED_RUN, minhash
from pipelines.signals.shingles import compare, shingle_sets
from pipelines.signals.variants import simplified_characters

WORDS = [f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(400)]


def jaccard(a: str, b: str) -> float:
    return compare(shingle_sets(a), shingle_sets(b)).jaccard


def grams(tokens: list[str]) -> set[tuple[str, ...]]:
    return {tuple(tokens[i : i + 5]) for i in range(max(1, len(tokens) - 4))}


def slow(a: str, b: str) -> tuple[float, float]:
    shared = len(grams(a.split()) & grams(b.split()))
    return shared / len(grams(a.split()) | grams(b.split())), shared / len(grams(a.split()))


plain = st.lists(st.sampled_from(WORDS[:6]), min_size=1, max_size=30).map(" ".join)


@given(plain, plain)
def test_words_are_compared_as_sets_of_five(a, b):
    found = compare(shingle_sets(a), shingle_sets(b))
    assert (found.jaccard, found.containment) == pytest.approx(slow(a, b))


@given(st.text(), st.text())
def test_any_two_texts(a, b):
    one, other = compare(shingle_sets(a), shingle_sets(b)), compare(shingle_sets(b), shingle_sets(a))
    assert 0 <= one.jaccard == other.jaccard <= one.containment <= 1
    assert compare(shingle_sets(a), shingle_sets(a)).jaccard == 1


def test_digits_count():
    a = " ".join(f"{word} {number}" for number, word in enumerate(WORDS[:100]))
    b = " ".join(f"{word} {number + 1}" for number, word in enumerate(WORDS[:100]))
    assert (minhash(a) == minhash(b)).mean() > 0.6, "signatures fold them"
    assert jaccard(a, b) == 0


def test_case_form_and_punctuation_do_not_count():
    text = " ".join(WORDS[:60])
    assert jaccard(text, text.upper().replace(" ", ",  ")) == 1
    assert jaccard("ｆｕｌｌ " + text, "full " + text) == 1


CHINESE = "".join(chr(0x4E00 + 37 * i % 20000) for i in range(300))


def test_chinese_is_compared_by_characters_as_written():
    expected = len(grams(list(CHINESE)) & grams(list(CHINESE[20:]))) / len(grams(list(CHINESE)))
    assert jaccard(CHINESE, CHINESE[20:]) == pytest.approx(expected)
    assert jaccard(CHINESE, "\n".join(CHINESE)) == 1, "white space does not count"


def test_variants_are_folded_only_between_traditional_and_simplified_text():
    pairs = [(chr(code), char) for code, char in simplified_characters().items() if 0x4E00 <= code < 0xA000][:200]
    pairs = [(a, b) for a, b in pairs if UNSPACED_RUN.match(b) and unicodedata.normalize("NFKC", b) == b]
    traditional, simplified = "".join(a for a, _ in pairs), "".join(b for _, b in pairs)
    assert jaccard(traditional, simplified) == 1
    spelt = "".join(b if number % 10 == 0 else a for number, (a, b) in enumerate(pairs))
    assert jaccard(traditional, spelt) < 0.6, "the same script, other characters"


def test_a_text_of_fewer_than_five_words_is_one_shingle():
    assert jaccard("one two", "one two") == 1
    assert jaccard("one two", "one three") == 0
    assert jaccard("", "!!!") == 1


@pytest.mark.real_data
@pytest.mark.parametrize("language", ["en", "zh"])
def test_real_page_pairs(language):
    """Pages of two kernel versions, positive from a Jaccard similarity of 0.8: found by the bands, and counted."""
    if "CORPUSMILL_TEST_DATA" not in os.environ:
        pytest.skip("CORPUSMILL_TEST_DATA is not set")
    path = Path(os.environ["CORPUSMILL_TEST_DATA"]) / "neardup/linux-doc-versions/pairs.dev.jsonl"
    pairs = [row for row in map(json.loads, path.open(encoding="utf-8")) if row["lang"] == language]
    config = DedupConfig()
    found = np.array([are_near(pair["text_a"], pair["text_b"], config) for pair in pairs])
    labelled = np.array([pair["jaccard5"] >= 0.8 for pair in pairs])
    precision, recall = (found & labelled).sum() / found.sum(), (found & labelled).sum() / labelled.sum()
    assert precision >= 0.98
    assert 2 * precision * recall / (precision + recall) >= 0.95


def are_near(a: str, b: str, config: DedupConfig) -> bool:
    bands = slice(config.num_bands * config.rows_per_band)
    equal = (minhash(a) == minhash(b))[bands].reshape(config.num_bands, config.rows_per_band)
    return bool(equal.all(axis=1).any()) and jaccard(a, b) >= config.min_similarity


def test_bands_find_what_is_alike():
    """Of made pairs at the threshold hardly one is missed."""
    rng, config = random.Random(0), DedupConfig()
    found = alike = 0
    for _ in range(150):
        words = rng.choices(WORDS, k=200)
        other = list(words)
        for place in rng.sample(range(200), 4):
            other[place] = "changed"
        a, b = " ".join(words), " ".join(other)
        if jaccard(a, b) >= config.min_similarity:
            alike += 1
            found += are_near(a, b, config)
    assert alike > 50
    assert found >= alike - 1
