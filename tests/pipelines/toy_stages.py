"""Small stages for testing how stages are run; importable in spawned processes."""

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import TerminalError, TransientError
from pipelines.stage import Kind, Stage

NUMBER = pa.schema([pa.field("doc_id", pa.string(), nullable=False), pa.field("value", pa.int64(), nullable=False)])
DOUBLE = pa.schema([pa.field("doc_id", pa.string(), nullable=False), pa.field("double", pa.int64(), nullable=False)])
RANK = pa.schema([pa.field("doc_id", pa.string(), nullable=False), pa.field("rank", pa.int64(), nullable=False)])
TOTAL = pa.schema([pa.field("total", pa.int64(), nullable=False)])


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyConfig:
    factor: int = 2
    fail_on: int | None = None
    transient: bool = False
    die_on: int | None = None
    die_once_in: str | None = None
    """A folder where the first death leaves a mark."""


def numbers(*values: int) -> pa.RecordBatch:
    ids = [f"doc{value:04d}" for value in values]
    return pa.RecordBatch.from_arrays([pa.array(ids, pa.string()), pa.array(values, pa.int64())], schema=NUMBER)


def double(batches: Iterable[pa.RecordBatch], config: ToyConfig) -> Iterator[pa.RecordBatch]:
    """NUMBER -> DOUBLE, one row for each row, in order."""
    for batch in batches:
        values = batch.column("value").to_pylist()
        if config.fail_on in values:
            raise (TransientError if config.transient else TerminalError)(f"got {config.fail_on}, wanted another")
        if config.die_on in values and _may_die(config):
            os.kill(os.getpid(), signal.SIGKILL)
        yield pa.RecordBatch.from_arrays(
            [batch.column("doc_id"), pc.multiply(batch.column("value"), config.factor)], schema=DOUBLE
        )


def _may_die(config: ToyConfig) -> bool:
    if config.die_once_in is None:
        return True
    mark = Path(config.die_once_in) / "died"
    if mark.exists():
        return False
    mark.touch()
    return True


def rank(batches: Iterable[pa.RecordBatch], _config: ToyConfig) -> Iterator[pa.RecordBatch]:
    """NUMBER + DOUBLE -> RANK: the place of each value among all, one row for each row, in order."""
    held = list(batches)
    order = sorted(value for batch in held for value in batch.column("double").to_pylist())
    for batch in held:
        ranks = [order.index(value) for value in batch.column("double").to_pylist()]
        yield pa.RecordBatch.from_arrays([batch.column("doc_id"), pa.array(ranks, pa.int64())], schema=RANK)


def total(batches: Iterable[pa.RecordBatch], _config: ToyConfig) -> Iterator[pa.RecordBatch]:
    """NUMBER -> TOTAL, one row."""
    found = sum(sum(batch.column("value").to_pylist()) for batch in batches)
    yield pa.RecordBatch.from_arrays([pa.array([found], pa.int64())], schema=TOTAL)


def tally(batch: pa.RecordBatch) -> dict[str, int]:
    return {"rows": batch.num_rows}


DOUBLE_STAGE = Stage(name="double", version=1, inputs=(NUMBER,), output=DOUBLE, transform=double, tally=tally)
RANK_STAGE = Stage(
    name="rank", version=1, kind=Kind.GLOBAL_ALIGNED, inputs=(NUMBER, DOUBLE), output=RANK, transform=rank, tally=tally
)
TOTAL_STAGE = Stage(name="total", version=1, kind=Kind.GLOBAL, inputs=(NUMBER,), output=TOTAL, transform=total)
