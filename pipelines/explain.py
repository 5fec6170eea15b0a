"""The whole story of a page, from the stored shards: what was stated, measured, decided and encoded."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines import pii
from pipelines.corpus import read_aligned
from pipelines.dedup import WITHDRAWING_REASONS, WITHDRAWN
from pipelines.lineage import places, stream_starts
from pipelines.policy import PolicyConfig, evaluate
from pipelines.store import Manifest, Store


def stories(
    store: Store, done: Mapping[str, Manifest], policy: PolicyConfig, url_or_doc_id: str
) -> Iterator[dict[str, Any]]:
    """Each stored version of a page, by URL or document id, as plain values.

    `unit` is the digest of the source file; `tokens` tells the shard, the row and the offset in it, and in the split's stream. `rights` is the
    verdict on training, what it rests on, every directive seen, and the licence. `contaminated_by` names the items of
    evaluation suites in its text; None: there are no suites. `withdrawal` is the later fetch for which an older version
    is out: when it was, and why it reaches back.
    """
    for entry in done["extract"].entries:
        row_idx = 0
        for batch in store.read(entry.shard, ("doc_id", "url")):
            found = pc.or_kleene(
                pc.equal(batch.column("doc_id"), url_or_doc_id), pc.equal(batch.column("url"), url_or_doc_id)
            )
            for idx in pc.indices_nonzero(found).to_pylist():  # a null is no match
                yield _story(store, done, policy, entry.unit, row_idx + idx)
            row_idx += batch.num_rows


def _story(store: Store, done: Mapping[str, Manifest], policy: PolicyConfig, unit: str, row_idx: int) -> dict[str, Any]:
    document = _row(store, done, "extract", unit, row_idx)
    signals = _row(store, done, "signals", unit, row_idx)
    for name in ("minhash", "pii", "exact_digest"):
        signals.pop(name, None)
    digest = signals.pop("text_digest", None)
    signals |= _row(store, done, "toxicity", unit, row_idx)
    held = _row(store, done, "contamination", unit, row_idx)["contaminated_by"] if "contamination" in done else None
    if "perplexity" in done:
        signals |= _row(store, done, "perplexity", unit, row_idx)
    outcome = _row(store, done, "dedup", unit, row_idx)
    text = document.pop("text")
    named = _row(store, done, "entities", unit, row_idx)["entities"] if "entities" in done else None
    title = document["title"]
    if title is not None:
        document["title"] = pii.redact(title, pii.find_in_title(title, signals["language"], text, named))
    shown = pii.redact(text, pii.find_all(text, signals["language"], None, named))
    return {
        "doc_id": document["doc_id"],
        "url": document["url"],
        "unit": unit,
        "row": row_idx,
        "document": document | {"num_chars": len(text), "beginning": shown[:300]},
        "signals": signals | {"text_digest": digest.hex() if digest else None},
        "contaminated_by": held,
        "rights": {
            "verdict": signals["rights"],
            "evidence": signals["rights_evidence"],
            "directives": document["directives"],
            "license": signals["license"] or document["license_url"],
        },
        "rules": [
            {"rule": rule.name, "value": rule.value, "threshold": rule.threshold, "passed": rule.passed}
            for rule in evaluate(signals | {"contaminated_by": held}, policy)
        ],
        "policy": _row(store, done, "policy", unit, row_idx),
        "source": _row(store, done, "sources", unit, row_idx),
        "outcome": outcome,
        "duplicate_of_url": _url_of(store, done, outcome["duplicate_of"]),
        "withdrawal": _withdrawal(store, done, outcome) if outcome["reason"] == WITHDRAWN else None,
        "tokens": _tokens(store, done, unit, document["doc_id"]) if outcome["decision"] == "keep" else None,
    }


def _row(store: Store, done: Mapping[str, Manifest], stage: str, unit: str, row_idx: int) -> dict[str, Any]:
    for batch in store.read(done[stage].by_unit()[unit].shard):
        if row_idx < batch.num_rows:
            row: dict[str, Any] = batch.slice(row_idx, 1).to_pylist()[0]
            return row
        row_idx -= batch.num_rows
    return {}


def _url_of(store: Store, done: Mapping[str, Manifest], doc_id: str | None) -> str | None:
    if doc_id is None:
        return None
    for entry in done["extract"].entries:
        for batch in store.read(entry.shard, ("doc_id", "url")):
            idx = pc.index(batch.column("doc_id"), pa.scalar(doc_id)).as_py()
            if idx >= 0:
                url: str | None = batch.column("url")[idx].as_py()
                return url
    return None


def _withdrawal(store: Store, done: Mapping[str, Manifest], outcome: Mapping[str, Any]) -> dict[str, Any] | None:
    parts = (done["signals"], ("doc_id", "fetched_at", "rights_evidence")), (done["policy"], ("doc_id", "reason"))
    found: list[dict[str, Any]] = []
    for _, batch in read_aligned(store, *parts):
        chosen = pc.equal(batch.column("doc_id"), outcome["duplicate_of"])
        found += pa.Table.from_batches([batch]).filter(chosen).to_pylist()
    # The same page may have been fetched twice with the same bytes: it is the newest that counts.
    return max(found, key=lambda row: (row["reason"] in WITHDRAWING_REASONS, str(row["fetched_at"])), default=None)


def _tokens(store: Store, done: Mapping[str, Manifest], unit: str, doc_id: str) -> dict[str, Any] | None:
    digest = done["tokenize"].by_unit()[unit].shard.digest
    table = places(store, digest, stream_starts(store, done["tokenize"])[digest])
    rows = table.filter(pc.equal(table.column("doc_id"), doc_id)).to_pylist()
    if not rows:
        return None
    row = rows[0]
    return {
        "shard": digest,
        "row": row["token_row"],
        "offset": row["token_start"],
        **{name: row[name] for name in ("num_tokens", "split", "stream_start", "stream_end")},
    }
