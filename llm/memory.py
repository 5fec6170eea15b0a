"""Memory of a step: kept from one step to the next; and where a micro-batch does not fit, one that does, said so."""

import ctypes
import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from pipelines.errors import TerminalError

_Value = TypeVar("_Value")

_WORDS_ON_CPUS = ("can't allocate memory", "could not create a primitive", "bad_alloc")
"""Of torch's allocator, of oneDNN and of C++, each its own."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt, by the numbers of its malloc.h."""


def keep_freed_memory() -> None:
    """Let this process keep, for its next step, what a step on a CPU frees: up to 1 GiB, until it ends.

    Left alone, glibc gives it back to the kernel, which hands it out again page by page, each cleared first. Changes
    nothing where there is no glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that it takes; larger blocks come from the kernel each time


def give_back_freed_memory() -> None:
    """Give the kernel what this process has freed and kept; a GPU's cache likewise."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory, on a GPU or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in _WORDS_ON_CPUS)


def with_advice(
    compute: Callable[[], _Value], attempt: Callable[[int], None], *, micro_batch_size: int, num_sequences: int
) -> _Value:
    """What `compute` gives; where it runs out of memory, a TerminalError that names a micro_batch_size that fits.

    `attempt` computes a micro-batch of so many sequences; sizes that divide num_sequences are tried, largest first.
    """
    try:
        return compute()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
    # outside of the handler, whose error holds the frames that hold the tensors that did not fit
    sizes = [size for size in range(micro_batch_size - 1, 0, -1) if num_sequences % size == 0]
    fitting = next((size for size in sizes if _fits(attempt, size)), None)
    advice = (
        f"set training.micro_batch_size to {fitting}, which fits; tokens_per_step stays"
        if fitting is not None
        else "set training.activation_checkpointing, shard the model over more processes, or take a smaller one"
    )
    raise TerminalError(
        f"got {reason!r} for a micro-batch of {micro_batch_size} sequences; wanted one that fits the memory: {advice}."
    )


def _fits(attempt: Callable[[int], None], size: int) -> bool:
    give_back_freed_memory()
    try:
        attempt(size)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True
