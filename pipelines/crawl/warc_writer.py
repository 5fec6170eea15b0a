"""Records of a crawl to WARC/1.1 files (ISO 28500:2017), one gzip member a record.

The file being written is called `*.warc.gz.open`. It is renamed when it is closed, and not touched
after that; its CDXJ index lies beside it. Bodies are stored decoded: the Content-Encoding and
Transfer-Encoding headers are left out and Content-Length is that of what is stored, so that any
reader sees a consistent HTTP message.

Fields of our own begin with `Corpusmill-`, which other readers ignore (ISO 28500, 5.1):
`-Robots-Rule`, what allowed or forbade the URL; `-Directives`, what the site's files say of training,
a JSON array; `-Role: reservation`, such a file itself; `-Outcome`, why a page was withdrawn.
"""

import base64
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

from isal import isal_zlib
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from pipelines.crawl import cdxj
from pipelines.crawl.config import CrawlConfig
from pipelines.crawl.fetch import Response
from pipelines.crawl.recovery import OPEN_SUFFIX, publish

_COMPRESSION_LEVEL = 3
"""Of ISA-L: a quarter of zlib's time at its level 6, for files 8 % larger (bench_crawl)."""
_GZIP_WINDOW_BITS = 31
_NAME = re.compile(r"crawl-(\d{6,})\.warc\.gz")
_MAX_INDEX_LINES = 100_000
"""Held in memory until the file is closed: about 30 MiB."""
_MAX_DIRECTIVES = 31
_MAX_DIRECTIVE_NUM_CHARS = 2000
_MAX_FIELD_NUM_CHARS = 16 << 10
"""FastWARC reads no head of more than 32 KiB."""
_NOT_STORED = frozenset({"content-encoding", "transfer-encoding", "content-length"})
_REVISIT = "http://netpreserve.org/warc/1.1/revisit/"


