"""What the tokenizer learns from: a bounded sample of the kept text."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.digest import digest_value
from pipelines.errors import ConfigError, SchemaError
from pipelines.schemas import OUTCOME, SAMPLE, SIGNALS, select
from pipelines.stage import Aids, Kind, Stage
from pipelines.trained_text import READ_OF_OUTCOME, READ_OF_SIGNALS, trained_text

_BATCH_NUM_ROWS = 1024
_READ = (*READ_OF_SIGNALS, *READ_OF_OUTCOME, "entities")
_SAMPLED_PART = 8
_MIN_SAMPLE_BYTES = 2 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """How much text the tokenizer is trained on."""

    max_sample_bytes: int = 64 << 20
    """Most UTF-8 bytes of text in the sample, before redaction; training on 64 MiB takes a few seconds."""
    redact: tuple[str, ...] | None = None
    """Kinds of personal data replaced by placeholders, as in the tokenize stage; None is off."""

    def __post_init__(self) -> None:
        if self.max_sample_bytes < 1:
            raise ConfigError(f"got max_sample_bytes {self.max_sample_bytes}, wanted at least 1: 67108864 is usual.")


def sample_documents(batches: Iterable[pa.RecordBatch], config: SampleConfig, aids: Aids) -> Iterator[pa.RecordBatch]:
    """SIGNALS + OUTCOME -> SAMPLE, the first bytes of the kept training text, by (fetched_at, doc_id).

    The budget is the largest power of two in an eighth of the kept training text, at least 2 MiB or, of less text, what it
    fills, and at most `max_sample_bytes`. So newer documents change nothing until the text has doubled: a growing corpus
    trains its tokenizer once a doubling, never again once the budget is full, and what was encoded stays valid meanwhile.
    Taking a sampled document out, or adding one older than the newest of them (no fetch time counts as the oldest), does
    change the sample.

    The last document is cut to the budget, which counts bytes before redaction. Texts are looked up (aside: DOCUMENT), those
    of the sample alone. Raises SchemaError where a document has no outcome.
    """
    found: list[pa.RecordBatch] = []
    row = 0
    for batch in batches:
        chosen = pc.and_(_is_for_training(batch), batch.column("exact_digest").is_valid())
        times = batch.column("fetched_at").cast(pa.int64()).fill_null(0)
        columns = {
            **{name: batch.column(name) for name in batch.schema.names if name in (*_READ, "exact_digest")},
            "time": times,
            "doc_id": batch.column("doc_id"),
            "num_bytes": batch.column("num_bytes"),
            "row": pa.array(np.arange(row, row + batch.num_rows)),
        }
        found.append(pa.RecordBatch.from_pydict(columns).filter(chosen))
        row += batch.num_rows
    candidates = pa.Table.from_batches(found) if found else pa.table({"num_bytes": pa.array([], pa.int64())})
    total_bytes = pc.sum(candidates.column("num_bytes")).as_py() or 0
    if total_bytes:
        budget = _budget(total_bytes, config.max_sample_bytes)
        yield from _sample(_first_seen(candidates, budget), budget, config, aids)


def _budget(total_bytes: int, most_bytes: int) -> int:
    """Bytes of the sample: a power of two, or the most there may be."""
    of_all = 1 << (total_bytes.bit_length() - 1)
    return min(max(of_all // _SAMPLED_PART, min(of_all, _MIN_SAMPLE_BYTES)), most_bytes)


def _is_for_training(batch: pa.RecordBatch) -> pa.BooleanArray:
    """True for each row that is kept for training; a missing decision is an error, never a yes."""
    decisions = batch.column("decision")
    if not pc.all(pc.is_in(decisions, pa.array(["keep", "drop"])), min_count=0).as_py():
        raise SchemaError(
            f"got decisions {decisions.unique().to_pylist()}, wanted keep or drop for each document: run dedup on "
            "them again."
        )
    return pc.and_(pc.equal(decisions, "keep"), pc.equal(batch.column("split"), "train"))


def _first_seen(candidates: pa.Table, budget: int) -> list[dict[str, Any]]:
    """The first candidates that fill the budget; the last of them may overflow it."""
    order = candidates.sort_by([(name, "ascending") for name in ("time", "doc_id", "row")])
    filled = np.cumsum(order.column("num_bytes").to_numpy())
    rows: list[dict[str, Any]] = order.slice(0, int(np.searchsorted(filled, budget)) + 1).to_pylist()
    return rows


def _sample(
    candidates: Sequence[Mapping[str, Any]], budget: int, config: SampleConfig, aids: Aids
) -> Iterator[pa.RecordBatch]:
    kinds = None if config.redact is None else frozenset(config.redact)
    left = budget
    rows: list[dict[str, Any]] = []
    before = {
        made_of: text for batch in aids.last_batches() for made_of, text in _columns(batch) if made_of is not None
    }
    names = [_made_of(candidate, kinds) for candidate in candidates]
    missing = [each["row"] for each, name in zip(candidates, names, strict=True) if name not in before]
    texts = _texts(missing, aids)
    for candidate, name in zip(candidates, names, strict=True):
        text = before[name] if name in before else trained_text(texts[candidate["row"]], kinds, candidate)
        is_cut = candidate["num_bytes"] > left
        if is_cut:
            text = text.encode()[:left].decode(errors="ignore")
        left -= candidate["num_bytes"]
        rows.append({"doc_id": candidate["doc_id"], "made_of": None if is_cut else name, "text": text})
    for start in range(0, len(rows), _BATCH_NUM_ROWS):
        yield pa.RecordBatch.from_pylist(rows[start : start + _BATCH_NUM_ROWS], schema=SAMPLE)


def _columns(batch: pa.RecordBatch) -> Iterator[tuple[bytes | None, str]]:
    return zip(batch.column("made_of").to_pylist(), batch.column("text").to_pylist(), strict=True)


def _made_of(candidate: Mapping[str, Any], kinds: frozenset[str] | None) -> bytes:
    """Digest of all that shapes a sampled text before it is cut to the budget."""
    shapes = [candidate["exact_digest"].hex(), *(candidate[name] for name in _READ if name in candidate)]
    return bytes.fromhex(digest_value([sorted(kinds) if kinds is not None else None, *shapes]))[:16]


def _texts(rows: Sequence[int], aids: Aids) -> dict[int, str]:
    """The texts of documents by their row; each shard that has one is read once."""
    starts = np.cumsum([0, *(shard.num_rows for shard in aids.aside)])
    wanted = np.sort(np.array(rows, np.int64))
    texts: dict[int, str] = {}
    for unit, shard in enumerate(aids.aside):
        here = wanted[np.searchsorted(wanted, starts[unit]) : np.searchsorted(wanted, starts[unit + 1])]
        if not len(here):
            continue
        start = int(starts[unit])
        for batch in aids.read(shard, ("text",)):
            part = here[np.searchsorted(here, start) : np.searchsorted(here, start + batch.num_rows)]
            found = batch.column("text").take(pa.array(part - start)).to_pylist()
            texts |= zip(part.tolist(), found, strict=True)
            start += batch.num_rows
    return texts


SAMPLE_STAGE = Stage(
    name="sample",
    version=5,
    kind=Kind.GLOBAL,
    inputs=(
        select(SIGNALS, "doc_id", "fetched_at", "num_bytes", "exact_digest", *READ_OF_SIGNALS),
        select(OUTCOME, "doc_id", "decision", "split", *READ_OF_OUTCOME),
    ),
    output=SAMPLE,
    transform=sample_documents,
    libraries=("llvmlite", "numba", "numpy", "phonenumbers", "tldextract"),
    uses_aids=True,
)
