"""The index of a WARC file: CDXJ, one line a response, sorted by its bytes.

A line is the URL as a sort key (host reversed: SURT), the time to the second, and a JSON object with
what replay tools look for (the format of pywb and cdxj-indexer). It lies beside its file: `crawl-000001.cdxj`.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_SUFFIX = ".warc.gz"
_LOG = logging.getLogger(__name__)


def path_of(warc_path: Path) -> Path:
    """Where the index of a WARC file lies."""
    return warc_path.with_name(warc_path.name.removesuffix(_SUFFIX) + ".cdxj")


def surt(url: str) -> str:
    """A canonical URL as a sort key: `http://www.example.org:8080/a?b` is `org,example:8080)/a?b`."""
    parts = urlsplit(url)
    host = (parts.hostname or "").removeprefix("www.")
    labels = ",".join(reversed(host.split(".")))
    port = f":{parts.port}" if parts.port else ""
    return f"{labels}{port}){parts.path or '/'}{f'?{parts.query}' if parts.query else ''}".lower()


def line(
    *,
    url: str,
    at: datetime,
    mime: str | None,
    status: int,
    digest: str,
    file_name: str,
    offset: int,
    num_bytes: int,
) -> str:
    """The line of one record; `num_bytes` is what it takes in the file."""
    fields = {
        "url": url,
        "mime": (mime or "unk").partition(";")[0].strip().lower() or "unk",
        "status": str(status),
        "digest": digest,
        "length": str(num_bytes),
        "offset": str(offset),
        "filename": file_name,
    }
    return f"{surt(url)} {at:%Y%m%d%H%M%S} {json.dumps(fields)}"


def write(path: Path, lines: Iterable[str]) -> None:
    """Write an index aside, and rename it when it is whole. Raises OSError."""
    aside = path.with_name(path.name + ".open")
    with aside.open("w", encoding="utf-8", newline="\n") as file:
        # Line by line in the order of their bytes, as `LC_ALL=C sort` has it.
        file.writelines(f"{each}\n" for each in sorted(lines, key=str.encode))
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)


def rebuild(warc_path: Path) -> None:
    """Write the index of a closed WARC file from the file itself: what a killed process could not. Raises OSError."""
    write(path_of(warc_path), _read(warc_path))


def _read(warc_path: Path) -> Iterator[str]:
    from fastwarc.stream_io import GzipReader
    from fastwarc.warc import ArchiveIterator

    last: list[tuple[int, dict[str, object]]] = []
    with warc_path.open("rb") as file:
        reader = GzipReader(file)
        try:
            for record in ArchiveIterator(reader, parse_http=False, stream_detect=False):
                offset = reader.frame_start_position() or 0
                yield from _finished(last, offset, warc_path.name)
                fields = _fields(record)
                if fields is not None:
                    last.append((offset, fields))
        except (OSError, ValueError) as error:
            # The index is a convenience: what is damaged is left out of it.
            _LOG.warning("%s is indexed up to where it cannot be read: %s", warc_path.name, error)
            return
    yield from _finished(last, warc_path.stat().st_size, warc_path.name)


def _fields(record: Any) -> dict[str, object] | None:
    """What a line says of a record; None for one that is no answer, or whose answer cannot be read."""
    from fastwarc.warc import WarcRecordType

    if not record.record_type & (WarcRecordType.response | WarcRecordType.revisit):
        return None
    try:
        record.parse_http()
    except (OSError, ValueError):
        return None
    is_revisit = record.record_type == WarcRecordType.revisit
    return {
        "url": record.headers["WARC-Target-URI"],
        "at": record.record_date.astimezone(UTC),
        "mime": "warc/revisit" if is_revisit else record.http_headers.get("Content-Type"),
        "status": record.http_headers.status_code or 0,
        "digest": record.headers.get("WARC-Payload-Digest") or "-",
    }


def _finished(last: list[tuple[int, dict[str, object]]], end: int, file_name: str) -> Iterator[str]:
    """The line of the record that ended where the next one began."""
    while last:
        offset, fields = last.pop()
        yield line(**fields, file_name=file_name, offset=offset, num_bytes=end - offset)  # type: ignore[arg-type]
