"""WARC files (ISO 28500; WARC/1.0 and 1.1) to PAGE rows, read record by record with FastWARC.

A damaged file loses only what is damaged: what stands before is yielded, the damage becomes one row that says where it
lies, and reading goes on at the next compressed member, or the next `WARC/1.` line, that opens a record.

Our crawler writes three extension fields (WARC 1.1, section 5: unknown ones are ignored by others). `Corpusmill-Directives`,
a JSON array of what the site's files say of the page; `Corpusmill-Role: reservation` on those files; and
`Corpusmill-Outcome` on the `metadata` record of a page that was withdrawn after it had been archived.
"""

import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import pyarrow as pa
from fastwarc.stream_io import GzipReader, Lz4Reader, ZstdReader
from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from pipelines.errors import ConfigError, InputError
from pipelines.schemas import SITE_SOURCES
from pipelines.sources.content_coding import BadEncodingError, TooLargeError, decode_body
from pipelines.sources.pages import MAX_EVIDENCE_BYTES, Page, batches, unreadable

KEPT_HEADERS = frozenset(
    (
        "x-robots-tag",
        "tdm-reservation",
        "tdm-policy",
        "content-usage",
        "content-signal",
        "content-language",
    )
)
"""Response headers that carry rights or a language; of `link`, only a licence is kept besides."""

WITHDRAWALS = frozenset(("robots_disallowed", "reserved"))
"""Outcomes of a page that was archived and then forbidden by robots.txt, or reserved by another file of its site."""

UNREAD = "unread: the record's Corpusmill-Directives"
"""Stands, as a reservation, for a field that is malformed or goes on beyond its bounds."""

_HTML_TYPES = ("text/html", "application/xhtml+xml")
_READ_BYTES = 1 << 20
_HEAD_BYTES = 16
_MAX_HEADER_BYTES = 32 << 10  # FastWARC's limit
_OPENING = re.compile(rb"\s{0,8}WARC/[01]\.\d")
_PLAIN_RECORD = re.compile(rb"(?:\A|\n)(WARC/[01]\.\d+\r?\n[A-Za-z-]{1,64}:)")
_SHORT_OPENING = b"WARC/1."
_MAX_DIRECTIVES = 32
_MAX_DIRECTIVE_CHARS = 2000
_FILE_ERRORS = (OSError, ValueError, EOFError)  # all that FastWARC raises for a damaged stream


@dataclass(frozen=True, kw_only=True, slots=True)
class WarcOptions:
    """How WARC files are read."""

    max_page_bytes: int = 8 << 20
    """Bytes of a decoded HTTP body; a larger one becomes a row with the problem `too_large` and no payload."""

    def __post_init__(self) -> None:
        if self.max_page_bytes < 1:
            raise ConfigError(f"got max_page_bytes {self.max_page_bytes}, wanted at least 1: give a size in bytes.")


@dataclass(frozen=True, slots=True)
class _Packing:
    """How the records of a file are compressed, each in a member of its own."""

    magic: bytes
    reader: Callable[[BinaryIO], Any] | None


_PLAIN = _Packing(b"", None)
_PACKINGS = (
    _Packing(b"\x1f\x8b\x08", GzipReader),
    _Packing(b"\x28\xb5\x2f\xfd", ZstdReader),
    _Packing(b"\x04\x22\x4d\x18", Lz4Reader),
)


class _DamageError(Exception):
    """Reading cannot go on: the damaged record begins at `offset`."""

    def __init__(self, problem: str, offset: int, url: str | None = None) -> None:
        super().__init__(problem)
        self.problem, self.offset, self.url = problem, offset, url


