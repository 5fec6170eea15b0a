"""Token shards as one long stream, and the order in which training sees it.

A shard is an uncompressed Arrow IPC stream of schema TOKENS, memory-mapped and read without a copy. The rows
of one split, shard after shard, form a virtual stream of tokens. Window i of the stream holds the tokens from
i x block_size to (i + 1) x block_size, both included: every token but the first is predicted in one window.

What a step sees is a pure function of (shards, seed, step): no loader state, nothing to save, nothing to seek.
"""

from collections.abc import Callable, Iterator, Sequence
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
_NUM_ROUNDS = 6


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

    def windows(self, indices: NDArray[np.int64], block_size: int) -> NDArray[np.int64]:
        """Windows by index: (N,) -> (N, block_size + 1)."""
        windows = np.empty((indices.size, block_size + 1), dtype=np.int64)
        for window, index in zip(windows, indices.tolist(), strict=True):
            self._fill(window, index * block_size)
        return windows

    def batch(self, step: int, *, seed: int, num_sequences: int, block_size: int) -> NDArray[np.int64]:
        """The windows of one step, each once an epoch: (num_sequences, block_size + 1).

        Micro-batches and devices take slices of it, so no batch split changes what a step sees.
        """
        num_windows = self.num_windows(block_size)
        indices = windows_of_step(step, seed=seed, num_sequences=num_sequences, num_windows=num_windows)
        return self.windows(indices, block_size)

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


def windows_of_step(step: int, *, seed: int, num_sequences: int, num_windows: int) -> NDArray[np.int64]:
    """The windows in the batch of a step, counted from 0, in its order: (num_sequences,)."""
    samples = np.arange(step * num_sequences, (step + 1) * num_sequences, dtype=np.int64)
    epochs, positions = np.divmod(samples, num_windows)
    indices = np.empty_like(samples)
    for epoch in np.unique(epochs).tolist():
        chosen = epochs == epoch
        indices[chosen] = order(positions[chosen], num_windows=num_windows, seed=seed, epoch=epoch)
    return indices


def order(positions: NDArray[np.int64], *, num_windows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Which window stands at each position of an epoch: a permutation of range(num_windows).

    A Feistel network over the next power of four, walked until it lands inside (Black and Rogaway 2002),
    so any position is found at once and no list of the corpus's size is ever held.
    """
    keys, half_bits = _network(num_windows, seed, epoch)
    return _walked(positions, lambda values: _feistel(values, keys, half_bits), num_windows)


def places_in_order(indices: NDArray[np.int64], *, num_windows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """At which position of an epoch each window stands: the inverse of `order`, the same network run backwards."""
    keys, half_bits = _network(num_windows, seed, epoch)
    return _walked(indices, lambda values: _unfeistel(values, keys, half_bits), num_windows)


def _network(num_windows: int, seed: int, epoch: int) -> tuple[NDArray[np.uint64], int]:
    """The keys of the rounds, and the bits of half a value."""
    half_bits = max(1, ((num_windows - 1).bit_length() + 1) // 2)
    keys = np.random.SeedSequence([seed, epoch]).generate_state(_NUM_ROUNDS, np.uint64).astype(np.uint64)
    return keys, half_bits


def _walked(
    values: NDArray[np.int64], permute: Callable[[NDArray[np.uint64]], NDArray[np.uint64]], num_windows: int
) -> NDArray[np.int64]:
    """Permute each value until it is one of range(num_windows)."""
    found = permute(values.astype(np.uint64))
    while (outside := found >= num_windows).any():
        found[outside] = permute(found[outside])
    return found.astype(np.int64)


def _feistel(values: NDArray[np.uint64], keys: NDArray[np.uint64], half_bits: int) -> NDArray[np.uint64]:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return left << shift | right


def _unfeistel(values: NDArray[np.uint64], keys: NDArray[np.uint64], half_bits: int) -> NDArray[np.uint64]:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for key in keys[::-1]:
        left, right = right ^ (_mix(left ^ key) & mask), left
    return left << shift | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


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
