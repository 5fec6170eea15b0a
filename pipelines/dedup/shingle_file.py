"""The shingles of many texts, on disk while they are compared."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from pipelines.signals.shingles import Shingles, ShingleSets

_Span = tuple[int, int] | None
_ITEM_NUM_BYTES = 8


class ShingleFile:
    """Shingle sets by number, in one file that is written once and read at random."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb+")
        self._end = 0
        self._index: dict[int, tuple[_Span, _Span, _Span, bool]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, number: int) -> bool:
        return number in self._index

    def put(self, number: int, sets: ShingleSets) -> None:
        """Keep the shingles of a text."""
        words, characters, simplified = (self._append(part) for part in (sets.words, sets.characters, sets.simplified))
        self._index[number] = (words, characters, simplified, sets.is_traditional)

    def get(self, number: int) -> ShingleSets:
        """The shingles of a text. Raises KeyError for one that was not put."""
        words, characters, simplified, is_traditional = self._index[number]
        read = self._read(words)
        return ShingleSets(
            np.empty(0, np.uint64) if read is None else read,
            self._read(characters),
            self._read(simplified),
            is_traditional,
        )

    def _append(self, shingles: Shingles | None) -> _Span:
        if shingles is None:
            return None
        start = self._end
        self._file.write(shingles.data)
        self._end += shingles.nbytes
        return start, len(shingles)

    def _read(self, span: _Span) -> Shingles | None:
        if span is None:
            return None
        self._file.flush()
        start, size = span
        return np.frombuffer(os.pread(self._file.fileno(), size * _ITEM_NUM_BYTES, start), np.uint64)
