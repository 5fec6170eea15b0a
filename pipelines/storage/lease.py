"""A lease: who may write a bucket, where there is no file to lock.

One small object says who holds it and for how long. It is only ever written on a condition (that there is none, or that it is
still the version that was read), so of two that try at once one fails. The holder renews it well before its time is over; what
was not renewed for that long may be taken over. Whether it was is asked of the server alone: it stamps the lease and a
probe that is written beside it, so no machine's clock is compared with another's. How long ago the holder renewed it
is counted by a clock that only goes forward and runs while the machine sleeps.

A lease is never deleted, since no delete takes a condition everywhere: to let go of it is to write that it is free.
"""

import contextlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from pipelines.errors import InUseError, StorageError

LEASE = "lease.json"
_PROBE = "lease-probes"
_NUM_TRIES = 5
_PATIENCE_SECONDS = 5.0
_SLACK_SECONDS = 2.0
"""Servers stamp whole seconds."""


class Conditional(Protocol):
    """Objects that are written on a condition. Versions are those of `read_version` and of earlier writes."""

    url: str

    def write_if(self, name: str, data: bytes, version: str | None) -> str | None:
        """Write if the object has this version, or is not there (None). The new version; None where it was not so."""
        ...

    def read_version(self, name: str) -> tuple[bytes, str, float] | None:
        """Bytes, version, and when it was written by the server's clock, in seconds."""
        ...

    def remove(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the object says."""

    owner: str = "unknown"
    lock: str = ""
    """Names the file lock that the holder holds as well; empty where none can be named."""
    token: str = ""
    """Of one holder, once."""
    num_renewals: int = 0
    """Makes each version another one."""
    seconds: float = 60.0
    """For how long it is good after it was last written; 0: free."""


class Lease:
    """A lease that this process holds, renewed by a thread of its own. Take it with `holding`."""

    def __init__(self, bucket: Conditional, terms: Terms) -> None:
        self._bucket = bucket
        self._terms = terms
        self._version = ""
        self._renewed_at = 0.0
        self._is_lost = False
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def take(self) -> None:
        """Become the holder. Raises StorageError where another machine holds it, or the server ignores conditions."""
        now, began_at = self._server_time(), _steady_seconds()
        for _ in range(_NUM_TRIES):
            found = self._bucket.read_version(LEASE)
            if found is not None:
                data, version, written_at = found
                held = _terms(data)
                if held.token == self._terms.token:  # the answer to our write was lost
                    self._version, self._renewed_at = version, began_at
                    return
                is_ours = bool(held.lock) and held.lock == self._terms.lock
                if not is_ours and held.seconds > 0 and now - written_at <= held.seconds + _SLACK_SECONDS:
                    raise InUseError(
                        f"got a store in use by {held.owner} ({self._bucket.url}), wanted it free: wait for that run, "
                        f"or {held.seconds:.0f} seconds if it was killed, or set another CORPUSMILL_STORE."
                    )
            taken = self._bucket.write_if(LEASE, self._body(), None if found is None else version)
            if taken is not None:
                self._version, self._renewed_at = taken, began_at
                return
        raise InUseError(
            f"got {_NUM_TRIES} others that took the store first ({self._bucket.url}), wanted it free: wait for them."
        )

    def check(self) -> None:
        """Raises StorageError where the lease is lost, or may be: call it before each write."""
        if not self._is_lost and self._age() > self._terms.seconds / 2:
            self.renew()
        if self._is_lost or self._age() > self._terms.seconds:
            raise StorageError(
                f"got a store that another run took over ({self._bucket.url}) since this one was not heard of for "
                f"{self._terms.seconds:.0f} seconds, wanted to be its only writer: run again; what was finished is kept."
            )

    def renew(self) -> None:
        """Write the lease again; finds out whether it is lost. Raises StorageError where the server cannot be reached."""
        with self._lock:
            for _ in range(_NUM_TRIES):
                if self._is_lost:
                    return
                began_at = _steady_seconds()
                self._terms = replace(self._terms, num_renewals=self._terms.num_renewals + 1)
                version = self._bucket.write_if(LEASE, self._body(), self._version)
                if version is None:  # it is another's, or ours: an answer was lost, or an older write came late
                    found = self._bucket.read_version(LEASE)
                    held = Terms() if found is None else _terms(found[0])
                    self._is_lost = held.token != self._terms.token
                    self._version = "" if found is None else found[1]
                    if held != self._terms:
                        continue
                else:
                    self._version = version
                self._renewed_at = began_at
                return

    def stop(self) -> None:
        """Renew it no more."""
        self._ended.set()

    def release(self) -> None:
        """Say that it is free, if it is still ours and the server can be reached."""
        with self._lock, contextlib.suppress(StorageError):
            if not self._is_lost:
                self._terms = Terms(owner=self._terms.owner, token=self._terms.token, num_renewals=-1, seconds=0.0)
                self._bucket.write_if(LEASE, self._body(), self._version)
            self._is_lost = True

    def keep_renewing(self) -> None:
        """Renew it again and again, until stopped or lost: what a thread is for."""
        while not self._ended.wait(self._terms.seconds / 4) and not self._is_lost:
            with contextlib.suppress(StorageError):  # the next time, or `check` says so
                self.renew()

    def _age(self) -> float:
        """Seconds since it was last renewed."""
        return _steady_seconds() - self._renewed_at

    def _body(self) -> bytes:
        return json.dumps(asdict(self._terms), sort_keys=True).encode()

    def _server_time(self) -> float:
        """Now, by the clock that stamps the lease. Raises StorageError for a server that writes whatever the condition."""
        name, data = f"{_PROBE}/{self._terms.token}", b"probe"
        try:
            self._bucket.write_if(name, data, None)
            self._bucket.write_if(name, b"though it is there", None)
            self._bucket.write_if(name, b"though it is another", '"00000000000000000000000000000000"')
            found = self._bucket.read_version(name)
        finally:
            self._bucket.remove(name)
        if found is None or found[0] != data:
            raise StorageError(
                f"got an object store that writes whatever the condition ({self._bucket.url}), wanted If-None-Match and "
                "If-Match obeyed, or two runs could write at once: use one that does, or a local store."
            )
        return found[2]


@contextlib.contextmanager
def holding(bucket: Conditional, owner: str, lock: Path, seconds: float = 60.0) -> Iterator[Lease]:
    """Hold the lease within the block. `lock` is a file that this process has locked.

    A lease that was taken under the same lock is taken over at once: who had it is dead.
    """
    lease = Lease(bucket, Terms(owner=owner, lock=_lock_name(lock), token=uuid.uuid4().hex, seconds=seconds))
    lease.take()
    thread = threading.Thread(target=lease.keep_renewing, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        lease.stop()
        thread.join(_PATIENCE_SECONDS)
        if not thread.is_alive():  # else the network hangs, and the lease ends by itself
            lease.release()


def owner_name(process_id: int) -> str:
    """This process, as a person elsewhere would look for it."""
    return f"process {process_id} on {socket.gethostname()}"


def _terms(data: bytes) -> Terms:
    """What a lease says; that of an unknown holder where it cannot be read."""
    try:
        return Terms(**json.loads(data))
    except (ValueError, TypeError):
        return Terms()


def _lock_name(lock: Path) -> str:
    """Names a locked file among all machines: the running kernel and the file's number there. Empty where none is told."""
    try:
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        status = lock.stat()
    except OSError:
        return ""
    return f"{kernel}:{status.st_dev}:{status.st_ino}"


def _steady_seconds() -> float:
    """Counts on while the machine sleeps, where the system has such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
