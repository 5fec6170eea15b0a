"""How much a text repeats itself: the Gopher repetition measures (Rae et al., arXiv:2112.11446, appendix A1).

Lines are what stands between line feeds and is not empty, paragraphs what stands between two or more of them in the
stripped text. Of equal lines the second and every later one is a duplicate. With T the characters of the whole text:

    dup_line_ratio, dup_paragraph_ratio              duplicates / all of them
    dup_line_char_ratio, dup_paragraph_char_ratio    characters of the duplicates / T
    top_n_gram_char_ratio      (n = 2, 3, 4)         characters of the commonest n-gram * its count / T
    dup_n_gram_char_ratio      (n = 5 to 10)         characters of n-grams seen before / T

An n-gram is n words in a row (see words.py), marks included, upper and lower case apart. Of equally common ones the
first in the text is the commonest, also where none occurs twice, so the value is never 0 for a text of n words, and it
can exceed 1 where occurrences overlap. Duplicate n-grams are found by a scan from the left: after one that was seen
before, the scan goes on behind it, else one word further, and only n-grams it stopped at count as seen.

The characters of a top n-gram are its words' and one for each white space between them, as they first stand in the
text. Others join words by spaces whether the text has them or not, which inflates Chinese values by up to
(2n - 1) / n, and made a published threshold exceed 1. The characters of a duplicate n-gram are its words' alone, as
with others.
"""

from collections.abc import Sequence

import numpy as np

from pipelines.signals.words import Hashes, Ints, Words

TOP_SIZES = (2, 3, 4)
DUP_SIZES = (5, 6, 7, 8, 9, 10)

_BASE = np.uint64(0xD6E8FEB86659FD93)
_NUM_WORTH_SORTING = 256
"""Up to this many positions the scan costs less than finding out which of them it could leave out."""


def measure_repetition(text: str, words: Words) -> dict[str, float | None]:
    """The repetition fields of SIGNALS for a text and its words; None where there is nothing to divide by."""
    if not text:
        return dict.fromkeys(_FIELDS)
    line_ratio, line_chars = _duplicates([line for line in text.split("\n") if line])
    paragraph_ratio, paragraph_chars = _duplicates(
        [part for piece in text.strip().split("\n\n") if (part := piece.strip("\n"))]
    )
    chars = (paragraph_chars, line_chars, *_n_gram_chars(words))
    paragraph_char_ratio, line_char_ratio, *n_gram_ratios = (count / len(text) for count in chars)
    ratios = (paragraph_ratio, paragraph_char_ratio, line_ratio, line_char_ratio, *n_gram_ratios)
    return dict(zip(_FIELDS, ratios, strict=True))


_FIELDS = (
    "dup_paragraph_ratio",
    "dup_paragraph_char_ratio",
    "dup_line_ratio",
    "dup_line_char_ratio",
    *(f"top_{n}_gram_char_ratio" for n in TOP_SIZES),
    *(f"dup_{n}_gram_char_ratio" for n in DUP_SIZES),
)


def _duplicates(parts: Sequence[str]) -> tuple[float | None, int]:
    """Share of the parts that were seen before, and the characters of these."""
    if not parts:
        return None, 0
    distinct = set(parts)
    if len(distinct) == len(parts):
        return 0.0, 0
    num_chars = sum(map(len, parts)) - sum(map(len, distinct))
    return (len(parts) - len(distinct)) / len(parts), num_chars


def _n_gram_chars(words: Words) -> list[int]:
    """Characters of the top n-grams, then of the duplicate n-grams, in order of n.

    Only where an n-gram occurs twice can a longer one that does so start, so the positions to look at shrink as n
    grows: one sort of all bigrams, small ones from there on, and a few positions for the scan, which is sequential.
    """
    chars = dict.fromkeys((*TOP_SIZES, *DUP_SIZES), 0)
    chars_before = np.zeros(words.num_words + 1, dtype=np.int64)
    np.cumsum(words.lengths, out=chars_before[1:])
    positions = np.arange(words.num_words)
    hashes = words.hashes
    for n in range(2, DUP_SIZES[-1] + 1):
        if positions.size and positions[-1] + n > words.num_words:  # of the shorter ones that fitted, only the last
            positions, hashes = positions[:-1], hashes[:-1]
        hashes = hashes * _BASE + words.hashes[positions + (n - 1)]
        if n in TOP_SIZES:
            repeated, top, count = _repeated(hashes)
            first = int(positions[top]) if count > 1 else 0
            if first + n <= words.num_words:
                gaps = words.gaps[first + 1 : first + n].tolist()
                chars[n] = int(chars_before[first + n] - chars_before[first] + sum(gaps)) * count
            positions, hashes = positions[repeated], hashes[repeated]
            continue
        if positions.size > _NUM_WORTH_SORTING:
            repeated, _, _ = _repeated(hashes)
            positions, hashes = positions[repeated], hashes[repeated]
        hits = np.array(_scan(positions.tolist(), hashes.tolist(), n), dtype=np.int64)
        if not hits.size:
            break
        chars[n] = int((chars_before[hits + n] - chars_before[hits]).sum())
    return list(chars.values())


def _repeated(hashes: Hashes) -> tuple[Ints, int, int]:
    """Indices, in order, of the hashes that occur more than once; the first index of the commonest; its count.

    One sort of hash and index packed into a word each: far faster than an indirect one. What the index takes from the
    hash leaves 44 bits for the longest text.
    """
    num_bits = np.uint64(hashes.size.bit_length())
    packed = np.sort((hashes << num_bits) | np.arange(hashes.size, dtype=np.uint64))
    keys = packed >> num_bits
    same = keys[1:] == keys[:-1]
    if not same.any():
        return np.zeros(0, dtype=np.int64), 0, 1
    repeated = np.zeros(hashes.size, dtype=np.bool_)
    repeated[1:] = same
    repeated[:-1] |= same
    indices = (packed[repeated] & ((np.uint64(1) << num_bits) - np.uint64(1))).astype(np.int64)
    keys = keys[repeated]
    bounds = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    starts = np.concatenate(([0], bounds))
    counts = np.concatenate((bounds, [indices.size])) - starts
    count = int(counts.max())
    top = int(indices[starts[counts == count]].min())
    indices.sort()
    return indices, top, count


def _scan(positions: list[int], keys: list[int], n: int) -> list[int]:
    """Positions of the n-grams seen before. Those that occur once may be left out: they are never a hit."""
    seen: set[int] = set()
    hits: list[int] = []
    next_position = 0
    for position, key in zip(positions, keys, strict=True):
        if position < next_position:
            continue
        if key in seen:
            hits.append(position)
            next_position = position + n
        else:
            seen.add(key)
    return hits
