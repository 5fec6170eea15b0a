"""An n-gram model: interpolated, modified Kneser-Ney (Chen and Goodman 1999), over token ids.

It is a proper distribution: of every context, seen or not, the probabilities of all ids from 0 to the vocabulary's size
sum to one, also of those that training never met (they share what the unigrams leave over evenly). So its cost in bits
can be held against that of any other model over the same text.

A stream is documents one after the other, each ended by the boundary token, which also is what each begins after. No
context reaches over a boundary.

Stored as sorted arrays: an n-gram is the number of its first n - 1 tokens among the (n - 1)-grams, times the
vocabulary's size, plus its last token; its own number is its place in the order of these keys. So a key is exact, never
a hash. Costs are whole numbers of 2^-20 bits, made with additions and multiplications alone: a text costs the same on
every machine, wherever it is cut and in whatever order costs are summed. A model that is not kept can have them unrounded.

Must not: know what a token is, or read and write files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.errors import ConfigError

Tokens = npt.NDArray[np.uint32]
Costs = npt.NDArray[np.int64] | npt.NDArray[np.float64]
Keys = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
StoredCosts = npt.NDArray[np.int32] | npt.NDArray[np.float64]
"""Rounded to whole numbers, or not."""

COSTS_PER_BIT = 1 << 20
MAX_ORDER = 8
_PARTS = ("keys", "costs", "backoffs")
_MAX_VOCAB_SIZE = 1 << 20
_CHUNK_NUM_TOKENS = 1 << 19
"""Tokens whose cost is looked up at a time: their arrays stay in the cache, and their keys and places in 64 bits."""
_FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""Where a corpus is too small to estimate them from (as KenLM's `--discount_fallback` has it)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NgramConfig:
    """The shape of a model."""

    order: int = 5
    """Tokens of the longest n-grams."""
    min_count: int = 1
    """n-grams of three tokens and more that occur less often are left out, and what they had goes to the shorter ones; 2
    makes a model of about a third the size."""

    def __post_init__(self) -> None:
        if not 1 <= self.order <= MAX_ORDER:
            raise ConfigError(f"got order {self.order}, wanted 1 to {MAX_ORDER}: 5 is usual.")
        if self.min_count < 1:
            raise ConfigError(f"got min_count {self.min_count}, wanted at least 1: 1 keeps every n-gram.")


@dataclass(frozen=True, slots=True)
class Level:
    """The n-grams of one length, in the order of their keys; arrays of equal length, but no keys of single tokens."""

    keys: Keys
    """(number of the first n - 1 tokens) * vocab_size + last token; empty for n = 1, where the token is the number."""
    costs: StoredCosts
    """Of the last token after the others."""
    backoffs: StoredCosts
    """What a token that never followed this n-gram costs more than after the n-gram without its first token."""


@dataclass(frozen=True, slots=True)
class NgramModel:
    """A trained model. Make one with `train`, or with `from_row`."""

    vocab_size: int
    boundary: int
    """The token that ends a document, and after which each begins."""
    levels: tuple[Level, ...]
    """Of 1 token, of 2, and so on."""

    @property
    def num_ngrams(self) -> int:
        return sum(level.costs.size for level in self.levels)

    def costs(self, stream: Tokens) -> Costs:
        """(T,) -> (T,): -log2 of each token's probability after the tokens before it in its document, COSTS_PER_BIT
        to a bit; whole numbers unless the model was trained `exact`."""
        padded = _after_boundary(stream, self.boundary)
        overlap = len(self.levels) - 1
        found = np.empty(stream.size, dtype=_summed(self.levels[0].costs))
        for start in range(0, stream.size, _CHUNK_NUM_TOKENS):
            stop = min(start + _CHUNK_NUM_TOKENS, stream.size)
            first = max(start + 1 - overlap, 0)  # the token at `start` has place `start + 1` after the boundary
            found[start:stop] = self._costs(padded[first : stop + 1])[start + 1 - first :]
        return found

    def _costs(self, tokens: Ints) -> Costs:
        """The costs of a short stretch; the first tokens are there as context for what follows."""
        depths = _depths(tokens, self.boundary, len(self.levels))
        costs = self.levels[0].costs[tokens].astype(_summed(self.levels[0].costs))
        numbers = tokens
        for n, (shorter, level) in enumerate(zip(self.levels, self.levels[1:], strict=False), start=2):
            places = np.flatnonzero((depths[1:] >= n) & (numbers[:-1] >= 0)) + 1
            contexts = numbers[places - 1]
            found = _find(level.keys, contexts.astype(np.uint64) * np.uint64(self.vocab_size) + _u64(tokens[places]))
            known = found >= 0
            costs[places[known]] = level.costs[found[known]]
            costs[places[~known]] += shorter.backoffs[contexts[~known]]
            numbers = np.full(tokens.size, -1, dtype=np.int64)
            numbers[places] = found
        return costs

    def probabilities(self, context: Sequence[int]) -> Floats:
        """(V,) the probability of each id after a context; a document begins after `[boundary]`.

        Of the context, the last `order - 1` tokens count, and none before the last boundary among them.
        """
        costs = self.levels[0].costs.astype(_summed(self.levels[0].costs))
        for shorter, level, context_number in zip(self.levels, self.levels[1:], self._numbers(context), strict=False):
            if context_number < 0:
                continue
            costs += shorter.backoffs[context_number]
            first, end = np.searchsorted(
                level.keys, _u64(np.array([context_number, context_number + 1])) * np.uint64(self.vocab_size)
            )
            costs[level.keys[first:end] % np.uint64(self.vocab_size)] = level.costs[first:end]
        return np.exp2(-costs / COSTS_PER_BIT)

    def _numbers(self, context: Sequence[int]) -> list[int]:
        """The number of the last token of a context, of its last two, and so on; -1 for what training never met."""
        numbers: list[int] = []
        for length in range(1, len(self.levels)):
            tokens = list(context[-length:])
            if len(tokens) < length or self.boundary in tokens[1:]:
                break
            number = tokens[0]
            for level, token in zip(self.levels[1:], tokens[1:], strict=False):
                if number >= 0:
                    key = np.array([number * self.vocab_size + token], dtype=np.uint64)
                    number = int(_find(level.keys, key)[0])
            numbers.append(number)
        return numbers

    def to_columns(self) -> dict[str, pa.Array]:
        """The model as a row of the schema NGRAM_MODEL, which holds rounded costs alone."""
        sizes = [0, *np.cumsum([level.costs.size for level in self.levels]).tolist()]
        num_keys = [0, *np.cumsum([level.keys.size for level in self.levels]).tolist()]
        arrays = [
            pa.ListArray.from_arrays(
                pa.array(offsets, pa.int32()), pa.array(np.concatenate([getattr(level, name) for level in self.levels]))
            )
            for name, offsets in zip(_PARTS, (num_keys, sizes, sizes), strict=True)
        ]
        fields = [pa.field(name, array.type, nullable=False) for name, array in zip(_PARTS, arrays, strict=True)]
        levels = pa.StructArray.from_arrays(arrays, fields=fields)
        return {
            "vocab_size": pa.array([self.vocab_size], pa.int32()),
            "boundary": pa.array([self.boundary], pa.int32()),
            "levels": pa.ListArray.from_arrays(pa.array([0, len(self.levels)], pa.int32()), levels),
        }

    @classmethod
    def from_row(cls, batch: pa.RecordBatch, row: int) -> "NgramModel":
        """The model in a row of a schema that holds NGRAM_MODEL's fields; its arrays are views of the batch, which may be memory-mapped."""
        found = []
        for level in batch.column("levels")[row]:
            parts = [level[name].values.to_numpy(zero_copy_only=True) for name in _PARTS]
            found.append(Level(*parts))
        return cls(batch.column("vocab_size")[row].as_py(), batch.column("boundary")[row].as_py(), tuple(found))


