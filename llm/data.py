"""Token shards as one long stream of windows.

A shard is an uncompressed Arrow IPC stream of schema TOKENS, memory-mapped and read without a copy. The rows
of one split, shard after shard, form a virtual stream of tokens. Window i of the stream holds the tokens from
i x block_size to (i + 1) x block_size, both included: every token but the first is predicted in one window.

Which windows a step sees is the business of `llm.order`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.errors import EmptyCorpusError, InputError, IntegrityError, SchemaError
from pipelines.schemas import TOKENS, tokens_schema

_TOKEN_SCHEMAS = (TOKENS, tokens_schema(1 << 32))


@dataclass(frozen=True, slots=True)
class TokenDocument:
    """One row of a shard."""

    doc_id: str
    num_bytes: int
    """UTF-8 bytes of the text."""
    tokens: NDArray[Any]
    """A read-only view of the shard; ends with the end-of-text token."""


@dataclass(frozen=True, slots=True)
class TokenData:
    """The tokens of one split. Open it with `TokenData.open`."""

    digest: str
    """Names the contents; a checkpoint remembers it."""
    split: str
    num_tokens: int
    _spans: tuple[NDArray[Any], ...]
    """Runs of tokens, views of the mapped shards."""
    _starts: NDArray[np.int64]
    """Where each span begins in the stream."""
    _batches: tuple[pa.RecordBatch, ...]

    @classmethod
    def open(cls, paths: Sequence[Path], split: str, *, digest: str) -> "TokenData":
        """Map the shards, in the order given (by digest, so that it depends on content alone).

        Raises InputError, IntegrityError or SchemaError for a shard that cannot be read, EmptyCorpusError
        where the split has no tokens.
        """
        batches = tuple(batch for path in paths for batch in _read(path))
        spans = tuple(span for batch in batches for span in _spans(batch, split))
        lengths = np.array([span.size for span in spans], dtype=np.int64)
        if not lengths.sum():
            raise EmptyCorpusError(
                f"got no tokens for the split {split!r} in {len(paths)} shards; wanted at least one document: "
                "add sources, or look in the report at what dropped the documents and loosen it."
            )
        return cls(
            digest=digest,
            split=split,
            num_tokens=int(lengths.sum()),
            _spans=spans,
            _starts=np.cumsum(lengths) - lengths,
            _batches=batches,
        )

    def num_windows(self, block_size: int) -> int:
        """Whole windows in the stream. Raises EmptyCorpusError where there is none."""
        if self.num_tokens <= block_size:
            raise EmptyCorpusError(
                f"got {self.num_tokens} tokens in the split {self.split!r}; wanted at least {block_size + 1} for one "
                f"window: add documents, or lower the model's block_size of {block_size}."
            )
        return (self.num_tokens - 1) // block_size

    def windows(
        self, indices: NDArray[np.int64], block_size: int, out: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Windows by index: (N,) -> (N, block_size + 1), into `out` where that is given."""
        windows = np.empty((indices.size, block_size + 1), dtype=np.int64) if out is None else out
        for window, index in zip(windows, indices.tolist(), strict=True):
            self._fill(window, index * block_size)
        return windows

    @property
    def eot_token(self) -> int:
        """The token that every document ends with."""
        return int(self._spans[0][-1])

    def documents_of(self, windows: NDArray[np.int64], block_size: int) -> list[str]:
        """The doc_id of every document with a token in one of the windows, each once, in stream order."""
        edges = [(index * block_size, (index + 1) * block_size + 1) for index in np.unique(windows).tolist()]
        return list(dict.fromkeys(doc_id for start, end in edges for doc_id in self._doc_ids(start, end)))

    def _doc_ids(self, start: int, end: int) -> Iterator[str]:
        """Of the documents with a token from `start` to before `end`."""
        begin = 0
        for batch in self._batches:
            _, offsets = _tokens(batch)
            rows = np.flatnonzero(_in_split(batch, self.split))
            ends = begin + np.cumsum(np.diff(offsets)[rows], dtype=np.int64)
            first, last = np.searchsorted(ends, start, side="right"), np.searchsorted(ends, end, side="left")
            yield from batch.column("doc_id").take(pa.array(rows[first : last + 1])).to_pylist()
            begin = int(ends[-1]) if ends.size else begin
            if begin >= end:
                return

    def documents(self) -> Iterator[TokenDocument]:
        """The split's documents, in stream order."""
        for batch in self._batches:
            tokens, offsets = _tokens(batch)
            doc_ids, num_bytes = (batch.column(name).to_pylist() for name in ("doc_id", "num_bytes"))
            for row in np.flatnonzero(_in_split(batch, self.split)).tolist():
                row_tokens = tokens[offsets[row] : offsets[row + 1]]
                yield TokenDocument(doc_id=doc_ids[row], num_bytes=num_bytes[row], tokens=row_tokens)

    def counts(self, vocab_size: int) -> NDArray[np.int64]:
        """How often each token id occurs: (vocab_size,)."""
        counts = np.zeros(vocab_size, dtype=np.int64)
        for span in self._spans:
            found = np.bincount(span, minlength=vocab_size)
            if found.size > vocab_size:
                raise too_large(found.size - 1, vocab_size)
            counts += found
        return counts

    def _fill(self, window: NDArray[np.int64], start: int) -> None:
        span_idx = int(np.searchsorted(self._starts, start, side="right")) - 1
        offset = start - int(self._starts[span_idx])
        filled = 0
        while filled < window.size:
            piece = self._spans[span_idx][offset : offset + window.size - filled]
            window[filled : filled + piece.size] = piece
            filled += piece.size
            span_idx, offset = span_idx + 1, 0


