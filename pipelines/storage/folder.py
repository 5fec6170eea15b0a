"""Blobs in a local folder.

Sealing sets a fixed modification time and removes write permission, so an edit by hand shows in a stat call.

A blob that was found whole is not hashed again by the same object while its status stays as it was: the change time that
the kernel keeps cannot be set, so it tells of every write since. A small change reads the same shards half a dozen times.
"""

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipelines.digest import digest_file
from pipelines.storage import Blob

_SEALED_AT_NS = 1_000_000_000 * 1_000_000_000
"""The modification time of every sealed blob (2001-09-09); no fresh edit can have it by accident."""
_SETTLED_AFTER_SECONDS = 1.0
"""Change times have the grain of a clock tick (10 ms at most): within one, two writes look like one."""


class Folder:
    """Blobs as files under a root; `tmp/` beside them is on the same disk. One `Storage`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._whole: dict[str, tuple[str, Blob]] = {}
        """By name: the digest that a blob was found to have, and its status before that."""
        self.url = str(root)

    def publish(self, path: Path, name: str, digest: str) -> None:
        if self.local(name, digest) is not None:  # most of what a global stage writes again is as it was
            self.seal(name)
            path.unlink()
            return
        fsync(path)
        path.chmod(0o444)
        os.utime(path, ns=(_SEALED_AT_NS, _SEALED_AT_NS))
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
        fsync(target.parent)

    def lend(self, path: Path, name: str) -> None:
        temporary = self._root / "tmp" / uuid.uuid4().hex
        try:
            shutil.copyfile(path, temporary)
            target = self._root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def write(self, name: str, data: bytes) -> None:
        temporary = self._root / "tmp" / uuid.uuid4().hex
        target = self._root / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            fsync(temporary)
            temporary.replace(target)
            fsync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def read_all(self, names: Iterable[str], prefix: str | None = None) -> dict[str, bytes]:  # noqa: ARG002
        found = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found[name] = self.read(name)
        return found

    def stat(self, name: str) -> Blob | None:
        try:
            status = (self._root / name).stat()
        except FileNotFoundError:
            return None
        # Sealing fixed the modification time; that of the status is when the file got its name.
        version = f"{status.st_ino}:{status.st_ctime_ns}"
        return Blob(name, status.st_size, status.st_ctime, status.st_mtime_ns == _SEALED_AT_NS, version)

    def stat_all(self, names: Iterable[str], prefix: str) -> dict[str, Blob]:  # noqa: ARG002
        return {name: blob for name in names if (blob := self.stat(name)) is not None}

    def list(self, prefix: str) -> Iterator[Blob]:
        for path in sorted((self._root / prefix).rglob("*")):
            if path.is_file() and (blob := self.stat(path.relative_to(self._root).as_posix())) is not None:
                yield blob

    def digest(self, name: str) -> str | None:
        try:
            return digest_file(self._root / name)
        except FileNotFoundError:
            return None

    def local(self, name: str, digest: str) -> Path | None:
        blob = self.stat(name)
        if blob is None:
            return None
        if self._whole.get(name) != (digest, blob):
            if self.digest(name) != digest:
                return None
            if time.time() - blob.changed_at > _SETTLED_AFTER_SECONDS:
                self._whole[name] = digest, blob
        return self._root / name

    def hold(self, name: str, digest: str) -> Path:  # noqa: ARG002
        return self._root / name

    def seal(self, name: str) -> None:
        if name in self._whole and self._whole[name][1].is_sealed:
            return
        path = self._root / name
        with contextlib.suppress(OSError):
            if path.stat().st_mtime_ns != _SEALED_AT_NS:  # what is sealed would only look new: see `stat`
                os.utime(path, ns=(_SEALED_AT_NS, _SEALED_AT_NS))

    def set_aside(self, blob: Blob) -> None:
        folder = self._root / "quarantine"
        now = self.stat(blob.name)
        if now is None or now.version != blob.version:
            return
        with contextlib.suppress(FileNotFoundError):  # another worker was quicker
            folder.mkdir(exist_ok=True)
            path = self._root / blob.name
            path.replace(folder / path.name)

    def remove(self, name: str) -> None:
        path = self._root / name
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            fsync(path.parent)

    def tidy(self) -> None:
        """Nothing is copied."""

    def exclusive(self, owner: str, lock: Path) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002
        return contextlib.nullcontext()  # the lock excludes all that can reach the folder


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
