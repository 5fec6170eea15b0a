"""Processes that share one training: the only reader of RANK, WORLD_SIZE and LOCAL_RANK, which torchrun sets.

Where there is one process nothing here talks to anybody. Bookkeeping (losses to report, stop requests, validation)
goes over a group of CPUs, so that it neither waits for a device nor stands in the way of gradients.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from llm.config import RunConfig
from llm.devices import choose_device

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

RENDEZVOUS = "CORPUSMILL_RENDEZVOUS"
"""A file by which the processes that `llm.launch` starts find each other, in place of torchrun's server."""

_PATIENCE_AT_START = timedelta(minutes=30)
"""Compiling and loading take minutes, on one process more than on another."""
_PATIENCE = timedelta(minutes=3)
"""From the second step on, after which a process that does not answer is lost."""
_CHUNK_NUM_VALUES = 1 << 24
"""Of a gradient that is gathered from all processes at once: 64 MiB in fp32 from each."""


@dataclass(frozen=True, slots=True)
class World:
    """This process among those that share the training."""

    rank: int
    size: int
    device: torch.device
    bookkeeping: Any = None
    """A gloo group; None where there is one process."""

    @property
    def is_main(self) -> bool:
        """Whether this process reports and writes."""
        return self.rank == 0

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """Equally many numbers from each process, in the order of ranks."""
        if self.size == 1:
            return [list(values)]
        mine = torch.tensor(values, dtype=torch.float64)
        every = mine.new_empty((self.size, mine.numel()))
        dist.all_gather(list(every), mine, group=self.bookkeeping)
        found: list[list[float]] = every.tolist()
        return found

    def any(self, asked: bool) -> bool:  # noqa: FBT001 - a vote
        """Whether any process asks."""
        return any(row[0] > 0 for row in self.gather([float(asked)]))

    def gather_losses(self, losses: Tensor) -> Tensor:
        """Losses of this process's micro-batches to those of all, in the order of the batch: (n,) -> (size n,)."""
        if self.size == 1:
            return losses
        every = losses.new_empty((self.size, losses.numel()))
        dist.all_gather(list(every), losses)
        return every.flatten()

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier(group=self.bookkeeping)

    def become_impatient(self) -> None:
        """Shorten the time after which a silent process is lost: nothing is compiled any more."""
        if self.size > 1:
            for group in (dist.group.WORLD, self.bookkeeping):
                dist.distributed_c10d._set_pg_timeout(_PATIENCE, group)  # noqa: SLF001 - the only way that torch has

    def mesh(self) -> "DeviceMesh":
        """All processes in a row, to shard a model over."""
        from torch.distributed.device_mesh import init_device_mesh

        return init_device_mesh(self.device.type, (self.size,))


def is_main_process() -> bool:
    """Whether this is the process that reports and writes, before it has joined the others."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def joined(run_config: RunConfig) -> Iterator[World]:
    """Join the processes that torchrun started, or be alone. A process that fails does not wait for the others."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = choose_device(run_config, int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(device)  # alone, too: events that time a step are recorded where the current device is
    if size == 1:
        yield World(0, 1, device)
        return
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{os.environ[RENDEZVOUS]}" if RENDEZVOUS in os.environ else None,
        rank=rank,
        world_size=size,
        timeout=_PATIENCE_AT_START,
        device_id=device if device.type == "cuda" else None,
    )
    try:
        yield World(rank, size, device, dist.new_group(backend="gloo", timeout=_PATIENCE_AT_START))
    finally:
        dist.destroy_process_group()


def sum_exactly(gradients: list[Tensor], world: World) -> None:
    """Replace each gradient by its sum over all processes, added up in pairs of neighbours, pairs of pairs, and so on.

    With `PairwiseSum` inside each process the order is that of one process with all micro-batches, so the bits are the
    same, where each process has a power of two of them.
    """
    if world.size == 1:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    for begin in range(0, flat.numel(), _CHUNK_NUM_VALUES):
        part = flat[begin : begin + _CHUNK_NUM_VALUES]
        every = part.new_empty((world.size, part.numel()))
        dist.all_gather(list(every), part)
        total = PairwiseSum()
        for one in every:
            total.add([one])
        part.copy_(total.result()[0])
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


class PairwiseSum:
    """A running sum of lists of tensors that adds neighbours first, as a binary counter carries; it keeps what it gets."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, list[Tensor]]] = []
        """How many terms, and their sum: each a larger power of two than the next."""

    def add(self, terms: list[Tensor]) -> None:
        """Add a term to the right of those before."""
        count = 1
        while self._parts and self._parts[-1][0] == count:
            terms = self._merged(terms)
            count *= 2
        self._parts.append((count, terms))

    def result(self) -> list[Tensor]:
        """The sum. Ends the use of this object."""
        _, terms = self._parts.pop()
        while self._parts:
            terms = self._merged(terms)
        return terms

    def _merged(self, right: list[Tensor]) -> list[Tensor]:
        _, left = self._parts.pop()
        torch._foreach_add_(left, right)
        return left
