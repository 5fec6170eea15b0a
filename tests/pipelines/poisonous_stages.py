"""Stages on which a page can crash, hang or swell the process that works on it; importable in spawned processes."""

import os
import re
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from pipelines.extract import EXTRACT, ExtractConfig
from pipelines.extract.stage import extract_documents
from pipelines.stage import RowBudget, Stage

ROW = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("problem", pa.string()),
    ]
)
BUDGET = RowBudget(seconds=0.5, memory_bytes=256 << 20)


def abort() -> None:
    os.abort()


def leave() -> None:
    os._exit(3)


def spin() -> None:
    while True:
        pass


def backtrack() -> None:
    """Never ends either, and never lets another thread of the process run."""
    re.match("(a+)+$", "a" * 64 + "b")


def wait() -> None:
    signal.pause()


def swell() -> None:
    held = []
    while True:
        held.append(bytearray(1 << 28))  # a few, so that no clock comes first


def fail() -> None:
    raise RecursionError("nobody thought of this page")


POISONS = {poison.__name__: poison for poison in (abort, leave, spin, backtrack, wait, swell, fail)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisonConfig:
    is_harmless: bool = False
    """Whether the poison is off: what would have come out."""
    slow_seconds: float = 0.0
    """CPU time for each row."""
    die_once_in: str | None = None
    """A folder where the first row leaves a mark, and dies if none is there yet."""


def lengths(batches: Iterable[pa.RecordBatch], config: PoisonConfig) -> Iterator[pa.RecordBatch]:
    """ROW -> ROW, one row for each row, in order: upper case, or what its text says is done to the process."""
    for batch in batches:
        rows = batch.to_pylist()
        for row in rows:
            if row["problem"] is None:
                _work(row["text"], config)
            row["text"] = "" if row["problem"] else row["text"].upper()
        yield pa.RecordBatch.from_pylist(rows, schema=ROW)


def _work(text: str, config: PoisonConfig) -> None:
    if config.die_once_in is not None and not (mark := Path(config.die_once_in) / "died").exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    started = time.process_time()
    while time.process_time() - started < config.slow_seconds:
        pass
    if text == "break_installation":
        raise ImportError("no module of that name")
    if not config.is_harmless and text in POISONS:
        POISONS[text]()


def budget(_config: PoisonConfig) -> RowBudget:
    return BUDGET


POISONED_STAGE = Stage(name="poisoned", version=1, inputs=(ROW,), output=ROW, transform=lengths, budget=budget)


def poisoned_documents(batches: Iterable[pa.RecordBatch], config: ExtractConfig) -> Iterator[pa.RecordBatch]:
    """PAGE -> DOCUMENT, where pages name a poison in their HTML."""

    def bite(batch: pa.RecordBatch) -> pa.RecordBatch:
        for page in batch.to_pylist():
            found = re.search(rb"poison: (\w+)", page["payload"])
            if found and page["problem"] is None:
                POISONS[found[1].decode()]()
        return batch

    yield from extract_documents(map(bite, batches), config)


def extract_budget(_config: ExtractConfig) -> RowBudget:
    return RowBudget(seconds=2, memory_bytes=512 << 20)  # a process's first page may import much


POISONED_EXTRACT = replace(EXTRACT, transform=poisoned_documents, budget=extract_budget)
