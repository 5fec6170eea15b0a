"""How alike two texts truly are: the share of their shingles that they have in common.

A signature folds what it may, so that it misses nothing; this says what is alike. Digits count, so a table of other
figures or another version's notes is another text. Texts of unspaced scripts are compared by the characters as written,
punctuation among them; only where one is in traditional Chinese and the other is not are both folded to simplified.

Resemblance and containment: Broder, "On the resemblance and containment of documents" (1997).
"""

import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.signals.bits import BASE, SHINGLE_NUM_TOKENS
from pipelines.signals.minhash import UNSPACED_RUN, word_shingles
from pipelines.signals.variants import simplified_characters

Shingles = npt.NDArray[np.uint64]
"""Distinct hashes, sorted; at least one."""

_NO_LETTER = re.compile(r"[\W\d_]+")
_MIN_TRADITIONAL_RATIO = 0.1
"""Characters with another simplified form, of those of unspaced scripts: a third in traditional text, 1 % in simplified."""


@dataclass(frozen=True, slots=True)
class ShingleSets:
    """The shingles of one text, in the ways that it may be compared."""

    words: Shingles
    """5-grams of tokens: words, and single characters of unspaced scripts."""
    characters: Shingles | None = None
    """5-grams of all characters but white space; None for a text in a spaced script."""
    simplified: Shingles | None = None
    """The same, traditional Chinese folded to simplified."""
    is_traditional: bool = False


@dataclass(frozen=True, slots=True)
class Similarity:
    """What two texts have in common, 0 to 1."""

    jaccard: float
    """Shared shingles of all shingles of both."""
    containment: float
    """Shared shingles of those of the first."""


def shingle_sets(text: str) -> ShingleSets:
    """The shingles of a text, 64-bit hashes."""
    words = word_shingles(text)
    num_unspaced = sum(len(run) for run in UNSPACED_RUN.findall(text))
    if not num_unspaced or 2 * num_unspaced <= len(_NO_LETTER.sub("", text)):
        return ShingleSets(words)
    plain = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    simplified = plain.translate(simplified_characters())
    num_changed = sum(a != b for a, b in zip(plain, simplified, strict=True))
    return ShingleSets(
        words, _of_characters(plain), _of_characters(simplified), num_changed > _MIN_TRADITIONAL_RATIO * num_unspaced
    )


def compare(a: ShingleSets, b: ShingleSets) -> Similarity:
    """How alike two texts are."""
    if a.characters is None or b.characters is None:
        return _compare(a.words, b.words)
    if a.is_traditional == b.is_traditional or a.simplified is None or b.simplified is None:
        return _compare(a.characters, b.characters)
    return _compare(a.simplified, b.simplified)


def _compare(a: Shingles, b: Shingles) -> Similarity:
    num_shared = len(np.intersect1d(a, b, assume_unique=True))
    return Similarity(num_shared / (len(a) + len(b) - num_shared), num_shared / len(a))


def _of_characters(text: str) -> Shingles:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    width = min(SHINGLE_NUM_TOKENS, len(codes))
    hashes = np.zeros(len(codes) - width + 1, np.uint64)
    for place in range(width):
        hashes = (hashes + codes[place : place + len(hashes)] + np.uint64(1)) * np.uint64(BASE)
        hashes ^= hashes >> np.uint64(29)
    return np.unique(hashes)
