"""What a killed process left of its WARC files, brought in line with the ledger."""

import logging
import os
import zlib
from pathlib import Path

from pipelines.crawl import cdxj
from pipelines.crawl.entries import OpenFile
from pipelines.crawl.frontier import Frontier

OPEN_SUFFIX = ".open"

_CHUNK_NUM_BYTES = 1 << 20
_GZIP = zlib.MAX_WBITS | 16
_LOG = logging.getLogger(__name__)


def recover(frontier: Frontier, folder: Path) -> None:
    """Cut every unfinished WARC file back to what the ledger vouches for, close it and index it. Raises OSError."""
    for file in frontier.open_files():
        _recover_known(frontier, folder, file)
    for path in sorted(folder.glob(f"*.warc.gz{OPEN_SUFFIX}")):
        # No ledger knows it: the ledger was taken away. Its whole records are still worth keeping.
        _cut(path, last_whole_member_end(path))
        _LOG.warning("kept %s, which the ledger does not know, up to its last whole record", path.name)
        publish(path)
    for path in sorted(folder.glob("*.warc.gz")):
        if not cdxj.path_of(path).exists():
            cdxj.rebuild(path)


def _recover_known(frontier: Frontier, folder: Path, file: OpenFile) -> None:
    path = folder / file.name
    open_path = folder / (file.name + OPEN_SUFFIX)
    if path.exists():
        # Killed between the rename and its record.
        frontier.close_file(file)
        return
    num_bytes = file.num_bytes
    if not open_path.exists():
        num_bytes = 0
    elif open_path.stat().st_size < num_bytes:
        num_bytes = last_whole_member_end(open_path)
    if num_bytes < file.num_bytes:
        _LOG.warning("%s lost its end: its last pages are fetched again", file.name)
        frontier.lose_tail(file, num_bytes)
    if num_bytes == 0:
        open_path.unlink(missing_ok=True)
        frontier.forget_file(file)
        return
    _cut(open_path, num_bytes)
    cdxj.path_of(path).unlink(missing_ok=True)
    publish(open_path)
    frontier.close_file(file)


def last_whole_member_end(path: Path) -> int:
    """Where the last whole gzip member of a file ends: 0 where there is none."""
    end = position = 0
    engine = zlib.decompressobj(_GZIP)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_NUM_BYTES):
            while chunk:
                try:
                    # The output is only passed by, a piece at a time.
                    engine.decompress(chunk, _CHUNK_NUM_BYTES)
                except zlib.error:
                    return end
                rest = engine.unused_data if engine.eof else engine.unconsumed_tail
                position += len(chunk) - len(rest)
                chunk = rest
                if engine.eof:
                    end = position
                    engine = zlib.decompressobj(_GZIP)
    return end


def publish(open_path: Path) -> Path:
    """Rename a finished `*.open` file, and bring the rename to disk."""
    path = open_path.with_name(open_path.name.removesuffix(OPEN_SUFFIX))
    open_path.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path


def _cut(path: Path, num_bytes: int) -> None:
    with path.open("r+b") as file:
        file.truncate(num_bytes)
        file.flush()
        os.fsync(file.fileno())
