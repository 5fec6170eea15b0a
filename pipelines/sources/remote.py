"""Remote objects, each streamed once into an immutable file of a folder; what a stopped run began is gone on with.

The folder is the contract. `NAME` is a whole file, named by a digest of its URL and of how many records were wanted;
`NAME.part` is one under way; `NAME.json` says where either comes from. A finished file is never asked for again:
remove it to fetch it anew.

A part that a run left is trusted up to the end of its last whole gzip member, whose checksum holds, since a machine that
lost power may have kept any bytes after it; in a packing without that it is begun anew. It is gone on with only under the
validator it was begun with (If-Range), so a file is never made of two versions of an object.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import BinaryIO
from urllib.parse import urlsplit

from pipelines.digest import digest_file, digest_value
from pipelines.errors import FetchError, InputError
from pipelines.redaction import Redactor
from pipelines.sources.record_ends import RecordEnds
from pipelines.sources.remote_streams import (
    ChangedError,
    PassingError,
    RemoteAccess,
    RemoteStream,
    Version,
    open_stream,
)
from pipelines.store import storage_errors

MAX_FILE_BYTES = 64 << 30

_READ_BYTES = 1 << 20
_MAX_FAILURES = 5
_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 120.0
_MAX_NAME_CHARS = 100

OnBytes = Callable[[int, int | None], None]
"""Called with the bytes of a file that are there, and of how many (None: unknown, or fewer records are wanted)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """What is known of a remote object and of the file it is streamed into; written as JSON beside it."""

    url: str
    etag: str | None
    last_modified: str | None
    size: int | None
    """Bytes of the whole object, of which `max_records` may have taken a prefix."""
    max_records: int | None
    num_bytes: int | None = None
    """This and what follows: None until the file is whole."""
    num_records: int | None = None
    """Whole records, counted as gzip members or by their Content-Length; 0 where the packing does not tell."""
    digest: str | None = None
    """SHA-256 of the file."""
    fetched_at: str | None = None
    """RFC 3339, UTC."""

    @property
    def version(self) -> Version:
        return Version(etag=self.etag, last_modified=self.last_modified, size=self.size)


def remote_path(url: str, folder: Path, max_records: int | None = None) -> Path:
    """Where the file of an object lies, or will lie."""
    label = re.sub(r"[^A-Za-z0-9._-]+", "_", urlsplit(url).path.rpartition("/")[2])[-_MAX_NAME_CHARS:].lstrip(".")
    return folder / f"{digest_value([url, max_records])[:24]}-{label or 'object'}"


def held_file(url: str, folder: Path, *, max_records: int | None = None) -> RemoteFile | None:
    """What is known of an object whose file is whole; None where it still is to be fetched. Makes no request."""
    path = remote_path(url, folder, max_records)
    known = _load(path, url)
    if known is None or known.fetched_at is None or not path.is_file() or path.stat().st_size != known.num_bytes:
        return None
    return known


def fetch_file(
    url: str,
    folder: Path,
    access: RemoteAccess,
    *,
    max_records: int | None = None,
    max_bytes: int = MAX_FILE_BYTES,
    on_bytes: OnBytes | None = None,
) -> RemoteFile:
    """Stream an object into its file below `folder`, from where an earlier run stopped; at once where it is there.

    `max_records` takes that many records from the start: gzip members, one a record as WARC asks, or records of a file
    without packing. In another packing, or with many records in one member, the object is taken whole.
    Raises InputError naming the URL for what cannot be had, FetchError where the network fails again and again,
    StorageError where the disk does.
    """
    held = held_file(url, folder, max_records=max_records)
    if held is not None:
        return held
    path = remote_path(url, folder, max_records)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        with part.open("r+b" if part.exists() else "w+b") as file:
            under_way = _Part(file, path, _begun(url, max_records, path), max_bytes)
            under_way.take_up()
            _complete(under_way, access, on_bytes)
            known = under_way.seal()
        part.replace(path)
        _sync_folder(folder)
    return known


def _begun(url: str, max_records: int | None, path: Path) -> RemoteFile:
    known = _load(path, url)
    unknown = RemoteFile(url=url, etag=None, last_modified=None, size=None, max_records=max_records)
    return unknown if known is None or (known.url, known.max_records) != (url, max_records) else known


