"""Rows of text to PAGE rows: JSON lines, Parquet, Arrow IPC and plain text, each also under gzip or zstd."""

import difflib
import gzip
import io
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from pipelines.errors import ConfigError, InputError
from pipelines.sources.pages import MAX_BATCH_ROWS, Page, batches, unreadable

DATE_FIELDS = ("fetched_at", "date")
"""Where a row says when its text was fetched; the first that holds a date counts."""

_CONTENT_TYPE = "text/plain; charset=utf-8"
_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_PARQUET_MAGIC, _ARROW_FILE_MAGIC, _ARROW_STREAM_MAGIC = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_READ_BYTES = 1 << 20
_BUFFER_BYTES = 8 << 10  # what stands in the buffer when the packing breaks is lost
_STREAM_ERRORS = (OSError, EOFError, zlib.error)
_COLUMN_ERRORS = (pa.ArrowException, UnicodeError, *_STREAM_ERRORS)
_JSON_OPENINGS = (b"{", b"\xef\xbb\xbf{")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextOptions:
    """How rows of text are read."""

    text_field: str = "text"
    """The field, or column, that holds the text."""
    url_field: str | None = "url"
    """The field that holds the page's URL; a row without it has none."""
    max_page_bytes: int = 8 << 20
    """Bytes of a row's text, or of its JSON line; a larger one becomes a row with the problem `too_large`."""

    def __post_init__(self) -> None:
        if not self.text_field:
            raise ConfigError("got an empty text_field, wanted the name of a field: name the one that holds the text.")
        if self.max_page_bytes < 1:
            raise ConfigError(f"got max_page_bytes {self.max_page_bytes}, wanted at least 1: give a size in bytes.")


def read_rows(path: Path, options: TextOptions = TextOptions()) -> Iterator[pa.RecordBatch]:
    """Text file -> PAGE, one row for each row of the file, in order; `record_offset` is the row's number from 0.

    The packing is told from the bytes, the format from the bytes or, where they do not tell JSON lines from plain text
    (one document a file), from the name. Problems: `bad_row` (not a JSON object, or no text in it), `too_large`, `text_corrupt` (the
    packing is broken or cut off, or the columns are; the rows before it are kept). Raises InputError for an unknown
    format and where no row has the text field.
    """
    return batches(_pages(path, options))


def _pages(path: Path, options: TextOptions) -> Iterator[Page]:
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        stream = _unpacked(file)
        head = _peek(stream)
        name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
        if head.startswith((_PARQUET_MAGIC, _ARROW_FILE_MAGIC, _ARROW_STREAM_MAGIC)):
            if stream is not file and not head.startswith(_ARROW_STREAM_MAGIC):
                spool = cast("BinaryIO", stack.enter_context(tempfile.TemporaryFile()))
                shutil.copyfileobj(stream, spool, _READ_BYTES)
                stream = spool
            yield from _column_pages(path, stream, head, options)
        elif name.endswith(_JSON_SUFFIXES):
            yield from _json_pages(path, stream, options)
        elif name.endswith(".txt"):
            yield _document(stream, options.max_page_bytes)
        elif head.lstrip().startswith(_JSON_OPENINGS):
            yield from _json_pages(path, stream, options)
        elif not head:  # a writer was stopped before its first row, or the packing breaks at once
            yield unreadable("text_corrupt", b"", 0)
        else:
            raise InputError(
                f"got {path}, which is neither Parquet nor Arrow nor named {', '.join((*_JSON_SUFFIXES, '.txt'))};"
                " wanted rows of text: convert the file or leave it out of the paths."
            )


def _unpacked(file: BinaryIO) -> BinaryIO:
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(_GZIP_MAGIC):
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if magic.startswith(_ZSTD_MAGIC):
        # Arrow's reader fails where the stream is cut off; zstandard's takes that for its end.
        return cast("BinaryIO", io.BufferedReader(pa.CompressedInputStream(file, "zstd"), _BUFFER_BYTES))
    return file


def _peek(stream: BinaryIO) -> bytes:
    try:
        return cast("io.BufferedReader", stream).peek(8)[:8]
    except _STREAM_ERRORS:
        return b""


def _document(stream: BinaryIO, max_page_bytes: int) -> Page:
    """A plain text file is one page; its charset is left to extraction."""
    try:
        payload = stream.read(max_page_bytes + 1)
    except _STREAM_ERRORS:
        return unreadable("text_corrupt", b"", 0)
    if len(payload) > max_page_bytes:
        return unreadable("too_large", payload, 0)
    return Page(None, None, 200, "text/plain", (), payload, 0)


def _json_pages(path: Path, stream: BinaryIO, options: TextOptions) -> Iterator[Page]:
    fields: set[str] = set()
    number = -1
    try:
        for number, line in enumerate(_lines(stream, options.max_page_bytes)):
            if len(line) > options.max_page_bytes:
                yield unreadable("too_large", line, number)
                continue
            row = _parse(line)
            if row is None:
                yield unreadable("bad_row", line, number)
                continue
            if options.text_field not in fields:
                fields.update(row)
            yield _row_page(row, number, options, line)
    except _STREAM_ERRORS:
        yield unreadable("text_corrupt", b"", number + 1)
        return
    if number >= 0 and options.text_field not in fields:
        _refuse(path, fields, options.text_field)


