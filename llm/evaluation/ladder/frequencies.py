"""The two lowest rungs: every token alike, and every token as often as in training."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llm.evaluation.ladder.documents import Tokens


def uniform_losses(documents: Sequence[Tokens], vocab_size: int) -> NDArray[np.float64]:
    """(num_documents,) nats where each of the `vocab_size` tokens has the same probability: ln V a token."""
    return np.array([tokens.size * math.log(vocab_size) for tokens in documents], dtype=np.float64)


def unigram_losses(counts: NDArray[np.int64], documents: Sequence[Tokens]) -> NDArray[np.float64]:
    """(num_documents,) nats under add-one smoothed frequencies (Laplace), from the (V,) counts of training."""
    nats = -np.log(smoothed_frequencies(counts))
    return np.array([nats[tokens].sum() for tokens in documents], dtype=np.float64)


def smoothed_frequencies(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(V,) -> (V,): each count plus one, over their sum."""
    smoothed = counts + 1
    return smoothed / smoothed.sum()