def train(stream: Tokens, vocab_size: int, boundary: int, config: NgramConfig, *, exact: bool = False) -> NgramModel:
    """A model of a stream of documents, each ended by `boundary`. Equal for the same documents in any order.

    `exact` keeps costs in double precision, twice the size, for a model that is used at once: probabilities then sum to
    one to within rounding, and need not be equal in the last bit on another machine. Takes about 20 bytes of memory for
    each token and order. Raises ConfigError for a vocabulary beyond a million ids.
    """
    if not 1 <= vocab_size <= _MAX_VOCAB_SIZE or not 0 <= boundary < vocab_size:
        raise ConfigError(
            f"got a vocabulary of {vocab_size} with boundary {boundary}, wanted 1 to {_MAX_VOCAB_SIZE} ids: correct it."
        )
    if stream.size and int(stream.max()) >= vocab_size:
        raise ConfigError(
            f"got token {int(stream.max())}, wanted ids below {vocab_size}: encode with the same tokenizer."
        )
    counted = _counted(stream, vocab_size, boundary, config.order)
    return _estimated(counted, vocab_size, boundary, config, _exact_costs_of if exact else _costs_of)


@dataclass(frozen=True, slots=True)
class _Counts:
    """All n-grams of one length that occur, in the order of their keys."""

    keys: Keys
    counts: Ints
    suffixes: npt.NDArray[np.int32]
    """The number of each without its first token."""
    begins: npt.NDArray[np.bool_]
    """It begins a document: its first token is the boundary."""


