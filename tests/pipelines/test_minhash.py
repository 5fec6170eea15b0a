"""Normalisation, digest and MinHash: what counts as equal, and how well the estimate estimates."""

import hashlib
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.signals import minhash as module
from pipelines.signals.minhash import minhash, normalize, text_digest, text_digest_and_minhash
from pipelines.signals.words import Scratch

ENGLISH = (
    "The general rule is that the namespace should describe everything the system might use, unless told otherwise."
)
CHINESE = (
    "一般规则是：命名空间应当描述操作系统可能使用的一切，除非系统有其他办法找到它。例如没有标准的硬件机制来枚举总线。"
)


def estimate(a, b) -> float:
    """Share of equal minima: an unbiased estimate of the Jaccard similarity, of standard error sqrt(s * (1 - s) / 112)."""
    return float((a == b).mean())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello world"),
        ("  a\t b\r\n\n c ", "a b c"),
        ("In 2024: 12,345.6", "in 0000 00 000 0"),
        ("Café NAÏVE Ångström", "cafe naive angstrom"),
        ("cafe\u0301", "cafe"),
        ("Straße", "strasse"),
        ("Ёлка й", "елка и"),
        ("don’t — “quote”…", "don t quote"),
        ('don\'t - "quote"...', "don t quote"),
        ("ﬁne ＡＢＣ１２", "fine abc00"),
        ("你好，世界！２０２４年。", "你好 世界 0000年"),
        ("漢字とカナ、ｶﾅ", "汉字とカナ カナ"),
        ("ガ", "ガ"),  # the voicing mark is no diacritic
        ("한국어", "한국어"),
        ("ภาษาไทย", "ภาษาไทย"),  # vowel signs stay
        ("हिन्दी।", "हिन्दी"),
        ("٣٤", "00"),
        ("snake_case", "snake_case"),
        ("!!! 😀 ……", ""),
        ("", ""),
    ],
)
def test_normalize(text, expected):
    assert normalize(text) == expected


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    assert normalize(normalize(text)) == normalize(text)


@given(st.text(st.characters(max_codepoint=127)))
def test_the_fast_path_for_ascii_agrees_with_the_other(text):
    assert normalize(text + " é") == (normalize(text) + " e").strip()


JOINING = st.sampled_from(
    "aé가각ᄀ\u1161\u11a8か\u3099\u0301\u0323\u0345が½ﷺ\u094d\u093cक०٣۔ ẞİ\u034f字😀\U000e0041\U00030000Ⅷ"
)


@given(st.text() | st.lists(JOINING, max_size=12).map("".join) | st.text(st.characters(max_codepoint=0x3100)))
def test_the_compiled_pass_agrees_with_the_interpreter(text):
    """The digest is of what the interpreter's normalisation gives, whichever way it was made; so is the signature."""
    folded = module._fold(text)
    digest, signature = text_digest_and_minhash(text)
    assert digest == hashlib.blake2b((folded or text).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    if folded:
        scratch = Scratch()
        assert module._folded_and_signed(folded, module._tables().plain, scratch, is_folded=True)[0] > 0
        np.testing.assert_array_equal(signature, scratch.array("minima", 112, np.uint32)[0][:112])


def test_every_character_alone_becomes_what_the_interpreter_makes_of_it():
    scratch = Scratch()
    for code in (*range(0x3400), *range(0xA000, 0xAC10), *range(0xD700, 0x11000), *range(0x1D400, 0x1FB00)):
        text = f"x{chr(code)}y"
        digest, _ = text_digest_and_minhash(text, scratch)
        folded = module._fold(text).encode("utf-8", "surrogatepass")
        assert digest == hashlib.blake2b(folded, digest_size=16).digest(), hex(code)


def test_a_text_that_grows_when_it_is_normalised_has_room():
    text = "\ufdfa" * 50_000  # 18 characters each
    assert text_digest(text) == text_digest(module._fold(text))


@given(st.text())
def test_both_at_once_are_those_of_each_alone(text):
    digest, signature = text_digest_and_minhash(text)
    assert digest == text_digest(text)
    np.testing.assert_equal(signature, minhash(text))


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ("Hello, World!", "hello   world", True),
        ("你好，世界。", "你好 世界", True),
        ("page 1 of 9", "page 2 of 9", False),
        ("1.5", "15", False),
        ("第1章", "第2章", False),
        ("!!!", "???", False),
        ("ก่า", "กา", False),
    ],
)
def test_text_digest(a, b, equal):
    assert (text_digest(a) == text_digest(b)) is equal
    assert len(text_digest(a)) == 16