class _Part:
    """A file under way: its bytes, what is known of them, and where its records end."""

    def __init__(self, file: BinaryIO, path: Path, known: RemoteFile, max_bytes: int) -> None:
        self._file, self._path, self._max_bytes = file, path, max_bytes
        self.known = known
        self.num_bytes = 0
        self._ends = RecordEnds(known.max_records)
        self._sha256 = hashlib.sha256()
        self._is_sealed = False

    def take_up(self) -> None:
        """Go back to the last whole record of what an earlier run left, or to nothing."""
        num_bytes = self._file.seek(0, os.SEEK_END)
        if num_bytes and num_bytes == self.known.num_bytes and digest_file(Path(self._file.name)) == self.known.digest:
            # Stopped between the last byte and the file's new name.
            self._is_sealed, self.num_bytes = True, num_bytes
            return
        self._file.seek(0)
        while not self._ends.is_full and (chunk := self._file.read(_READ_BYTES)):
            self._ends.feed(chunk)
        if self.known.version.validator is None or not self._ends.has_checksums:
            self._ends = RecordEnds(self.known.max_records)
        self._cut(self._ends.end)
        self._ends.rewind()
        self._file.seek(0)
        while chunk := self._file.read(_READ_BYTES):
            self._sha256.update(chunk)

    @property
    def is_whole(self) -> bool:
        """Whether all that is wanted is there, as far as can be told without asking."""
        return self._ends.is_full or self._is_sealed or (self.num_bytes > 0 and self.num_bytes == self.known.size)

    @property
    def ends_within_a_record(self) -> bool:
        return self._ends.has_checksums and self._ends.end != self.num_bytes

    def begin(self, version: Version) -> None:
        """Start anew with a version of the object. What was there is gone from the disk before the version changes."""
        self._cut(0)
        self._ends = RecordEnds(self.known.max_records)
        self._sha256 = hashlib.sha256()
        self.known = RemoteFile(
            url=self.known.url,
            etag=version.etag,
            last_modified=version.last_modified,
            size=version.size,
            max_records=self.known.max_records,
        )
        _save(self._path, self.known)
        if self.known.max_records is None:
            self._check_size(version.size or 0)

    def append(self, chunk: bytes) -> None:
        """Add the next bytes, save those after the last record that is wanted."""
        self._ends.feed(chunk)
        if self._ends.is_full:
            chunk = chunk[: self._ends.end - self.num_bytes]
        self._check_size(self.num_bytes + len(chunk))
        self._file.write(chunk)
        self._sha256.update(chunk)
        self.num_bytes += len(chunk)

    def seal(self) -> RemoteFile:
        """Bring a whole file to disk, and then what it is."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if not self._is_sealed:
            self.known = replace(
                self.known,
                num_bytes=self.num_bytes,
                num_records=self._ends.num_records,
                digest=self._sha256.hexdigest(),
                fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            _save(self._path, self.known)
        return self.known

    def _cut(self, num_bytes: int) -> None:
        self._file.truncate(num_bytes)
        self._file.seek(num_bytes)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.num_bytes = num_bytes

    def _check_size(self, num_bytes: int) -> None:
        if num_bytes > self._max_bytes:
            raise InputError(
                f"got more than {self._max_bytes:,} bytes from {self.known.url}, wanted fewer: leave it out."
            )


def _complete(part: _Part, access: RemoteAccess, on_bytes: OnBytes | None) -> None:
    """Ask for what lacks until all is there. Failures count while they bring less than a chunk each."""
    num_failures = 0
    while not part.is_whole:
        num_before = part.num_bytes
        pause_seconds: float | None = None
        try:
            with open_stream(part.known.url, access, offset=part.num_bytes, version=part.known.version) as stream:
                _receive(stream, part, on_bytes)
        except PassingError as error:
            reason, pause_seconds = str(error), error.pause_seconds
        except ChangedError:
            reason = "the object changed while it was read"
            part.begin(Version())
        else:
            return
        num_failures = 1 if part.num_bytes - num_before >= _READ_BYTES else num_failures + 1
        if num_failures == _MAX_FAILURES or (pause_seconds or 0) > _MAX_PAUSE_SECONDS:
            later = f" in {pause_seconds:.0f} s" if pause_seconds else ""
            raise FetchError(f"got no whole {part.known.url} ({reason}), wanted it: run again{later} to go on.")
        sleep(max(pause_seconds or 0.0, _FIRST_PAUSE_SECONDS * 2 ** (num_failures - 1)))


def _receive(stream: RemoteStream, part: _Part, on_bytes: OnBytes | None) -> None:
    if stream.offset == 0:
        part.begin(stream.version)
    size = None if part.known.max_records else part.known.size
    for chunk in stream.chunks:
        part.append(chunk)
        if on_bytes is not None:
            on_bytes(part.num_bytes, size)
        if part.is_whole:
            break
    if not stream.has_sure_end and not part.is_whole and part.ends_within_a_record:
        part.begin(Version())
        raise PassingError("the connection ended within a record")


def _load(path: Path, url: str) -> RemoteFile | None:
    """What is known of the file of a URL; None where that is of another one. A signature in it is not kept: see `_save`."""
    try:
        known = RemoteFile(**json.loads(path.with_name(f"{path.name}.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return replace(known, url=url) if known.url in (url, _shown(url)) else None


def _save(path: Path, known: RemoteFile) -> None:
    """Write what is known, without what lets its reader in: the name of the file is a digest of the whole URL."""
    target = path.with_name(f"{path.name}.json")
    temporary = path.with_name(f"{path.name}.json.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(asdict(replace(known, url=_shown(known.url))), file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)
    _sync_folder(path.parent)


def _shown(url: str) -> str:
    return Redactor().text(url)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
