"""When a training saw which tokens, computed from its seed and sizes: no log is kept and none is searched.

The order of the windows is a permutation that can be run backwards (`llm.order`), so the steps of a window are found as
quickly as the windows of a step. Steps count updates from 1, as reports, checkpoints and MLflow do.
"""

import math
from dataclasses import dataclass

import numpy as np

from llm.order import Ints, Segment, places_in_order, samples_of_step, steps_of_samples, windows_of_samples


@dataclass(frozen=True, kw_only=True, slots=True)
class Sightings:
    """What a training saw of spans of its stream, one value a span; a span that it never saw has 0 everywhere."""

    first_steps: Ints
    last_steps: Ints
    num_visits: Ints
    """Windows with some of its tokens that were in a batch, repeats included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """Which windows of a stream each step of a training saw. A window is block_size + 1 tokens: see `llm.data`."""

    num_tokens: int
    """Of the stream."""
    block_size: int
    plan: tuple[Segment, ...]
    """Which samples each step took."""
    seed: int
    num_steps: int
    """Steps done."""

    @property
    def num_windows(self) -> int:
        return max(0, (self.num_tokens - 1) // self.block_size)

    def windows(self, step: int) -> Ints:
        """The windows in the batch of a step, in its order: (num_sequences,)."""
        samples = samples_of_step(step - 1, self.plan)
        return windows_of_samples(samples, seed=self.seed, num_windows=self.num_windows)

    def steps(self, start: int, end: int) -> Ints:
        """Every step whose batch held some of the tokens from `start` to before `end`, ascending."""
        low, high = self._windows_over(np.array([start]), np.array([end]))
        windows = np.arange(low[0], max(low[0], high[0]))
        found = np.unique(np.concatenate([np.zeros(1, np.int64), *(self._steps(windows, e) for e in self._epochs())]))
        return found[found > 0]

    def sightings(self, starts: Ints, ends: Ints) -> Sightings:
        """What was seen of spans of tokens, each from its start to before its end: (N,), (N,) -> (N,) each."""
        low, high = self._windows_over(starts, ends)
        lengths = np.maximum(high - low, 0)
        spans = np.repeat(np.arange(len(starts)), lengths)
        windows = np.arange(len(spans)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + low[spans]
        never = np.iinfo(np.int64).max
        first, last, visits = (
            np.full(len(starts), never),
            np.zeros(len(starts), np.int64),
            np.zeros(len(starts), np.int64),
        )
        for epoch in self._epochs():
            steps = self._steps(windows, epoch)
            np.minimum.at(first, spans, np.where(steps > 0, steps, never))
            np.maximum.at(last, spans, steps)
            np.add.at(visits, spans, steps > 0)
        return Sightings(first_steps=np.where(first == never, 0, first), last_steps=last, num_visits=visits)

    def _epochs(self) -> range:
        """Those begun."""
        if not self.num_windows or not self.num_steps:
            return range(0)
        num_samples = int(samples_of_step(self.num_steps - 1, self.plan)[-1]) + 1
        return range(math.ceil(num_samples / self.num_windows))

    def _windows_over(self, starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
        """The first window that holds a token of each span, and the one after the last; neighbours share a token."""
        low = np.maximum(-(-starts // self.block_size) - 1, 0)
        high = np.minimum((ends - 1) // self.block_size + 1, self.num_windows)
        return low, np.where(ends > starts, high, low)

    def _steps(self, windows: Ints, epoch: int) -> Ints:
        """The step of an epoch that saw each window; 0 where training ended before."""
        places = places_in_order(windows, num_windows=self.num_windows, seed=self.seed, epoch=epoch)
        return steps_of_samples(epoch * self.num_windows + places, self.plan, num_steps=self.num_steps)
