"""A stage whose rows can end the process that works on them, or the Ray worker above it; importable on workers."""

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipelines.errors import TerminalError, TransientError
from pipelines.stage import RowBudget, Stage
from pipelines.store import Store
from pipelines.work import Unit

ROW = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("problem", pa.string()),
    ]
)
LOUD = pa.schema([*list(ROW)[:2], pa.field("problem", pa.string())])


@dataclass(frozen=True, slots=True, kw_only=True)
class LoudConfig:
    """What the rows do."""

    marks: str = ""
    """A folder where a Ray worker that is killed `once` leaves a mark."""


def shout(batches: Iterable[pa.RecordBatch], config: LoudConfig) -> Iterator[pa.RecordBatch]:
    """ROW -> LOUD, one row for each row, in order: upper case, or what its text says is done to the process."""
    for batch in batches:
        rows = batch.to_pylist()
        for row in rows:
            if row["problem"] is None:
                _obey(row["text"], config)
            row["text"] = "" if row["problem"] else row["text"].upper()
        yield pa.RecordBatch.from_pylist(rows, schema=LOUD)


def _obey(text: str, config: LoudConfig) -> None:
    if text == "abort":
        os.abort()
    if text == "terminal":
        raise TerminalError("got terminal, wanted another")
    if text == "transient":
        raise TransientError("got transient, wanted another")
    if text.startswith("lose_worker") and (text == "lose_worker" or _is_first(Path(config.marks) / text)):
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()  # the end of the worker above is the end of this process


def _is_first(mark: Path) -> bool:
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def budget(_config: LoudConfig) -> RowBudget:
    return RowBudget(seconds=5, memory_bytes=256 << 20)


def tally(batch: pa.RecordBatch) -> dict[str, int]:
    return {"rows": batch.num_rows}


SHOUT = Stage(
    name="shout",
    version=1,
    inputs=(ROW,),
    output=LOUD,
    transform=shout,
    budget=budget,
    tally=tally,
)


def put(store: Store, name: str, *texts: str) -> Unit:
    """A unit whose rows have the given texts."""
    rows = [{"doc_id": f"{name}-{place}", "text": text, "problem": None} for place, text in enumerate(texts)]
    return Unit(name, (store.write(ROW, [pa.RecordBatch.from_pylist(rows, schema=ROW)]),))
