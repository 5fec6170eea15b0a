"""A Hugging Face dataset, streamed once into immutable Parquet files that `text.read_rows` reads.

The folder is the contract: `request.json` says what was asked for, `rows-00000.parquet` and so on hold a fixed number
of rows each, and `finished.json`, written last, holds the count of each file. A run that was stopped goes on after the
last whole file.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import ConfigError, FetchError, InputError
from pipelines.sources.text import DATE_FIELDS

ROWS_PER_FILE = 10_000
_ROWS_PER_GROUP = 500
_REQUEST, _FINISHED = "request.json", "finished.json"


def fetch_dataset(
    name: str,
    folder: Path,
    *,
    split: str = "train",
    text_field: str = "text",
    url_field: str | None = "url",
    max_rows: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """Stream the dataset `name` (a Hugging Face name or a local folder) into Parquet files below `folder`.

    Keeps the text, the URL and the date fields, as text. Returns the files in row order, at once where they are
    finished. `on_progress` is given the number of rows written so far. Raises ConfigError where `folder` holds another
    request, InputError for an unknown dataset, split or field, FetchError where the hub does not answer.
    """
    if max_rows is not None and max_rows < 1:
        raise ConfigError(f"got max_rows {max_rows}, wanted at least 1, or none for all rows: correct max_rows.")
    request = {"name": name, "split": split, "text_field": text_field, "url_field": url_field, "max_rows": max_rows}
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, request)
    finished = fetched_files(folder)
    if finished is not None:
        return finished
    counts = _whole_files(folder)
    num_rows = sum(counts.values())
    fields = [text_field, *([url_field] if url_field else []), *DATE_FIELDS]
    rows = _rows(name, split, text_field, num_rows)
    if max_rows is not None:
        rows = itertools.islice(rows, max_rows - num_rows)
    while chunk := list(itertools.islice(rows, _ROWS_PER_GROUP)):
        path = folder / f"rows-{len(counts):05d}.parquet"
        counts[path.name] = _write(path, chunk, rows, fields)
        num_rows += counts[path.name]
        if on_progress is not None:
            on_progress(num_rows)
    _write_json(folder / _FINISHED, {"files": counts})
    return [folder / file for file in counts]


def fetched_files(folder: Path) -> list[Path] | None:
    """The files of a dataset that was fetched to its end, in row order; None where it was not."""
    finished = folder / _FINISHED
    if not finished.exists():
        return None
    return [folder / file for file in json.loads(finished.read_text("utf-8"))["files"]]


def _claim(folder: Path, request: dict[str, Any]) -> None:
    path = folder / _REQUEST
    if not path.exists():
        _write_json(path, request)
        return
    held = json.loads(path.read_text("utf-8"))
    if held != request:
        raise ConfigError(
            f"got {folder}, which holds the rows of {held}, wanted those of {request}: give another folder."
        )


def _whole_files(folder: Path) -> dict[str, int]:
    """Files from the first on that hold ROWS_PER_FILE rows; a shorter one may be the last of a stopped run."""
    counts: dict[str, int] = {}
    while (path := folder / f"rows-{len(counts):05d}.parquet").exists():
        try:
            num_rows = pq.read_metadata(path).num_rows
        except (pa.ArrowException, OSError):  # a machine that lost power lost its end
            break
        if num_rows != ROWS_PER_FILE:
            break
        counts[path.name] = ROWS_PER_FILE
    return counts


def _rows(name: str, split: str, text_field: str, num_skipped: int) -> Iterator[Mapping[str, Any]]:
    """Rows of the dataset from `num_skipped` on, streamed."""
    import datasets  # heavy, and needed by few recipes

    try:
        dataset = datasets.load_dataset(name, split=split, streaming=True)
        for number, row in enumerate(dataset.skip(num_skipped) if num_skipped else dataset):
            if number == 0 and text_field not in row:
                raise InputError(
                    f"got the dataset {name!r} with the fields {', '.join(sorted(row))}, wanted the text field"
                    f" {text_field!r}: set text_field to one of them."
                )
            yield row
    except (datasets.exceptions.DatasetNotFoundError, FileNotFoundError, ValueError, RuntimeError) as error:
        raise InputError(
            f"got the dataset {name!r}, split {split!r}, which cannot be opened ({_one_line(error)}); wanted a Hugging"
            " Face dataset or a local folder: correct the name or the split."
        ) from error
    except OSError as error:
        raise FetchError(
            f"got no answer for the dataset {name!r} ({_one_line(error)}), wanted it: try again later."
        ) from error


def _write(path: Path, first: list[Mapping[str, Any]], rows: Iterator[Mapping[str, Any]], fields: list[str]) -> int:
    """Write up to ROWS_PER_FILE rows, `first` before those of `rows`, in groups; returns their number."""
    schema = pa.schema([(field, pa.large_string()) for field in dict.fromkeys(fields)])
    temporary = path.with_suffix(".partial")
    num_rows = 0
    with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        chunk = first
        while chunk:
            columns = [pa.array([_as_text(row.get(name)) for row in chunk], pa.large_string()) for name in schema.names]
            writer.write_table(pa.table(columns, schema=schema))
            num_rows += len(chunk)
            chunk = list(itertools.islice(rows, min(_ROWS_PER_GROUP, ROWS_PER_FILE - num_rows)))
    _publish(temporary, path)
    return num_rows


def _as_text(value: object) -> str | None:
    if value is None:
        return None
    return value if isinstance(value, str) else getattr(value, "isoformat", value.__str__)()


def _write_json(path: Path, value: object) -> None:
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1), "utf-8")
    _publish(temporary, path)


def _publish(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
