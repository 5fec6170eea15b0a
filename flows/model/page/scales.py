"""What charts share: steps gathered into bins, and axes with round numbers. No markup, no drawing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SAME = 1e-4
_MIN_TICKS = 2
_CLIP_QUANTILE = 0.99
_CLIP_FACTOR = 3.0
"""What lies above this many times the quantile is off the scale: one spike would leave the rest a flat line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bins:
    """Rows gathered in order, as many in each bin as in the others (the last may have fewer)."""

    starts: Ints
    """First row of each, (num_bins,)."""
    num_rows: int

    @property
    def ends(self) -> Ints:
        """The row behind each, (num_bins,)."""
        return np.append(self.starts[1:], self.num_rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Binned:
    """A measurement by bin, (num_bins,) each; NaN where a bin has no finite value."""

    means: Floats
    lows: Floats
    highs: Floats
    num_bad: Ints
    """Measured, and not finite."""


def bins(num_rows: int, most: int) -> Bins:
    """At most that many bins; a bin is a row where there are few rows."""
    size = max(1, math.ceil(num_rows / most))
    return Bins(starts=np.arange(0, num_rows, size, dtype=np.int64), num_rows=num_rows)


def binned(values: Floats, into: Bins) -> Binned:
    """Gather values, (num_rows,): NaN is nothing measured, infinite is measured and not finite."""
    if not into.starts.size:
        nothing = np.empty(0)
        return Binned(means=nothing, lows=nothing, highs=nothing, num_bad=np.empty(0, np.int64))
    is_there = np.isfinite(values)
    counts = np.add.reduceat(is_there.astype(np.int64), into.starts)
    sums = np.add.reduceat(np.where(is_there, values, 0.0), into.starts)
    lows = np.minimum.reduceat(np.where(is_there, values, np.inf), into.starts)
    highs = np.maximum.reduceat(np.where(is_there, values, -np.inf), into.starts)
    return Binned(
        means=np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0),
        lows=np.where(counts > 0, lows, np.nan),
        highs=np.where(counts > 0, highs, np.nan),
        num_bad=np.add.reduceat(np.isinf(values).astype(np.int64), into.starts),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """From low to high, with the numbers that are written beside it."""

    low: float
    high: float
    ticks: tuple[float, ...]
    is_log: bool

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high one; held within."""
        low, high, at = (
            (math.log10(self.low), math.log10(self.high), math.log10(max(value, self.low)))
            if self.is_log
            else (self.low, self.high, value)
        )
        return min(1.0, max(0.0, (at - low) / (high - low)))


def linear_axis(values: Sequence[float] | Floats, *, from_zero: bool = False, num_ticks: int = 4) -> Axis:
    """An axis with round numbers at both ends. What lies far above all else is off it."""
    finite = _finite(values)
    low, high = (float(finite.min()), _without_spikes(finite)) if finite.size else (0.0, 1.0)
    low = min(low, 0.0) if from_zero else low
    if high - low <= _SAME * max(abs(low), abs(high)):  # numbers with so many digits cannot be written at an axis
        room = abs(low) / 2 or 1.0
        low, high = (low if from_zero else low - room), low + room
    step = _round_step((high - low) / num_ticks)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(float(f"{idx * step:.10g}") for idx in range(first, last + 1))
    return Axis(low=ticks[0], high=ticks[-1], ticks=ticks, is_log=False)


def log_axis(values: Sequence[float] | Floats) -> Axis | None:
    """An axis of powers; None where nothing is above zero."""
    finite = _finite(values)
    finite = finite[finite > 0]
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    if high <= low * 1.01:
        low, high = low / 1.5, high * 1.5
    decades = math.log10(high / low)
    multiples = (1.0, 2.0, 3.0, 5.0, 7.0) if decades < 0.7 else (1.0, 2.0, 5.0) if decades < 2 else (1.0,)
    every = max(1, math.ceil(decades / 6))
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    ticks = tuple(
        float(f"{m * 10.0**e:.10g}")
        for e in exponents
        if e % every == 0
        for m in multiples
        if low / 1.0001 <= m * 10.0**e <= high * 1.0001
    )
    if len(ticks) < _MIN_TICKS:
        ticks = tuple(tick for tick in linear_axis([low, high]).ticks if low <= tick <= high)
    return Axis(low=low, high=high, ticks=ticks, is_log=True)


def number_text(value: float) -> str:
    """A number of an axis: short, and the same for the same number."""
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        mantissa, _, exponent = f"{value:.3g}".partition("e")
        if not exponent:
            mantissa, exponent = f"{value:.2e}".split("e")
            mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{int(exponent)}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.6g}"


def _finite(values: Sequence[float] | Floats) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    return array[np.isfinite(array)]


def _without_spikes(finite: Floats) -> float:
    highest, usual = float(finite.max()), float(np.quantile(finite, _CLIP_QUANTILE))
    return usual if usual > 0 and highest > _CLIP_FACTOR * usual else highest


def _round_step(step: float) -> float:
    scale = 10.0 ** math.floor(math.log10(step))
    return float(next(m for m in (1, 2, 2.5, 5, 10) if m * scale >= step * 0.9999)) * scale
