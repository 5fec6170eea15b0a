"""Responses to WARC/1.1 files (ISO 28500:2017), one gzip member a record.

The file being written is called `*.warc.gz.open`. It is renamed when it is closed, and not touched
after that. Bodies are stored decoded: the Content-Encoding and Transfer-Encoding headers are left out
and Content-Length is that of what is stored, so that any reader sees a consistent HTTP message.
"""

import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from pipelines.crawl.config import CrawlConfig
from pipelines.crawl.fetch import Response
from pipelines.crawl.recovery import OPEN_SUFFIX, publish

_COMPRESSION_LEVEL = 6
_NAME = re.compile(r"crawl-(\d{6,})\.warc\.gz")
_NOT_STORED = frozenset({"content-encoding", "transfer-encoding", "content-length"})


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
        "and the Content-Length of what is stored.",
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
        self._file: BinaryIO = self._open_path.open("xb")
        self.num_bytes = 0
        self._write(_member(lambda writer: writer.create_warcinfo_record(path.name, info)))

    @property
    def is_full(self) -> bool:
        """Whether nothing more belongs in this file. The first response always does."""
        if self._max_num_records is not None and self._num_records >= self._max_num_records:
            return True
        return self._num_records > 0 and self.num_bytes >= self._max_num_bytes

    def append(self, responses: Sequence[Response]) -> list[int]:
        """Write responses until the file is full, and bring them to disk.

        Returns the offsets of those that were written. Raises OSError.
        """
        offsets: list[int] = []
        for response in responses:
            if self.is_full:
                break
            offsets.append(self.num_bytes)
            self._write(encode(response))
            self._num_records += 1
        self._file.flush()
        os.fsync(self._file.fileno())
        return offsets

    def close(self) -> None:
        """Give the file its final name. Raises OSError."""
        self._file.close()
        publish(self._open_path)

    def abandon(self) -> None:
        """Let go of the file after an error; the next crawl mends it."""
        with suppress(OSError):  # what is buffered still has no room
            self._file.close()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.num_bytes += len(data)


def encode(response: Response) -> bytes:
    """A `response` record: one gzip member."""
    body = response.body or b""
    headers = [(name, value) for name, value in response.headers if name.lower() not in _NOT_STORED]
    headers.append(("Content-Length", str(len(body))))
    fields = {"WARC-Date": response.fetched_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
    if response.address:
        fields["WARC-IP-Address"] = response.address
    if response.is_cut:
        fields["WARC-Truncated"] = "length"
    return _member(
        lambda writer: writer.create_warc_record(
            response.url,
            "response",
            payload=BytesIO(body),
            length=len(body),
            warc_headers_dict=fields,
            http_headers=StatusAndHeaders(f"{response.status} {response.reason}", headers, protocol=response.version),
        )
    )


def _member(record_of: Any) -> bytes:
    out = BytesIO()
    writer = WARCWriter(out, gzip=False, warc_version="WARC/1.1")
    writer.write_record(record_of(writer))
    return zlib.compress(out.getbuffer(), _COMPRESSION_LEVEL, wbits=zlib.MAX_WBITS | 16)
