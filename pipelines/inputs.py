"""Digests of source files, remembered by their place, size and change times.

Hashing a terabyte to learn that nothing changed would make every second run slow. A file whose
size, modification, status-change time and inode are as last seen keeps its digest; any other file
is read whole. The memory is a cache: deleting it costs time, never truth.
"""

import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from pipelines.digest import digest_file
from pipelines.errors import InputError
from pipelines.store import storage_errors


def digest_files(paths: Iterable[Path], memory: Path) -> dict[Path, str]:
    """Digest of each file, from `memory` (a JSON file, made if missing) where the file is untouched.

    Raises InputError for a file that cannot be read.
    """
    known = _load(memory)
    found: dict[Path, str] = {}
    seen: dict[str, list[object]] = {}
    for path in paths:
        try:
            status = path.stat()
            mark = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
            last = known.get(str(path.resolve()))
            found[path] = str(last[-1]) if last is not None and last[:-1] == mark else digest_file(path)
        except OSError as error:
            raise InputError(
                f"got {error.strerror} for source file {path}, wanted one that can be read: check paths."
            ) from error
        seen[str(path.resolve())] = [*mark, found[path]]
    if seen != known:
        _save(memory, known | seen)
    return found


def _load(memory: Path) -> dict[str, list[object]]:
    try:
        known = json.loads(memory.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _save(memory: Path, known: dict[str, list[object]]) -> None:
    with storage_errors(memory.parent):
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary = memory.with_name(f"{memory.name}.{uuid.uuid4().hex}")
        temporary.write_text(json.dumps(known))
        os.replace(temporary, memory)  # noqa: PTH105
