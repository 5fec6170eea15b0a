"""The stage `near`: which of the texts that may stay are near-duplicates of earlier ones, with the evidence.

Candidates come from the index (bands.py), verdicts from the texts (likeness.py). Memory holds the narrow columns of every
row; signatures and shingles, of candidates only, are on disk.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup.bands import Shared, TextRefs, shared_buckets, text_refs
from pipelines.dedup.likeness import Floats, Indices, Likeness, Pairs, liken, no_pairs
from pipelines.dedup.shingle_file import ShingleFile
from pipelines.dedup.versions import (
    NONE,
    OF_DECISION,
    OF_SIGNALS,
    Rows,
    Texts,
    collect,
    distinct_texts,
    first_seen_first,
    superseding,
    withdrawing,
)
from pipelines.schemas import MINHASH_NUM_PERMUTATIONS, NEAR, SIGNALS, select
from pipelines.signals.shingles import compare, shingle_sets
from pipelines.stage import Aids, Kind, Resource, Stage
from pipelines.tallies import tally_pairs

_BATCH_NUM_ROWS = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class NearConfig:
    """What of DedupConfig says which texts are compared, and how."""

    index: tuple[Resource, ...]
    """Arrow IPC streams of schema BANDS: the groups of the index."""
    superseded: bool
    """Old versions of a URL are out."""
    withdrawn: bool
    """Versions before a withdrawal are out."""
    near: bool
    """Near-duplicates will be dropped, so that later texts need not be compared with them."""
    min_similarity: float
    """Jaccard similarity from which a text is a near-duplicate."""


def find_near(batches: Iterable[pa.RecordBatch], config: NearConfig, aids: Aids) -> Iterator[pa.RecordBatch]:
    """SIGNALS + DECISION -> NEAR, a row for each pair of texts that was compared, by the later text, then the earlier.

    `aids` bring the texts (aside: DOCUMENT) and what was counted for the last build.
    """
    shared = shared_buckets(config.index)
    with tempfile.TemporaryDirectory(prefix="corpusmill-near-") as name:
        folder = Path(name)
        signatures = _Signatures(np.unique(shared.texts), folder / "signatures")
        rows = collect(_noted(batches, signatures))
        order = first_seen_first(rows)
        out = np.zeros(len(rows), np.bool_)
        if config.withdrawn:
            out |= withdrawing(rows, order) != NONE
        if config.superseded:
            out |= superseding(rows, order) != NONE
        texts = distinct_texts(rows, order, out)
        numbers, candidates, buckets = _entries(shared, signatures.refs, rows, texts)
        first_rows = pa.array(texts.first_row[candidates])
        # Likeness is that of the texts as they are: of two that are normalised to one, the first seen is compared.
        digests = rows.exact.take(first_rows)
        with ShingleFile(folder / "shingles") as shingles:
            places = _places(texts.first_row[candidates], aids)

            def verify(later: Indices, earlier: Indices) -> tuple[Floats, Floats]:
                _read_shingles(np.union1d(later, earlier), places, aids, shingles)
                found = [
                    compare(shingles.get(a), shingles.get(b))
                    for a, b in zip(later.tolist(), earlier.tolist(), strict=True)
                ]
                return (
                    np.array([each.jaccard for each in found], np.float32),
                    np.array([each.containment for each in found], np.float32),
                )

            likeness = liken(
                *(numbers, buckets, signatures.array),
                np.searchsorted(signatures.refs, text_refs(rows.digests.take(first_rows))).astype(np.int64),
                known=_known(digests, aids),
                verify=verify,
                min_similarity=config.min_similarity,
                keeps_all=not config.near,
            )
    yield from _batches(likeness, digests)


class _Signatures:
    """The signatures of the texts that share a band with others, in a file."""

    def __init__(self, refs: TextRefs, path: Path) -> None:
        self.refs = refs
        shape = (max(len(refs), 1), MINHASH_NUM_PERMUTATIONS)
        self.array: npt.NDArray[np.uint32] = np.memmap(path, np.uint32, "w+", shape=shape)

    def note(self, batch: pa.RecordBatch) -> None:
        """Keep the signatures of a batch that will be needed."""
        signed = batch.filter(batch.column("minhash").is_valid())
        if not signed.num_rows or not len(self.refs):
            return
        refs = text_refs(signed.column("text_digest"))
        places = np.minimum(np.searchsorted(self.refs, refs), len(self.refs) - 1)
        found = self.refs[places] == refs
        minima = signed.column("minhash").flatten().to_numpy().reshape(-1, MINHASH_NUM_PERMUTATIONS)
        self.array[places[found]] = minima[found]


def _noted(batches: Iterable[pa.RecordBatch], signatures: _Signatures) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        signatures.note(batch)
        yield batch


def _entries(shared: Shared, refs: TextRefs, rows: Rows, texts: Texts) -> tuple[Indices, Indices, Indices]:
    """Which text lies in which bucket: (entries,) its place among the candidates, (candidates,) text, (entries,) bucket."""
    with_digest = np.flatnonzero(rows.text[texts.first_row] != NONE)
    of_texts = text_refs(rows.digests.take(pa.array(texts.first_row[with_digest])))
    number = np.full(len(refs) + 1, NONE, np.int64)
    places = np.searchsorted(refs, of_texts)
    known = refs[np.minimum(places, len(refs) - 1)] == of_texts if len(refs) else np.zeros(len(places), np.bool_)
    number[places[known][::-1]] = with_digest[known][::-1]  # assigned backwards, so of two the first seen stays
    text = number[np.searchsorted(refs, shared.texts)]
    is_there = text != NONE
    text, buckets = text[is_there], shared.buckets[is_there]
    is_shared = np.bincount(buckets, minlength=1)[buckets] > 1
    candidates, of_entry = np.unique(text[is_shared], return_inverse=True)
    _, bucket = np.unique(buckets[is_shared], return_inverse=True)
    return of_entry.astype(np.int64), candidates, bucket.astype(np.int64)


def _known(digests: pa.Array, aids: Aids) -> Pairs:
    """What the last build counted of pairs that are candidates now."""
    found = [no_pairs()]
    for batch in aids.last_batches():
        later = pc.index_in(batch.column("text"), value_set=digests)
        earlier = pc.index_in(batch.column("other"), value_set=digests)
        a, b = (each.fill_null(NONE).to_numpy().astype(np.int64) for each in (later, earlier))
        similarity, containment = (batch.column(name).to_numpy() for name in ("similarity", "containment"))
        usable = (a != NONE) & (b != NONE) & (a > b)  # of texts that changed places the other's share is not known
        found.append(Pairs(a[usable] << 32 | b[usable], similarity[usable], containment[usable]))
    keys, first = np.unique(np.concatenate([pairs.keys for pairs in found]), return_index=True)
    similarity, containment = (
        np.concatenate([getattr(pairs, name) for pairs in found])[first] for name in ("similarity", "containment")
    )
    return Pairs(keys, similarity, containment)


def _places(first_rows: Indices, aids: Aids) -> tuple[Indices, Indices]:
    """For each candidate the shard of documents that has its text, and the row in it."""
    starts = np.cumsum([0, *(shard.num_rows for shard in aids.aside)])
    shards = np.searchsorted(starts, first_rows, side="right") - 1
    return shards, first_rows - starts[shards]


def _read_shingles(wanted: Indices, places: tuple[Indices, Indices], aids: Aids, shingles: ShingleFile) -> None:
    """Read the texts of candidates whose shingles are not there yet, each shard once."""
    missing = wanted[[number not in shingles for number in wanted.tolist()]] if len(wanted) else wanted
    shards, rows = (each[missing] for each in places)
    for shard in np.unique(shards).tolist():
        here = shards == shard
        in_order = np.argsort(rows[here])
        waiting = list(zip(rows[here][in_order].tolist(), missing[here][in_order].tolist(), strict=True))[::-1]
        start = 0
        for batch in aids.read(aids.aside[shard], ("text",)):
            while waiting and waiting[-1][0] < start + batch.num_rows:
                row, number = waiting.pop()
                shingles.put(number, shingle_sets(batch.column("text")[row - start].as_py()))
            start += batch.num_rows
            if not waiting:
                break


def _batches(likeness: Likeness, digests: pa.Array) -> Iterator[pa.RecordBatch]:
    pairs = likeness.pairs
    for start in range(0, len(pairs.keys), _BATCH_NUM_ROWS):
        part = slice(start, start + _BATCH_NUM_ROWS)
        later, earlier = pairs.later[part], pairs.earlier[part]
        columns = [
            digests.take(pa.array(later)),
            digests.take(pa.array(earlier)),
            pa.array(pairs.similarity[part]),
            pa.array(pairs.containment[part]),
            pa.array(likeness.leaders[later] == earlier),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=NEAR)


NEAR_STAGE = Stage(
    name="near",
    version=1,
    kind=Kind.GLOBAL,
    inputs=(pa.schema([*OF_SIGNALS, *select(SIGNALS, "minhash")]), OF_DECISION),
    output=NEAR,
    transform=find_near,
    libraries=("numpy", "llvmlite", "numba", "xxhash"),
    package_data=("pipelines/signals/lexicons/variants",),
    uses_aids=True,
    tally=tally_pairs,
    compression="lz4",
)
