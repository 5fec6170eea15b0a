"""The index of near-duplicates: which texts share a band of their signature.

Two texts are compared if the minima of any band are equal (locality-sensitive hashing: Leskovec et al., "Mining of
Massive Datasets", chapter 3). A *segment* holds the bands of one shard of signals, sorted; a *group* merges the segments
of about 64 shards, so that a new shard rewrites one group and a removed one leaves no trace. Neither text nor decisions
are in it: a changed threshold touches nothing here, and a question to it reads no text.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.schemas import BANDS, MINHASH_NUM_PERMUTATIONS, SIGNALS, select
from pipelines.stage import Kind, Resource, Stage

Keys = npt.NDArray[np.uint64]
TextRefs = npt.NDArray[np.uint64]
"""The first eight bytes of a text's digest."""
Flags = npt.NDArray[np.bool_]

_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: 2**64 divided by the golden ratio
_BATCH_NUM_ROWS = 1 << 16
_WORD_NUM_BITS = np.uint64(64)
_PART_NUM_ENTRIES = 1 << 22
"""Entries of the index that are joined at once: about 200 MB of memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BandsConfig:
    """How a signature is cut."""

    num_bands: int
    """Bands of the signature; two documents are compared if any band is equal."""
    rows_per_band: int
    """Minima in a band."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """Nothing shapes a merge."""


@dataclass(frozen=True, slots=True)
class Shared:
    """The buckets (values of a band) that at least two texts are in. One row an entry, by bucket, then text."""

    buckets: npt.NDArray[np.int64]
    """(entries,) numbers from 0."""
    texts: TextRefs
    """(entries,)"""


def text_refs(digests: pa.Array) -> TextRefs:
    """The references of texts: uint64[rows]. Raises ValueError where a digest is null."""
    if digests.null_count:
        raise ValueError(f"got {digests.null_count} texts without a digest, wanted one of each: leave them out.")
    _, values = digests.buffers()
    if values is None:
        return np.empty(0, np.uint64)
    words = np.frombuffer(values, np.uint64, 2 * len(digests), digests.offset * digests.type.byte_width)
    return words[::2].copy()


def cut_bands(batches: Iterable[pa.RecordBatch], config: BandsConfig) -> Iterator[pa.RecordBatch]:
    """SIGNALS -> BANDS, a row for each band of each distinct text that has a signature, sorted."""
    parts = [_bands(batch, config) for batch in batches]
    yield from _sorted_batches(parts)


def merge_segments(batches: Iterable[pa.RecordBatch], _config: IndexConfig) -> Iterator[pa.RecordBatch]:
    """BANDS of several shards -> BANDS, sorted, each row once."""
    parts = [(batch.column("key").to_numpy(), batch.column("text").to_numpy()) for batch in batches]
    yield from _sorted_batches(parts)


def shared_buckets(index: Sequence[Resource]) -> Shared:
    """Read an index part by part of its keys, and join: memory holds one part and what is shared."""
    groups = [_open(resource) for resource in index]
    num_parts = 1 + sum(len(keys) for keys, _ in groups) // _PART_NUM_ENTRIES
    edges = [(part << 64) // num_parts for part in range(1, num_parts)]
    cuts = [[0, *np.searchsorted(keys, np.array(edges, np.uint64)).tolist(), len(keys)] for keys, _ in groups]
    buckets, texts = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    num_buckets = 0
    for part in range(num_parts):
        slices = [slice(cut[part], cut[part + 1]) for cut in cuts]
        keys = np.concatenate([np.empty(0, np.uint64), *(k[s] for (k, _), s in zip(groups, slices, strict=True))])
        refs = np.concatenate([np.empty(0, np.uint64), *(t[s] for (_, t), s in zip(groups, slices, strict=True))])
        if len(groups) > 1:
            order = np.argsort(keys, kind="stable")  # runs that are sorted already: they are merged
            keys, refs = keys[order], refs[order]
        repeated = _repeated(keys)
        keys, refs = keys[repeated], refs[repeated]
        if len(groups) > 1:
            keys, refs = _distinct(keys, refs)  # a text may be in two groups
        starts = np.ones(len(keys), np.bool_)
        starts[1:] = keys[1:] != keys[:-1]
        counts = np.diff(np.append(np.flatnonzero(starts), len(keys)))
        is_shared = counts > 1
        numbers = np.where(is_shared, np.cumsum(is_shared) - 1 + num_buckets, -1)
        of_entry = np.repeat(numbers, counts)
        buckets.append(of_entry[of_entry >= 0])
        texts.append(refs[of_entry >= 0])
        num_buckets += int(is_shared.sum())
    return Shared(np.concatenate(buckets), np.concatenate(texts))


def _open(resource: Resource) -> tuple[Keys, TextRefs]:
    with pa.memory_map(resource.path) as source:
        table = pa.ipc.open_stream(source).read_all()
    # one chunk each, or a copy of them
    return table.column("key").combine_chunks().to_numpy(), table.column("text").combine_chunks().to_numpy()


def _bands(batch: pa.RecordBatch, config: BandsConfig) -> tuple[Keys, TextRefs]:
    signed = batch.filter(batch.column("minhash").is_valid())
    signatures = signed.column("minhash").flatten().to_numpy().reshape(-1, MINHASH_NUM_PERMUTATIONS)
    keys = np.empty((config.num_bands, signed.num_rows), np.uint64)
    for band in range(config.num_bands):
        start = band * config.rows_per_band
        hashed = np.full(signed.num_rows, band + 1, np.uint64)
        for minima in signatures[:, start : start + config.rows_per_band].T:
            hashed = (hashed ^ minima) * _MIX
            hashed ^= hashed >> np.uint64(29)
        keys[band] = hashed
    return keys.ravel(), np.tile(text_refs(signed.column("text_digest")), config.num_bands)


def _sorted_batches(parts: Sequence[tuple[Keys, TextRefs]]) -> Iterator[pa.RecordBatch]:
    keys = np.concatenate([np.empty(0, np.uint64), *(keys for keys, _ in parts)])
    texts = np.concatenate([np.empty(0, np.uint64), *(texts for _, texts in parts)])
    keys, texts = _distinct(keys, texts)
    for start in range(0, len(keys), _BATCH_NUM_ROWS):
        columns = [pa.array(each[start : start + _BATCH_NUM_ROWS]) for each in (keys, texts)]
        yield pa.RecordBatch.from_arrays(columns, schema=BANDS)


def _distinct(keys: Keys, texts: TextRefs) -> tuple[Keys, TextRefs]:
    """Sorted by key, then text, each pair once."""
    order = np.argsort(keys, kind="stable")  # quick where runs are sorted already
    keys, texts = keys[order], texts[order]
    repeated = _repeated(keys)
    texts[repeated] = _sorted_within(keys[repeated], texts[repeated])  # the keys stay where they are
    first = np.ones(len(keys), np.bool_)
    first[1:] = (keys[1:] != keys[:-1]) | (texts[1:] != texts[:-1])
    return keys[first], texts[first]


def _repeated(keys: Keys) -> Flags:
    """Which of sorted keys stand there more than once."""
    repeated = np.zeros(len(keys), np.bool_)
    repeated[1:] = keys[1:] == keys[:-1]
    repeated[:-1] |= repeated[1:]
    return repeated


def _sorted_within(keys: Keys, texts: TextRefs) -> TextRefs:
    """Texts sorted among those of the same key; the keys are sorted.

    Where a key's number and the first bits of a text fit a word, words are sorted: a quarter of the time of two sorts. Texts
    that share these bits may come out in any order, which is looked for.
    """
    starts = np.ones(len(keys), np.bool_)
    starts[1:] = keys[1:] != keys[:-1]
    numbers = np.cumsum(starts).astype(np.uint64)
    num_bits = np.uint64(int(numbers[-1]).bit_length() if len(keys) else 0)
    found = texts[np.argsort((numbers << (_WORD_NUM_BITS - num_bits)) | (texts >> num_bits))]
    if ((found[1:] < found[:-1]) & ~starts[1:]).any():
        found = texts[np.lexsort((texts, keys))]
    return found


BANDS_STAGE = Stage(
    name="bands",
    version=1,
    inputs=(select(SIGNALS, "text_digest", "minhash"),),
    output=BANDS,
    transform=cut_bands,
    libraries=("numpy",),
    compression=None,
)

INDEX_STAGE = Stage(
    name="index",
    version=1,
    kind=Kind.GROUPED,
    inputs=(BANDS,),
    output=BANDS,
    transform=merge_segments,
    libraries=("numpy",),
    compression=None,
)
