"""What a take-down does to documents: DOCUMENT -> DOCUMENT, one row for each row, in order.

A row that is taken down keeps its place, since each page that came in has one outcome, and nothing of the page: no
search of any shard for its URL, its text or its `doc_id` finds it.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.stage import Derived, Read
from pipelines.takedown.names import digest_name, digest_names, domains_of, host_of, url_form
from pipelines.takedown.quotes import Quote, holds_any

Flags = npt.NDArray[np.bool_]

TAKEN_DOWN = "taken_down"
"""The problem of a row that was taken down, and so its reason."""
_QUOTED = ("text", "title")
"""Columns in which quotations are looked for."""
_DIGEST = np.dtype("S32")
_MAX_REMEMBERED_COLUMNS = 2048
"""Of a batch each: 1,024 rows, so 32 kB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Takedown:
    """What is taken down, as digests of names (see names.py), sorted; who asked, when and why is the ledger's."""

    urls: tuple[str, ...] = ()
    """Digests of URLs; every version of each is meant."""
    domains: tuple[str, ...] = ()
    """Digests of hosts; all below them are meant too."""
    doc_ids: tuple[str, ...] = ()
    """Digests of document ids: one version of a page each."""
    quotes: tuple[Quote, ...] = ()
    """Quotations; every document that holds one is meant."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))

    def __bool__(self) -> bool:
        """Whether anything is taken down."""
        return any(getattr(self, name) for name in self.__slots__)

    def __or__(self, other: "Takedown") -> "Takedown":
        """Both together."""
        return Takedown(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})

    def covers(self, other: "Takedown") -> bool:
        """Whether it takes down everything that the other does."""
        return all(set(getattr(other, name)) <= set(getattr(self, name)) for name in self.__slots__)

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self:
        """From its canonical JSON. Raises KeyError or TypeError for anything else."""
        quotes = tuple(Quote(item["num_chars"], item["rolling"], item["digest"]) for item in value["quotes"])
        names = {name: tuple(value[name]) for name in ("urls", "domains", "doc_ids")}
        return cls(**names, quotes=quotes)


def take_down(batch: pa.RecordBatch, takedown: Takedown) -> pa.RecordBatch:
    """DOCUMENT -> DOCUMENT: rows that are taken down become blank, `problem` says so, and `doc_id` is a one-way pseudonym."""
    rows = np.flatnonzero(matches(batch, takedown))
    if not len(rows):
        return batch
    doc_ids = batch.column("doc_id").take(pa.array(rows)).to_pylist()
    blank = pa.RecordBatch.from_pylist([_blank(doc_id) for doc_id in doc_ids], schema=batch.schema)
    places = np.arange(batch.num_rows)
    places[rows] = batch.num_rows + np.arange(len(rows))
    return pa.concat_batches([batch, blank]).take(pa.array(places))


def pseudonym(doc_id: str) -> str:
    """What a document that was taken down is called: 32 hex characters, from which its name cannot be told."""
    return hashlib.blake2b(doc_id.encode(), digest_size=16, person=b"taken down").hexdigest()


def matches(batch: pa.RecordBatch, takedown: Takedown) -> Flags:
    """(rows,) which rows are to be taken down; those that already are do not count again.

    The batch has the columns that `columns_for` names.
    """
    found = np.zeros(batch.num_rows, np.bool_)
    if not takedown or not batch.num_rows:
        return found
    if takedown.doc_ids:
        wanted = frozenset(takedown.doc_ids)
        digests = digest_names("doc_id", batch.column("doc_id").to_pylist())
        found |= np.fromiter((digest in wanted for digest in digests), np.bool_, batch.num_rows)
    if takedown.urls or takedown.domains:
        found |= urls_test(takedown)(batch.column("url"))
    if takedown.quotes:
        for name in _QUOTED:
            for row in np.flatnonzero(~found).tolist():
                text = batch.column(name)[row].as_py()
                found[row] = bool(text) and holds_any(text, takedown.quotes)
    taken = pc.fill_null(pc.equal(batch.column("problem"), TAKEN_DOWN), False)  # noqa: FBT003
    return found & ~taken.to_numpy(zero_copy_only=False)


def columns_for(takedown: Takedown) -> tuple[str, ...]:
    """The columns of DOCUMENT that say which rows are taken down."""
    return ("doc_id", "url", "problem", *(_QUOTED if takedown.quotes else ()))


def derive(read: Read, old: Takedown, new: Takedown) -> Derived | None:
    """The DOCUMENT shard under `new` from that under `old`, to the byte; None where pages must be extracted again.

    That is where something is taken down no more and the shard holds a row that might be it: what it held is gone.
    """
    columns = columns_for(new)
    is_lifted = not new.covers(old)
    has_new = False
    for batch in read(columns):
        if is_lifted and pc.any(pc.equal(batch.column("problem"), TAKEN_DOWN)).as_py():
            return None
        has_new = has_new or bool(matches(batch, new).any())
    return Derived((take_down(batch, new) for batch in read(None)) if has_new else None)


def url_test(takedown: Takedown) -> Callable[[str], bool]:
    """What tells whether a URL, or its host, is taken down."""
    urls, is_below = frozenset(takedown.urls), _host_test(takedown)

    def is_named(url: str) -> bool:
        return (bool(urls) and digest_name("url", url_form(url)) in urls) or is_below(url)

    return is_named


def urls_test(takedown: Takedown) -> Callable[[pa.Array], Flags]:
    """Likewise for a column of URLs, (rows,); a null is not taken down."""
    wanted, is_below = np.array(takedown.urls, _DIGEST), _host_test(takedown)

    def are_named(urls: pa.Array) -> Flags:
        found = np.isin(_url_digests()(urls), wanted) if len(wanted) else np.zeros(len(urls), np.bool_)
        if takedown.domains:
            named = (url is not None and is_below(url) for url in urls.to_pylist())
            found |= np.fromiter(named, np.bool_, len(urls))
        return found

    return are_named


def _host_test(takedown: Takedown) -> Callable[[str], bool]:
    """What tells whether a URL's host is taken down: for many URLs, whose hosts share the answer."""
    domains = frozenset(takedown.domains)

    @lru_cache(maxsize=4096)
    def is_below(host: str) -> bool:
        return any(digest_name("domain", domain) in domains for domain in domains_of(host))

    def is_named(url: str) -> bool:
        host = host_of(url) if domains else None
        return host is not None and is_below(host)

    return is_named