def read_pages(path: Path, options: WarcOptions = WarcOptions()) -> Iterator[pa.RecordBatch]:
    """WARC file -> PAGE, one row for each fetched page, in file order, and one for each damaged stretch.

    Rows are `response` records whose status is not 3xx, `resource` records of HTML, `conversion` records (WET), and
    `metadata` records of pages that were withdrawn; robots.txt and what else was fetched for a site's reservations
    is none. The packing (gzip, zstd, lz4 or none) is told from the bytes, not from the name. Problems: `too_large`,
    `bad_encoding`, `bad_http`, `robots_disallowed`, `reserved`, `warc_truncated`, `warc_corrupt`; the payload of the last
    two is the head of the damaged stretch.
    Raises InputError where the file is no WARC at all.
    """
    return batches(_pages(path, options))


def _pages(path: Path, options: WarcOptions) -> Iterator[Page]:
    with path.open("rb") as file:
        head = file.read(len(_SHORT_OPENING))
        if not head:  # a writer was stopped before its first record
            yield unreadable("warc_truncated", b"", 0)
            return
        packing = next((packing for packing in _PACKINGS if head.startswith(packing.magic)), _PLAIN)
        start: int | None = 0
        if not _opens_record(file, 0, packing):
            found = [(_next_record(file, 0, other), other) for other in (*_PACKINGS, _PLAIN)]
            opened = [(offset, other) for offset, other in found if offset is not None]
            if not opened:
                raise _not_warc(path, file, packing)
            start, packing = min(opened, key=lambda candidate: candidate[0])
            yield unreadable("warc_corrupt", _evidence(file, 0), 0)
        while start is not None:
            try:
                yield from _records(file, start, packing, options.max_page_bytes)
                start = None
            except _DamageError as damage:
                start = _next_record(file, damage.offset + 1, packing)
                # Without a record after it, the end is what is missing.
                problem = damage.problem if start is None else "warc_corrupt"
                yield unreadable(problem, _evidence(file, damage.offset), damage.offset, damage.url)


def _records(file: BinaryIO, start: int, packing: _Packing, max_page_bytes: int) -> Iterator[Page]:
    """Pages from the record at `start` to the end of the file. Raises _DamageError."""
    num_file_bytes = file.seek(0, 2)
    file.seek(start)
    reader = None if packing.reader is None else packing.reader(file)
    records = ArchiveIterator(file if reader is None else reader, parse_http=False, stream_detect=False)
    offset, num_block_bytes = start, None
    while True:
        try:
            record = next(records, None)
        except _FILE_ERRORS:
            if reader is None:
                raise _broken_plain(file, offset, num_block_bytes) from None
            raise _broken_packed(reader, packing, offset, num_file_bytes) from None
        if record is None:
            break
        offset = record.stream_pos if reader is None else reader.frame_start_position()
        if not record.headers.contains_key("Content-Length"):
            raise _DamageError("warc_truncated", offset)
        num_block_bytes = record.content_length
        if reader is None and offset + num_block_bytes > num_file_bytes:
            raise _DamageError("warc_truncated", offset, _url(record))
        try:
            page = _page(record, offset, max_page_bytes)
        except _FILE_ERRORS:
            raise _DamageError("warc_corrupt", offset, _url(record)) from None
        if page is not None:
            yield page
    if reader is not None and not _is_whole(file, reader.frame_start_position() or start, packing):
        raise _DamageError("warc_truncated", reader.frame_start_position() or start)


def _broken_packed(reader: Any, packing: _Packing, offset: int, num_file_bytes: int) -> _DamageError:
    """The damage that stopped the iterator after the packed record at `offset`."""
    position = reader.frame_start_position()
    try:
        # zstd and lz4 fail where the last frame is cut off; gzip takes that for an end.
        is_cut = packing.reader is not GzipReader and reader.inner_tell() >= num_file_bytes
    except OSError:  # lz4 does not get past a broken frame even to say where it is
        is_cut = False
    return _DamageError("warc_truncated" if is_cut else "warc_corrupt", offset if position is None else position)


def _broken_plain(file: BinaryIO, offset: int, num_block_bytes: int | None) -> _DamageError:
    """The damage that stopped the iterator at `offset`, or after the record there, if its block has a length."""
    end = offset
    if num_block_bytes is not None:
        file.seek(offset)
        end += file.read(_MAX_HEADER_BYTES).find(b"\r\n\r\n") + 4 + num_block_bytes + 4
    file.seek(end)
    rest = file.read(_HEAD_BYTES)
    if rest and _SHORT_OPENING.startswith(rest):
        return _DamageError("warc_truncated", end)
    # The length of the record may be what is wrong: reading goes on right after its first byte.
    return _DamageError("warc_corrupt", offset)


