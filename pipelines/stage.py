"""What a stage is: a plain function over record batches, its config, one declaration.

A map stage turns one shard into one shard. A global stage sees the rows of every shard, in an
order that depends on content alone. Running a stage, and deciding whether it must run again, is
not done here: see materialize.py.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa

from pipelines.digest import EXECUTION_ONLY
from pipelines.errors import CorpusmillError
from pipelines.store import Compression, Shard

NOT_OF_RECIPE = {"in_recipe": False}
"""`field(metadata=NOT_OF_RECIPE)` marks a field of a config that no recipe sets."""

Transform = Callable[..., Iterator[pa.RecordBatch]]
"""(Iterable[RecordBatch], config) -> Iterator[RecordBatch]; with a third argument, Aids, where the stage `uses_aids`."""
Tally = Callable[[pa.RecordBatch], dict[str, int]]
"""Counts of one output batch; they are summed and kept in the record, so reused shards count too."""


Read = Callable[[Sequence[str] | None], Iterator[pa.RecordBatch]]
"""Yields the batches of a shard, whole or the named columns; may be called again."""


@dataclass(frozen=True, slots=True)
class Derived:
    """What a stage would write now, made from the shard that it wrote for the same input under another config."""

    batches: Iterator[pa.RecordBatch] | None
    """None: the very shard that is there."""


Derive = Callable[[Read, Mapping[str, Any], Any], Derived | None]
"""From the old shard, the old config as canonical JSON values, and the config; None: the stage must run."""


class Kind(StrEnum):
    """How a stage's output shards relate to its input shards."""

    MAP = "map"
    """One output shard for each input shard."""
    GLOBAL_ALIGNED = "global_aligned"
    """Sees all shards; yields one row for each input row, in order, cut into shards like the input."""
    GLOBAL = "global"
    """Sees all shards; yields one shard."""
    GROUPED = "grouped"
    """One output shard for a group of about 64 input shards, grouped by a digest of their names."""


@dataclass(frozen=True, slots=True)
class Aids:
    """What may save a stage work, or brings what its inputs only name. It never shapes what comes out."""

    read: Callable[[Shard, Sequence[str]], Iterator[pa.RecordBatch]]
    """Verified rows of a shard, the named columns."""
    aside: tuple[Shard, ...] = ()
    """A shard for each unit, with a row for each of its rows: of `Node.aside`."""
    last: tuple[Shard, ...] = ()
    """What this stage, of the same version and code, left in the recipe's last build, under whatever config."""

    def last_batches(self) -> Iterator[pa.RecordBatch]:
        """The rows of the last build; none of a shard that is gone, damaged or of another schema."""
        for shard in self.last:
            with contextlib.suppress(CorpusmillError, KeyError):
                yield from self.read(shard, ())


@dataclass(frozen=True, kw_only=True, slots=True)
class RowBudget:
    """What one input row may cost the process that works on it."""

    seconds: float
    """Of CPU time. A row that waits, and uses none, has ten times as long by the clock."""
    memory_bytes: int
    """Private memory beyond what the process has before it starts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One declaration a stage.

    The docstring of `transform` states the mapping ("DOCUMENT -> SIGNALS, one row for each row, in order").
    """

    name: str
    version: int
    """Raised by hand when the output is meant to change."""
    kind: Kind = Kind.MAP
    inputs: tuple[pa.Schema, ...]
    """The columns read of each input. Several inputs are aligned row by row on `doc_id`. None: its config names all it
    reads."""
    output: pa.Schema
    transform: Transform
    libraries: tuple[str, ...] = ()
    """Distributions whose version shapes the output bytes, beside pyarrow."""
    package_data: tuple[str, ...] = ()
    """Folders of data files inside first-party packages ("pipelines/signals/lexicons") whose bytes enter the key."""
    tally: Tally | None = None
    budget: Callable[[Any], RowBudget] | None = None
    """From the config, what a row may cost. Given, no row can stop the stage: one on which its process dies or stalls is
    put in with a `problem` instead. So the input has that column, and the transform takes a row when it is done with the
    one before. None: a row that kills its process fails the shard."""
    row_seconds: float | None = None
    """About the CPU time of an output row. What takes less in all than the start of workers is done in this process, unless
    rows have a budget. None: unknown, so workers do it."""
    is_row_wise: bool = False
    """Whether an output row depends on its own input row alone, is known by its `doc_id`, and comes in the batch of it;
    a row may come to nothing. Then rows that did not change since the last build are not worked on again."""
    uses_aids: bool = False
    """Whether the transform takes Aids, too."""
    derive: Derive | None = None
    """For a map stage: its output from what it wrote for the same input under another config, to the byte, where that is
    cheaper than running it."""
    compression: Compression | None = "zstd"
    """None for shards that are memory-mapped and read without a copy; lz4 for narrow ones that every build reads whole: a
    fifth of zstd's time to read, and a fifth to two thirds more bytes."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A file that a config refers to: its bytes bear the identity, its place does not."""

    digest: str
    path: str = field(metadata=EXECUTION_ONLY)