@cache
def _url_digests() -> Callable[[pa.Array], npt.NDArray[np.bytes_]]:
    """A function from a column of URLs to the digests of their forms; that of a null is empty.

    A take-down looks through the same columns four times: what they hold is traced, taken out, and searched for in documents
    and in signals. So the last columns are remembered by what is in them, 64 MB at most.
    """
    known: dict[bytes, npt.NDArray[np.bytes_]] = {}

    def digests(urls: pa.Array) -> npt.NDArray[np.bytes_]:
        content = pa.RecordBatch.from_arrays([urls], ["url"]).serialize()
        name = hashlib.blake2b(content, digest_size=_DIGEST.itemsize).digest()
        found = known.get(name)
        if found is None:
            forms = map(url_form, urls.drop_null().to_pylist())
            found = np.zeros(len(urls), _DIGEST)
            found[urls.is_valid().to_numpy(zero_copy_only=False)] = list(digest_names("url", forms))
            if len(known) >= _MAX_REMEMBERED_COLUMNS:
                known.clear()
            known[name] = found
        return found

    return digests


def _blank(doc_id: str) -> dict[str, Any]:
    """A row of DOCUMENT that keeps nothing of its page."""
    return {"doc_id": pseudonym(doc_id), "num_page_bytes": 0, "directives": [], "problem": TAKEN_DOWN, "text": ""}