def test_signatures_are_what_they_always_were():
    """Stored signatures of another hash family compare with nothing: a change here raises the stage's version."""
    known = hashlib.sha256(np.concatenate([minhash(ENGLISH), minhash(CHINESE)]).astype("<u4").tobytes()).hexdigest()
    assert known == "a0d92c5c8e5c7d666ec6b8c80789f722dec962c4c409755212827ec0db52699a"


@pytest.mark.parametrize("text", ["", " \n", "!!!", "……", "😀"])
def test_a_text_that_normalises_to_nothing_has_no_signature(text):
    assert minhash(text) is None


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("hello", "world"),
        ("hello world", "hello there"),
        ("你好", "您好"),
        ("一二三四", "一二三五"),
        ("a b c d", "a b c d e"),
    ],
)
def test_short_texts_are_compared_as_a_whole(a, b):
    assert estimate(minhash(a), minhash(b)) < 0.1
    assert estimate(minhash(a), minhash(a.upper() + "!")) == 1


def slow_tokens(text: str) -> list[str]:
    return module.UNSPACED_RUN.sub(lambda match: " ".join(f" {match[0]} "), normalize(text)).split()


def slow_minhash(text: str) -> np.ndarray:
    """The definition: shingles of five tokens, 112 permutations of their hashes, the least of each."""
    mask, base = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def mixed(value: int) -> int:
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        return value ^ (value >> 31)

    def hashed(values: list[int]) -> int:
        total = 0
        for value in values:
            total = (total * base + value) & mask
        return mixed(total)

    hashes = [hashed([ord(char) + 1 for char in token]) for token in slow_tokens(text)]
    width = min(len(hashes), 5)
    shingles = [hashed(hashes[start : start + width]) >> 32 for start in range(len(hashes) - width + 1)]
    a, b = module._permutations()
    return (a[:, None] * np.array(shingles, np.uint32)[None, :] + b[:, None]).min(axis=1)


@pytest.mark.parametrize(
    "unit", ["one ", "one two 12 ", ENGLISH + " ", CHINESE, CHINESE + " " + ENGLISH + " ", "हिन्दी "]
)
@pytest.mark.parametrize("count", [1, 30])
def test_a_signature_is_that_of_the_slow_reading(unit, count):
    text = "".join(unit.replace("a", f"a{chr(0x4E00 + i)}x") for i in range(count))
    np.testing.assert_array_equal(minhash(text), slow_minhash(text))


def test_the_buffer_of_shingles_does_not_show():
    text = "".join(chr(0x4E00 + i * i % 20000) for i in range(3000))
    np.testing.assert_array_equal(minhash(text), slow_minhash(text))


def test_a_huge_text_without_spaces():
    assert minhash("字" * 3_000_000).shape == (112,)


def true_jaccard(a: str, b: str, *, spaced: bool) -> float:
    def shingles(text: str) -> set[tuple[str, ...]]:
        tokens = text.split() if spaced else list(text)
        return {tuple(tokens[i : i + 5]) for i in range(len(tokens) - 4)}

    return len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_estimate_has_no_bias_and_the_error_of_112_draws(language):
    """z = (estimate - J) / sqrt(J (1 - J) / 112) over 400 pairs: mean near 0, deviation near 1, none beyond 4.5."""
    rng = random.Random(language)
    words = (
        ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(3000)]
        if language == "en"
        else [chr(code) for code in range(0x4E00, 0x4E00 + 1500)]
    )
    joiner = " " if language == "en" else ""
    z = []
    for _ in range(400):
        a = rng.choices(words, k=300)
        b = list(a)
        for _ in range(rng.randint(1, 40)):
            b[rng.randrange(len(b))] = rng.choice(words)
        a_text, b_text = joiner.join(a), joiner.join(b)
        j = true_jaccard(a_text, b_text, spaced=language == "en")
        z.append((estimate(minhash(a_text), minhash(b_text)) - j) / math.sqrt(j * (1 - j) / 112))
    assert abs(np.mean(z)) < 0.2  # four standard errors
    assert 0.85 < np.std(z) < 1.15
    assert np.abs(z).max() < 4.5
