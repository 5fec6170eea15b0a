"""Repetition against a slow and literal reading of its definition, over the words of words.py."""

import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.signals.bits import HAS_GAP
from pipelines.signals.repetition import DUP_SIZES, TOP_SIZES, measure_repetition
from pipelines.signals.words import Words, split_words


def slow_repetition(text: str) -> dict[str, float | None]:
    """The measures as the module's docstring words them, over tuples of words."""
    found: dict[str, float | None] = {}
    lines = [line for line in re.split(r"\n+", text) if line]
    paragraphs = [part for part in re.split(r"\n{2,}", text.strip()) if part]
    for name, parts in (("paragraph", paragraphs), ("line", lines)):
        duplicates = [part for idx, part in enumerate(parts) if part in parts[:idx]]
        found[f"dup_{name}_ratio"] = len(duplicates) / len(parts) if parts else None
        found[f"dup_{name}_char_ratio"] = sum(map(len, duplicates)) / len(text)
    split = split_words(text)
    bounds = zip(split.starts.tolist(), split.ends.tolist(), split.flags.tolist(), strict=True)
    words = [(text[start:end], not split.unspaced or bool(flag & HAS_GAP)) for start, end, flag in bounds]
    for n in TOP_SIZES:
        grams = [words[start : start + n] for start in range(len(words) - n + 1)]
        counts = Counter(tuple(word for word, _ in gram) for gram in grams)
        num_chars = 0
        if counts:
            gram, count = max(counts.items(), key=lambda item: item[1])  # of equals the first seen
            first = next(one for one in grams if tuple(word for word, _ in one) == gram)
            num_chars = count * (sum(len(word) for word, _ in first) + sum(gap for _, gap in first[1:]))
        found[f"top_{n}_gram_char_ratio"] = num_chars / len(text)
    for n in DUP_SIZES:
        seen: set[tuple[str, ...]] = set()
        num_chars = start = 0
        while start + n <= len(words):
            gram = tuple(word for word, _ in words[start : start + n])
            if gram in seen:
                num_chars += sum(map(len, gram))
                start += n
            else:
                seen.add(gram)
                start += 1
        found[f"dup_{n}_gram_char_ratio"] = num_chars / len(text)
    return found


TEXTS = st.lists(
    st.sampled_from(
        ["a", "b", "ab", "7", " ", " ", "\n", "\n\n", ",", ".", "'", "-", "。", "”", "的", "是", "は", "é", "्"]
    ),
    max_size=80,
).map("".join)


def measured(text: str) -> dict[str, float | None]:
    return measure_repetition(split_words(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # 4 lines, one seen before: 3 of 15 characters
        ("one\ntwo\none\ntre", {"dup_line_ratio": 1 / 4, "dup_line_char_ratio": 3 / 15, "dup_paragraph_ratio": 0.0}),
        ("p q\n\n\nr\n\np q", {"dup_paragraph_ratio": 1 / 3, "dup_paragraph_char_ratio": 3 / 12}),
        ("第一行\n第二行\n第一行", {"dup_line_ratio": 1 / 3, "dup_line_char_ratio": 3 / 11}),
        # "of the" (6 characters) three times in 24
        ("of the a of the b of the", {"top_2_gram_char_ratio": 18 / 24}),
        # no bigram twice: the first one, "ab c"
        ("ab c def", {"top_2_gram_char_ratio": 4 / 8, "top_3_gram_char_ratio": 1.0, "top_4_gram_char_ratio": 0.0}),
        # words are joined by spaces, whether the text has them or not: "x ," is 3 characters
        ("x, y x, z", {"top_2_gram_char_ratio": 6 / 9}),
        # Chinese: 中国 twice in 6 characters is 4 of them, not 6 as with joining spaces
        ("中国人中国话", {"top_2_gram_char_ratio": 4 / 6}),
        # occurrences overlap: 哈哈 three times in 4 characters
        ("哈哈哈哈", {"top_2_gram_char_ratio": 6 / 4}),
        # a b c d e comes back once: 5 of 19 characters; 6 words do not
        ("a b c d e a b c d e", {"dup_5_gram_char_ratio": 5 / 19, "dup_6_gram_char_ratio": 0.0}),
        # the scan goes on behind a hit: in 15 equal words 5 are one at 1 and 6, 10 at 1 only
        (" ".join("a" * 15), {"dup_5_gram_char_ratio": 10 / 29, "dup_10_gram_char_ratio": 10 / 29}),
        ("天地玄黄宇天地玄黄宇。", {"dup_5_gram_char_ratio": 5 / 11, "dup_6_gram_char_ratio": 0.0}),
        ("Of the of the", {"top_2_gram_char_ratio": 6 / 13}),
        ("", dict.fromkeys(("dup_line_ratio", "dup_paragraph_char_ratio", "top_2_gram_char_ratio"))),
    ],
)
def test_known_answers(text: str, expected: dict[str, float | None]) -> None:
    found = measured(text)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@settings(max_examples=300)
@given(TEXTS)
def test_repetition_is_that_of_the_slow_reading(text: str) -> None:
    expected = slow_repetition(text) if text else dict.fromkeys(measured(""))
    assert measured(text) == pytest.approx(expected)


@given(st.lists(st.sampled_from(["u", "v", "w"]), min_size=5, max_size=120), st.sampled_from(["", " "]))
def test_repetitive_texts_are_measured_as_in_the_slow_reading(words: list[str], space: str) -> None:
    text = space.join({"u": "天", "v": "地", "w": "人"}[word] if not space else word for word in words)
    assert measured(text) == pytest.approx(slow_repetition(text))


@given(st.text(alphabet="天地人 ab\n", min_size=1, max_size=60))
def test_a_text_twice_over_repeats_at_least_half_of_its_long_lines(text: str) -> None:
    line = text.replace("\n", " ") + "尾"
    found = measured(f"{line}\n{line}")
    assert found["dup_line_ratio"] == 1 / 2
    assert found["dup_line_char_ratio"] == len(line) / (2 * len(line) + 1)


def test_no_words() -> None:
    words: Words = split_words("   ")
    assert words.num_words == 0
    assert measure_repetition(words)["top_2_gram_char_ratio"] == 0.0


@pytest.mark.parametrize("num_words", [300, 900])
@pytest.mark.parametrize("vocabulary", ["天地", "天地玄黄宇宙洪荒日月盈昃", ["a ", "b ", "of ", "the\n", "c, "]])
def test_longer_texts_are_measured_as_in_the_slow_reading(num_words: int, vocabulary: str | list[str]) -> None:
    text = "".join(random.Random(num_words).choices(vocabulary, k=num_words))
    assert measured(text) == pytest.approx(slow_repetition(text))
