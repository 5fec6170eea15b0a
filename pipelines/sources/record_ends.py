"""Where the records of a WARC file end, told while its bytes pass by.

A record ends where its gzip member does, one member a record (WARC 1.1, Annex D), and in an uncompressed file where its
Content-Length says. In other packings (zstd, lz4) no end is told: such a file is all or nothing.
"""

import re
import zlib
from collections.abc import Iterator
from typing import Protocol

_SLICE_BYTES = 64 << 10  # zlib copies what follows a member's end, and small members have much after them
_PIECE_BYTES = 1 << 20
_MAX_HEADER_BYTES = 32 << 10
_MAX_RECORD_BYTES = 8 << 30
_GZIP = zlib.MAX_WBITS | 16
_HEAD_BYTES = 5
_CONTENT_LENGTH = re.compile(rb"(?i)\r\nContent-Length:[ \t]*([0-9]{1,12})[ \t]*\r\n")


class _Scanner(Protocol):
    def feed(self, data: bytes, /) -> Iterator[int]:
        """Yield how many bytes into `data` each record ends. Ends for good at the first damage."""


class RecordEnds:
    """Counts the whole records of a file whose bytes are fed to it in order, up to `max_records`."""

    def __init__(self, max_records: int | None = None) -> None:
        self._max_records = max_records
        self._head = b""
        self._scanner: _Scanner | None = None
        self._position = 0
        self.num_records = 0
        self.end = 0
        """Offset of the first byte after the last whole record: 0 where there is none, or none can be told."""

    @property
    def is_full(self) -> bool:
        """Whether as many records as were wanted have passed; what comes after `end` is not wanted."""
        return self.num_records == self._max_records

    @property
    def has_checksums(self) -> bool:
        """Whether a record that has passed is known to be unharmed."""
        return isinstance(self._scanner, _GzipMembers)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file."""
        if self._scanner is None:
            self._head += chunk
            if len(self._head) < _HEAD_BYTES:
                return
            chunk, self._head = self._head, b""
            self._scanner = _scanner(chunk)
        for start in range(0, len(chunk), _SLICE_BYTES):
            data = chunk[start : start + _SLICE_BYTES]
            for num_bytes in self._scanner.feed(data):
                self.end = self._position + num_bytes
                self.num_records += 1
                if self.is_full:
                    return
            self._position += len(data)

    def rewind(self) -> None:
        """Forget what came after `end`; the bytes that are fed next follow it."""
        self._head, self._position = b"", self.end
        self._scanner = None


def _scanner(head: bytes) -> _Scanner:
    if head.startswith(b"\x1f\x8b\x08"):
        return _GzipMembers()
    return _PlainRecords() if head.startswith(b"WARC/") else _Untold()


class _Untold:
    """A packing, or no WARC, of which no record's end is told."""

    def feed(self, _data: bytes, /) -> Iterator[int]:
        yield from ()


class _GzipMembers:
    def __init__(self) -> None:
        self._engine = zlib.decompressobj(_GZIP)
        self._num_unpacked = 0
        self._is_damaged = False

    def feed(self, data: bytes, /) -> Iterator[int]:
        rest = data
        while rest and not self._is_damaged:
            try:
                self._num_unpacked += len(self._engine.decompress(rest, _PIECE_BYTES))
            except zlib.error:
                self._is_damaged = True
                return
            self._is_damaged = self._num_unpacked > _MAX_RECORD_BYTES
            rest = self._engine.unused_data if self._engine.eof else self._engine.unconsumed_tail
            if self._engine.eof:
                self._engine, self._num_unpacked = zlib.decompressobj(_GZIP), 0
                yield len(data) - len(rest)


class _PlainRecords:
    def __init__(self) -> None:
        self._header = b""
        self._num_left = 0
        """Bytes of the record's block, and of the two empty lines after it, that are still to come."""
        self._is_damaged = False

    def feed(self, data: bytes, /) -> Iterator[int]:
        position = 0
        while position < len(data) and not self._is_damaged:
            if self._num_left:
                taken = min(self._num_left, len(data) - position)
                position += taken
                self._num_left -= taken
                if not self._num_left:
                    yield position
                continue
            num_known = len(self._header)
            self._header += data[position : position + _MAX_HEADER_BYTES]
            num_header_bytes = self._header.find(b"\r\n\r\n") + 4
            if num_header_bytes < 4:
                position += len(self._header) - num_known
                self._is_damaged = len(self._header) > _MAX_HEADER_BYTES
                continue
            length = _CONTENT_LENGTH.search(self._header, 0, num_header_bytes)
            self._is_damaged = length is None or not self._header.startswith(b"WARC/")
            position += num_header_bytes - num_known
            self._header = b""
            if length is not None:
                self._num_left = int(length[1]) + 4
