"""Which services a workspace has: who runs them, and where they answer.

One lock says both. `corpusmill up` holds it alone for as long as it lives, however it ends; a run that starts a Prefect
server of its own holds it together with others of its kind, so that two servers never share the workspace's databases.
The file beside it is believed only while `up` holds the lock.
"""

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pipelines.errors import StorageError, TerminalError
from pipelines.storage.lease import owner_name
from pipelines.store import storage_errors

_LOCK = "up.lock"
_RUN_LOCK = "lock"
"""Of whoever writes the workspace: see `flows.workspace`."""
_UNKNOWN = "another process"
_FILE = "up.json"
_TRY_SECONDS = 2.0
"""A command that looks holds the lock for a moment, too."""
_END_SECONDS = 60.0
_WAIT_SECONDS = 300.0
"""For services that are starting, or ending."""
_POLL_SECONDS = 0.1
_MAX_OWNER_BYTES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the services answer, as commands on this machine reach them."""

    prefect_api: str
    prefect_ui: str
    mlflow: str
    metrics: str
    credentials: str | None
    """The file that commands read the secrets from; None where the servers ask for none."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who runs a workspace's services."""

    name: str
    addresses: Addresses | None
    """None while they are starting or ending."""


def holder(root: Path) -> Holder | None:
    """Who runs the services of a workspace; None where nobody does. Makes no file."""
    try:
        lock = (root / _LOCK).open("rb", buffering=0)
    except OSError:
        return None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return Holder(_owner(lock), _read(root))
        return None


def living(root: Path) -> Addresses | None:
    """The services of a workspace that answer now; None where there are none."""
    found = holder(root)
    return found.addresses if found is not None else None


@contextmanager
def holding(root: Path) -> Iterator[Callable[[Addresses | None], None]]:
    """Be the one who runs a workspace's services; yields a call that says where they answer, or no longer do.

    Raises TerminalError where another process is that, StorageError where the folder cannot be written.
    """
    with storage_errors(root):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (root / _LOCK).open("a+b", buffering=0)
    with lock:
        is_held = _locked(lock, fcntl.LOCK_EX, _TRY_SECONDS)
        if not is_held and not _is_alive(_owner(lock)):  # children of one that was killed end what it left
            is_held = _locked(lock, fcntl.LOCK_EX, _END_SECONDS)
        if not is_held:
            raise TerminalError(_refusal(root, lock))
        _write(root, None)
        with storage_errors(root):
            lock.truncate(0)
            lock.write(f"{owner_name(os.getpid())} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode())
        try:
            yield lambda addresses: _write(root, addresses)
        finally:
            _write(root, None)
            lock.truncate(0)


@contextmanager
def without_services(root: Path) -> Iterator[Addresses | None]:
    """Keep `up` off a workspace for the block, or yield the addresses of the services that it runs there.

    Waits for services that are starting or ending. Raises StorageError where they take too long.
    """
    with storage_errors(root):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (root / _LOCK).open("a+b", buffering=0)
    with lock:
        deadline = time.monotonic() + _WAIT_SECONDS
        while not _locked(lock, fcntl.LOCK_SH, 0):
            found = _read(root)
            if found is not None:
                yield found
                return
            if time.monotonic() > deadline:
                raise StorageError(
                    f"got a workspace whose services neither start nor end ({_owner(lock)}, {root}), wanted either: "
                    "look into its logs folder, or stop that process."
                )
            time.sleep(_POLL_SECONDS)
        yield None


def wait_for_end(root: Path) -> None:
    """Hold the lock until this process ends, once whoever holds it has ended. For what belongs to `up` and outlives it."""
    lock = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    _write(root, None)


def _refusal(root: Path, lock: BinaryIO) -> str:
    who, addresses = _owner(lock), _read(root)
    if addresses is None:
        if who == _UNKNOWN:
            who = f"a run with a Prefect server of its own ({_run(root)})"
        return f"got a workspace in use by {who} ({root}), wanted it free: wait until that ends, or pass another --workspace."
    return (
        f"got a workspace whose services run already, by {who} ({root}), wanted none: "
        f"Prefect is at {addresses.prefect_ui}, MLflow at {addresses.mlflow}; use these, or stop that process first."
    )


def _locked(lock: BinaryIO, kind: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS / 2)
        else:
            return True


def _owner(lock: BinaryIO) -> str:
    """What the holder wrote, for people only; a run with a server of its own writes nothing."""
    lock.seek(0)
    said = lock.read(_MAX_OWNER_BYTES).decode("utf-8", "replace").strip()
    return said if said.isprintable() and said else _UNKNOWN


def _run(root: Path) -> str:
    """Who writes the workspace, as it wrote down itself."""
    try:
        with (root / _RUN_LOCK).open("rb", buffering=0) as lock:
            return _owner(lock)
    except OSError:
        return _UNKNOWN


def _is_alive(owner: str) -> bool:
    """Whether the process that wrote itself down lives; one that is not known does."""
    found = re.match(r"process (\d+) on ", owner)
    if found is None:
        return True
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _read(root: Path) -> Addresses | None:
    try:
        return Addresses(**json.loads((root / _FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _write(root: Path, addresses: Addresses | None) -> None:
    path = root / _FILE
    with storage_errors(path):
        if addresses is None:
            path.unlink(missing_ok=True)
            return
        temporary = path.with_name(f".{_FILE}")
        temporary.write_text(json.dumps(asdict(addresses)), encoding="utf-8")
        temporary.replace(path)
