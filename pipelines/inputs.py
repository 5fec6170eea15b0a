"""Digests of source files, remembered by their place, size and change times.

Hashing a terabyte to learn that nothing changed would make every second run slow. A file whose
size, modification, status-change time and inode are as last seen keeps its digest; any other file
is read whole. The memory is a cache: deleting it costs time, never truth.

A file that changed less than two seconds ago is not remembered: clocks of file systems are coarse, so a
second change in the same tick would leave the same mark ("racily clean", as Git calls it).
"""

import json
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from pipelines.digest import digest_file
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
    fresh: dict[str, object] = {}
    for path in paths:
        try:
            read_at_ns = time.time_ns()
            status = path.stat()
            mark = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
            name = str(path.resolve())
            last = known.get(name)
            if isinstance(last, list) and last[:-1] == mark:
                found[path] = str(last[-1])
                continue
            found[path] = digest_file(path)
        except OSError as error:
            raise InputError(
                f"got {error.strerror} for source file {path}, wanted one that can be read: check paths."
            ) from error
        if read_at_ns - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS:
            fresh[name] = [*mark, found[path]]
    if fresh:
        _save(memory, known | fresh)
    return found


def _load(memory: Path) -> dict[str, object]:
    try:
        known = json.loads(memory.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _save(memory: Path, known: dict[str, object]) -> None:
    with storage_errors(memory.parent):
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary = memory.with_name(f"{memory.name}.{uuid.uuid4().hex}")
        try:
            temporary.write_text(json.dumps(known))
            temporary.replace(memory)
        finally:
            temporary.unlink(missing_ok=True)
