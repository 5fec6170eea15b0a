"""Local copies of what lies far away: named by their digest, hashed at each use, the oldest evicted beyond a size.

    copies/ab/<digest>     evictable; its modification time is that of its last use
    small/ab/<digest>      likewise, small blobs by the digest of their name and version, each behind its own digest
    held/<process>/        what a process holds by path, as further names of the same files, and what it is fetching

Each process has a folder of its own under `held/`, with a lock that the kernel takes from it when it ends, however it ends. So a
copy is never evicted under a model that is mapped from it, and what a killed process held is found and removed.
"""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from pipelines.digest import digest_bytes, digest_file, digest_value

_SCAN_PART = 16
"""The folder is measured again after a sixteenth of its bound has come in: several processes add to it, none knows of all."""


class Copies:
    """The copies of one workspace. Safe for several processes."""

    def __init__(self, root: Path, max_num_bytes: int) -> None:
        self._root = root
        self._max_num_bytes = max_num_bytes
        self._num_new_bytes = 0
        self._own: Path | None = None
        self._pid = 0
        self._locks: list[int] = []

    def find(self, digest: str) -> Path | None:
        """The copy with this digest, hashed; a damaged one is removed."""
        path = self._path(digest)
        try:
            if digest_file(path) == digest:
                os.utime(path)
                return path
            path.unlink()
        except FileNotFoundError:
            pass
        return None

    def add(self, temporary: Path, digest: str) -> Path:
        """Make a finished file of the same disk the copy with this digest; the oldest copies give way to it."""
        return self._place(temporary, self._path(digest))

    def hold(self, find: Callable[[], Path | None], digest: str) -> Path:
        """Hold what `find` finds, by a path that stays until this process ends; the path alone where it finds nothing."""
        target = self.own_folder() / digest
        while not target.exists() and (path := find()) is not None:
            with contextlib.suppress(FileNotFoundError, FileExistsError):  # evicted again, or held by another thread
                target.hardlink_to(path)
        return target

    def read_small(self, name: str, version: str) -> bytes | None:
        """The copy of one version of a small blob, if it is there and whole."""
        path = self._small_path(name, version)
        try:
            digest, _, data = path.read_bytes().partition(b"\n")
            os.utime(path)
        except FileNotFoundError:
            return None
        return data if digest_bytes(data).encode() == digest else None

    def add_small(self, name: str, version: str, data: bytes) -> None:
        """Keep a copy of one version of a small blob."""
        temporary = self.own_folder() / f"{uuid.uuid4().hex}.part"
        temporary.write_bytes(digest_bytes(data).encode() + b"\n" + data)
        self._place(temporary, self._small_path(name, version))

    def own_folder(self) -> Path:
        """The folder of this process, for what it holds and what it is fetching."""
        if self._own is None or self._pid != os.getpid():
            folder = self._root / "held" / uuid.uuid4().hex
            with self._among_processes(fcntl.LOCK_SH):
                folder.mkdir(parents=True)
                lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
                fcntl.flock(lock, fcntl.LOCK_EX)
            self._locks.append(lock)  # held until the process ends
            self._own, self._pid = folder, os.getpid()
        return self._own

    def remove(self, digest: str) -> None:
        """Remove a copy, if it is there."""
        self._path(digest).unlink(missing_ok=True)

    def keep_only(self, digests: set[str]) -> None:
        """Remove the copies of everything else, and what ended processes held."""
        for path in (self._root / "copies").glob("*/*"):
            if path.name not in digests:
                path.unlink(missing_ok=True)
        self._let_go()

    def _path(self, digest: str) -> Path:
        return self._root / "copies" / digest[:2] / digest

    def _small_path(self, name: str, version: str) -> Path:
        digest = digest_value([name, version])
        return self._root / "small" / digest[:2] / digest

    def _place(self, temporary: Path, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.chmod(0o444)
        os.utime(temporary)
        self._num_new_bytes += temporary.stat().st_size
        temporary.replace(path)
        if self._num_new_bytes > self._max_num_bytes // _SCAN_PART:
            self._num_new_bytes = 0
            self._evict(keep=path)
        return path

    def _evict(self, keep: Path) -> None:
        """Remove the copies that were used longest ago, until the rest is within bounds."""
        self._let_go()
        found = []
        for path in chain((self._root / "copies").glob("*/*"), (self._root / "small").glob("*/*")):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        excess = sum(num_bytes for _, num_bytes, _ in found) - self._max_num_bytes
        for _, num_bytes, path in sorted(found):
            if excess <= 0:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                excess -= num_bytes

    def _let_go(self) -> None:
        """Remove the folders of processes that ended."""
        with self._among_processes(fcntl.LOCK_EX):
            for folder in (self._root / "held").iterdir():
                if folder == self._own or not folder.is_dir():
                    continue
                with contextlib.suppress(OSError), (folder / "lock").open("a") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def _among_processes(self, how: int) -> Iterator[None]:
        (self._root / "held").mkdir(parents=True, exist_ok=True)
        with (self._root / "held" / "lock").open("a") as lock:
            fcntl.flock(lock, how)
            yield
