"""Comparing two rates of an event: ratio and interval, test, stratified over confounders, many at once.

Sources: Katz et al. 1978 (Biometrics 34:469) for the interval of a ratio, Sweeting et al. 2004 (Statistics in Medicine
23:1351) for one with an empty cell; Mantel and Haenszel 1959 with the variance of
Greenland and Robins 1985 (Biometrics 41:55) for the ratio over strata; Cochran 1954 and Mantel and Haenszel for its
test; Benjamini and Hochberg 1995 (JRSS B 57:289) for many tests at once.

Must not: know what is counted. Numbers in, numbers out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """A ratio of two rates."""

    value: float
    low: float
    """Lower end of the confidence interval."""
    high: float
    """Upper end of the confidence interval."""


def risk_ratio(events: int, total: int, base_events: int, base_total: int, confidence: float = 0.95) -> Ratio | None:
    """Rate of an event in a group over the rate in the rest, with its log-normal interval.

    None where a side is empty or the event never happened on either. Where one cell is empty, one event and one of its
    absence are added, dealt out by the sizes of the sides: that makes the ratio finite and draws it towards 1.
    """
    if not total or not base_total or not events + base_events:
        return None
    a, b, n, m = float(events), float(base_events), float(total), float(base_total)
    if not events or not base_events or (events == total and base_events == base_total):
        ours, theirs = n / (n + m), m / (n + m)
        a, b, n, m = a + ours, b + theirs, n + 2 * ours, m + 2 * theirs
    return _log_normal((a / n) / (b / m), max(0.0, 1 / a - 1 / n + 1 / b - 1 / m), confidence)


def two_proportion_p(events: int, total: int, base_events: int, base_total: int) -> float:
    """Two-sided p of the z test with pooled variance; 1 where the rates cannot differ."""
    pooled_events, pooled_total = events + base_events, total + base_total
    if not total or not base_total or pooled_events in (0, pooled_total):
        return 1.0
    pooled = pooled_events / pooled_total
    error = math.sqrt(pooled * (1 - pooled) * (1 / total + 1 / base_total))
    return _two_sided((events / total - base_events / base_total) / error)


def mantel_haenszel_ratio(
    events: Counts, totals: Counts, base_events: Counts, base_totals: Counts, confidence: float = 0.95
) -> Ratio | None:
    """Ratio of the rates within strata, pooled; arrays (num_strata,).

    Strata without one of the sides say nothing and weigh nothing. None where no stratum has both sides and an event on
    each: then nothing is left to compare like with like.
    """
    a, n, b, m = _informative(events, totals, base_events, base_totals)
    both = n + m
    ours, theirs = a * m / both, b * n / both
    top, bottom = float(ours.sum()), float(theirs.sum())
    if top <= 0 or bottom <= 0:
        return None
    variance = float((((a + b) * n * m - a * b * both) / both**2).sum()) / (top * bottom)
    return _log_normal(top / bottom, max(0.0, variance), confidence)


def mantel_haenszel_p(events: Counts, totals: Counts, base_events: Counts, base_totals: Counts) -> float:
    """Two-sided p of the Cochran-Mantel-Haenszel test, without continuity correction; 1 where nothing can differ."""
    a, n, b, m = _informative(events, totals, base_events, base_totals)
    both, happened = n + m, a + b
    many = both > 1
    a, n, m, both, happened = a[many], n[many], m[many], both[many], happened[many]
    variance = float((n * m * happened * (both - happened) / (both**2 * (both - 1))).sum())
    return 1.0 if variance <= 0 else _two_sided(float((a - n * happened / both).sum()) / math.sqrt(variance))


def num_informative(totals: Counts, base_totals: Counts) -> int:
    """Members of the group in strata that have both sides: what a matched ratio rests on."""
    return int(totals[(totals > 0) & (base_totals > 0)].sum())


def adjusted(p_values: Sequence[float]) -> list[float]:
    """The smallest false discovery rate at which each test counts (Benjamini and Hochberg), in the order given."""
    ranked = sorted(range(len(p_values)), key=lambda idx: p_values[idx])
    found = [1.0] * len(p_values)
    least = 1.0
    for rank in range(len(ranked), 0, -1):
        idx = ranked[rank - 1]
        least = min(least, p_values[idx] * (len(p_values) / rank))
        found[idx] = least
    return found


def _informative(*counts: Counts) -> tuple[npt.NDArray[np.float64], ...]:
    has_both = (counts[1] > 0) & (counts[3] > 0)
    return tuple(each[has_both].astype(np.float64) for each in counts)


def _log_normal(value: float, variance: float, confidence: float) -> Ratio:
    spread = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(variance)
    return Ratio(value=value, low=value * math.exp(-spread), high=value * math.exp(spread))


def _two_sided(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))
