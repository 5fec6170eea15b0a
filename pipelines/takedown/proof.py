"""Searching what a build left for documents that were taken down: a proof is that nothing was found, and where was looked."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.digest import digest_bytes
from pipelines.store import Manifest, Shard, Store
from pipelines.takedown.documents import Takedown, url_test
from pipelines.takedown.quotes import holds_any

NAMING = ("doc_id", "url", "duplicate_of")
"""Columns that name a document."""
WORDING = ("text", "title")
"""Columns that quote one."""
_END_OF_URL = rb"(?![\w/?=%#~+-]|\.\w|&(?!quot;|lt;|gt;|#))"
_TAG = re.compile(r"<[^<>]*>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What must not be found."""

    doc_ids: frozenset[str]
    urls: frozenset[str]
    """As they were spelled in the documents that were taken out, where all versions of a URL were."""
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
    names = pa.array(wanted.names(), pa.string())
    is_named = url_test(wanted.takedown)
    seen: set[str] = set()
    for stage, manifest in done.items():
        for entry in manifest.entries:
            if entry.shard.digest not in seen:
                seen.add(entry.shard.digest)
                for row, column in _hits(store, entry.shard, names, wanted, is_named, searched):
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


def _hits(
    store: Store, shard: Shard, names: pa.Array, wanted: Wanted, is_named: Any, searched: Searched
) -> Sequence[tuple[int, str]]:
    columns = store.schema(shard).names
    naming = [name for name in NAMING if name in columns]
    wording = [name for name in WORDING if name in columns] if wanted.takedown.quotes else []
    searched.num_shards += 1
    searched.num_bytes += shard.num_bytes
    if not naming and not wording:
        searched.num_unnamed_shards += 1
        store.expect(shard)
        return ()
    hits: list[tuple[int, str]] = []
    first = 0
    for batch in store.read(shard, [*naming, *wording]):
        for column in naming:
            found = pc.is_in(batch.column(column), names).to_numpy(zero_copy_only=False)
            if column == "url":
                urls = batch.column("url").to_pylist()
                found = found | np.fromiter((url is not None and is_named(url) for url in urls), np.bool_, len(urls))
            hits += [(first + row, column) for row in found.nonzero()[0].tolist()]
        for column in wording:
            texts = enumerate(batch.column(column).to_pylist())
            hits += [(first + row, column) for row, text in texts if text and holds_any(text, wanted.takedown.quotes)]
        first += batch.num_rows
    searched.num_rows += first
    return hits
