"""Digests of source files, remembered by their place, size and change times.

Hashing a terabyte to learn that nothing changed would make every second run slow. A file whose
size, modification, status-change time and inode are as last seen keeps its digest; any other file
is read whole. The memory is a cache: deleting it costs time, never truth.

A file that changed less than two seconds ago is not remembered: clocks of file systems are coarse, so a
second change in the same tick would leave the same mark ("racily clean", as Git calls it). Nor is the memory asked about
such a file, or about one that says it changed in the future: then the clock was set back, and times may come twice.
"""

import json
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from pipelines.digest import digest_bytes, digest_file
from pipelines.errors import InputError
from pipelines.store import storage_errors

_SETTLED_NS = 2_000_000_000
"""Nanoseconds after which a change gets another time than the last one, on the coarsest of file systems."""


def digest_files(paths: Iterable[Path], memory: Path) -> dict[Path, str]:
    """Digest of each file, from `memory` (a JSON file, made if missing) where the file is untouched.

    Raises InputError for a file that cannot be read.
    """
    known = _load(memory)
    found: dict[Path, str] = {}
    kept: dict[str, object] = {}
    has_changed = False
    for path in paths:
        try:
            now_ns = time.time_ns()
            status = path.stat()
            mark = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
            name = str(path.resolve())
            is_settled = now_ns - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS
            last = kept.get(name, known.pop(name, None))
            if is_settled and isinstance(last, list) and last[:-1] == mark:
                found[path] = str(last[-1])
                kept[name] = last
                continue
            found[path] = digest_file(path)
        except OSError as error:
            raise InputError(
                f"got {error.strerror} for source file {path}, wanted one that can be read: check paths."
            ) from error
        if is_settled:
            kept[name] = [*mark, found[path]]
        has_changed = has_changed or is_settled or last is not None
    if has_changed:
        _save(memory, known | kept)
    return found


def _load(memory: Path) -> dict[str, object]:
    """What is remembered; nothing where a byte of it was changed."""
    try:
        digest, _, body = memory.read_bytes().partition(b"\n")
        known = json.loads(body) if digest == digest_bytes(body).encode() else {}
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _save(memory: Path, known: dict[str, object]) -> None:
    with storage_errors(memory.parent):
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary = memory.with_name(f"{memory.name}.{uuid.uuid4().hex}")
        try:
            body = json.dumps(known).encode()
            temporary.write_bytes(digest_bytes(body).encode() + b"\n" + body)
            temporary.replace(memory)
        finally:
            temporary.unlink(missing_ok=True)
