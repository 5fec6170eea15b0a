"""The corpus as files for people and other tools: one row for each document, JSONL or Parquet.

Kept documents are written as they are trained on: personal data is already replaced. Dropped
documents are redacted the same way, so that an export never holds what training may not see.
"""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import schemas
from pipelines.corpus import measured_parts, read_aligned
from pipelines.store import Manifest, Store, storage_errors
from pipelines.trained_text import trained_text

Format = Literal["jsonl", "parquet"]

_HEAD = (
    ("doc_id", pa.string()),
    ("url", pa.string()),
    ("fetched_at", pa.string()),
    ("title", pa.string()),
    ("text", pa.large_string()),
    ("language", pa.string()),
    ("decision", pa.string()),
    ("reason", pa.string()),
    ("duplicate_of", pa.string()),
    ("split", pa.string()),
)
EXPORT = pa.schema(
    [
        *(pa.field(name, kind) for name, kind in _HEAD),
        *(field for field in schemas.MEASURED if field.name != "language"),
    ]
)
"""One row of an export. The columns of perplexity are null where it is not measured."""


def export_documents(
    store: Store,
    done: Mapping[str, Manifest],
    out: Path,
    *,
    file_format: Format,
    with_dropped: bool,
    redact: Sequence[str] | None,
) -> tuple[Path, int]:
    """Write the documents of a finished build into folder `out`; returns the file and its number of rows.

    The file appears under its name only when it is whole. Raises StorageError for the disk.
    """
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"documents.{file_format}"
        temporary = out / f".{uuid.uuid4().hex}"
        try:
            batches = _batches(store, done, with_dropped=with_dropped, redact=redact)
            num_rows = (
                _write_jsonl(temporary, batches) if file_format == "jsonl" else _write_parquet(temporary, batches)
            )
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path, num_rows


def _batches(
    store: Store, done: Mapping[str, Manifest], *, with_dropped: bool, redact: Sequence[str] | None
) -> Iterator[list[dict[str, Any]]]:
    parts = (
        (done["extract"], ("doc_id", "url", "fetched_at", "title", "text")),
        *measured_parts(done, "pii"),
        (done["dedup"], ("doc_id", "decision", "reason", "duplicate_of", "split", "cut_lines")),
        *((done["entities"], ("doc_id", "entities")) for _ in ("one",) if "entities" in done),
    )
    kinds = None if redact is None else frozenset(redact)
    for _unit, batch in read_aligned(store, *parts):
        rows = []
        for row in batch.to_pylist():
            if row["decision"] == "keep" or with_dropped:
                row["text"] = trained_text(row["text"], kinds, row)
                row["fetched_at"] = row["fetched_at"].isoformat() if row["fetched_at"] else None
                rows.append({name: row.get(name) for name in EXPORT.names})
        yield rows


def _write_jsonl(path: Path, batches: Iterator[list[dict[str, Any]]]) -> int:
    num_rows = 0
    with path.open("w", encoding="utf-8") as file:
        for rows in batches:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False))
                file.write("\n")
            num_rows += len(rows)
    return num_rows


def _write_parquet(path: Path, batches: Iterator[list[dict[str, Any]]]) -> int:
    num_rows = 0
    with pq.ParquetWriter(path, EXPORT, compression="zstd") as writer:
        for rows in batches:
            if rows:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=EXPORT))
            num_rows += len(rows)
    return num_rows
