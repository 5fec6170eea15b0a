"""Loss by position in the context: whether a model makes use of text that is far back (arXiv:2001.08361, section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from llm.evaluation.statistics import Figure, ratio_figure


@dataclass(frozen=True, kw_only=True, slots=True)
class PositionBin:
    """Tokens that were predicted from `first` to `last` tokens before them."""

    first: int
    last: int
    num_tokens: int
    loss: Figure
    """Nats a token; its interval is over documents."""


def position_bins(block_size: int) -> list[tuple[int, int]]:
    """Bins of numbers of tokens seen, each twice as wide as the one before: (1, 1), (2, 3), (4, 7), ..., block_size at last."""
    firsts = [1 << power for power in range(block_size.bit_length()) if 1 << power <= block_size]
    return [(first, min(2 * first - 1, block_size)) for first in firsts]


def loss_by_position(losses: Sequence[ArrayLike], positions: Sequence[ArrayLike], block_size: int) -> list[PositionBin]:
    """Of each document the tokens' losses, nats, and how many tokens each was predicted from, (num_tokens,) each.

    A bin that no token falls into is left out.
    """
    found = []
    for first, last in position_bins(block_size):
        sums, counts = [], []
        for loss, seen in zip(losses, positions, strict=True):
            within = (np.asarray(seen) >= first) & (np.asarray(seen) <= last)
            if within.any():
                sums.append(float(np.asarray(loss, np.float64)[within].sum()))
                counts.append(int(within.sum()))
        if counts:
            found.append(PositionBin(first=first, last=last, num_tokens=sum(counts), loss=ratio_figure(sums, counts)))
    return found
