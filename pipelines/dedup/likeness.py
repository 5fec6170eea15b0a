"""Which texts are like which: guessed by their signatures, then counted, until no guess is left.

Texts are visited in the order in which they were first seen. Each is compared with the earlier ones that *stay* and
share a band with it, so likeness is never chained (A like B, B like C), and a later text changes no earlier verdict. How
alike two texts truly are takes their shingles, and whose will be asked for depends on the answers; so the walk is first
made with guesses, what it asked for is counted, and it is made again, until it asks for nothing new. Its end does not
depend on the guesses.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.dedup.loops import kernels
from pipelines.schemas import MINHASH_NUM_PERMUTATIONS

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Signatures = npt.NDArray[np.uint32]

Verify = Callable[[Indices, Indices], tuple[Floats, Floats]]
"""Later and earlier texts -> their Jaccard similarities, and the shares of the later ones that are in the earlier ones."""

MAX_LEADERS = 256
"""Earlier texts of one bucket that a text is compared with, the first seen: a bound for sites made of one template."""
_NUM_STANDARD_ERRORS = 4
"""How far below the threshold a guess may lie and still be checked: a true 0.8 looks worse once in 30,000 times."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """What is known of pairs of texts, by later text, then earlier."""

    keys: Indices
    """(pairs,) later << 32 | earlier, ascending."""
    similarity: Floats
    containment: Floats

    @property
    def later(self) -> Indices:
        return self.keys >> 32

    @property
    def earlier(self) -> Indices:
        return self.keys & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Likeness:
    """The end of a walk."""

    leaders: Indices
    """(texts,) the text that each is most like, if it is like one enough; else itself."""
    pairs: Pairs
    """All that were looked at."""


def no_pairs() -> Pairs:
    """Nothing is known."""
    return Pairs(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float32))


def liken(
    texts: Indices,
    buckets: Indices,
    signatures: Signatures,
    signature_of: Indices,
    *,
    known: Pairs,
    verify: Verify,
    min_similarity: float,
    keeps_all: bool,
) -> Likeness:
    """Walk the texts that lie in buckets.

    `texts` and `buckets` (entries,) say which text lies in which bucket, numbers from 0 and no text without an entry;
    `signature_of` (texts,) names the row of `signatures` (uint32[rows, 112]). `known` saves counting and changes
    nothing. `keeps_all`: near-duplicates stay, so what comes later is compared with them too.
    """
    num_texts = len(signature_of)
    by_text = np.lexsort((buckets, texts))
    starts = np.searchsorted(texts[by_text], np.arange(num_texts + 1)).astype(np.int64)
    in_order = np.ascontiguousarray(buckets[by_text])
    sizes = np.bincount(buckets, minlength=1)
    bucket_starts = np.concatenate([[0], np.cumsum(np.minimum(sizes, MAX_LEADERS))]).astype(np.int64)
    members = np.empty(int(bucket_starts[-1]), np.int64)
    threshold = np.array([min_similarity], np.float32)
    min_equal = _min_equal(min_similarity)
    room = max(1 << 16, 8 * num_texts)
    while True:
        leaders, similarities = np.empty(num_texts, np.int64), np.empty(num_texts, np.float32)
        counts, stamps = np.zeros(len(sizes), np.int64), np.zeros(num_texts, np.int64)
        keys, places = np.empty(room, np.int64), np.empty(room, np.int64)
        num_pairs = kernels().walk(
            *(num_texts, _at(starts), _at(in_order), _at(bucket_starts), _at(counts), _at(members), MAX_LEADERS),
            *(_at(signature_of), _at(signatures), MINHASH_NUM_PERMUTATIONS, min_equal, _at(threshold)),
            *(_at(known.keys), _at(known.similarity), len(known.keys), int(keeps_all), _at(stamps)),
            *(_at(leaders), _at(similarities), _at(keys), _at(places), room),
        )
        if num_pairs < 0:
            room *= 4
            continue
        keys, places = keys[:num_pairs], places[:num_pairs]
        asked = np.sort(keys[places < 0])
        if not len(asked):
            seen = np.sort(places)
            return Likeness(leaders, Pairs(known.keys[seen], known.similarity[seen], known.containment[seen]))
        known = _merged(known, Pairs(asked, *verify(asked >> 32, asked & 0xFFFFFFFF)))


def _min_equal(min_similarity: float) -> int:
    """Equal minima below which two texts are not alike, whatever was asked."""
    error = math.sqrt(min_similarity * (1 - min_similarity) / MINHASH_NUM_PERMUTATIONS)
    return max(1, math.floor((min_similarity - _NUM_STANDARD_ERRORS * error) * MINHASH_NUM_PERMUTATIONS))


def _merged(one: Pairs, other: Pairs) -> Pairs:
    keys = np.concatenate([one.keys, other.keys])
    order = np.argsort(keys, kind="stable")
    return Pairs(
        keys[order],
        np.concatenate([one.similarity, other.similarity])[order],
        np.concatenate([one.containment, other.containment])[order],
    )


def _at(array: npt.NDArray[np.generic]) -> int:
    if not array.flags.c_contiguous:
        raise ValueError("got an array with gaps, wanted one that the compiled loop can read: copy it.")
    return array.ctypes.data
