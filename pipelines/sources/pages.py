"""Rows of PAGE, gathered into record batches that are bounded in rows and in bytes."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

import pyarrow as pa

from pipelines.schemas import PAGE

MAX_BATCH_ROWS = 1024
MAX_BATCH_BYTES = 16 << 20
"""Payload bytes of a batch; a page that is larger by itself makes a batch of one row."""

MAX_EVIDENCE_BYTES = 4096
"""Bytes kept of what could not be read, so that two different damages bear two different doc_ids."""


class Page(NamedTuple):
    """One row of PAGE; the fields are the schema's, in its order."""

    url: str | None
    fetched_at: datetime | None
    status: int
    content_type: str | None
    headers: tuple[str, ...]
    payload: bytes
    record_offset: int
    problem: str | None = None


def unreadable(problem: str, evidence: bytes, record_offset: int, url: str | None = None) -> Page:
    """The row that stands for what could not be read: its problem, where it lies, its first bytes."""
    return Page(url, None, 0, None, (), evidence[:MAX_EVIDENCE_BYTES], record_offset, problem)


def batches(pages: Iterable[Page]) -> Iterator[pa.RecordBatch]:
    """Pages to PAGE batches of at most MAX_BATCH_ROWS rows and MAX_BATCH_BYTES bytes of payload, in order."""
    rows: list[Page] = []
    num_bytes = 0
    for page in pages:
        if rows and (len(rows) >= MAX_BATCH_ROWS or num_bytes + len(page.payload) > MAX_BATCH_BYTES):
            yield _batch(rows)
            rows, num_bytes = [], 0
        rows.append(page)
        num_bytes += len(page.payload)
    if rows:
        yield _batch(rows)


def _batch(rows: list[Page]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.record_batch(
        [pa.array(column, field.type) for column, field in zip(columns, PAGE, strict=True)], schema=PAGE
    )