def _lines(stream: BinaryIO, max_num_bytes: int) -> Iterator[bytes]:
    """Lines that are not blank; of a longer one the first `max_num_bytes` + 1 bytes."""
    while line := stream.readline(max_num_bytes + 1):
        rest = line
        while len(rest) > max_num_bytes and not rest.endswith(b"\n"):
            rest = stream.readline(max_num_bytes + 1)
        if line.strip():
            yield line


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _column_pages(path: Path, stream: BinaryIO, head: bytes, options: TextOptions) -> Iterator[Page]:
    number = 0
    try:
        schema, record_batches = _open_columns(stream, head, options)
        if options.text_field not in schema.names:
            _refuse(path, schema.names, options.text_field)
        wanted = [
            name
            for name in (options.text_field, options.url_field, *DATE_FIELDS)
            if name is not None and name in schema.names
        ]
        for batch in record_batches:
            columns = [_sound(batch.column(name)) for name in wanted]
            for start in range(0, batch.num_rows, MAX_BATCH_ROWS):
                values = [_values(column.slice(start, MAX_BATCH_ROWS)) for column in columns]
                for row in zip(*values, strict=True):
                    yield _row_page(dict(zip(wanted, row, strict=True)), number, options, b"")
                    number += 1
    except _COLUMN_ERRORS:
        yield unreadable("text_corrupt", b"", number)


def _sound(column: pa.Array) -> pa.Array:
    """A column that can be read: Arrow believes the offsets of a file, and goes where damaged ones point.

    Text becomes bytes, so that one row that is not UTF-8 does not take the others with it. Raises ArrowInvalid.
    """
    if pa.types.is_dictionary(column.type):
        column.validate()
        column.indices.validate(full=True)
        column = pa.DictionaryArray.from_arrays(column.indices, _sound(column.dictionary)).dictionary_decode()
    elif pa.types.is_string(column.type):
        column = column.view(pa.binary())
    elif pa.types.is_large_string(column.type):
        column = column.view(pa.large_binary())
    elif pa.types.is_string_view(column.type):
        column = column.view(pa.binary_view())
    column.validate(full=True)
    return column


def _values(column: pa.Array) -> list[Any]:
    """Values of a column as Python's; None for a time that Python does not have."""
    if pa.types.is_temporal(column.type):
        return [_python_time(value) for value in column]
    return [value.decode(errors="replace") if isinstance(value, bytes) else value for value in column.to_pylist()]


def _python_time(value: pa.Scalar) -> object:
    try:
        return value.as_py()
    except (ValueError, OverflowError):
        return None


def _open_columns(stream: BinaryIO, head: bytes, options: TextOptions) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    if head.startswith(_PARQUET_MAGIC):
        import pyarrow.parquet as pq

        parquet = pq.ParquetFile(stream)
        names = [name for name in (options.text_field, options.url_field, *DATE_FIELDS) if name is not None]
        return parquet.schema_arrow, parquet.iter_batches(MAX_BATCH_ROWS, columns=names)
    if head.startswith(_ARROW_FILE_MAGIC):
        arrow = pa.ipc.open_file(stream)
        return arrow.schema, (arrow.get_batch(index) for index in range(arrow.num_record_batches))
    reader = pa.ipc.open_stream(stream)
    return reader.schema, reader


def _row_page(row: Mapping[str, Any], number: int, options: TextOptions, line: bytes) -> Page:
    text, url = row.get(options.text_field), row.get(options.url_field or "")
    url = _clean(url) if isinstance(url, str) and url else None
    if not isinstance(text, str):
        return unreadable("bad_row", line, number, url)
    payload = _clean(text).encode()
    if len(payload) > options.max_page_bytes:
        return unreadable("too_large", payload, number, url)
    moment = next((found for name in DATE_FIELDS if (found := _moment(row.get(name))) is not None), None)
    return Page(url, moment, 200, _CONTENT_TYPE, (), payload, number)


def _clean(text: str) -> str:
    """JSON can spell lone surrogates, which no UTF-8 can hold."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _moment(value: object) -> datetime | None:
    """A date or time as UTC, or None where `value` is neither; a time without a zone is taken as UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        return None
    try:
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except OverflowError:
        return None


def _refuse(path: Path, names: Iterable[str], text_field: str) -> None:
    known = sorted(names)
    if not known:
        raise InputError(f"got {path}, in which no line is a JSON object; wanted one object on each line: convert it.")
    nearest = difflib.get_close_matches(text_field, known, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else "set text_field to the one that holds the text."
    raise InputError(
        f"got {path} with the fields {', '.join(known[:20])}; wanted the text field {text_field!r}: {hint}"
    )