@dataclass(frozen=True, slots=True)
class Earlier:
    """The record that a revisit refers to. Its id is unknown where an older version of this software wrote it."""

    record_id: str | None
    fetched_at: float
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResponseRecord:
    """An answer, or that it is what it was."""

    response: Response
    record_id: str
    payload_digest: str
    kind: Literal["response", "not_modified", "identical"] = "response"
    robots_rule: str | None = None
    directives: tuple[str, ...] = ()
    earlier: Earlier | None = None
    """Set for the last two kinds."""
    is_reservation: bool = False
    """Whether this is robots.txt or another file that speaks of rights, and no page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WithdrawalRecord:
    """A page in the files that may not be used any more, and why."""

    url: str
    outcome: str
    at: datetime
    robots_rule: str
    directives: tuple[str, ...]


Record = ResponseRecord | WithdrawalRecord


def payload_digest(body: bytes) -> str:
    """The digest of a body as WARC files give it: SHA-1, in base 32."""
    return "sha1:" + base64.b32encode(hashlib.sha1(body, usedforsecurity=False).digest()).decode("ascii")


def new_record_id() -> str:
    """A name for a record."""
    return f"<urn:uuid:{uuid.uuid4()}>"


def reservation_record(response: Response) -> ResponseRecord:
    """The record of a file that speaks of rights, and is no page."""
    return ResponseRecord(
        response=response,
        record_id=new_record_id(),
        payload_digest=payload_digest(response.body or b""),
        is_reservation=True,
    )


def warcinfo(config: CrawlConfig) -> dict[str, str]:
    """What the first record of each file says of the crawl."""
    return {
        "software": "corpusmill",
        "format": "WARC File Format 1.1",
        "conformsTo": "https://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/",
        "robots": f"obeyed (RFC 9309) as {config.user_agent}; unreachable means disallowed",
        "http-header-user-agent": config.user_agent_header,
        "operator": config.contact or "",
        "description": "HTTP bodies are stored with their content and transfer encodings removed, "
        "and the Content-Length of what is stored. Corpusmill-Directives: what the site's files say of training.",
    }


def next_name(folder: Path, known: Iterable[str]) -> str:
    """A file name that neither the folder nor the ledger has: `crawl-000001.warc.gz` and on."""
    names = {*known, *(path.name for path in folder.iterdir())}
    serials = [int(match[1]) for name in names if (match := _NAME.match(name))]
    return f"crawl-{max(serials, default=0) + 1:06d}.warc.gz"


class WarcWriter:
    """Appends to one WARC file."""

    def __init__(self, path: Path, info: Mapping[str, str], *, max_num_bytes: int, max_num_records: int | None) -> None:
        """Begin a new file; `path` is its final name. Raises OSError."""
        self.path = path
        self._open_path = path.with_name(path.name + OPEN_SUFFIX)
        self._max_num_bytes = max_num_bytes
        self._max_num_records = max_num_records
        self._num_records = 0
        self._index: list[str] = []
        self._file: BinaryIO = self._open_path.open("xb")
        self.num_bytes = 0
        self._write(_member(_warcinfo(path.name, info)))

    @property
    def is_full(self) -> bool:
        """Whether nothing more belongs in this file. The first response always does."""
        if self._max_num_records is not None and self._num_records >= self._max_num_records:
            return True
        if len(self._index) >= _MAX_INDEX_LINES:
            return True
        return self._num_records > 0 and self.num_bytes >= self._max_num_bytes

    def append(self, records: Sequence[Record]) -> list[int]:
        """Write records until the file is full, and bring them to disk.

        Returns the offsets of those that were written. Raises OSError.
        """
        offsets: list[int] = []
        for record in records:
            if self.is_full:
                break
            offset = self.num_bytes
            offsets.append(offset)
            self._write(encode(record))
            if isinstance(record, ResponseRecord):
                self._index.append(_index_line(record, self.path.name, offset, self.num_bytes - offset))
            self._num_records += 1
        self._file.flush()
        os.fsync(self._file.fileno())
        return offsets

    def close(self) -> None:
        """Write the index and give the file its final name. Raises OSError."""
        self._file.close()
        cdxj.write(cdxj.path_of(self.path), self._index)
        publish(self._open_path)

    def abandon(self) -> None:
        """Let go of the file after an error; the next crawl mends it."""
        with suppress(OSError):  # what is buffered still has no room
            self._file.close()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.num_bytes += len(data)


def encode(record: Record) -> bytes:
    """A record: one gzip member."""
    return _member(_withdrawal(record) if isinstance(record, WithdrawalRecord) else _response(record))


def _response(record: ResponseRecord) -> bytes:
    response = record.response
    is_revisit = record.kind != "response"
    body = b"" if is_revisit else response.body or b""
    headers = [(name, value) for name, value in response.headers if name.lower() not in _NOT_STORED]
    if not is_revisit:
        headers.append(("Content-Length", str(len(body))))
    fields = {"WARC-Record-ID": record.record_id, "WARC-Date": _date(response.fetched_at)}
    if record.payload_digest:
        fields["WARC-Payload-Digest"] = record.payload_digest
    if response.address:
        fields["WARC-IP-Address"] = response.address
    # Of a revisit, what the server sent beside the headers is left out (ISO 28500, 6.7.2).
    if response.is_cut or response.body is None or record.kind == "identical":
        fields["WARC-Truncated"] = "length"
    if record.earlier is not None:
        fields |= _earlier(record, record.earlier)
    fields |= _own_fields(record.robots_rule, record.directives)
    if record.is_reservation:
        fields["Corpusmill-Role"] = "reservation"
    writer, out = _writer()
    writer.write_record(
        writer.create_warc_record(
            response.url,
            "revisit" if is_revisit else "response",
            payload=BytesIO(body),
            length=len(body),
            warc_headers_dict=fields,
            http_headers=StatusAndHeaders(f"{response.status} {response.reason}", headers, protocol=response.version),
        )
    )
    return out.getvalue()


def _earlier(record: ResponseRecord, earlier: Earlier) -> dict[str, str]:
    profile = "server-not-modified" if record.kind == "not_modified" else "identical-payload-digest"
    fields = {"WARC-Profile": _REVISIT + profile, "WARC-Refers-To-Target-URI": record.response.url}
    fields["WARC-Refers-To-Date"] = _date(datetime.fromtimestamp(earlier.fetched_at, UTC))
    if earlier.record_id is not None:
        fields["WARC-Refers-To"] = earlier.record_id
    return fields


def _withdrawal(record: WithdrawalRecord) -> bytes:
    lines = [f"outcome: {record.outcome}", f"robots-rule: {record.robots_rule}"]
    body = "\r\n".join([*lines, *(f"directive: {each}" for each in record.directives), ""]).encode()
    fields = {"WARC-Date": _date(record.at), "Corpusmill-Outcome": record.outcome}
    fields |= _own_fields(record.robots_rule, record.directives)
    writer, out = _writer()
    writer.write_record(
        writer.create_warc_record(
            record.url,
            "metadata",
            payload=BytesIO(body),
            length=len(body),
            warc_content_type="application/warc-fields",
            warc_headers_dict=fields,
        )
    )
    return out.getvalue()


def _warcinfo(name: str, info: Mapping[str, str]) -> bytes:
    writer, out = _writer()
    writer.write_record(writer.create_warcinfo_record(name, info))
    return out.getvalue()


def _own_fields(robots_rule: str | None, directives: Sequence[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    if robots_rule is not None:
        # A rule is a site's own text: kept to one line of ASCII.
        fields["Corpusmill-Robots-Rule"] = json.dumps(robots_rule[:_MAX_DIRECTIVE_NUM_CHARS])[1:-1]
    if directives:
        fields["Corpusmill-Directives"] = json.dumps(_bounded(directives))
    return fields


def _bounded(directives: Sequence[str]) -> list[str]:
    """Those that a record's head has room for. What is left out may have been a reservation, so that is said."""
    kept: list[str] = []
    num_chars = 0
    for each in directives:
        # Written as JSON in ASCII, a character can take twelve.
        num_chars += len(json.dumps(each))
        if len(kept) == _MAX_DIRECTIVES or len(each) > _MAX_DIRECTIVE_NUM_CHARS or num_chars > _MAX_FIELD_NUM_CHARS:
            return [*kept, "unread: more directives than a record holds"]
        kept.append(each)
    return kept


def _index_line(record: ResponseRecord, file_name: str, offset: int, num_bytes: int) -> str:
    response = record.response
    return cdxj.line(
        url=response.url,
        at=response.fetched_at,
        mime="warc/revisit" if record.kind != "response" else response.header("content-type"),
        status=response.status,
        digest=record.payload_digest,
        file_name=file_name,
        offset=offset,
        num_bytes=num_bytes,
    )


def _date(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _writer() -> tuple[WARCWriter, BytesIO]:
    out = BytesIO()
    return WARCWriter(out, gzip=False, warc_version="WARC/1.1"), out


def _member(data: bytes) -> bytes:
    member: bytes = isal_zlib.compress(data, _COMPRESSION_LEVEL, wbits=_GZIP_WINDOW_BITS)
    return member
