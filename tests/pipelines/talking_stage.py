"""A stage that logs; importable in spawned processes."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from pipelines.stage import Stage

ROW = pa.schema([pa.field("doc_id", pa.string(), nullable=False)])


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkConfig:
    """Nothing to choose."""


def talk(batches: Iterable[pa.RecordBatch], config: TalkConfig) -> Iterator[pa.RecordBatch]:
    """ROW -> ROW, the same; says what it should not."""
    for batch in batches:
        logging.getLogger("pipelines.talk").warning("asked https://me:hunter2@host.test/ for %d rows", batch.num_rows)
        yield batch


TALKING_STAGE = Stage(name="talk", version=1, inputs=(ROW,), output=ROW, transform=talk)
