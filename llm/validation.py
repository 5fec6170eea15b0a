"""Held-out loss within a training: every process takes its share of the windows."""

import math

import numpy as np
import torch

from llm.batches import check_ids
from llm.data import TokenData
from llm.gradients import Engine


def validation_loss(engine: Engine, data: TokenData, *, block_size: int, max_tokens: int | None) -> float:
    """Mean loss, nats a token, over the first windows of the stream, in order, without dropout.

    The figure does not depend on the number of processes: micro-batches are added up in their order.
    """
    num_windows = data.num_windows(block_size)
    if max_tokens is not None:
        num_windows = min(num_windows, math.ceil(max_tokens / block_size))
    size, world = engine.config.micro_batch_size, engine.world
    starts = range(0, num_windows, size)
    rounds = math.ceil(len(starts) / world.size)
    sums = []
    for idx in range(rounds):
        number = idx * world.size + world.rank
        start = starts[number] if number < len(starts) else 0  # a sharded model needs every process in every round
        sums.append(_sum(engine, data, np.arange(start, min(num_windows, start + size)), block_size))
    every = np.array(world.gather(sums)).T.flatten()[: len(starts)]
    return math.fsum(every.tolist()) / (num_windows * block_size)


def probe_loss(engine: Engine, data: TokenData, *, block_size: int, num_windows: int) -> float:
    """Mean loss over the first windows of the stream: quick, and equal after a resume if all is as it was."""
    size = engine.config.micro_batch_size
    starts = range(0, num_windows, size)
    sums = (_sum(engine, data, np.arange(at, min(num_windows, at + size)), block_size) for at in starts)
    return math.fsum(sums) / (num_windows * block_size)


def _sum(
    engine: Engine, data: TokenData, windows: np.ndarray[tuple[int], np.dtype[np.int64]], block_size: int
) -> float:
    tokens = torch.from_numpy(data.windows(windows, block_size))
    check_ids(tokens, engine.model.config.vocab_size)
    return float(engine.losses(tokens).sum(dtype=torch.float64))
