"""From each page to its record, its cluster and its tokens, and from a place in a stream of tokens back to the page.

Everything is read off the stored shards. Training reads the token shards of a build in the order of their digests, and of
each the rows of one split: so the stream's offsets follow from how many tokens each shard holds, which its record counts.
"""

import math
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.corpus import measured_parts, read_aligned
from pipelines.errors import InputError, SchemaError
from pipelines.policy import PolicyConfig, measured, rules_for
from pipelines.schemas import LINEAGE, TOKEN_PLACE
from pipelines.store import Manifest, Shard, Store, storage_errors

Sighting = tuple[int, int, int]
"""First step, last step, visits: see `trainings` in LINEAGE."""

_OUTCOME = ("decision", "reason", "duplicate_of", "similarity", "containment", "split", "cut_lines")
_PLACES = ("token_row", "token_start", "token_end", "stream_start", "stream_end", "num_tokens")
_RULES, _TRAININGS = (LINEAGE.field(name).type for name in ("rules", "trainings"))


# The stream


@dataclass(frozen=True, slots=True)
class Stretch:
    """The part of a split's stream that one token shard makes up."""

    digest: str
    start: int
    end: int
    is_there: bool
    """Whether the shard can still be read."""


def token_counts(tokens: Manifest, split: str) -> dict[str, int]:
    """Tokens of a split in each shard of a TOKENS manifest, by digest, as they were counted when it was made."""
    return {entry.shard.digest: entry.counts.get(f"tokens:{split}", 0) for entry in tokens.entries}


def stream(store: Store, digests: Iterable[str], split: str, counts: Mapping[str, int]) -> list[Stretch]:
    """The stream of a split over token shards, in the order in which training reads them.

    `counts` spares reading the shards that it names. Raises InputError for one that it does not name and that is gone.
    """
    stretches: list[Stretch] = []
    start = 0
    for digest in sorted(set(digests)):
        shard = _stored(store, digest)
        if digest in counts:
            num_tokens = counts[digest]
        elif shard is not None:
            num_tokens = sum(
                pc.sum(
                    pc.list_value_length(batch.column("tokens")).filter(pc.equal(batch.column("split"), split))
                ).as_py()
                or 0
                for batch in store.read(shard, ("split", "tokens"))
            )
        else:
            raise InputError(
                f"got token shard {digest[:16]}, which is gone and whose tokens nobody counted, wanted it stored: what lies "
                "behind it in the stream cannot be told any more; train again to have its lineage."
            )
        stretches.append(Stretch(digest, start, start + num_tokens, shard is not None))
        start += num_tokens
    return stretches


def places(store: Store, digest: str, stream_starts: Mapping[str, int] | None = None) -> pa.Table:
    """TOKEN_PLACE, one row for each document of a token shard, in its order.

    `stream_starts`: where the shard begins in the stream of each split; without, 0. Raises InputError where it is gone.
    """
    shard = _stored(store, digest)
    if shard is None:
        raise InputError(
            f"got token shard {digest[:16]}, which is gone, wanted it stored: a take-down or `corpusmill gc` removed it, and "
            "which pages its tokens came from cannot be told any more."
        )
    names, splits, lengths = [pa.array([], pa.string())], [pa.array([], pa.string())], [np.empty(0, np.int64)]
    for batch in store.read(shard, ("doc_id", "split", "tokens")):
        names.append(batch.column("doc_id"))
        splits.append(batch.column("split"))
        lengths.append(pc.list_value_length(batch.column("tokens")).to_numpy().astype(np.int64))
    split, length = pa.concat_arrays(splits), np.concatenate(lengths)
    end, stream_end = np.cumsum(length), np.zeros(len(length), np.int64)
    for name in pc.unique(split).to_pylist():
        rows = pc.equal(split, name).to_numpy(zero_copy_only=False)
        stream_end[rows] = np.cumsum(length[rows]) + (stream_starts or {}).get(name, 0)
    row = np.arange(len(length))
    columns = [pa.concat_arrays(names), split]
    columns += [pa.array(each) for each in (row, end - length, end, stream_end - length, stream_end, length)]
    return pa.Table.from_arrays(columns, schema=TOKEN_PLACE)


def over(table: pa.Table, start: int, end: int, axis: str = "stream") -> pa.Table:
    """The rows of TOKEN_PLACE that hold some of the tokens from `start` to before `end`; `axis` is `stream` or `token`."""
    begins, ends = table.column(f"{axis}_start"), table.column(f"{axis}_end")
    return table.filter(pc.and_(pc.less(begins, end), pc.greater(ends, start)))


