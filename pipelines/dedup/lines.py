"""Lines that a host shows again and again: licences, disclaimers, slogans.

Of each line the first documents that show it, in the order in which they were first seen, keep it; later ones lose it. So a
later document changes no earlier one. What extraction calls a line is a paragraph, a heading, an item or a row of a table.
Short lines are left alone: headings and the like repeat by right. A document without a URL has no host and loses nothing.

Counting is spilled to disk by parts of the hashes, so memory holds one part.
"""

import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from pipelines.dedup.loops import kernels
from pipelines.hosts import host_finder
from pipelines.schemas import DOCUMENT, LINES, select
from pipelines.stage import Stage

Indices = npt.NDArray[np.int64]

_NUM_PARTS = 16
_MAX_HELD_ENTRIES = 1 << 20
_MAX_REMEMBERED_HOSTS = 1 << 16
_ENTRY = np.dtype([("hash", np.uint64), ("rank", np.int64), ("row", np.int64), ("line", np.int32), ("size", np.int32)])


@dataclass(frozen=True, kw_only=True, slots=True)
class LinesConfig:
    """Which lines count."""

    min_line_bytes: int
    """UTF-8 bytes of a line, without white space at its ends, that it takes to be counted."""


def list_lines(batches: Iterable[pa.RecordBatch], config: LinesConfig) -> Iterator[pa.RecordBatch]:
    """DOCUMENT -> LINES, one row for each row, in order: the hashes of its long lines, the host in them, and their numbers."""
    seed_of = _seeds()
    for batch in batches:
        texts = batch.column("text").cast(pa.large_string())
        _, offsets, text = texts.buffers()
        places = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
        seeds = np.array([seed_of(url) for url in batch.column("url").to_pylist()], np.uint64)
        room = int(places[-1] - places[0]) // config.min_line_bytes + len(texts)
        counts, numbers = np.zeros(len(texts), np.int64), np.empty(room, np.int32)
        hashes, sizes = np.empty(room, np.uint64), np.empty(room, np.int32)
        num = kernels().hash_lines(
            *(text.address if text is not None else 0, places.ctypes.data, len(texts), seeds.ctypes.data),
            *(config.min_line_bytes, counts.ctypes.data),
            *(numbers.ctypes.data, hashes.ctypes.data, sizes.ctypes.data),
        )
        starts = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        columns = [pa.ListArray.from_arrays(starts, pa.array(each[:num])) for each in (numbers, hashes, sizes)]
        yield pa.RecordBatch.from_arrays([batch.column("doc_id"), *columns], schema=LINES)


def _seeds() -> Callable[[str | None], int]:
    """A function from a URL to what starts the hashes of its host's lines; 0 for none."""
    host_of = host_finder()

    @functools.lru_cache(maxsize=_MAX_REMEMBERED_HOSTS)
    def seed_of(host: str) -> int:
        return (xxhash.xxh3_64_intdigest(host.encode("utf-8", "surrogatepass")) | 1) if host else 0

    return lambda url: seed_of(host_of(url))


@dataclass(frozen=True, slots=True)
class Cuts:
    """Lines that are cut, (cuts,) each."""

    row: Indices
    line: Indices
    num_chars: Indices
    first_row: Indices
    """The row that showed the line first."""


class LineCounter:
    """Collects the lines of rows as they come, and says which of the rows that stay must lose which lines."""

    def __init__(self) -> None:
        self._held: list[npt.NDArray[Any]] = []
        self._num_held = self._num_rows = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def note(self, batch: pa.RecordBatch) -> None:
        """Take the lines of the next rows."""
        lengths = np.diff(batch.column("hashes").offsets.to_numpy())
        entries = np.empty(int(lengths.sum()), _ENTRY)
        for name, column in (("hash", "hashes"), ("line", "lines"), ("size", "sizes")):
            entries[name] = batch.column(column).flatten().to_numpy()
        entries["row"] = np.repeat(np.arange(self._num_rows, self._num_rows + batch.num_rows), lengths)
        self._num_rows += batch.num_rows
        self._held.append(entries)
        self._num_held += len(entries)
        if self._num_held > _MAX_HELD_ENTRIES:
            self._spill()

    def repeated(self, rank: Indices, max_repeats: int) -> Cuts:
        """What is cut, by row, then line.

        `rank` (rows,) is the place of each row that stays in the order of first seen, below 0 for those that do not.
        """
        found = [np.empty((0, 4), np.int64)]
        if self._folder is None:
            found.append(_repeated(np.concatenate([np.empty(0, _ENTRY), *self._held]), rank, max_repeats))
        else:
            self._spill()
            paths = sorted(Path(self._folder.name).iterdir())
            found += [_repeated(np.fromfile(path, _ENTRY), rank, max_repeats) for path in paths]
            self._folder.cleanup()
        cuts = np.concatenate(found)
        cuts = cuts[np.lexsort((cuts[:, 1], cuts[:, 0]))]
        return Cuts(*cuts.T)

    def _spill(self) -> None:
        """Append what is held to a file for each part of the hashes."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="corpusmill-lines-")
        entries = np.concatenate([np.empty(0, _ENTRY), *self._held])
        parts = entries["hash"] >> np.uint64(64 - _NUM_PARTS.bit_length() + 1)
        for part in range(_NUM_PARTS):
            with (Path(self._folder.name) / f"{part:02}").open("ab") as file:
                entries[parts == part].tofile(file)
        self._held, self._num_held = [], 0


def _occurs_more_than(hashes: npt.NDArray[np.uint64], count: int) -> npt.NDArray[np.bool_]:
    """(entries,) whether so many others are equal: few are, and only those need be put in order."""
    in_order = np.sort(hashes)
    later = in_order[count:]
    often = later[later == in_order[: len(later)]]
    return np.isin(hashes, np.unique(often))


def _repeated(entries: npt.NDArray[Any], rank: Indices, max_repeats: int) -> Indices:
    entries["rank"] = rank[entries["row"]]
    entries = entries[entries["rank"] >= 0]
    entries = entries[_occurs_more_than(entries["hash"], max_repeats)]
    entries = entries[np.lexsort((entries["line"], entries["rank"], entries["hash"]))]
    is_new_hash = np.ones(len(entries), np.bool_)
    is_new_hash[1:] = entries["hash"][1:] != entries["hash"][:-1]
    is_new_row = is_new_hash.copy()
    is_new_row[1:] |= entries["rank"][1:] != entries["rank"][:-1]
    start = np.flatnonzero(is_new_hash)[np.cumsum(is_new_hash) - 1] if len(entries) else np.empty(0, np.int64)
    num_shown = np.cumsum(is_new_row)
    nth = num_shown - num_shown[start] + 1  # the how manyeth document that shows the line
    cut = nth > max_repeats
    columns = [entries["row"][cut], entries["line"][cut], entries["size"][cut], entries["row"][start[cut]]]
    return np.stack([column.astype(np.int64) for column in columns], axis=1)


LINES_STAGE = Stage(
    name="lines",
    version=1,
    inputs=(select(DOCUMENT, "doc_id", "url", "text"),),
    output=LINES,
    transform=list_lines,
    row_seconds=3e-5,
    is_row_wise=True,
    libraries=("llvmlite", "numba", "numpy", "xxhash"),
    compression="lz4",
)
