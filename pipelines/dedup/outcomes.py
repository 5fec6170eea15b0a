"""The final outcome of each row: a duplicate, an old version, or kept, and in which split.

The verdicts depend on the set of rows alone: documents are judged in the order (fetched_at, doc_id), and the first seen
stays. A near-duplicate is like a document that *stays* (see likeness.py), so a later document changes no earlier verdict;
only a newer version of the same URL, its withdrawal or a take-down does.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup.lines import Cuts, LineCounter
from pipelines.dedup.splits import hashed_splits, without_leaks
from pipelines.dedup.versions import (
    NONE,
    OF_DECISION,
    OF_SIGNALS,
    SUPERSEDED,
    WITHDRAWN,
    Flags,
    Indices,
    Rows,
    Texts,
    collect,
    distinct_texts,
    first_seen_first,
    superseding,
    withdrawing,
)
from pipelines.schemas import LINES, OUTCOME
from pipelines.stage import Kind, Resource, Stage
from pipelines.tallies import tally_decisions

DUPLICATE_EXACT, DUPLICATE_NEAR, REPEATED_LINES = "duplicate_exact", "duplicate_near", "repeated_lines"


@dataclass(frozen=True, kw_only=True, slots=True)
class OutcomesConfig:
    """What of DedupConfig says what becomes of likes; see there."""

    near_pairs: Resource
    """Arrow IPC stream of schema NEAR."""
    exact: bool
    """Drop copies."""
    near: bool
    """Drop near-duplicates."""
    superseded: bool
    """Drop old versions of a URL."""
    withdrawn: bool
    """Drop versions before a withdrawal."""
    min_similarity: float
    """Jaccard similarity from which a text is a near-duplicate."""
    max_line_repeats: int | None
    """Documents of a host that may show the same line."""
    min_kept_line_ratio: float
    """Share of a document's characters that must be left."""
    validation_ratio: float
    """Expected share held out for validation."""
    test_ratio: float
    """Expected share held out for the last measurement."""
    split_seed: int
    """Another seed is another split."""


@dataclass(frozen=True, slots=True)
class _Likeness:
    """Which texts are like which, whether or not the config drops a document for it."""

    leader: Indices  # (texts,) the text that represents it; itself if it is like no earlier leader
    similarity: npt.NDArray[np.float32]  # (texts,) to the leader
    containment: npt.NDArray[np.float32]  # (texts,) in the leader
    alike: tuple[Indices, Indices]  # every pair that is alike, later and earlier text


def resolve(batches: Iterable[pa.RecordBatch], config: OutcomesConfig) -> Iterator[pa.RecordBatch]:
    """SIGNALS + DECISION -> OUTCOME, one row for each row, in order and in the same batches.

    Raises SchemaError where a row has no decision.

    - A row that the policy dropped keeps its reason.
    - `withdrawn`: a later fetch of the same URL was dropped for one of WITHDRAWING_REASONS, and none after it was kept.
      `duplicate_of` is the newest such fetch. At the same moment, the withdrawal counts as the later.
    - `superseded`: a later fetch of the same URL brought another text, or a page that the policy drops, but not a
      failure. `duplicate_of` is the newest fetch. Decided, after `withdrawn`, before the others.
    - `duplicate_exact`: the normalised text equals that of an earlier document that stays.
    - `repeated_lines`: so many of its lines were shown by earlier documents of its host that hardly any text is left.
      Other documents only lose such lines (`cut_lines`).
    - `duplicate_near`: shares a band with, and at least `min_similarity` of all shingles with, an earlier document that
      stays; `duplicate_of` is the most similar of these, then the earliest. A copy of such a document is one too.

    Split: see splits.py; that of the document that represents it, also where a switch keeps the duplicates.
    """
    counter = LineCounter()
    rows = collect(_noted(batches, counter) if config.max_line_repeats is not None else batches)
    order = first_seen_first(rows)
    nothing = np.full(len(rows), NONE)
    withdrawn = withdrawing(rows, order) if config.withdrawn else nothing
    superseded = superseding(rows, order) if config.superseded else nothing
    newest = np.where(withdrawn == NONE, superseded, withdrawn)
    texts = distinct_texts(rows, order, newest != NONE)
    like = _read_likeness(rows, texts, config)
    split = _splits(rows, texts, like, config)

    live = np.flatnonzero(texts.of_row != NONE)
    text = texts.of_row[live]
    is_copy = live != texts.first_row[text]
    near = config.near & (like.leader[text] != text)
    exact = config.exact & is_copy & ~near
    near |= config.near & is_copy & ~exact & (rows.text[live] != NONE)

    reason = np.where(newest == NONE, "", np.where(withdrawn == NONE, SUPERSEDED, WITHDRAWN)).astype("<U16")
    duplicate_of = newest.copy()
    similarity, containment = (np.full(len(rows), np.nan, np.float32) for _ in range(2))
    ones = np.ones(len(live), np.float32)
    for found, name, representative, value, share in (
        (exact, DUPLICATE_EXACT, texts.first_row[text], ones, ones),
        (near, DUPLICATE_NEAR, texts.first_row[like.leader[text]], like.similarity[text], like.containment[text]),
    ):
        reason[live[found]] = name
        duplicate_of[live[found]] = representative[found]
        similarity[live[found]], containment[live[found]] = value[found], share[found]
    cuts = _cuts(rows, order, rows.kept & (reason == ""), counter, config)
    cut_chars = np.bincount(cuts.row, weights=cuts.num_chars, minlength=len(rows))
    nothing_left = cut_chars > (1 - config.min_kept_line_ratio) * np.maximum(rows.num_chars, 1)
    reason[nothing_left] = REPEATED_LINES
    ours = reason != ""
    outcome = pa.RecordBatch.from_arrays(
        [
            rows.doc_ids,
            pa.array(np.where(rows.kept & ~ours, "keep", "drop"), pa.string()),
            pc.if_else(pa.array(ours), pa.array(reason, pa.string()), rows.reasons),
            rows.doc_ids.take(pa.array(duplicate_of, mask=duplicate_of == NONE)),
            *(pa.array(values, mask=np.isnan(values)) for values in (similarity, containment)),
            pa.array(split, pa.string()),
            _cut_lines(rows, cuts, ~nothing_left[cuts.row]),
        ],
        schema=OUTCOME,
    )
    start = 0
    for length in rows.batch_lengths:
        yield outcome.slice(start, length)
        start += length


