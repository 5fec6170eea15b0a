"""Searching what a build left for documents that were taken down: a proof is that nothing was found, and where was looked."""

import html
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.digest import digest_bytes
from pipelines.store import Manifest, Shard, Store
from pipelines.takedown.documents import Flags, Takedown, urls_test
from pipelines.takedown.quotes import Quote, holds_any

_NAMING = ("doc_id", "url", "duplicate_of")
"""Columns that name a document."""
_WORDING = ("text", "title")
"""Columns that quote one, where they hold text."""
_DIGESTS = ("text_digest", "exact_digest", "text", "other")
"""Columns that know one by the digest of its text, where they hold that, or its first eight bytes."""
_END_OF_URL = rb"(?![\w/?=%#~+-]|\.\w|&(?!quot;|lt;|gt;|#))"
_TAG = re.compile(r"<[^<>]*>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What must not be found."""

    doc_ids: frozenset[str]
    urls: frozenset[str]
    """As they were spelled in the documents that were taken out, where all versions of a URL were."""
    text_digests: frozenset[bytes] = frozenset()
    """Of the texts that were taken out. One that another document has too, which stays, is none to be found."""
    takedown: Takedown
    """All that is taken down: any spelling of a URL, any quotation."""

    def names(self) -> list[str]:
        """Document ids and URLs."""
        return sorted(self.doc_ids | self.urls)


@dataclass(slots=True, kw_only=True)
class Searched:
    """What was read, and what was found."""

    num_shards: int = 0
    num_rows: int = 0
    num_bytes: int = 0
    num_unnamed_shards: int = 0
    """Of the shards, those without a column that names or quotes documents: vocabularies, models, indexes of suites."""
    num_files: int = 0
    hits: list[dict[str, Any]] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "shards": self.num_shards,
            "shards_without_names": self.num_unnamed_shards,
            "rows": self.num_rows,
            "files": self.num_files,
            "bytes": self.num_bytes,
            "hits": len(self.hits),
        }


def search_shards(store: Store, done: Mapping[str, Manifest], wanted: Wanted, searched: Searched) -> None:
    """Read and verify every shard of a build, and add to `searched` each row that names or quotes what is wanted.

    Raises IntegrityError for a damaged shard.
    """
    columns = _Columns(
        names=pa.array(wanted.names(), pa.string()),
        are_named=urls_test(wanted.takedown),
        digests=sorted(wanted.text_digests - _held_by_others(store, done.get("signals"), wanted.text_digests)),
        quotes=wanted.takedown.quotes,
    )
    seen: set[str] = set()
    for stage, manifest in done.items():
        for entry in manifest.entries:
            if entry.shard.digest not in seen:
                seen.add(entry.shard.digest)
                for row, column in _hits(store, entry.shard, columns, searched):
                    searched.hits.append({"stage": stage, "shard": entry.shard.digest, "row": row, "column": column})


def search_files(paths: Iterable[Path], wanted: Wanted, searched: Searched) -> None:
    """Likewise every file."""
    for path in paths:
        data = path.read_bytes()
        searched.num_files += 1
        searched.num_bytes += len(data)
        if holds(data, wanted):
            searched.hits.append({"file": str(path)})


def holds(data: bytes, wanted: Wanted) -> bool:
    """Whether a file's bytes name or quote what is wanted, plain or as HTML."""
    if any(doc_id.encode() in data for doc_id in wanted.doc_ids):
        return True
    urls = [url for url in wanted.urls if "://" in url]  # a row's "url" can be any text, that stands anywhere by chance
    if any(_url_in(form.encode("utf-8", "surrogatepass"), data) for url in urls for form in {url, html.escape(url)}):
        return True
    if not wanted.takedown.quotes:
        return False
    text = data.decode("utf-8", "replace")
    return holds_any(html.unescape(_TAG.sub("", text)), wanted.takedown.quotes)


def _url_in(url: bytes, data: bytes) -> bool:
    """Whether a URL stands in a file, and not only as the beginning of a longer one."""
    return url in data and re.search(re.escape(url) + _END_OF_URL, data) is not None


def file_digest(path: Path) -> str | None:
    """Digest of a file; None where there is none that can be read."""
    try:
        return digest_bytes(path.read_bytes())
    except OSError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """What is looked for in the columns of a shard."""

    names: pa.Array
    are_named: Callable[[pa.Array], Flags]
    digests: Sequence[bytes]
    quotes: Sequence[Quote]

    def test_of(self, field: pa.Field) -> Callable[[pa.Array], Flags] | None:
        """What tells which rows of a column name or quote a document; None where it does neither."""
        is_text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        if field.name == "url":
            return self._urls
        if field.name in _NAMING:
            return lambda column: _is_in(column, self.names)
        if field.name in _WORDING and is_text and self.quotes:
            return self._quotes
        if field.name in _DIGESTS and self.digests and not is_text:
            of_text = (
                self.digests if pa.types.is_fixed_size_binary(field.type) else [text_ref(each) for each in self.digests]
            )
            return lambda column: _is_in(column, pa.array(of_text, field.type))
        return None

    def _urls(self, column: pa.Array) -> Flags:
        return self.are_named(column) | _is_in(column, self.names)

    def _quotes(self, column: pa.Array) -> Flags:
        texts = column.to_pylist()
        return np.fromiter((bool(text) and holds_any(text, self.quotes) for text in texts), np.bool_, len(texts))


def text_ref(text_digest: bytes) -> int:
    """What the index of near-duplicates knows a text by."""
    return int.from_bytes(text_digest[:8], sys.byteorder)


def _held_by_others(store: Store, signals: Manifest | None, digests: frozenset[bytes]) -> set[bytes]:
    """Which texts a document has that is still there."""
    wanted = pa.array(sorted(digests), pa.binary(16))
    found: set[bytes] = set()
    for entry in signals.entries if signals is not None and digests else ():
        for batch in store.read(entry.shard, ("text_digest", "exact_digest")):
            for column in batch.columns:
                found.update(column.filter(pc.is_in(column, wanted)).to_pylist())
    return found


def _is_in(column: pa.Array, values: pa.Array) -> Flags:
    found: Flags = pc.is_in(column, values).to_numpy(zero_copy_only=False)
    return found


def _hits(store: Store, shard: Shard, wanted: _Columns, searched: Searched) -> Sequence[tuple[int, str]]:
    tests: dict[str, Callable[[pa.Array], Flags]] = {}

    def choose(schema: pa.Schema) -> list[str]:
        tests.update({field.name: test for field in schema if (test := wanted.test_of(field)) is not None})
        return list(tests)

    hits: list[tuple[int, str]] = []
    first = 0
    for batch in store.read_chosen(shard, choose):
        for column, test in tests.items():
            hits += [(first + row, column) for row in test(batch.column(column)).nonzero()[0].tolist()]
        first += batch.num_rows
    searched.num_shards += 1
    searched.num_bytes += shard.num_bytes
    searched.num_unnamed_shards += not tests
    searched.num_rows += first
    return hits
