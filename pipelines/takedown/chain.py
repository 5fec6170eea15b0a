"""Lines of JSON in a file that only grows, each bound to the one before.

A line has its own digest and that of the line before, so that one that was changed, lost or torn is found. What was lost
from the end leaves no trace in the file.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.digest import digest_value
from pipelines.errors import IntegrityError
from pipelines.store import storage_errors

_FIRST = "0" * 64


def append_line(path: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Add a line; it is on the disk when this returns. Returns it with `added_at` (UTC), `previous` and `digest`, which are
    no names that an entry may have.

    Two processes at once wait for each other. Raises IntegrityError for a damaged file, StorageError for the disk.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            entries = _parsed(file.read(), path)
            previous = entries[-1]["digest"] if entries else _FIRST
            body = {**entry, "added_at": datetime.now(UTC).isoformat(timespec="seconds"), "previous": previous}
            body["digest"] = digest_value(body)
            _write_line(file, json.dumps(body, ensure_ascii=False, sort_keys=True).encode() + b"\n")
            sync_folder(path.parent)
    return body


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every line, in order; none where there is no file. Raises IntegrityError for damage."""
    try:
        with storage_errors(path):
            return _parsed(path.read_bytes(), path)
    except FileNotFoundError:
        return []


def _write_line(file: BinaryIO, line: bytes) -> None:
    """A whole line or none: what a full disk cuts off is taken back."""
    size = file.seek(0, os.SEEK_END)
    try:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    except OSError:
        os.ftruncate(file.fileno(), size)
        raise


def sync_folder(folder: Path) -> None:
    """Bring to the disk which files a folder has."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parsed(data: bytes, path: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    previous = _FIRST
    lines = data.split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            entry = json.loads(line)
            body = {name: value for name, value in entry.items() if name != "digest"}
            is_good = entry["digest"] == digest_value(body) and entry["previous"] == previous
        except (ValueError, KeyError, TypeError, AttributeError):
            is_good = False
        if not is_good:
            raise _damaged(path, f"is damaged in line {number}, or lacks lines before it")
        entries.append(entry)
        previous = entry["digest"]
    if lines[-1]:
        raise _damaged(path, f"ends in the middle of line {len(lines)}")
    return entries


def _damaged(path: Path, how: str) -> IntegrityError:
    return IntegrityError(
        f"got {path}, which {how}, wanted it whole, since nothing may be built against less: "
        "put back a copy of the file; a last line that is cut off was never confirmed and can be deleted."
    )