def _is_whole(file: BinaryIO, offset: int, packing: _Packing) -> bool:
    """Whether the gzip member at `offset`, the last one begun, reaches its end: FastWARC takes a cut for an end."""
    if packing.reader is not GzipReader:
        return True
    file.seek(offset)
    decompressor = zlib.decompressobj(31)
    while chunk := file.read(_READ_BYTES):
        while chunk and not decompressor.eof:
            decompressor.decompress(chunk, _READ_BYTES)
            chunk = decompressor.unconsumed_tail
        if decompressor.eof:
            return True
    return False


def _page(record: WarcRecord, offset: int, max_page_bytes: int) -> Page | None:
    """The row of a record, or None for one that holds no page. Raises _DamageError for a body that is cut off."""
    if record.record_type == WarcRecordType.response:
        return _http_page(record, offset, max_page_bytes)
    if record.record_type == WarcRecordType.metadata:
        return _withdrawal(record, offset)
    content_type = record.headers.get("Content-Type") or ""
    kept = ("text/plain",) if record.record_type == WarcRecordType.conversion else _HTML_TYPES
    if record.record_type not in (WarcRecordType.resource, WarcRecordType.conversion):
        return None
    if not content_type.lower().startswith(kept):
        return None
    if kept == ("text/plain",):
        content_type = "text/plain; charset=utf-8"
    body, problem = _body(record, offset, max_page_bytes), None
    if len(body) > max_page_bytes:
        body, problem = b"", "too_large"
    return Page(_url(record), _date(record), 200, content_type, _directives(record), body, offset, problem)


def _withdrawal(record: WarcRecord, offset: int) -> Page | None:
    """The row of a page that was withdrawn, or None for other metadata."""
    outcome = (record.headers.get("Corpusmill-Outcome") or "").strip()
    if outcome not in WITHDRAWALS:
        return None
    body = _body(record, offset, MAX_EVIDENCE_BYTES)[:MAX_EVIDENCE_BYTES]
    return Page(_url(record), _date(record), 0, None, _directives(record), body, offset, outcome)


def _http_page(record: WarcRecord, offset: int, max_page_bytes: int) -> Page | None:
    if not record.is_http:  # dns, ftp
        return None
    url, fetched_at = _url(record), _date(record)
    if (record.headers.get("Corpusmill-Role") or "").strip() == "reservation" or _is_robots_txt(url):
        return None
    directives = _directives(record)
    try:
        record.parse_http()
    except OSError:
        return Page(url, fetched_at, 0, None, directives, b"", offset, "bad_http")
    status = record.http_headers.status_code
    if status is not None and 300 <= status < 400:
        return None
    fields = [(_text(name).lower(), _text(value).strip()) for name, value in record.http_headers.items_bytes()]
    named = dict(reversed(fields))  # the first of a name counts
    headers = (*(f"{name}: {value}" for name, value in fields if _carries_rights(name, value)), *directives)
    body, problem = b"", None
    if status is None:
        status, problem = 0, "bad_http"
    else:
        # Chunk headers and poor compression may make a body longer than what it holds.
        body = _body(record, offset, 2 * max_page_bytes)
        try:
            codings = (named.get("transfer-encoding", ""), named.get("content-encoding", ""))
            body = decode_body(body, *codings, max_page_bytes)
        except TooLargeError:
            body, problem = b"", "too_large"
        except BadEncodingError:
            body, problem = b"", "bad_encoding"
    return Page(url, fetched_at, status, named.get("content-type"), headers, body, offset, problem)


def _body(record: WarcRecord, offset: int, max_num_bytes: int) -> bytes:
    wanted = min(record.content_length, max_num_bytes + 1)
    body: bytes = record.reader.read(wanted)
    if len(body) < wanted:
        raise _DamageError("warc_truncated", offset, _url(record))
    return body


