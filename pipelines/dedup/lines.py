"""Lines that a host shows again and again: licences, disclaimers, slogans.

Of each line the first documents that show it, in the order in which they were first seen, keep it; later ones lose it. So a
later document changes no earlier one. What extraction calls a line is a paragraph, a heading, an item or a row of a table.
Short lines are left alone: headings and the like repeat by right. A document without a URL has no host and loses nothing.

Counting is spilled to disk by parts of the hashes, so memory holds one part.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from pipelines.schemas import DOCUMENT, LINES, select
from pipelines.stage import Stage

Indices = npt.NDArray[np.int64]

_NUM_PARTS = 16
_ENTRY = np.dtype([("hash", np.uint64), ("rank", np.int64), ("row", np.int64), ("line", np.int32), ("size", np.int32)])


@dataclass(frozen=True, kw_only=True, slots=True)
class LinesConfig:
    """Which lines count."""

    min_line_bytes: int
    """UTF-8 bytes of a line, white space collapsed, that it takes to be counted."""


def list_lines(batches: Iterable[pa.RecordBatch], config: LinesConfig) -> Iterator[pa.RecordBatch]:
    """DOCUMENT -> LINES, one row for each row, in order: the hashes of its long lines, the host in them, and their numbers."""
    for batch in batches:
        found = [
            _lines(url, text, config.min_line_bytes)
            for url, text in zip(batch.column("url").to_pylist(), batch.column("text").to_pylist(), strict=True)
        ]
        columns = [pa.array([each[place] for each in found], LINES.field(place + 1).type) for place in range(3)]
        yield pa.RecordBatch.from_arrays([batch.column("doc_id"), *columns], schema=LINES)


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
        self._folder = tempfile.TemporaryDirectory(prefix="corpusmill-lines-")
        self._paths = [Path(self._folder.name) / str(part) for part in range(_NUM_PARTS)]
        self._num_rows = 0

    def note(self, batch: pa.RecordBatch) -> None:
        """Take the lines of the next rows."""
        lengths = np.diff(batch.column("hashes").offsets.to_numpy())
        entries = np.empty(int(lengths.sum()), _ENTRY)
        entries["hash"] = batch.column("hashes").flatten().to_numpy()
        for name, column in (("line", "lines"), ("size", "sizes")):
            entries[name] = batch.column(column).flatten().to_numpy()
        entries["row"] = np.repeat(np.arange(self._num_rows, self._num_rows + batch.num_rows), lengths)
        self._num_rows += batch.num_rows
        parts = entries["hash"] >> np.uint64(60)
        for part in np.unique(parts).tolist():
            with self._paths[part].open("ab") as file:
                entries[parts == part].tofile(file)

    def repeated(self, rank: Indices, max_repeats: int) -> Cuts:
        """What is cut, by row, then line.

        `rank` (rows,) is the place of each row that stays in the order of first seen, below 0 for those that do not.
        """
        found = [np.empty((0, 4), np.int64)]
        found += [_repeated(np.fromfile(path, _ENTRY), rank, max_repeats) for path in self._paths if path.exists()]
        self._folder.cleanup()
        cuts = np.concatenate(found)
        cuts = cuts[np.lexsort((cuts[:, 1], cuts[:, 0]))]
        return Cuts(*cuts.T)


def _repeated(entries: npt.NDArray[Any], rank: Indices, max_repeats: int) -> Indices:
    entries["rank"] = rank[entries["row"]]
    entries = entries[entries["rank"] >= 0]
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


def _lines(url: str | None, text: str, min_line_bytes: int) -> tuple[list[int], list[int], list[int]]:
    host = _host(url)
    numbers: list[int] = []
    hashes: list[int] = []
    sizes: list[int] = []
    if not host:
        return numbers, hashes, sizes
    seed = xxhash.xxh3_64_intdigest(host.encode())
    for number, line in enumerate(text.split("\n")):
        if 4 * len(line) >= min_line_bytes:
            plain = " ".join(line.split()).encode("utf-8", "surrogatepass")
            if len(plain) >= min_line_bytes:
                numbers.append(number)
                hashes.append(xxhash.xxh3_64_intdigest(plain, seed))
                sizes.append(len(line) + 1)
    return numbers, hashes, sizes


def _host(url: str | None) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".") if url else ""
    except ValueError:
        return ""


LINES_STAGE = Stage(
    name="lines",
    version=1,
    inputs=(select(DOCUMENT, "doc_id", "url", "text"),),
    output=LINES,
    transform=list_lines,
    is_row_wise=True,
    libraries=("xxhash",),
)
