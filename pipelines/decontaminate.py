"""The stages that look for evaluation suites in documents: `suites` makes an index of them, `contamination` asks it.

Stages of their own, because they depend on the text and the suites alone: another suite costs a search of the texts
(about 1,500 documents/s of CPU time), and no other signal is measured again. Without suites there is neither.

Must not: drop. The policy's rule `contaminated` does.
"""

import functools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contamination import (
    ContaminationIndex,
    build_index,
    document_frequencies,
    find,
    index_batch,
    load_index,
    without_common,
)
from pipelines.digest import digest_file
from pipelines.errors import InputError
from pipelines.schemas import CONTAMINATION, DOCUMENT, SUITE_INDEX, select
from pipelines.stage import Kind, Resource, Stage
from pipelines.suites import Item, Suite, read_items


@dataclass(frozen=True, kw_only=True, slots=True)
class SuitesConfig:
    """What is looked for."""

    suites: tuple[Suite, ...]
    """In the order that decides which of two items with the same text is named: that of their names."""
    innocent: tuple[Resource, ...] = ()
    """Texts whose n-grams are not looked for, because they may stand in any page: licences, notices, proverbs. A file is
    read like a suite's."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "suites", tuple(sorted(self.suites, key=lambda suite: suite.name)))


@dataclass(frozen=True, kw_only=True, slots=True)
class ContaminationConfig:
    """What documents are searched for."""

    index: Resource
    """The shard that the stage `suites` made."""


def index_suites(_batches: Iterable[pa.RecordBatch], config: SuitesConfig) -> Iterator[pa.RecordBatch]:
    """nothing -> SUITE_INDEX, one row. Reads the files that the config names.

    Raises InputError for a file that cannot be read, changed since it was named, or holds nothing to look for.
    """
    index = build_index(item for suite in config.suites for item in _items(suite))
    if config.innocent:
        texts = (text for file in config.innocent for item in read_items(Path(file.path)) for text in item.passages)
        index = without_common(index, document_frequencies(texts, index), 0)
    yield index_batch(index)


def check_suite(suite: Suite) -> None:
    """Read a suite through. Raises InputError as `index_suites` would, before anything else is done."""
    for _ in _items(suite):
        pass


def _items(suite: Suite) -> Iterator[Item]:
    path = Path(suite.file.path)
    is_findable = False
    for item in read_items(path, suite.name):
        if not is_findable:
            alone = build_index([item])
            is_findable = bool(alone.hashes.size or alone.short_hashes.size)
        yield item
    if not is_findable:
        raise InputError(
            f"got evaluation suite {path} without a text of 8 words or 12 Chinese characters, wanted what can be told "
            "from chance: name another file."
        )
    if digest_file(path) != suite.file.digest:
        raise InputError(f"got evaluation suite {path} that changed during the run, wanted one at rest: run again.")


def find_contamination(batches: Iterable[pa.RecordBatch], config: ContaminationConfig) -> Iterator[pa.RecordBatch]:
    """DOCUMENT -> CONTAMINATION, one row for each row, in order; one batch for each batch."""
    index = _loaded(config.index)
    for batch in batches:
        found = [
            [
                {
                    "suite": match.suite,
                    "item": match.item_id,
                    "num_ngrams": match.num_ngrams,
                    "share": match.share,
                    "start": match.start,
                    "end": match.end,
                }
                for match in find(text, index)
            ]
            for text in batch.column("text").to_pylist()
        ]
        columns = [batch.column("doc_id"), pa.array(found, CONTAMINATION.field("contaminated_by").type)]
        yield pa.RecordBatch.from_arrays(columns, schema=CONTAMINATION)


@functools.lru_cache(maxsize=1)  # the shards of a stage share one index
def _loaded(index: Resource) -> ContaminationIndex:
    return load_index(Path(index.path))


def tally_items(batch: pa.RecordBatch) -> dict[str, int]:
    """SUITE_INDEX -> by suite: `items`, and those that can be `findable`: what is shorter proves nothing."""
    counts: Counter[str] = Counter()
    suites, findable = batch["suites"].to_pylist(), set[int]()
    for column in ("item_idxs", "short_item_idxs"):
        findable |= set(np.unique(pc.list_flatten(batch[column]).to_numpy()).tolist())
    for row in suites:
        counts.update(f"items:{name}" for name in row)
        counts.update(f"findable:{row[idx]}" for idx in findable)
    return dict(counts)


def tally_contamination(batch: pa.RecordBatch) -> dict[str, int]:
    """CONTAMINATION -> documents that hold an item, in all and by suite."""
    counts: Counter[str] = Counter(documents=batch.num_rows)
    for found in batch["contaminated_by"].to_pylist():
        counts.update({f"suite:{each['suite']}" for each in found})
        counts["contaminated"] += bool(found)
    return dict(counts)


_PACKAGE_DATA = ("pipelines/signals/lexicons/variants",)
SUITES = Stage(
    name="suites",
    version=1,
    kind=Kind.GLOBAL,
    inputs=(),
    output=SUITE_INDEX,
    transform=index_suites,
    libraries=("llvmlite", "numba", "numpy"),
    package_data=_PACKAGE_DATA,
    tally=tally_items,
    compression=None,
)
CONTAMINATION_STAGE = Stage(
    name="contamination",
    version=1,
    inputs=(select(DOCUMENT, "doc_id", "text"),),
    output=CONTAMINATION,
    transform=find_contamination,
    row_seconds=2e-4,
    is_row_wise=True,
    libraries=("llvmlite", "numba", "numpy"),
    package_data=_PACKAGE_DATA,
    tally=tally_contamination,
)