def _carries_rights(name: str, value: str) -> bool:
    return name in KEPT_HEADERS or (name == "link" and "license" in value.lower())


def _directives(record: WarcRecord) -> tuple[str, ...]:
    """What the files of the site say of a page, `source: value`, from the record's field; malformed: a reservation."""
    lines: list[str] = []
    for field in record.headers.get_multiple("Corpusmill-Directives"):
        try:
            found = json.loads(field)
        except (ValueError, RecursionError):
            return (UNREAD,)
        if not isinstance(found, list) or not all(isinstance(line, str) for line in found):
            return (UNREAD,)
        lines += found
    kept = [_directive(line) for line in lines[:_MAX_DIRECTIVES]]
    return tuple(dict.fromkeys((*kept, *([UNREAD] if len(lines) > _MAX_DIRECTIVES else []))))


def _directive(line: str) -> str:
    source, _, value = line.partition(":")
    source, value = " ".join(source.lower().split()), " ".join(value.split())
    if len(line) > _MAX_DIRECTIVE_CHARS or source not in SITE_SOURCES:
        return UNREAD
    return f"{source}: {value}".encode(errors="replace").decode()  # JSON can hold half a surrogate pair


def _is_robots_txt(url: str | None) -> bool:
    try:
        return url is not None and urlsplit(url).path == "/robots.txt"
    except ValueError:
        return False


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _url(record: WarcRecord) -> str | None:
    raw = record.headers.get_bytes(b"WARC-Target-URI")
    return raw.decode(errors="replace").strip().removeprefix("<").removesuffix(">") or None if raw else None


def _date(record: WarcRecord) -> datetime | None:
    date: datetime | None = record.record_date
    return None if date is None else date.astimezone(UTC)


def _opens_record(file: BinaryIO, offset: int, packing: _Packing) -> bool:
    """Whether a record stands at `offset`; at the start of the file a cut-off beginning of one will do."""
    head = _head(file, offset, packing)
    if head is None:
        return False
    return _OPENING.match(head) is not None or (offset == 0 and _SHORT_OPENING.startswith(head))


def _head(file: BinaryIO, offset: int, packing: _Packing) -> bytes | None:
    """The first bytes of what is packed at `offset`, or None where that cannot be unpacked."""
    file.seek(offset)
    try:
        head: bytes = (file if packing.reader is None else packing.reader(file)).read(_HEAD_BYTES)
    except _FILE_ERRORS:
        return None
    return head


def _next_record(file: BinaryIO, start: int, packing: _Packing) -> int | None:
    """Offset of the first record that opens at `start` or after it, or None."""
    overlap = 128
    window = b""
    base = start
    file.seek(start)
    while chunk := file.read(_READ_BYTES):
        window += chunk
        resume = file.tell()
        for candidate in _candidates(window, packing):
            if packing.reader is None or _opens_record(file, base + candidate, packing):
                return base + candidate
        file.seek(resume)
        base += max(0, len(window) - overlap)
        window = window[-overlap:]
    return None


def _candidates(window: bytes, packing: _Packing) -> Iterator[int]:
    if packing.reader is None:
        yield from (match.start(1) for match in _PLAIN_RECORD.finditer(window))
        return
    position = window.find(packing.magic)
    while position >= 0:
        yield position
        position = window.find(packing.magic, position + 1)


def _evidence(file: BinaryIO, offset: int) -> bytes:
    file.seek(offset)
    return file.read(MAX_EVIDENCE_BYTES)


def _not_warc(path: Path, file: BinaryIO, packing: _Packing) -> InputError:
    if (_head(file, 0, packing) or b"").startswith(b"filedesc://"):
        return InputError(
            f"got the ARC file {path}, wanted WARC: convert it (warcio recompress, arc2warc) and try again."
        )
    return InputError(f"got {path}, in which no WARC record begins; wanted a WARC file: leave it out of the paths.")
