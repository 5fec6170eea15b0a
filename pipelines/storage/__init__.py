"""Where a store's files lie: a folder, or a bucket that speaks S3; one interface of named blobs for both.

    folder.py   a local folder: written aside, fsynced, sealed, renamed
    bucket.py   object storage: each object written whole or not at all, copies kept near
    copies.py   those copies: verified, bounded, evicted by age
    lease.py    who may write a bucket, where no file can be locked

A name is a path with `/` between its parts. What is under a name is replaced whole, so a reader finds the old bytes or the
new ones, never a mixture, also where nothing can be renamed.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Blob:
    """What is known of stored bytes that were not read."""

    name: str
    num_bytes: int
    changed_at: float
    """When they came there, in seconds since 1970 UTC, by the clock of what holds them."""
    is_sealed: bool
    """Whether nothing hints at a change since they were published."""
    version: str
    """Another after each change."""


class Storage(Protocol):
    """Named blobs. Every method but `publish` takes what is gone for what never was."""

    url: str
    """Where they lie, for people to read; holds no credentials."""

    def publish(self, path: Path, name: str, digest: str) -> None:
        """Put a finished local file there for good, whole or not at all; the file is moved or may be removed."""
        ...

    def lend(self, path: Path, name: str) -> None:
        """Put a copy of a local file there, whole or not at all; the file stays as it is."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Put or replace a few bytes, whole or not at all."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of a small blob. Raises FileNotFoundError."""
        ...

    def read_all(self, names: Iterable[str], prefix: str | None = None) -> dict[str, bytes]:
        """The bytes of many small blobs; without those that are not there.

        Where that may be many, `prefix` is what all names begin with; a copy of what is listed there may be told.
        """
        ...

    def stat(self, name: str) -> Blob | None: ...

    def stat_all(self, names: Iterable[str], prefix: str) -> dict[str, Blob]:
        """What is known of many blobs whose names begin with `prefix`; without those that are not there.

        Storage that is far away may tell what it told this object before.
        """
        ...

    def list(self, prefix: str) -> Iterator[Blob]:
        """All blobs whose names begin so (with a whole part), in the order of their names."""
        ...

    def digest(self, name: str) -> str | None:
        """Digest of the bytes as they lie there."""
        ...

    def local(self, name: str, digest: str) -> Path | None:
        """A local file with the blob's bytes, each of them hashed by this object since they changed last; None where they
        are missing or others.

        Open it at once: where blobs are far away it is a copy that gives way to others.
        """
        ...

    def hold(self, name: str, digest: str) -> Path:
        """The same file under a path that stays until this process ends; the path where it would lie if it is missing."""
        ...

    def seal(self, name: str) -> None:
        """Note that the bytes were found to be what they should be."""
        ...

    def set_aside(self, blob: Blob) -> None:
        """Move a damaged blob to `quarantine/`, unless it was replaced since."""
        ...

    def remove(self, name: str) -> None: ...

    def tidy(self) -> None:
        """Remove local copies that outlived what they are copies of. Only for the one writer."""
        ...

    def exclusive(self, owner: str, lock: Path) -> AbstractContextManager[None]:
        """Be the only writer. `lock` is a file that this process holds the lock of.

        Raises StorageError where another machine writes; a write does where it took over meanwhile.
        """
        ...
