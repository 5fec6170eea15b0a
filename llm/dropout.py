"""Dropout whose masks are a function of (seed, step, sample, place): no random state is kept, lost or restored.

Which units of a sequence are dropped does not depend on the micro-batch, process or device that it is computed in, so
a change of batch split or world size changes no mask, and computing a block again gives the same ones.

Bits come from a 32-bit integer mixer with full avalanche (Wellons 2018, "lowbias32"), over the index of a unit in its
sequence and a key for each sequence.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_INT32_MIN = -(1 << 31)


@dataclass(frozen=True, slots=True)
class Dropout:
    """Dropout of one micro-batch. Call it with (B, ...)."""

    probability: float
    keys: Tensor
    """Of each sequence: (B,), int32. See `sample_keys`."""

    def __call__(self, x: Tensor, *, salt: int) -> Tensor:
        """Zero units with that probability and scale up the others; every place in the model has its own salt."""
        return x * self.scales(x, salt=salt)

    def scales(self, x: Tensor, *, salt: int) -> Tensor:
        """0 or 1 / (1 - probability), for each unit: shape and type of x."""
        units = torch.arange(x[0].numel(), dtype=torch.int32, device=x.device).view(1, *x.shape[1:])
        keys = _mix(self.keys + _as_int32(0x9E3779B9 * (salt + 1))).view(-1, *(1 for _ in x.shape[1:]))
        threshold = _INT32_MIN + min(int(self.probability * (1 << 32)), (1 << 32) - 1)
        return (_mix(_mix(units ^ keys) + keys) >= threshold).to(x.dtype) / (1 - self.probability)


def sample_keys(samples: NDArray[np.int64], *, seed: int, step: int) -> NDArray[np.int32]:
    """A key for each sequence of a step, by its place in the whole order of the data: (B,) -> (B,)."""
    words = np.random.SeedSequence([seed, step]).generate_state(2, np.uint64)
    mixed = (samples.astype(np.uint64) ^ words[0]) * np.uint64(0x9E3779B97F4A7C15) + words[1]
    return (mixed >> np.uint64(32)).astype(np.uint32).view(np.int32)


def attention_with_dropout(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: Dropout, *, salt: int
) -> Tensor:
    """Causal attention written out, because the fused kernels draw their masks themselves: (B, H, T, D) each."""
    scores = q @ k.transpose(-2, -1) * q.size(-1) ** -0.5  # (B, H, T, T)
    seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril() if mask is None else mask
    weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
    return dropout(weights, salt=salt) @ v


def _mix(x: Tensor) -> Tensor:
    """Mix int32 values; shifts are those of unsigned numbers."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * _as_int32(0x7FEB352D)
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * _as_int32(0x846CA68B)
    return x ^ ((x >> 16) & 0xFFFF)


def _as_int32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value