def _stored(store: Store, digest: str) -> Shard | None:
    path = store.shard_path(digest)
    return Shard(digest, path.stat().st_size, 0) if path.is_file() else None


# The pages


def pages(store: Store, done: Mapping[str, Manifest], doc_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Where documents come from, by doc_id, as far as a build has them; of one that came in twice, the row that stays."""
    wanted = pa.array(doc_ids, pa.string())
    found: dict[str, dict[str, Any]] = {}
    parts = (
        (done["extract"], ("doc_id", "url", "fetched_at", "record_offset")),
        (done["dedup"], ("doc_id", "decision", "reason")),
    )
    for unit, batch in read_aligned(store, *parts):
        for row in batch.filter(pc.is_in(batch.column("doc_id"), value_set=wanted)).to_pylist():
            if row["decision"] == "keep" or row["doc_id"] not in found:
                found[row["doc_id"]] = row | {"unit": unit}
    return found


# Clusters


def representatives(store: Store, outcomes: Manifest) -> dict[str, str]:
    """What stands for each document that is out for another one: the end of the chain of `duplicate_of`, by doc_id.

    An old version may be out for a newer one that is itself a near-duplicate. Held: some 200 bytes a document that is out so.
    """
    heads: dict[str, str] = {}
    kept: set[str] = set()
    for entry in outcomes.entries:
        for batch in store.read(entry.shard, ("doc_id", "decision", "duplicate_of")):
            out = batch.filter(batch.column("duplicate_of").is_valid())
            # The same page may stand in two files: it does not stand for itself.
            out = out.filter(pc.not_equal(out.column("doc_id"), out.column("duplicate_of")))
            heads.update(zip(out.column("doc_id").to_pylist(), out.column("duplicate_of").to_pylist(), strict=True))
            kept.update(batch.filter(pc.equal(batch.column("decision"), "keep")).column("doc_id").to_pylist())
    heads = {doc_id: head for doc_id, head in heads.items() if doc_id not in kept}
    return {doc_id: _end(heads, doc_id) for doc_id in heads}


def _end(heads: Mapping[str, str], doc_id: str) -> str:
    passed = {doc_id}
    while (head := heads.get(doc_id)) is not None and head not in passed:
        passed.add(head)
        doc_id = head
    return doc_id


def members(store: Store, done: Mapping[str, Manifest], cluster: str, heads: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every row of a cluster, that which stands for it first, then by time of fetch; `heads` are `representatives`."""
    wanted = pa.array([cluster, *(doc_id for doc_id, head in heads.items() if head == cluster)], pa.string())
    parts = (
        (done["extract"], ("doc_id", "url", "fetched_at")),
        (done["dedup"], ("doc_id", "decision", "reason", "duplicate_of", "similarity", "containment")),
    )
    rows: list[dict[str, Any]] = []
    for unit, batch in read_aligned(store, *parts):
        chosen = batch.filter(pc.is_in(batch.column("doc_id"), value_set=wanted))
        rows += [row | {"unit": unit} for row in chosen.to_pylist()]
    return sorted(
        rows,
        key=lambda row: (row["doc_id"] != cluster, row["decision"] != "keep", str(row["fetched_at"]), row["doc_id"]),
    )


# The table


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the table is told from outside the stored shards."""

    policy: PolicyConfig
    source_files: Mapping[str, str]
    """Where the file of each unit lies."""
    seen: Mapping[str, Mapping[str, Sighting]]
    """What each model saw, by its name, then by doc_id."""


def lineage(store: Store, done: Mapping[str, Manifest], known: Known) -> Iterator[pa.RecordBatch]:
    """LINEAGE, one row for each page that came in, in the order of the build's shards.

    Raises SchemaError where the token shards do not hold the documents that stay. Held: some 300 bytes a document.
    """
    heads = representatives(store, done["dedup"])
    sizes: Counter[str] = Counter()
    for entry in done["dedup"].entries:
        for batch in store.read(entry.shard, ("doc_id",)):
            sizes.update(heads.get(doc_id, doc_id) for doc_id in batch.column("doc_id").to_pylist())
    starts = stream_starts(store, done["tokenize"])
    tokens = done["tokenize"].by_unit()
    parts = (
        (done["extract"], ("doc_id", "url", "fetched_at", "record_offset", "problem")),
        (done["sources"], ("doc_id", "value", "threshold", "failed_rules", "blocked_by")),
        (done["dedup"], ("doc_id", *_OUTCOME)),
        *measured_parts(done),
    )
    last_unit, waiting = None, TOKEN_PLACE.empty_table()
    for unit, batch in read_aligned(store, *parts):
        digest = tokens[unit].shard.digest
        if unit != last_unit:
            _check_matched(waiting.num_rows == 0)
            last_unit, waiting = unit, places(store, digest, starts[digest])
        columns = {name: batch.column(name) for name in batch.schema.names}
        columns["unit"] = pa.repeat(unit, batch.num_rows)
        columns["source_file"] = pa.array([known.source_files.get(unit)] * batch.num_rows, pa.string())
        columns["num_cut_lines"] = pc.list_value_length(batch.column("cut_lines"))
        columns["rules"] = _rules(batch.drop_columns(["blocked_by"]), known.policy)
        doc_ids = batch.column("doc_id").to_pylist()
        clusters = [heads.get(doc_id, doc_id) for doc_id in doc_ids]
        columns["cluster"] = pa.array(clusters, pa.string())
        columns["cluster_size"] = pa.array([sizes[cluster] for cluster in clusters], pa.int64())
        columns["trainings"] = pa.array([_trainings(doc_id, known.seen) for doc_id in doc_ids], _TRAININGS)
        is_kept = pc.equal(batch.column("decision"), "keep").to_numpy(zero_copy_only=False)
        here, waiting = waiting.slice(0, is_kept.sum()), waiting.slice(is_kept.sum())
        # A shard has a row for each document that stays, in order; where each of these stands is told by its place.
        _check_matched(here.column("doc_id").to_pylist() == [doc_ids[idx] for idx in np.flatnonzero(is_kept)])
        idxs = pa.array(np.cumsum(is_kept) - 1, mask=~is_kept)
        columns |= {name: here.column(name).combine_chunks().take(idxs) for name in _PLACES}
        columns["token_shard"] = pa.array([digest if kept else None for kept in is_kept], pa.string())
        nothing = pa.nulls(batch.num_rows)
        yield pa.RecordBatch.from_arrays(
            [columns.get(field.name, nothing).cast(field.type) for field in LINEAGE], schema=LINEAGE
        )
    _check_matched(waiting.num_rows == 0)


def stream_starts(store: Store, tokens: Manifest) -> dict[str, dict[str, int]]:
    """Where each shard of a TOKENS manifest begins in the stream of each split, by digest and split."""
    starts: dict[str, dict[str, int]] = {entry.shard.digest: {} for entry in tokens.entries}
    splits = {name.removeprefix("tokens:") for name in tokens.counts() if name.startswith("tokens:")}
    for split in splits:
        for stretch in stream(store, starts, split, token_counts(tokens, split)):
            starts[stretch.digest][split] = stretch.start
    return starts


def write_lineage(path: Path, batches: Iterable[pa.RecordBatch]) -> int:
    """Write LINEAGE as a Parquet file, which appears only when it is whole; returns the number of rows."""
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    num_rows = 0
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with pq.ParquetWriter(temporary, LINEAGE, compression="zstd") as writer:
                for batch in batches:
                    writer.write_batch(batch)
                    num_rows += batch.num_rows
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return num_rows


def _trainings(doc_id: str, seen: Mapping[str, Mapping[str, Sighting]]) -> list[dict[str, Any]]:
    return [
        {"model": model, "first_step": found[0], "last_step": found[1], "num_visits": found[2]}
        for model, sightings in seen.items()
        if (found := sightings.get(doc_id)) is not None
    ]


def _rules(batch: pa.RecordBatch, policy: PolicyConfig) -> pa.Array:
    """What each rule found in each row; where the page has a problem, no rule was asked."""
    rows_of: dict[str | None, list[int]] = {}
    languages, problems = batch.column("language").to_pylist(), batch.column("problem").to_pylist()
    for idx, (language, problem) in enumerate(zip(languages, problems, strict=True)):
        if problem is None:
            rows_of.setdefault(language, []).append(idx)
    found: list[list[dict[str, Any]]] = [[] for _ in range(batch.num_rows)]
    for language, idxs in rows_of.items():
        rules = rules_for(language, policy)
        values, failed = measured(batch.take(pa.array(idxs)), rules, policy)
        limits = [None if isinstance(rule.threshold, tuple) else float(rule.threshold) for rule in rules]
        for column, idx in enumerate(idxs):
            found[idx] = [
                {"rule": rule.name, "value": _number(value), "threshold": limit, "passed": not has_failed}
                for rule, value, limit, has_failed in zip(
                    rules, values[:, column].tolist(), limits, failed[:, column].tolist(), strict=True
                )
            ]
    return pa.array(found, _RULES)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _check_matched(is_matched: bool) -> None:  # noqa: FBT001
    if not is_matched:
        raise SchemaError(
            "got token shards of other documents than those that stay, wanted one row for each: build again."
        )