def _counted(stream: Tokens, vocab_size: int, boundary: int, order: int) -> list[_Counts]:
    tokens = _after_boundary(stream, boundary)
    depths = _depths(tokens, boundary, order)
    counts = np.bincount(tokens[1:], minlength=vocab_size)
    every = np.arange(vocab_size)
    levels = [_Counts(_u64(every), counts, np.zeros(vocab_size, np.int32), every == boundary)]
    numbers = tokens.astype(np.int32)
    for n in range(2, order + 1):
        places = np.flatnonzero(depths >= n)
        keys = _u64(numbers[places - 1]) * np.uint64(vocab_size) + _u64(tokens[places])
        keys, ranks = _sorted(keys)
        is_first = np.ones(keys.size, dtype=np.bool_)
        np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
        starts = np.flatnonzero(is_first)
        at = places[ranks]
        del places, ranks
        unique = keys[starts]
        prefixes = (unique // np.uint64(vocab_size)).astype(np.int64)
        levels.append(
            _Counts(
                keys=unique,
                counts=np.diff(np.append(starts, keys.size)),
                suffixes=numbers[at[starts]],
                begins=levels[-1].begins[prefixes],
            )
        )
        longer = np.full(tokens.size, -1, dtype=np.int32)
        longer[at] = np.cumsum(is_first, dtype=np.int32) - np.int32(1)
        numbers = longer
    return levels


def _estimated(
    counted: Sequence[_Counts],
    vocab_size: int,
    boundary: int,
    config: NgramConfig,
    costs_of: Callable[[Floats], StoredCosts],
) -> NgramModel:
    levels: list[Level] = []
    # Below single tokens all ids are alike.
    probabilities, number_of, was_kept = np.full(1, 1 / vocab_size), np.zeros(1, np.int64), np.ones(1, np.bool_)
    for n, level in enumerate(counted, start=1):
        adjusted = _adjusted(level, counted[n] if n < config.order else None)
        kept = np.ones(adjusted.size, np.bool_) if n <= _NEVER_PRUNED else level.counts >= config.min_count
        contexts = (level.keys // np.uint64(vocab_size)).astype(np.int64) if n > 1 else np.zeros(vocab_size, np.int64)
        discounts = _discounts(adjusted)
        totals, weights = _weights(contexts, adjusted, kept, discounts, was_kept.size)
        if levels:
            levels[-1] = Level(levels[-1].keys, levels[-1].costs, costs_of(weights[was_kept]))
        # From here on only what is kept: its first and its last tokens occur no less often, so they are kept as well.
        contexts, adjusted = contexts[kept], adjusted[kept]
        own = (adjusted - discounts[np.minimum(adjusted, 3)]) / np.maximum(totals[contexts], 1)
        probabilities = own + weights[contexts] * probabilities[number_of[level.suffixes[kept]]]
        tokens = level.keys[kept] % np.uint64(vocab_size)
        keys = _u64(number_of[contexts]) * np.uint64(vocab_size) + tokens if n > 1 else np.zeros(0, np.uint64)
        costs = costs_of(probabilities)
        levels.append(Level(keys, costs, np.zeros_like(costs)))
        number_of, was_kept = np.where(kept, np.cumsum(kept) - 1, -1), kept
    return NgramModel(vocab_size, boundary, tuple(levels))


def _adjusted(level: _Counts, longer: _Counts | None) -> Ints:
    """How many different tokens stand before each n-gram; of the longest, and of those that begin a document, the count.

    Nothing stands before the beginning, so a document's first tokens would else never have been seen.
    """
    if longer is None:
        return level.counts
    num_before = np.bincount(longer.suffixes, minlength=level.keys.size)
    return np.where(level.begins & (num_before == 0), level.counts, num_before)


def _discounts(adjusted: Ints) -> Floats:
    """(4,) what is taken from an adjusted count of 0, 1, 2, and 3 or more: Chen and Goodman's equation 26."""
    n1, n2, n3, n4 = (int(np.count_nonzero(adjusted == count)) for count in (1, 2, 3, 4))
    found = _FALLBACK_DISCOUNTS
    if n1 and n2 and n3 and n4:
        y = n1 / (n1 + 2 * n2)
        estimated = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 < discount <= count for count, discount in enumerate(estimated, start=1)):
            found = estimated
    return np.array([0.0, *found])


def _weights(
    contexts: Ints, adjusted: Ints, kept: npt.NDArray[np.bool_], discounts: Floats, num_contexts: int
) -> tuple[Floats, Floats]:
    """(num_contexts,) the sum of adjusted counts after each context, and the share of it that goes to the shorter one.

    Sums of whole numbers, which are exact in any order; 1 for a context that nothing follows.
    """
    totals = np.bincount(contexts, weights=adjusted, minlength=num_contexts).astype(np.float64)
    left = np.bincount(contexts[~kept], weights=adjusted[~kept], minlength=num_contexts).astype(np.float64)
    for count in (1, 2, 3):
        chosen = kept & ((adjusted == count) if count < 3 else (adjusted >= count))
        left += discounts[count] * np.bincount(contexts[chosen], minlength=num_contexts)
    return totals, np.divide(left, totals, out=np.ones_like(totals), where=totals > 0)


def _costs_of(probabilities: Floats) -> npt.NDArray[np.int32]:
    """-log2 in COSTS_PER_BIT, by operations that IEEE 754 rounds alike everywhere, as no library's log2 does."""
    mantissas, exponents = np.frexp(probabilities)
    is_low = mantissas < _SQRT_HALF
    mantissas = np.where(is_low, mantissas * 2, mantissas)
    exponents = exponents - is_low
    # ln m = 2 artanh((m - 1) / (m + 1)), |argument| below 0.172: ten terms are exact to 1e-17
    ratio = (mantissas - 1) / (mantissas + 1)
    square = ratio * ratio
    series = np.zeros_like(ratio)
    for power in range(19, 0, -2):
        series = series * square + 1 / power
    return np.rint(-(exponents + series * ratio * _TWO_OVER_LN2) * COSTS_PER_BIT).astype(np.int32)


def _exact_costs_of(probabilities: Floats) -> Floats:
    return -np.log2(probabilities) * COSTS_PER_BIT


def _summed(costs: StoredCosts) -> np.dtype[Any]:
    """In what costs are added up."""
    return np.promote_types(costs.dtype, np.int64)


_SQRT_HALF = 0.7071067811865476
_TWO_OVER_LN2 = 2.8853900817779268
_NEVER_PRUNED = 2
"""Tokens of the n-grams that stay however rare they are."""


def _after_boundary(stream: Tokens, boundary: int) -> Ints:
    tokens = np.empty(stream.size + 1, dtype=np.int64)
    tokens[0] = boundary
    tokens[1:] = stream
    return tokens


def _depths(tokens: Ints, boundary: int, most: int) -> npt.NDArray[np.int8]:
    """The length of the longest n-gram that ends at each place: it may begin with a boundary, and hold none inside."""
    depths = np.ones(tokens.size, dtype=np.int8)
    is_open = np.ones(tokens.size, dtype=np.bool_)  # no boundary among the tokens between
    for distance in range(1, most):
        is_open[:distance] = False
        depths += is_open
        is_open[distance:] &= tokens[:-distance] != boundary
    return depths


def _u64(values: npt.NDArray[Any]) -> Keys:
    return values.astype(np.uint64)


def _sorted(keys: Keys) -> tuple[Keys, Ints]:
    """The keys in order, and the place that each had; equal ones in any order."""
    place_bits = int(keys.size).bit_length()
    if keys.size and int(keys.max()).bit_length() + place_bits <= _KEY_BITS:  # a sixth of the time of an argsort
        packed = np.sort((keys << np.uint64(place_bits)) | np.arange(keys.size, dtype=np.uint64))
        places = (packed & np.uint64((1 << place_bits) - 1)).astype(np.int64)
        packed >>= np.uint64(place_bits)
        return packed, places
    places = np.argsort(keys, kind="stable")
    return keys[places], places


_KEY_BITS = 64


def _find(keys: Keys, wanted: Keys) -> Ints:
    """The place of each wanted key among sorted keys, or -1."""
    if not keys.size or not wanted.size:
        return np.full(wanted.size, -1, dtype=np.int64)
    ordered, places = _sorted(wanted)  # neighbours in memory, so that three in four look-ups hit the cache
    at = np.searchsorted(keys, ordered)
    at[at == keys.size] = 0
    found = np.empty(wanted.size, dtype=np.int64)
    found[places] = np.where(keys[at] == ordered, at, -1)
    return found
