"""Where documents stand in a build: before it changes, which ones a take-down will take out, and what they hold back."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import IntegrityError, SchemaError
from pipelines.store import Entry, Manifest, Store
from pipelines.takedown.documents import Takedown, columns_for, matches
from pipelines.takedown.ledger import Request, takedown_of

Facts = dict[str, Any]

_DAMAGE = (IntegrityError, SchemaError, pa.ArrowInvalid)
_OUTCOME_COLUMNS = ("doc_id", "decision", "reason", "duplicate_of", "split")


def trace(store: Store, done: Mapping[str, Manifest], requests: Sequence[Request]) -> dict[str, Facts]:
    """What each request, by its id, will take out of a build, as plain JSON values.

    `documents`: each with its place (`unit`, the digest of its source file as read; `row`; `record_offset`), the digest of
    its normalised text, its outcome, and where it was kept `token_shard` and `token_row`. `suppressed`: documents that are out because of one of these.
    `unreadable`: shards that could not be searched, because they are damaged or gone.
    """
    facts: dict[str, Facts] = {
        request.id: {"documents": [], "suppressed": [], "unreadable": []} for request in requests
    }
    if "extract" not in done:
        return facts
    unreadable: list[str] = []
    for unit, row in _matching(store, done["extract"], takedown_of(requests), unreadable):
        for request in requests:
            if matches(row, request.takedown())[0]:
                facts[request.id]["documents"].append({"unit": unit[0], "row": unit[1], **_named(row)})
    _add_digests(store, done.get("signals"), facts, unreadable)
    _add_outcomes(store, done.get("dedup"), facts, unreadable)
    _add_tokens(store, done.get("tokenize"), facts, unreadable)
    for found in facts.values():
        found["unreadable"] = sorted(set(unreadable))
    return facts


def outcomes_of(store: Store, outcomes: Manifest, doc_ids: Sequence[str]) -> dict[str, Facts]:
    """What became of documents in a build, by `doc_id`; where one was fetched twice, that it was kept counts."""
    wanted = pa.array(doc_ids, pa.string())
    found: dict[str, Facts] = {}
    for entry in outcomes.entries if len(doc_ids) else ():
        for batch in store.read(entry.shard, _OUTCOME_COLUMNS):
            for row in batch.filter(pc.is_in(batch.column("doc_id"), wanted)).to_pylist():
                if found.get(row["doc_id"], row)["decision"] != "keep" or row["decision"] == "keep":
                    found[row["doc_id"]] = row
    return found


def _matching(
    store: Store, documents: Manifest, takedown: Takedown, unreadable: list[str]
) -> Iterator[tuple[tuple[str, int], pa.RecordBatch]]:
    """Place and row of every document that is to be taken down."""
    columns = (*columns_for(takedown), "fetched_at", "record_offset")
    for entry in documents.entries:
        first = 0
        for batch in _read(store, entry, columns, unreadable):
            for row_idx in matches(batch, takedown).nonzero()[0].tolist():
                yield (entry.unit, first + row_idx), batch.slice(row_idx, 1)
            first += batch.num_rows


def _named(row: pa.RecordBatch) -> Facts:
    value = row.select(["doc_id", "url", "fetched_at", "record_offset"]).to_pylist()[0]
    return value | {"fetched_at": value["fetched_at"].isoformat() if value["fetched_at"] else None}


def _add_digests(store: Store, signals: Manifest | None, facts: Mapping[str, Facts], unreadable: list[str]) -> None:
    """Add to each document the digests of its text, which the search for near-duplicates knows it by."""
    entries = signals.by_unit() if signals is not None else {}
    for found in facts.values():
        for item in found["documents"]:
            item["text_digests"] = []
    for unit in {item["unit"] for found in facts.values() for item in found["documents"]} & entries.keys():
        digests: list[tuple[bytes | None, ...]] = []
        for batch in _read(store, entries[unit], ("text_digest", "exact_digest"), unreadable):
            digests += zip(*(column.to_pylist() for column in batch.columns), strict=True)
        for found in facts.values():
            for item in found["documents"]:
                if item["unit"] == unit and item["row"] < len(digests):
                    item["text_digests"] = [each.hex() for each in digests[item["row"]] if each is not None]


def _add_outcomes(store: Store, outcomes: Manifest | None, facts: Mapping[str, Facts], unreadable: list[str]) -> None:
    """Add to each document what became of it, and to each request whom its documents hold back."""
    if outcomes is None:
        return
    by_place: dict[tuple[str, int], list[Facts]] = {}
    requests_of: dict[str, set[str]] = {}
    for request_id, found in facts.items():
        for item in found["documents"]:
            by_place.setdefault((item["unit"], item["row"]), []).append(item)
            requests_of.setdefault(item["doc_id"], set()).add(request_id)
    rows_of: dict[str, list[int]] = {}
    for unit, row_idx in by_place:
        rows_of.setdefault(unit, []).append(row_idx)
    named = pa.array(sorted(requests_of), pa.string())
    for entry in outcomes.entries if requests_of else ():
        table = pa.Table.from_batches(list(_read(store, entry, _OUTCOME_COLUMNS, unreadable)) or [_NO_OUTCOME])
        for row_idx in rows_of.get(entry.unit, ()):
            if row_idx < table.num_rows:
                outcome = table.slice(row_idx, 1).to_pylist()[0]
                for item in by_place[entry.unit, row_idx]:
                    item |= {name: outcome[name] for name in ("decision", "reason", "split")}
        for outcome in table.filter(pc.is_in(table.column("duplicate_of"), named)).to_pylist():
            for request_id in sorted(requests_of[outcome["duplicate_of"]]):
                held = {name: outcome[name] for name in ("doc_id", "reason", "duplicate_of")}
                facts[request_id]["suppressed"].append(held)


_NO_OUTCOME = pa.RecordBatch.from_pylist([], schema=pa.schema([(name, pa.string()) for name in _OUTCOME_COLUMNS]))


def _add_tokens(store: Store, tokens: Manifest | None, facts: Mapping[str, Facts], unreadable: list[str]) -> None:
    """Add to each document that was kept where its tokens lie."""
    entries = tokens.by_unit() if tokens is not None else {}
    kept: dict[str, list[Facts]] = {}
    for found in facts.values():
        for item in found["documents"]:
            if item.get("decision") == "keep" and item["unit"] in entries:
                kept.setdefault(item["unit"], []).append(item)
    for unit, items in kept.items():
        first = 0
        for batch in _read(store, entries[unit], ("doc_id",), unreadable):
            for item in items:
                row_idx = pc.index(batch.column("doc_id"), pa.scalar(item["doc_id"])).as_py()
                if row_idx >= 0:
                    item |= {"token_shard": entries[unit].shard.digest, "token_row": first + row_idx}
            first += batch.num_rows


def _read(store: Store, entry: Entry, columns: Sequence[str], unreadable: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        yield from store.read(entry.shard, columns)
    except _DAMAGE:  # the build makes it anew, without what is taken down; here nothing can be told of it
        unreadable.append(entry.shard.digest)
