"""WARC records and files made for tests, byte by byte."""

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import zstandard
from fastwarc.stream_io import Lz4Writer

from pipelines.sources.warc import WarcOptions, read_pages


def record(
    body: bytes,
    *,
    url: str = "http://site.example/",
    kind: str = "response",
    content_type: str = "application/http;msgtype=response",
    date: str = "2024-01-02T03:04:05Z",
    fields: Mapping[str, str] | None = None,
) -> bytes:
    """One WARC record around a block, with further fields."""
    more = "".join(f"{name}: {value}\r\n" for name, value in (fields or {}).items())
    head = (
        f"WARC/1.1\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: {date}\r\n"
        f"Content-Type: {content_type}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def http(body: bytes, status: str = "200 OK", headers: Mapping[str, str] | None = None) -> bytes:
    """One HTTP response."""
    fields = {"Content-Type": "text/html; charset=utf-8", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def page(number: int, num_bytes: int = 3000) -> bytes:
    """A response record whose body does not compress to nothing, so that damage lies inside it."""
    words = " ".join(str((number + 1) * 7919 * step % 1_000_003) for step in range(num_bytes // 7))
    return record(http(f"<p>第{number}页 {words}</p>".encode()), url=f"http://site.example/{number}")


def lz4(data: bytes, folder: Path) -> bytes:
    path = folder / "member.lz4"
    with path.open("wb") as file:
        writer = Lz4Writer(file)
        writer.write(data)
        writer.close()
    return path.read_bytes()


def packings(folder: Path) -> dict[str, Callable[[bytes], bytes]]:
    """How each record is packed, by suffix."""
    return {
        "warc": bytes,
        "warc.gz": gzip.compress,
        "warc.zst": zstandard.ZstdCompressor(write_checksum=True).compress,
        "warc.lz4": lambda data: lz4(data, folder),
    }


def read(path: Path, options: WarcOptions | None = None) -> list[dict[str, Any]]:
    """All rows of a WARC file."""
    return [row for batch in read_pages(path, options or WarcOptions()) for row in batch.to_pylist()]
