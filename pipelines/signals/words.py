"""What a word is, and where each stands: one pass over the code points of a text, without a loop in Python.

- A run of letters, marks and digits is a word (Unicode general categories L, M, N and what joins them).
- A full stop, comma, apostrophe or underscore between two such characters belongs to the word ("don't", "3.14",
  "example.com"), as in Unicode Standard Annex 29, rules WB6, WB7, WB11 and WB12.
- Every other run of punctuation or symbols is one word, a mark: Gopher's rules as others apply them count marks as
  words, and so a ruled line weighs as one.
- In a script without spaces between words (Han, kana, Thai, Lao, Khmer, Burmese, Tibetan) each character is a word.
  A dictionary would say where words end, but is slow, and its versions and mistakes would move every measure.
  Thresholds for such texts must be set for characters, and `unspaced` says when.
"""

import functools
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]

MAX_NUM_CHARS = 1 << 20
"""Far above the 100,000 words that Gopher's longest document has."""
UNSPACED_RANGES = (
    (0x0E00, 0x0F00),  # Thai, Lao
    (0x0F40, 0x10A0),  # Tibetan, Burmese
    (0x1780, 0x1800),  # Khmer
    (0x3005, 0x3008),  # Han: iteration mark, zero
    (0x3041, 0x30FB),  # Hiragana, Katakana
    (0x30FC, 0x3130),  # prolonged sound mark, Bopomofo
    (0x3400, 0x4DC0),  # Han
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),
    (0xFF66, 0xFF9E),  # half-width kana
    (0x20000, 0x323B0),  # Han
)
"""Code points of scripts without spaces between words, end excluded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The words of a text in order, as arrays of equal length W."""

    lengths: Ints
    """Characters of each word."""
    gaps: Flags
    """White space stands right before the word."""
    hashes: Hashes
    """Equal words have equal hashes; distinct ones do not, but for a chance of about W^2 / 2^65."""
    is_mark: Flags
    """Nothing but punctuation and symbols."""
    has_letter: Flags
    """At least one alphabetic character (category L)."""
    unspaced: bool
    """More than half of the words that are no marks are characters of an unspaced script."""

    @property
    def num_words(self) -> int:
        """W: marks included."""
        return self.lengths.size


def split_words(text: str) -> Words:
    """Split a text of at most MAX_NUM_CHARS characters into its words. Takes about 60 bytes of memory a character."""
    if len(text) > MAX_NUM_CHARS:
        raise ValueError(f"got a text of {len(text)} characters, wanted at most {MAX_NUM_CHARS}: cut it first.")
    if text.isascii():  # the same from a table of bytes, at a third of the cost
        raw = text.encode("ascii")
        classes = np.frombuffer(raw.translate(_ascii_classes()), dtype=np.uint8)
        codes = np.frombuffer(raw, dtype=np.uint8).astype(np.uint64)
    else:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        classes = _class_table().take(codes, mode="clip")
    kinds = _kinds(classes)
    visible = kinds != _SPACE
    breaks = np.ones(kinds.size + 1, dtype=np.bool_)
    np.not_equal(kinds[1:], kinds[:-1], out=breaks[1:-1])
    if not text.isascii():
        breaks[1:-1] |= kinds[1:] == _CHARACTER
    starts = np.flatnonzero(visible & breaks[:-1])
    if not starts.size:
        return _NO_WORDS
    ends = np.flatnonzero(visible & breaks[1:]) + 1
    # sum of code * base^position over each word, modulo 2^64, then all brought to one position
    powers = _powers()
    sums = np.zeros(codes.size + 1, dtype=np.uint64)
    np.cumsum(powers[: codes.size] * codes, out=sums[1:])
    hashes = (sums[ends] - sums[starts]) * powers[powers.size - 1 - starts]
    word_kinds = kinds[starts]
    is_mark = word_kinds == _MARK
    num_characters = 0 if text.isascii() else np.count_nonzero(word_kinds == _CHARACTER)
    gaps = np.empty(starts.size, dtype=np.bool_)
    gaps[0] = starts[0] > 0
    np.greater(starts[1:], ends[:-1], out=gaps[1:])
    return Words(
        lengths=ends - starts,
        gaps=gaps,
        hashes=_mixed(hashes),
        is_mark=is_mark,
        has_letter=np.bitwise_or.reduceat(classes, starts) >= _LETTER,
        unspaced=bool(2 * num_characters > starts.size - np.count_nonzero(is_mark)),
    )


def hash_words(words: Iterable[str]) -> Hashes:
    """The hashes `split_words` gives to these words; each must be one word by its rules."""
    return split_words(" ".join(words)).hashes


_SPACE, _WORD, _CHARACTER, _MARK, _JOINER = 0, 1, 2, 3, 4
_KIND = np.uint8(7)
_LETTER = np.uint8(8)
_JOINERS = ".,'’_"
_TABLE_SIZE = 0x20001
"""Code points above are clipped to U+20000, a Han character: nearly all assigned ones are."""
_BASE = 0x9E3779B97F4A7C15  # odd, so that no power of it is 0 modulo 2^64


def _kinds(classes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Kind of each character: a joiner is part of a word where it stands between two word characters, else a mark."""
    kinds = classes & _KIND
    joins = kinds == _JOINER
    kinds[joins] = _MARK
    is_word = kinds == _WORD
    joins[:1] = joins[-1:] = False
    joins[1:-1] &= is_word[:-2] & is_word[2:]
    kinds[joins] = _WORD
    return kinds


def _mixed(hashes: Hashes) -> Hashes:
    """Spread a polynomial hash over all bits (the finaliser of SplitMix64), so that hashes may be combined again."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


@functools.cache
def _powers() -> Hashes:
    return np.multiply.accumulate(np.full(MAX_NUM_CHARS, _BASE, dtype=np.uint64))


@functools.cache
def _class_table() -> npt.NDArray[np.uint8]:
    """Kind of each code point, with a bit for letters."""
    table = np.fromiter((_class_of(chr(code)) for code in range(_TABLE_SIZE)), dtype=np.uint8, count=_TABLE_SIZE)
    for start, end in UNSPACED_RANGES:
        part = table[start:end]
        part[(part & _KIND) == _WORD] += np.uint8(_CHARACTER - _WORD)
    return table


@functools.cache
def _ascii_classes() -> bytes:
    """The class of each byte below 128, for bytes.translate."""
    return _class_table()[:256].tobytes()


def _class_of(char: str) -> int:
    category = unicodedata.category(char)
    if char.isspace() or category == "Cc":
        return _SPACE
    if char in _JOINERS:
        return _JOINER
    if category[0] in "PS":
        return _MARK
    return _WORD | int(_LETTER) if char.isalpha() else _WORD


_NO_WORDS = Words(
    lengths=np.zeros(0, dtype=np.int64),
    gaps=np.zeros(0, dtype=np.bool_),
    hashes=np.zeros(0, dtype=np.uint64),
    is_mark=np.zeros(0, dtype=np.bool_),
    has_letter=np.zeros(0, dtype=np.bool_),
    unspaced=False,
)
