"""Intervals of figures, and of the difference of two models on the same items.

Bootstrap over items (Efron 1979), percentiles, 95 %: items are drawn with replacement by a seed of their own, so that a
figure has the same interval whenever it is computed. Ratios, such as loss a token, draw numerator and denominator together.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUM_DRAWS = 2_000
_MAX_DRAWN_AT_ONCE = 1 << 22
"""Items drawn at once: 32 MiB of indices."""
_MAX_UNITS = 10_000
"""Drawn one by one; of more items, so many runs."""
_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A measurement and its 95 % interval."""

    value: float
    low: float | None
    """None, like `high`, where fewer than two items say nothing about it."""
    high: float | None
    num_items: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One model's figure less another's on the same items."""

    value: float
    low: float | None
    high: float | None
    num_items: int
    is_real: bool
    """Whether the interval leaves out zero and the difference is above the noise floor."""


def mean_figure(scores: ArrayLike, *, seed: int = 0) -> Figure:
    """The mean of the items' scores, (num_items,)."""
    values = np.asarray(scores, np.float64)
    return ratio_figure(values, np.ones_like(values), seed=seed)


def ratio_figure(numerators: ArrayLike, denominators: ArrayLike, *, seed: int = 0) -> Figure:
    """The sum of the one over the sum of the other, (num_items,) each; NaN where the denominators have no sum."""
    above, below = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    value = above.sum() / below.sum() if below.sum() else math.nan
    low, high = _interval(above, below, seed)
    return Figure(value=float(value), low=low, high=high, num_items=above.size)


def difference(
    ours: ArrayLike, theirs: ArrayLike, *, weights: ArrayLike | None = None, noise_floor: float = 0.0, seed: int = 0
) -> Difference:
    """The mean of paired differences of items' scores, (num_items,) each; `weights` where items count unequally.

    Scores are totals where weights are given: losses of documents with their numbers of tokens.
    """
    gap = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    below = np.ones_like(gap) if weights is None else np.asarray(weights, np.float64)
    value = float(gap.sum() / below.sum()) if below.sum() else math.nan
    low, high = _interval(gap, below, seed)
    leaves_out_zero = low is not None and high is not None and (low > 0 or high < 0)
    return Difference(
        value=value, low=low, high=high, num_items=gap.size, is_real=leaves_out_zero and abs(value) > noise_floor
    )


def distance_difference(
    ours: ArrayLike,
    theirs: ArrayLike,
    target: float,
    *,
    weights: ArrayLike | None = None,
    noise_floor: float = 0.0,
    seed: int = 0,
) -> Difference:
    """How much further from a target the mean of ours is than that of theirs, on either side; items paired as they are drawn.

    Arguments as of `difference`. Means on two sides of the target are equal where they are equally far.
    """
    mine, other = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    below = np.ones_like(mine) if weights is None else np.asarray(weights, np.float64)
    everything = np.arange(below.size)[None]
    value = float(_distances(mine, other, below, everything, target)[0])
    if below.size < 2:
        return Difference(value=value, low=None, high=None, num_items=below.size, is_real=False)
    found = [_distances(mine, other, below, drawn, target) for drawn in _draws(below.size, seed)]
    tail = 100 * (1 - _LEVEL) / 2
    low, high = np.nanpercentile(np.concatenate(found), [tail, 100 - tail])
    return Difference(
        value=value,
        low=float(low),
        high=float(high),
        num_items=below.size,
        is_real=bool(low > 0 or high < 0) and abs(value) > noise_floor,
    )


def _distances(
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    below: NDArray[np.float64],
    drawn: NDArray[np.int64],
    target: float,
) -> NDArray[np.float64]:
    """Of items (num_items,) that are drawn, (num_draws, num_drawn): (num_draws,)."""
    sums = below[drawn].sum(axis=1)
    means = [
        np.divide(each[drawn].sum(axis=1), sums, out=np.full(sums.shape, np.nan), where=sums != 0)
        for each in (ours, theirs)
    ]
    found: NDArray[np.float64] = np.abs(means[0] - target) - np.abs(means[1] - target)
    return found


def _draws(size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """NUM_DRAWS times `size` items, with replacement, some at once."""
    generator, rows = np.random.default_rng(seed), max(1, _MAX_DRAWN_AT_ONCE // size)
    for start in range(0, NUM_DRAWS, rows):
        yield generator.integers(0, size, (min(rows, NUM_DRAWS - start), size))


def share_interval(num_hits: int, num_items: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (1927), sound for few items and shares near 0 or 1; (0, 1) of none."""
    if not num_items:
        return 0.0, 1.0
    z, share = 1.959963984540054, num_hits / num_items
    middle = share + z * z / (2 * num_items)
    half = z * math.sqrt(share * (1 - share) / num_items + z * z / (4 * num_items * num_items))
    scale = 1 + z * z / num_items
    low, high = (middle - half) / scale, (middle + half) / scale
    # The ends of none and of all are exact; rounding would leave out the very share that was found.
    return 0.0 if num_hits == 0 else max(0.0, low), 1.0 if num_hits == num_items else min(1.0, high)


def share_figure(num_hits: int, num_items: int) -> Figure:
    """A share with Wilson's interval; NaN of none."""
    low, high = share_interval(num_hits, num_items)
    value = num_hits / num_items if num_items else math.nan
    return Figure(value=value, low=low, high=high, num_items=num_items)


def _interval(above: NDArray[np.float64], below: NDArray[np.float64], seed: int) -> tuple[float | None, float | None]:
    if above.size < 2:
        return None, None
    if above.size > _MAX_UNITS:  # means of many items are as good as normal: runs of them are drawn together
        starts = np.linspace(0, above.size, _MAX_UNITS, endpoint=False).astype(np.int64)
        above, below = np.add.reduceat(above, starts), np.add.reduceat(below, starts)
    found = []
    for drawn in _draws(above.size, seed):
        sums = below[drawn].sum(axis=1)
        found.append(np.divide(above[drawn].sum(axis=1), sums, out=np.full(sums.shape, np.nan), where=sums != 0))
    tail = 100 * (1 - _LEVEL) / 2
    low, high = np.nanpercentile(np.concatenate(found), [tail, 100 - tail])
    return float(low), float(high)
