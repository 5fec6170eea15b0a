"""The rows of a corpus in the order in which they were first seen, and which of them a later fetch of their URL takes out."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import SchemaError
from pipelines.schemas import DECISION, SIGNALS, select

Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

NONE = -1
WITHDRAWN, SUPERSEDED = "withdrawn", "superseded"

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

_FAILED_FETCH = r"^(http_(408|429|5\d\d)|warc_\w+|text_corrupt|bad_encoding|bad_http|bad_row)$"
"""Reasons that say nothing about the page as it is now."""

OF_SIGNALS = select(SIGNALS, "doc_id", "url", "fetched_at", "num_chars", "text_digest", "exact_digest")
OF_DECISION = select(DECISION, "doc_id", "decision", "reason")
_READ = {field.name: field for field in (*OF_SIGNALS, *OF_DECISION)}


@dataclass(frozen=True, slots=True)
class Rows:
    """The columns of every row, side by side: about 150 bytes a row beside its URL, and no text."""

    doc_ids: pa.Array
    fetched_at: Indices  # microseconds since the epoch; 0 where unknown
    num_chars: Indices  # of the text
    url: Indices  # a number for each distinct URL; NONE where unknown
    text: Indices  # a number for each distinct text; NONE where there is none
    digests: pa.Array  # of normalised texts
    exact: pa.Array  # of texts as they are
    urls: pa.Array
    reasons: pa.Array
    kept: Flags  # by the policy
    batch_lengths: list[int]

    def names(self) -> list[str]:
        """What each page is called: its URL, or its `doc_id` where it has none."""
        names: list[str] = pc.coalesce(self.urls, self.doc_ids).to_pylist()
        return names

    def __len__(self) -> int:
        return len(self.doc_ids)


@dataclass(frozen=True, slots=True)
class Texts:
    """The distinct texts of rows. A text is a number, first seen first, so the smaller of two is the earlier."""

    first_row: Indices  # (texts,) the row that brought it first
    of_row: Indices  # (rows,) NONE for a row that is out already


def collect(batches: Iterable[pa.RecordBatch]) -> Rows:
    """Read the columns of SIGNALS and DECISION that order rows. Raises SchemaError where a row has no decision."""
    types = {name: _joined_type(field.type) for name, field in _READ.items()}
    columns: dict[str, list[pa.Array]] = {name: [pa.array([], kind)] for name, kind in types.items()}
    batch_lengths = []
    for batch in batches:
        batch_lengths.append(batch.num_rows)
        for name, arrays in columns.items():
            arrays.append(batch.column(name).cast(types[name]))
    joined = {name: pa.concat_arrays(arrays) for name, arrays in columns.items()}
    _check(joined["doc_id"], joined["decision"])
    return Rows(
        doc_ids=joined["doc_id"],
        fetched_at=joined["fetched_at"].cast(pa.int64()).fill_null(0).to_numpy(),
        num_chars=joined["num_chars"].to_numpy(),
        url=_numbered(joined["url"]),
        text=_numbered(joined["text_digest"]),
        digests=joined["text_digest"],
        exact=joined["exact_digest"],
        urls=joined["url"],
        reasons=joined["reason"],
        kept=pc.equal(joined["decision"], "keep").to_numpy(zero_copy_only=False),
        batch_lengths=batch_lengths,
    )


def _joined_type(kind: pa.DataType) -> pa.DataType:
    """Of a column of all rows: the offsets of a plain string column end at 2 GiB, which the URLs of 30 million rows have."""
    return pa.large_string() if pa.types.is_string(kind) else kind


def first_seen_first(rows: Rows) -> Indices:
    """Rows by (fetched_at, doc_id); those that share both by their text, and as they stand where that is equal too."""
    table = pa.table(
        {
            "fetched_at": rows.fetched_at,
            "doc_id": rows.doc_ids,
            "digest": rows.digests,
            "row": np.arange(len(rows)),
        }
    )
    keys = [(name, "ascending") for name in table.column_names]
    return pc.sort_indices(table, sort_keys=keys).to_numpy().astype(np.int64)


def withdrawing(rows: Rows, order: Indices) -> Indices:
    """(rows,) the newest withdrawal of the URL, for a kept row that no kept one after it brings back; else NONE.

    What was dropped for any other reason neither withdraws nor brings back: whether a page that is empty or too short
    may be used has not been asked.
    """
    reaches_back = pc.is_in(rows.reasons, pa.array(WITHDRAWING_REASONS, rows.reasons.type)).to_numpy(
        zero_copy_only=False
    )
    num_urls = int(rows.url.max(initial=NONE)) + 1
    withdrawals = order[(reaches_back & ~rows.kept & (rows.url != NONE))[order]]
    newest_of = np.full(num_urls, NONE, np.int64)
    newest_of[rows.url[withdrawals]] = withdrawals  # assigned in order, so the last one stays
    candidates = np.flatnonzero(rows.kept & (rows.url != NONE))
    url = rows.url[candidates]
    kept_at = np.full(num_urls, np.iinfo(np.int64).min, np.int64)
    np.maximum.at(kept_at, url, rows.fetched_at[candidates])
    newest = newest_of[url]
    out = (newest != NONE) & (kept_at[url] <= rows.fetched_at[newest])
    found = np.full(len(order), NONE, np.int64)
    found[candidates[out]] = newest[out]
    return found


def superseding(rows: Rows, order: Indices) -> Indices:
    """(rows,) the newest fetch of the same URL, for a kept row that it makes old; else NONE.

    A newest fetch that the policy dropped (an opt-out, a 404) makes all earlier ones old, whatever their text: what is
    withdrawn must not live on in an older copy. Only a fetch that failed says nothing about the page.
    """
    speaks = rows.kept | ~_is_failed_fetch(rows.reasons)
    candidates = order[(speaks & (rows.url != NONE))[order]]
    url, text, fetched_at = rows.url[candidates], rows.text[candidates], rows.fetched_at[candidates]
    num_urls = int(url.max(initial=NONE)) + 1
    newest_of = np.full(num_urls, NONE, np.int64)
    newest_of[url] = candidates  # assigned in order, so the last one stays
    newest = newest_of[url]
    differs = (text != rows.text[newest]) | ~rows.kept[newest]
    # A row with the newest text is old only if another text was fetched between the two.
    other_fetched_at = np.full(num_urls, np.iinfo(np.int64).min, np.int64)
    np.maximum.at(other_fetched_at, url[differs], fetched_at[differs])
    old = fetched_at < np.where(differs, rows.fetched_at[newest], other_fetched_at[url])
    old &= rows.kept[candidates]
    found = np.full(len(order), NONE, np.int64)
    found[candidates[old]] = newest[old]
    return found


def distinct_texts(rows: Rows, order: Indices, out: Flags) -> Texts:
    """The texts of the rows that the policy kept and that are not `out`. A row without a digest is a text of its own."""
    ranked = order[(rows.kept & ~out)[order]]
    text = rows.text[ranked]
    text = np.where(text == NONE, text.max(initial=NONE) + 1 + np.arange(len(text)), text)
    _, first, inverse = np.unique(text, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    of_row = np.full(len(rows), NONE, np.int64)
    of_row[ranked] = rank[inverse]
    return Texts(ranked[np.sort(first)], of_row)


def _check(doc_ids: pa.Array, decisions: pa.Array) -> None:
    """A document without a decision is never kept, and never dropped silently."""
    known = pc.is_in(decisions, pa.array(["keep", "drop"], decisions.type))
    if not pc.all(known, min_count=0).as_py():
        row = known.index(False).as_py()
        raise SchemaError(
            f"got decision {decisions[row].as_py()!r} for document {doc_ids[row].as_py()}, wanted keep or drop: "
            "run the policy stage on it again."
        )


def _numbered(values: pa.Array) -> Indices:
    """A number for each distinct value, NONE for null."""
    return values.dictionary_encode().indices.fill_null(NONE).to_numpy().astype(np.int64)


def _is_failed_fetch(reasons: pa.Array) -> Flags:
    """Whether each reason tells of a fetch or a file that failed, and not of the page."""
    failed = pc.fill_null(pc.match_substring_regex(reasons, _FAILED_FETCH), fill_value=False)
    flags: Flags = failed.to_numpy(zero_copy_only=False)
    return flags
