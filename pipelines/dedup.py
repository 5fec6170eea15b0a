"""Which documents stay: duplicates, near-duplicates, superseded and withdrawn versions, and the split of each.

The verdicts depend on the set of rows alone: documents are judged in the order (fetched_at, doc_id), and
the first seen stays. A near-duplicate must agree with a document that *stays*, so likeness is never chained
(A like B, B like C) and a later document changes no earlier verdict; only a newer version of the same
URL, or its withdrawal, does. Candidates share a MinHash band (Leskovec et al., "Mining of Massive Datasets", chapter 3) and
are verified on the whole signature.

Memory holds narrow columns only, no text: about 600 bytes a document, 448 of them its signature.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import ConfigError, SchemaError
from pipelines.schemas import DECISION, MINHASH_NUM_PERMUTATIONS, OUTCOME, SIGNALS, select
from pipelines.stage import Kind, Stage
from pipelines.tallies import tally_decisions

Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Signatures = npt.NDArray[np.uint32]
Buckets = npt.NDArray[np.int32]

WITHDRAWN, SUPERSEDED = "withdrawn", "superseded"
DUPLICATE_EXACT, DUPLICATE_NEAR = "duplicate_exact", "duplicate_near"

WITHDRAWING_REASONS = (
    # the crawler's, of a page that it had archived before
    "robots_disallowed",
    "reserved",
    # not found, gone, unavailable for legal reasons (RFC 9110, RFC 7725)
    "http_404",
    "http_410",
    "http_451",
    # the policy's rules of the group compliance
    "rights_disallow",
    "rights_unknown",
    "rights_ai_agents",
    "license_not_allowed",
    "adult_density",
    "abuse_density",
    "block_listed",
    "license_class_not_allowed",
    "keyword_density",
    "spam_density",
)
"""Reasons of a drop that reach back to the older versions of the page."""

_NONE = -1
_FAILED_FETCH = r"^(http_(408|429|5\d\d)|warc_\w+|text_corrupt|bad_encoding|bad_http|bad_row)$"
"""Reasons that say nothing about the page as it is now."""
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: 2**64 divided by the golden ratio


@dataclass(frozen=True, kw_only=True, slots=True)
class DedupConfig:
    """What counts as a duplicate, and how much of what stays is held out."""

    exact: bool = True
    """Drop a document whose normalised text equals that of one that stays."""
    near: bool = True
    """Drop a document whose signature is like that of one that stays."""
    superseded: bool = True
    """Drop a version of a URL when a later fetch of it brought another text."""
    withdrawn: bool = True
    """Drop the versions of a URL that were fetched before it was withdrawn: an opt-out, a 404, a compliance rule. Holds
    whatever `superseded` says; to be off only where compliance is."""
    min_similarity: float = 0.8
    """Least share of equal minima between near-duplicates, 0 to 1; an unbiased estimate of the Jaccard similarity.
    On 890 page pairs of two kernel documentations, duplicates from a true 0.8 on: precision 0.98, recall 0.995
    (0.75: 0.966, 0.999)."""
    num_bands: int = 14
    """Bands of the signature; two documents are compared if any band is equal. 14 x 8 finds 0.92 of the pairs of
    similarity 0.8, 0.99 at 0.85 (1 - (1 - s**8)**14)."""
    rows_per_band: int = 8
    """Minima in a band."""
    validation_ratio: float = 0.05
    """Expected share of documents held out for validation, 0 (none) to below 1."""
    split_seed: int = 0
    """Another seed is another split."""

    def __post_init__(self) -> None:
        if not 0 < self.min_similarity <= 1:
            raise ConfigError(
                f"got min_similarity {self.min_similarity}, wanted a share above 0 and up to 1: 0.8 is well tried."
            )
        if self.num_bands < 1 or self.rows_per_band < 1:
            raise ConfigError(
                f"got {self.num_bands} bands of {self.rows_per_band} rows, wanted at least one of each: "
                "14 and 8 are well tried."
            )
        if self.num_bands * self.rows_per_band > MINHASH_NUM_PERMUTATIONS:
            raise ConfigError(
                f"got {self.num_bands} bands of {self.rows_per_band} rows, wanted a product of at most "
                f"{MINHASH_NUM_PERMUTATIONS}: lower one of them."
            )
        if not 0 <= self.validation_ratio < 1:
            raise ConfigError(
                f"got validation_ratio {self.validation_ratio}, wanted a share from 0 to below 1: 0.05 is usual."
            )


@dataclass(frozen=True, slots=True)
class _Corpus:
    """The columns of every row, side by side."""

    doc_ids: pa.Array
    fetched_at: Indices  # microseconds since the epoch; 0 where unknown
    url: Indices  # a number for each distinct URL; _NONE where unknown
    text: Indices  # a number for each distinct text; _NONE where there is none
    digests: pa.Array
    signatures: Signatures  # (rows, 112)
    has_signature: Flags
    reasons: pa.Array
    kept: Flags  # by the policy
    batch_lengths: list[int]


@dataclass(frozen=True, slots=True)
class _Likeness:
    """Which texts are like which, whether or not the config drops a document for it.

    A text is a number, first seen first, so the smaller of two is the earlier.
    """

    first_row: Indices  # (texts,) the row that brought it first
    text_of_row: Indices  # (rows,) _NONE for a row that is out already
    buckets: Buckets  # (texts, bands)
    leader: Indices  # (texts,) the text that represents it; itself if it is like no earlier leader
    similarity: npt.NDArray[np.float32]  # (texts,) to the leader


def resolve(batches: Iterable[pa.RecordBatch], config: DedupConfig) -> Iterator[pa.RecordBatch]:
    """SIGNALS + DECISION -> OUTCOME, one row for each row, in order and in the same batches.

    Raises SchemaError where a row has no decision.

    - A row that the policy dropped keeps its reason.
    - `withdrawn`: a later fetch of the same URL was dropped for one of WITHDRAWING_REASONS, and none after it was kept.
      `duplicate_of` is the newest such fetch. At the same moment, the withdrawal counts as the later.
    - `superseded`: a later fetch of the same URL brought another text, or a page that the policy drops, but not a
      failure. `duplicate_of` is the newest fetch. Decided, after `withdrawn`, before the others.
    - `duplicate_exact`: the normalised text equals that of an earlier document that stays.
    - `duplicate_near`: shares a band with, and agrees in at least `min_similarity` with, an earlier document that
      stays; `duplicate_of` is the most similar of these, then the earliest. A copy of such a document is one too.

    Split: a document is in validation if the hash of its representative's doc_id is under `validation_ratio`. The
    representative is what it duplicates, also where a switch keeps the duplicates. A corpus grows without moving a
    document, but for two rules. If the hash leaves one side without a representative, the one with the smallest
    (largest) hash goes to validation (train), until the corpus has grown past the need. Where near-duplicates are
    kept, a validation document that a new one likens to training text goes to train.
    """
    corpus = _collect(batches)
    order = _first_seen_first(corpus)
    nothing = np.full(len(order), _NONE)
    withdrawing = _withdrawing(corpus, order) if config.withdrawn else nothing
    superseding = _superseding(corpus, order) if config.superseded else nothing
    newest = np.where(withdrawing == _NONE, superseding, withdrawing)
    like = _liken(corpus, order[(corpus.kept & (newest == _NONE))[order]], config)
    validation = _split(corpus, like, config)

    rows = np.flatnonzero(like.text_of_row != _NONE)
    text = like.text_of_row[rows]
    is_copy = rows != like.first_row[text]
    near = config.near & (like.leader[text] != text)
    exact = config.exact & is_copy & ~near
    near |= config.near & is_copy & ~exact & corpus.has_signature[rows]

    reason = np.where(newest == _NONE, "", np.where(withdrawing == _NONE, SUPERSEDED, WITHDRAWN)).astype("<U16")
    duplicate_of, similarity = newest.copy(), np.full(len(order), np.nan, np.float32)
    for found, name, representative, value in (
        (exact, DUPLICATE_EXACT, like.first_row[text], np.ones(len(rows), np.float32)),
        (near, DUPLICATE_NEAR, like.first_row[like.leader[text]], like.similarity[text]),
    ):
        reason[rows[found]] = name
        duplicate_of[rows[found]] = representative[found]
        similarity[rows[found]] = value[found]
    yield from _outcomes(corpus, reason, duplicate_of, similarity, validation)


def _collect(batches: Iterable[pa.RecordBatch]) -> _Corpus:
    columns: dict[str, list[pa.Array]] = {field.name: [pa.array([], field.type)] for field in _READ}
    signatures = []
    batch_lengths = []
    for batch in batches:
        batch_lengths.append(batch.num_rows)
        for name in columns.keys() - {"minhash"}:
            columns[name].append(batch.column(name))
        minhash = batch.column("minhash")
        has_signature = minhash.is_valid().to_numpy(zero_copy_only=False)
        dense = np.zeros((batch.num_rows, MINHASH_NUM_PERMUTATIONS), np.uint32)
        dense[has_signature] = minhash.flatten().to_numpy().reshape(-1, MINHASH_NUM_PERMUTATIONS)
        signatures.append((dense, has_signature))
    joined = {name: pa.concat_arrays(arrays) for name, arrays in columns.items()}
    _check(joined["doc_id"], joined["decision"])
    return _Corpus(
        doc_ids=joined["doc_id"],
        fetched_at=joined["fetched_at"].cast(pa.int64()).fill_null(0).to_numpy(),
        url=_numbered(joined["url"]),
        text=_numbered(joined["text_digest"]),
        digests=joined["text_digest"],
        signatures=np.concatenate(
            [np.empty((0, MINHASH_NUM_PERMUTATIONS), np.uint32), *(dense for dense, _ in signatures)]
        ),
        has_signature=np.concatenate([np.empty(0, np.bool_), *(valid for _, valid in signatures)]),
        reasons=joined["reason"],
        kept=pc.equal(joined["decision"], "keep").to_numpy(zero_copy_only=False),
        batch_lengths=batch_lengths,
    )


def _check(doc_ids: pa.Array, decisions: pa.Array) -> None:
    """A document without a decision is never kept, and never dropped silently."""
    known = pc.is_in(decisions, pa.array(["keep", "drop"]))
    if not pc.all(known, min_count=0).as_py():
        row = known.index(False).as_py()
        raise SchemaError(
            f"got decision {decisions[row].as_py()!r} for document {doc_ids[row].as_py()}, wanted keep or drop: "
            "run the policy stage on it again."
        )


def _numbered(values: pa.Array) -> Indices:
    """A number for each distinct value, `_NONE` for null."""
    return values.dictionary_encode().indices.fill_null(_NONE).to_numpy().astype(np.int64)


def _first_seen_first(corpus: _Corpus) -> Indices:
    """Rows by (fetched_at, doc_id); those that share both by their text, and as they stand where that is equal too."""
    table = pa.table(
        {
            "fetched_at": corpus.fetched_at,
            "doc_id": corpus.doc_ids,
            "digest": corpus.digests,
            "row": np.arange(len(corpus.doc_ids)),
        }
    )
    keys = [(name, "ascending") for name in table.column_names]
    return pc.sort_indices(table, sort_keys=keys).to_numpy().astype(np.int64)


def _withdrawing(corpus: _Corpus, order: Indices) -> Indices:
    """(rows,) the newest withdrawal of the URL, for a kept row that no kept one after it brings back; else `_NONE`.

    What was dropped for any other reason neither withdraws nor brings back: whether a page that is empty or too short
    may be used has not been asked.
    """
    reaches_back = pc.is_in(corpus.reasons, pa.array(WITHDRAWING_REASONS)).to_numpy(zero_copy_only=False)
    num_urls = int(corpus.url.max(initial=_NONE)) + 1
    withdrawals = order[(reaches_back & ~corpus.kept & (corpus.url != _NONE))[order]]
    newest_of = np.full(num_urls, _NONE, np.int64)
    newest_of[corpus.url[withdrawals]] = withdrawals  # assigned in order, so the last one stays
    rows = np.flatnonzero(corpus.kept & (corpus.url != _NONE))
    url = corpus.url[rows]
    kept_at = np.full(num_urls, np.iinfo(np.int64).min, np.int64)
    np.maximum.at(kept_at, url, corpus.fetched_at[rows])
    newest = newest_of[url]
    out = (newest != _NONE) & (kept_at[url] <= corpus.fetched_at[newest])
    withdrawing = np.full(len(order), _NONE, np.int64)
    withdrawing[rows[out]] = newest[out]
    return withdrawing


def _superseding(corpus: _Corpus, order: Indices) -> Indices:
    """(rows,) the newest fetch of the same URL, for a kept row that it makes old; else `_NONE`.

    A newest fetch that the policy dropped (an opt-out, a 404) makes all earlier ones old, whatever their text: what is
    withdrawn must not live on in an older copy. Only a fetch that failed says nothing about the page.
    """
    speaks = corpus.kept | ~_is_failed_fetch(corpus.reasons)
    rows = order[(speaks & (corpus.url != _NONE))[order]]
    url, text, fetched_at = corpus.url[rows], corpus.text[rows], corpus.fetched_at[rows]
    num_urls = int(url.max(initial=_NONE)) + 1
    newest_of = np.full(num_urls, _NONE, np.int64)
    newest_of[url] = rows  # assigned in order, so the last one stays
    newest = newest_of[url]
    differs = (text != corpus.text[newest]) | ~corpus.kept[newest]
    # A row with the newest text is old only if another text was fetched between the two.
    other_fetched_at = np.full(num_urls, np.iinfo(np.int64).min, np.int64)
    np.maximum.at(other_fetched_at, url[differs], fetched_at[differs])
    old = fetched_at < np.where(differs, corpus.fetched_at[newest], other_fetched_at[url])
    old &= corpus.kept[rows]
    superseding = np.full(len(order), _NONE, np.int64)
    superseding[rows[old]] = newest[old]
    return superseding


def _is_failed_fetch(reasons: pa.Array) -> Flags:
    """Whether each reason tells of a fetch or a file that failed, and not of the page."""
    failed = pc.fill_null(pc.match_substring_regex(reasons, _FAILED_FETCH), fill_value=False)
    flags: Flags = failed.to_numpy(zero_copy_only=False)
    return flags


def _liken(corpus: _Corpus, ranked: Indices, config: DedupConfig) -> _Likeness:
    """Walk the texts of the ranked rows once: the most similar earlier leader leads each, or it becomes one.

    The switches of the config do not enter, so the split does not depend on them.
    """
    text = corpus.text[ranked]
    text = np.where(text == _NONE, text.max(initial=_NONE) + 1 + np.arange(len(text)), text)
    _, first, inverse = np.unique(text, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    first_row = ranked[np.sort(first)]
    text_of_row = np.full(len(corpus.kept), _NONE, np.int64)
    text_of_row[ranked] = rank[inverse]

    buckets = _buckets(corpus, first_row, config)
    leader = np.arange(len(first_row))
    similarity = np.ones(len(first_row), np.float32)
    leaders = _BandIndex(corpus.signatures, first_row, buckets, config.min_similarity)
    for candidate in leaders.sharing(leader):
        best, value = leaders.most_similar(candidate)
        if best == _NONE:
            leaders.add(candidate)
        else:
            leader[candidate], similarity[candidate] = best, value
    return _Likeness(first_row, text_of_row, buckets, leader, similarity)


def _buckets(corpus: _Corpus, rows: Indices, config: DedupConfig) -> Buckets:
    """(texts, bands) a number for each band value that at least two of the texts share, else `_NONE`."""
    buckets = np.full((len(rows), config.num_bands), _NONE, np.int32)
    texts = np.flatnonzero(corpus.has_signature[rows])
    num_buckets = 0
    for band in range(config.num_bands):
        start = band * config.rows_per_band
        hashed = np.zeros(len(texts), np.uint64)
        for minima in corpus.signatures[rows[texts], start : start + config.rows_per_band].T:
            hashed = (hashed ^ minima) * _MIX
            hashed ^= hashed >> np.uint64(29)
        _, inverse, counts = np.unique(hashed, return_inverse=True, return_counts=True)
        shared = counts > 1
        number = np.where(shared, np.cumsum(shared) - 1 + num_buckets, _NONE)
        buckets[texts, band] = number[inverse]
        num_buckets += int(shared.sum())
    return buckets


@dataclass(frozen=True, slots=True)
class _BandIndex:
    """Texts by the buckets they lie in; answers which of those added is most like another."""

    signatures: Signatures
    first_row: Indices
    buckets: Buckets
    min_similarity: float
    members: dict[int, list[int]] = field(default_factory=dict)

    def sharing(self, texts: Indices) -> list[int]:
        """Those of the texts that share a band with any other."""
        return texts[(self.buckets[texts] != _NONE).any(axis=1)].tolist()

    def add(self, text: int) -> None:
        for number in self.buckets[text].tolist():
            if number != _NONE:
                self.members.setdefault(number, []).append(text)

    def most_similar(self, text: int) -> tuple[int, float]:
        """The most similar member that shares a band, the earliest of equals, and how similar; or `_NONE` and 0."""
        found = set[int]().union(*(self.members.get(number, ()) for number in self.buckets[text].tolist()))
        if not found:
            return _NONE, 0.0
        candidates = sorted(found)
        equal = self.signatures[self.first_row[candidates]] == self.signatures[self.first_row[text]]
        num_equal = np.count_nonzero(equal, axis=1)
        best = int(num_equal.argmax())
        similarity = int(num_equal[best]) / MINHASH_NUM_PERMUTATIONS
        return (candidates[best], similarity) if similarity >= self.min_similarity else (_NONE, 0.0)


def _split(corpus: _Corpus, like: _Likeness, config: DedupConfig) -> Flags:
    """(rows,) true in validation. A row that represents nothing and is represented by none goes by its own hash."""
    key = str(config.split_seed).encode()
    digests = (hashlib.blake2b(doc_id.encode(), digest_size=8, key=key) for doc_id in corpus.doc_ids.to_pylist())
    place = np.fromiter((int.from_bytes(digest.digest(), "little") for digest in digests), np.uint64, len(corpus.kept))
    by_hash = place < np.uint64(math.ldexp(config.validation_ratio, 64))
    leaders = np.unique(like.leader)
    if config.validation_ratio and len(leaders) > 1:
        rows = like.first_row[leaders]
        if not by_hash[rows].any():
            by_hash[rows[place[rows].argmin()]] = True
        elif by_hash[rows].all():
            by_hash[rows[place[rows].argmax()]] = False
    validation = by_hash[like.first_row[like.leader]]
    if not config.near:
        _move_leaks(corpus, like, validation, config)
    by_hash[like.text_of_row != _NONE] = validation[like.text_of_row[like.text_of_row != _NONE]]
    return by_hash


def _move_leaks(corpus: _Corpus, like: _Likeness, validation: Flags, config: DedupConfig) -> None:
    """Move each validation text that is like a training text to train, until there is none.

    Where near-duplicates stay, a text may be like two that are not like each other and lie in different splits.
    """
    train = _BandIndex(corpus.signatures, like.first_row, like.buckets, config.min_similarity)
    for text in train.sharing(np.flatnonzero(~validation)):
        train.add(text)
    moved = True
    while moved:
        moved = False
        for text in train.sharing(np.flatnonzero(validation)):
            if train.most_similar(text)[0] != _NONE:
                validation[text] = False
                train.add(text)
                moved = True


def _outcomes(
    corpus: _Corpus,
    reason: npt.NDArray[np.str_],
    duplicate_of: Indices,
    similarity: npt.NDArray[np.float32],
    validation: Flags,
) -> Iterator[pa.RecordBatch]:
    ours = reason != ""
    outcome = pa.RecordBatch.from_arrays(
        [
            corpus.doc_ids,
            pa.array(np.where(corpus.kept & ~ours, "keep", "drop"), pa.string()),
            pc.if_else(pa.array(ours), pa.array(reason, pa.string()), corpus.reasons),
            corpus.doc_ids.take(pa.array(duplicate_of, mask=duplicate_of == _NONE)),
            pa.array(similarity, mask=np.isnan(similarity)),
            pa.array(np.where(validation, "validation", "train"), pa.string()),
        ],
        schema=OUTCOME,
    )
    start = 0
    for length in corpus.batch_lengths:
        yield outcome.slice(start, length)
        start += length


_READ = (
    *select(SIGNALS, "doc_id", "url", "fetched_at", "text_digest", "minhash"),
    *select(DECISION, "decision", "reason"),
)

DEDUP = Stage(
    name="dedup",
    version=2,
    kind=Kind.GLOBAL_ALIGNED,
    inputs=(
        select(SIGNALS, "doc_id", "url", "fetched_at", "text_digest", "minhash"),
        select(DECISION, "doc_id", "decision", "reason"),
    ),
    output=OUTCOME,
    transform=resolve,
    tally=tally_decisions,
)
