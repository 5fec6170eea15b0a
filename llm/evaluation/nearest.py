"""Which training documents hold what a model wrote: the stretches of tokens that both have, word for word.

The corpus is read once, document by document, against the n-grams of what was written: hashes of these are sorted, those of
a document looked up, and each hit is compared token by token, so a collision of hashes shows nothing that is not there.
Memory holds the generations and one document, never the corpus (infini-gram, arXiv:2401.17377, keeps a suffix array of
it, 7 bytes a token; this reads it again for every report).

Must not: read text. Where a document comes from is told by a given `urls_of`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm.data import TokenDocument
from pipelines.errors import ConfigError

MIN_TOKENS = 8
"""Shorter stretches are shared by chance."""
_MAX_REPEATS = 32
"""Places of one n-gram in one generation that are compared; a model that repeats itself without end costs no more."""
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Tokens that stand in a document as in a generation."""

    doc_id: str
    num_tokens: int
    start: int
    """Of it in the generation."""
    document_start: int
    """Of it in the document: tokens from its first."""
    url: str | None = None


def nearest_documents(
    documents: Iterable[TokenDocument],
    generations: Sequence[Sequence[int]],
    *,
    min_tokens: int = MIN_TOKENS,
    num_nearest: int = 5,
    urls_of: Callable[[Sequence[str]], Mapping[str, str]] = lambda _: {},
    progress: Callable[[int], None] = lambda _: None,
) -> list[list[Stretch]]:
    """Of each generation the documents with the longest stretch of it, the longest first, at most `num_nearest`.

    Each document is named once, by its longest stretch. `documents` are such as `TokenData.documents()` gives; `progress`
    is told how many were read. An empty list: nobody shares as many as `min_tokens` tokens.
    """
    tables = _tables([(idx, min_tokens, ids) for idx, ids in enumerate(generations)])
    found: list[dict[str, Stretch]] = [{} for _ in generations]
    for number, document in enumerate(documents, 1):
        for idx, each in _stretches(document, tables):
            best = found[idx].get(each.doc_id)
            if best is None or _order(each) < _order(best):
                found[idx][each.doc_id] = each
                if len(found[idx]) > num_nearest:
                    del found[idx][max(found[idx].values(), key=_order).doc_id]
        progress(number)
    urls = urls_of(sorted({doc_id for each in found for doc_id in each}))
    return [
        [
            Stretch(
                doc_id=each.doc_id,
                num_tokens=each.num_tokens,
                start=each.start,
                document_start=each.document_start,
                url=urls.get(each.doc_id),
            )
            for each in sorted(best.values(), key=_order)
        ]
        for best in found
    ]


def documents_that_hold(
    documents: Iterable[TokenDocument],
    passages: Sequence[Sequence[int]],
    *,
    max_documents: int = 20,
    progress: Callable[[int], None] = lambda _: None,
) -> list[list[str]]:
    """Of each passage the doc_ids of documents in which it stands whole, in stream order, at most `max_documents`."""
    tables = _tables([(idx, len(ids), ids) for idx, ids in enumerate(passages) if ids])
    found: list[dict[str, None]] = [{} for _ in passages]
    for number, document in enumerate(documents, 1):
        for idx, each in _stretches(document, tables):
            if len(found[idx]) < max_documents:
                found[idx][each.doc_id] = None
        progress(number)
    return [list(each) for each in found]


@dataclass(frozen=True, slots=True)
class _Table:
    """The n-grams of sequences, sorted by hash."""

    n: int
    hashes: NDArray[np.uint64]
    owners: NDArray[np.int64]
    starts: NDArray[np.int64]
    sequences: Mapping[int, NDArray[np.int64]]


def _order(stretch: Stretch) -> tuple[int, str, int, int]:
    return (-stretch.num_tokens, stretch.doc_id, stretch.start, stretch.document_start)


def _tables(wanted: Sequence[tuple[int, int, Sequence[int]]]) -> list[_Table]:
    """Of (number, n, ids): a table for each n."""
    tables = []
    for n in sorted({n for _, n, _ in wanted}):
        if n < 1:
            raise ConfigError(f"got stretches of {n} tokens, wanted at least 1: {MIN_TOKENS} is usual.")
        sequences = {idx: np.asarray(ids, np.int64) for idx, own_n, ids in wanted if own_n == n}
        hashes = {idx: _hashes(ids, n) for idx, ids in sequences.items()}
        every = np.concatenate([*hashes.values(), np.zeros(0, np.uint64)])
        owners = np.concatenate([np.zeros(0, np.int64), *(np.full(each.size, idx) for idx, each in hashes.items())])
        starts = np.concatenate([np.zeros(0, np.int64), *(np.arange(each.size) for each in hashes.values())])
        order = np.argsort(every, kind="stable")
        order = order[_ranks(every[order], owners[order]) < _MAX_REPEATS]
        tables.append(_Table(n, every[order], owners[order], starts[order], sequences))
    return tables


def _ranks(hashes: NDArray[np.uint64], owners: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each row, how many before it are equal to it, where equal ones stand together."""
    places = np.arange(hashes.size)
    is_new = np.ones(hashes.size, np.bool_)
    is_new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    found: NDArray[np.int64] = places - np.maximum.accumulate(np.where(is_new, places, 0))
    return found


def _hashes(ids: NDArray[Any], n: int) -> NDArray[np.uint64]:
    """Of each n-gram, by its first token: a polynomial, mixed so that all bits count."""
    if ids.size < n:
        return np.zeros(0, np.uint64)
    values, found = ids.astype(np.uint64) + np.uint64(1), np.zeros(ids.size - n + 1, np.uint64)
    for place in range(n):
        found = found * _BASE + values[place : place + found.size]
    return (found ^ (found >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)


def _stretches(document: TokenDocument, tables: Sequence[_Table]) -> Iterable[tuple[int, Stretch]]:
    """(sequence, each longest stretch that it shares with the document)."""
    tokens = document.tokens
    for table in tables:
        hashes = _hashes(tokens, table.n)
        if not hashes.size or not table.hashes.size:
            continue
        first = np.searchsorted(table.hashes, hashes)
        is_hit = table.hashes[np.minimum(first, table.hashes.size - 1)] == hashes
        done: dict[tuple[int, int], int] = {}
        """(sequence, diagonal) to where the last stretch on it ends in the document."""
        for place in np.flatnonzero(is_hit).tolist():
            last = int(np.searchsorted(table.hashes, hashes[place], side="right"))
            for entry in range(int(first[place]), last):
                owner, start = int(table.owners[entry]), int(table.starts[entry])
                if done.get((owner, place - start), 0) > place:
                    continue  # within a stretch that was shown
                sequence = table.sequences[owner]
                size = min(sequence.size - start, tokens.size - place)
                differ = np.flatnonzero(sequence[start : start + size] != tokens[place : place + size])
                num_tokens = int(differ[0]) if differ.size else size
                if num_tokens >= table.n:
                    done[owner, place - start] = place + num_tokens
                    yield (
                        owner,
                        Stretch(doc_id=document.doc_id, num_tokens=num_tokens, start=start, document_start=place),
                    )
