"""Which windows each step sees: a pure function of (windows, seed, plan, step).

All the windows of all epochs, shuffled anew in each, form one endless sequence of samples. A step takes the next ones
of it. So there is no loader state, nothing to save but the plan, and nothing to seek; processes, devices and
micro-batches take slices of a step's samples and change nothing; and a step's samples are found as quickly as the step
of a sample, because the shuffle is a permutation that runs backwards, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_NUM_ROUNDS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """Steps that take samples one after the other. A plan is a list of them, in the order of their steps.

    A new one begins where the batch size changes, or where samples are left out after a spike.
    """

    first_step: int
    """Counted from 0."""
    first_sample: int
    num_sequences: int
    """Samples of a step, over all processes and micro-batches."""


Plan = Sequence[Segment]


def samples_of_step(step: int, plan: Plan) -> Ints:
    """The samples of a step counted from 0, in its order: (num_sequences,)."""
    segment = next(segment for segment in reversed(plan) if segment.first_step <= step)
    first = segment.first_sample + (step - segment.first_step) * segment.num_sequences
    return np.arange(first, first + segment.num_sequences, dtype=np.int64)


def num_samples_taken(plan: Plan, num_steps: int) -> int:
    """Samples that the first steps took, without those that were left out."""
    ends = [*(segment.first_step for segment in plan[1:]), num_steps]
    return sum(
        max(0, min(end, num_steps) - segment.first_step) * segment.num_sequences
        for segment, end in zip(plan, ends, strict=True)
    )


def with_batch_size(plan: Plan, step: int, num_sequences: int) -> tuple[Segment, ...]:
    """A plan whose steps from that one on, counted from 0, have another size and take the samples that come next."""
    if plan[-1].num_sequences == num_sequences:
        return tuple(plan)
    first = int(samples_of_step(step, plan)[0])
    kept = tuple(segment for segment in plan if segment.first_step < step)
    return (*kept, Segment(first_step=step, first_sample=first, num_sequences=num_sequences))


def without_steps(plan: Plan, first: int, last: int) -> tuple[Segment, ...]:
    """A plan that leaves out the samples of steps `first` to `last`, both counted from 0 and included."""
    after = int(samples_of_step(last + 1, plan)[0])
    kept = tuple(segment for segment in plan if segment.first_step < first)
    size = samples_of_step(last + 1, plan).size
    return (*kept, Segment(first_step=first, first_sample=after, num_sequences=size))


def steps_of_samples(samples: Ints, plan: Plan, *, num_steps: int) -> Ints:
    """The update that took each sample, counted from 1; 0 where none of num_steps did: (N,) -> (N,)."""
    found = np.zeros_like(samples)
    ends = [*(segment.first_step for segment in plan[1:]), num_steps]
    for segment, end in zip(plan, ends, strict=True):
        steps = segment.first_step + (samples - segment.first_sample) // segment.num_sequences
        taken = (samples >= segment.first_sample) & (steps < min(end, num_steps))
        found[taken] = steps[taken] + 1
    return found


def windows_of_samples(samples: Ints, *, seed: int, num_windows: int) -> Ints:
    """The window that each sample is: (N,) -> (N,)."""
    epochs, positions = np.divmod(samples, num_windows)
    indices = np.empty_like(samples)
    for epoch in np.unique(epochs).tolist():
        chosen = epochs == epoch
        indices[chosen] = order(positions[chosen], num_windows=num_windows, seed=seed, epoch=epoch)
    return indices


def order(positions: NDArray[np.int64], *, num_windows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Which window stands at each position of an epoch: a permutation of range(num_windows).

    A Feistel network over the next power of four, walked until it lands inside (Black and Rogaway 2002),
    so any position is found at once and no list of the corpus's size is ever held.
    """
    keys, half_bits = _network(num_windows, seed, epoch)
    return _walked(positions, lambda values: _feistel(values, keys, half_bits), num_windows)


def places_in_order(indices: NDArray[np.int64], *, num_windows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """At which position of an epoch each window stands: the inverse of `order`, the same network run backwards."""
    keys, half_bits = _network(num_windows, seed, epoch)
    return _walked(indices, lambda values: _unfeistel(values, keys, half_bits), num_windows)


def _network(num_windows: int, seed: int, epoch: int) -> tuple[NDArray[np.uint64], int]:
    """The keys of the rounds, and the bits of half a value."""
    half_bits = max(1, ((num_windows - 1).bit_length() + 1) // 2)
    keys = np.random.SeedSequence([seed, epoch]).generate_state(_NUM_ROUNDS, np.uint64).astype(np.uint64)
    return keys, half_bits


def _walked(
    values: NDArray[np.int64], permute: Callable[[NDArray[np.uint64]], NDArray[np.uint64]], num_windows: int
) -> NDArray[np.int64]:
    """Permute each value until it is one of range(num_windows)."""
    found = permute(values.astype(np.uint64))
    while (outside := found >= num_windows).any():
        found[outside] = permute(found[outside])
    return found.astype(np.int64)


def _feistel(values: NDArray[np.uint64], keys: NDArray[np.uint64], half_bits: int) -> NDArray[np.uint64]:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return left << shift | right


def _unfeistel(values: NDArray[np.uint64], keys: NDArray[np.uint64], half_bits: int) -> NDArray[np.uint64]:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for key in keys[::-1]:
        left, right = right ^ (_mix(left ^ key) & mask), left
    return left << shift | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
