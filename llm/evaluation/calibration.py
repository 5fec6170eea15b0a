"""Whether a model is as often right as it is sure: expected calibration error of its next-token predictions (arXiv:1706.04599)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from llm.evaluation.statistics import NUM_DRAWS, Figure

NUM_BINS = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationBin:
    """Predictions with a confidence above `low` and up to `high`."""

    low: float
    high: float
    num_tokens: int
    confidence: float | None
    """Mean probability of the likeliest token; None, like `accuracy`, where there are no predictions."""
    accuracy: float | None
    """How often it was the next token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """The error, and the bins that a reliability diagram shows."""

    error: Figure
    """Mean over tokens of how far confidence and accuracy of their bin are apart; its interval is over documents."""
    bins: tuple[CalibrationBin, ...]


def expected_calibration_error(
    confidences: Sequence[ArrayLike], hits: Sequence[ArrayLike], *, num_bins: int = NUM_BINS, seed: int = 0
) -> Calibration:
    """Of each document the confidences and whether the likeliest token was right, (num_tokens,) each. Bins are of equal width."""
    sums = np.zeros((3, len(confidences), num_bins))  # tokens, confidences, hits of each document in each bin
    for idx, (given, right) in enumerate(zip(confidences, hits, strict=True)):
        values = np.asarray(given, np.float64)
        places = np.clip(np.ceil(values * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
        for row, weights in enumerate((np.ones_like(values), values, np.asarray(right, np.float64))):
            sums[row, idx] = np.bincount(places, weights, num_bins)
    totals = sums.sum(axis=1)
    low, high = _interval(sums, seed)
    bins = tuple(
        CalibrationBin(
            low=idx / num_bins,
            high=(idx + 1) / num_bins,
            num_tokens=int(num),
            confidence=float(confidence / num) if num else None,
            accuracy=float(right / num) if num else None,
        )
        for idx, (num, confidence, right) in enumerate(totals.T)
    )
    error = Figure(value=float(_error(*totals)), low=low, high=high, num_items=len(confidences))
    return Calibration(error=error, bins=bins)


def _error(num: ArrayLike, confidence: ArrayLike, right: ArrayLike) -> np.float64:
    """(..., num_bins) each -> (...); NaN where there are no tokens."""
    gap = np.abs(np.asarray(confidence) - np.asarray(right)).sum(axis=-1)
    total = np.asarray(num).sum(axis=-1)
    return np.divide(gap, total, out=np.full(np.shape(total), np.nan), where=total > 0)


def _interval(sums: np.ndarray, seed: int) -> tuple[float | None, float | None]:
    num_documents = sums.shape[1]
    if num_documents < 2:
        return None, None
    shares = np.full(num_documents, 1 / num_documents)
    times = np.random.default_rng(seed).multinomial(num_documents, shares, NUM_DRAWS)  # (draws, documents)
    errors = _error(*(times @ each for each in sums))
    low, high = np.nanpercentile(errors, [2.5, 97.5])
    return float(low), float(high)
