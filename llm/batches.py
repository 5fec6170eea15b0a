"""The batches of the steps to come, made ready beside the step that runs."""

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llm.data import TokenData, too_large
from llm.distributed import World
from llm.dropout import sample_keys
from llm.order import Plan, samples_of_step, windows_of_samples

_NUM_READY = 2
"""Batches that wait, each some megabytes."""


@dataclass(frozen=True, slots=True)
class Batch:
    """This process's part of a step."""

    tokens: Tensor
    """Windows (N, T + 1), int64; this and `keys` in memory that a GPU can fetch by itself where there is one."""
    keys: Tensor
    """Of the windows' dropout: (N,), int32."""
    digest: str
    """Of the numbers of all windows of the step, those of other processes too: 16 hex characters."""


def read_batch(data: TokenData, plan: Plan, step: int, *, seed: int, block_size: int, world: World) -> Batch:
    """This process's share of a step counted from 0. Raises IntegrityError or SchemaError for what cannot be trained on.

    The ranks' shares, one after the other, are the step's samples.
    """
    every_sample = samples_of_step(step, plan)
    every_window = windows_of_samples(every_sample, seed=seed, num_windows=data.num_windows(block_size))
    samples, windows = (np.split(every, world.size)[world.rank] for every in (every_sample, every_window))
    is_pinned = world.device.type == "cuda"
    tokens = torch.empty((samples.size, block_size + 1), dtype=torch.int64, pin_memory=is_pinned)
    data.windows(windows, block_size, out=tokens.numpy())
    keys = torch.from_numpy(sample_keys(samples, seed=seed, step=step))
    digest = hashlib.sha256(every_window.tobytes()).hexdigest()[:16]
    return Batch(tokens, keys.pin_memory() if is_pinned else keys, digest)


def check_ids(tokens: Tensor, vocab_size: int) -> None:
    """Raise SchemaError for a token id that the model does not have: on a device it would be a crash without a name."""
    largest = int(tokens.max())
    if largest >= vocab_size:
        raise too_large(largest, vocab_size)


@contextmanager
def prefetched(read: Callable[[int], Batch], first_step: int, end_step: int) -> Iterator[Iterator[Batch]]:
    """An iterator over read(first_step), read(first_step + 1), ... to before end_step, read ahead in a thread.

    What the thread raises comes out where its batch would.
    """
    ready: queue.Queue[Batch | BaseException] = queue.Queue(_NUM_READY)
    is_left = threading.Event()

    def put(item: Batch | BaseException) -> None:
        while not is_left.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for step in range(first_step, end_step):
                if is_left.is_set():
                    return
                put(read(step))
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            put(error)

    def batches() -> Iterator[Batch]:
        for _ in range(first_step, end_step):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        yield batches()
    finally:
        is_left.set()
        thread.join()