def _noted(batches: Iterable[pa.RecordBatch], counter: LineCounter) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        counter.note(batch)
        yield batch


def _cuts(rows: Rows, order: Indices, stays: Flags, counter: LineCounter, config: OutcomesConfig) -> Cuts:
    if config.max_line_repeats is None:
        return Cuts(*(np.empty(0, np.int64) for _ in fields(Cuts)))
    rank = np.full(len(rows), NONE, np.int64)
    staying = order[stays[order]]
    rank[staying] = np.arange(len(staying))
    return counter.repeated(rank, config.max_line_repeats)


def _cut_lines(rows: Rows, cuts: Cuts, chosen: Flags) -> pa.Array:
    kind = OUTCOME.field("cut_lines").type
    counts = np.bincount(cuts.row[chosen], minlength=len(rows))
    first = rows.doc_ids.take(pa.array(cuts.first_row[chosen]))
    lines = pa.StructArray.from_arrays([pa.array(cuts.line[chosen], pa.int32()), first], fields=list(kind.value_type))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, lines, type=kind)


def _read_likeness(rows: Rows, texts: Texts, config: OutcomesConfig) -> _Likeness:
    num_texts = len(texts.first_row)
    leader = np.arange(num_texts)
    similarity, containment = np.ones(num_texts, np.float32), np.ones(num_texts, np.float32)
    digests = rows.exact.take(pa.array(texts.first_row))
    alike: list[tuple[Indices, Indices]] = []
    with pa.memory_map(config.near_pairs.path) as source:
        for batch in pa.ipc.open_stream(source):
            later, earlier = (
                pc.index_in(batch.column(name), value_set=digests).to_numpy().astype(np.int64)
                for name in ("text", "other")
            )
            values, shares = (batch.column(name).to_numpy() for name in ("similarity", "containment"))
            leads = batch.column("leads").to_numpy(zero_copy_only=False)
            leader[later[leads]] = earlier[leads]
            similarity[later[leads]], containment[later[leads]] = values[leads], shares[leads]
            found = values >= np.float32(config.min_similarity)
            alike.append((later[found], earlier[found]))
    nothing = np.empty(0, np.int64)
    pairs = tuple(np.concatenate([nothing, *(each[side] for each in alike)]) for side in (0, 1))
    return _Likeness(leader, similarity, containment, (pairs[0], pairs[1]))


def _splits(rows: Rows, texts: Texts, like: _Likeness, config: OutcomesConfig) -> npt.NDArray[np.str_]:
    """(rows,) the split of each; a row that represents nothing and is represented by none goes by its own hash."""
    leaders = np.unique(like.leader)
    split = hashed_splits(
        rows.names(), texts.first_row[leaders], config.validation_ratio, config.test_ratio, config.split_seed
    )
    of_text = split[texts.first_row[like.leader]]
    if not config.near:
        of_text = without_leaks(of_text, *like.alike)
    live = texts.of_row != NONE
    split[live] = of_text[texts.of_row[live]]
    return split


DEDUP = Stage(
    name="dedup",
    version=3,
    kind=Kind.GLOBAL_ALIGNED,
    inputs=(OF_SIGNALS, OF_DECISION),
    output=OUTCOME,
    transform=resolve,
    libraries=("llvmlite", "numba", "numpy", "xxhash"),
    tally=tally_decisions,
    compression="lz4",
)


def dedup_reading(*, lines: bool) -> Stage:
    """The stage as it reads LINES, too, where repeated lines are cut."""
    return replace(DEDUP, inputs=(*DEDUP.inputs, LINES)) if lines else DEDUP