def too_large(token: int, vocab_size: int) -> SchemaError:
    """The error for a token id that the model does not have."""
    return SchemaError(
        f"got token id {token}; wanted ids below the model's vocab_size of {vocab_size}: "
        "train with the tokenizer that the shards were encoded with."
    )


def _read(path: Path) -> list[pa.RecordBatch]:
    """The record batches of a shard, all views of the mapped file."""
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
            schema, batches = reader.schema, list(reader)
    except OSError as error:  # pyarrow reports a truncated stream so, too
        if not path.is_file():
            raise InputError(f"got no file at {path}; wanted a token shard: build the corpus first.") from error
        raise _damaged(path, error) from error
    except pa.ArrowInvalid as error:
        raise _damaged(path, error) from error
    if not any(schema.equals(wanted) for wanted in _TOKEN_SCHEMAS):
        raise SchemaError(f"got the columns {schema.names} in {path}; wanted TOKENS {TOKENS.names}: rebuild the shard.")
    return batches


def _damaged(path: Path, error: Exception) -> IntegrityError:
    return IntegrityError(
        f"got {' '.join(str(error).split())!r} from {path}; wanted an Arrow stream: "
        "run `corpusmill verify`, then build again."
    )


def _tokens(batch: pa.RecordBatch) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """The token buffer of a batch and where each row begins in it, both without a copy."""
    column = batch.column("tokens")
    return column.values.to_numpy(zero_copy_only=True), column.offsets.to_numpy(zero_copy_only=True)


def _in_split(batch: pa.RecordBatch, split: str) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.equal(batch.column("split"), split).to_numpy(zero_copy_only=False)
    return found


def _spans(batch: pa.RecordBatch, split: str) -> Iterator[NDArray[Any]]:
    """Runs of neighbouring rows of the split, as views."""
    tokens, offsets = _tokens(batch)
    edges = np.flatnonzero(np.diff(_in_split(batch, split), prepend=False, append=False))
    for first, end in edges.reshape(-1, 2).tolist():
        if offsets[end] > offsets[first]:
            yield tokens[offsets[first] : offsets[end]]
