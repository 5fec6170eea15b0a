"""One piece of work: a stage run over one shard, or over all of them, and written to the store.

Plain and self-contained, so that the same call serves in this process, in a pool and on a cluster.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.digest import digest_file, digest_value
from pipelines.errors import InputError, IntegrityError, SchemaError
from pipelines.guard import marked
from pipelines.reuse import NotReusableError, reused_rows
from pipelines.sources import READERS
from pipelines.stage import Aids, Kind, Stage, Tally
from pipelines.store import Record, Shard, Store

OnRows = Callable[[int], None]
"""Called with the number of rows that have gone in since the last call; less than none where a piece starts over."""
Watch = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
"""Wraps the batches that go into a stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file that pages are read from. Its digest names it; its path is only where it lies now."""

    digest: str
    path: str
    kind: str
    """A key of `READERS`."""
    options: Any = None
    num_bytes: int = 0

    @property
    def reading(self) -> str:
        """Digest of how it is read: kind, options, and the ending of the name of a file of text rows.

        Rows of text and one plain text can be the same bytes; a WARC file says what it is.
        """
        name = Path(self.path).name.lower().removesuffix(".gz").removesuffix(".zst")
        return digest_value([self.kind, self.options, Path(name).suffix if self.kind == "text" else None])

    @property
    def unit(self) -> str:
        """What its shards are known by: the file's digest and how it is read."""
        return digest_value([self.digest, self.reading])


@dataclass(frozen=True, slots=True)
class Unit:
    """The inputs of one unit, aligned row by row: shards of several stages, or one source file."""

    name: str
    inputs: tuple[Shard | SourceFile, ...]
    aside: tuple[Shard, ...] = ()
    """Shards that a stage may look up and that its key does not name: see Aids."""

    @property
    def digests(self) -> list[str]:
        return [item.digest for item in self.inputs]


@dataclass(frozen=True, slots=True)
class Base:
    """What a map stage made of another version of a unit, under a key that differs in its inputs alone."""

    inputs: tuple[Shard, ...]
    output: Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Everything needed to run a stage once and to record it under its key."""

    stage: Stage
    config: Any
    units: tuple[Unit, ...]
    names: tuple[str, ...]
    """What its output shards go by in a manifest."""
    key: str
    key_fields: Mapping[str, Any] = field(default_factory=dict)
    marks: Mapping[int, str] = field(default_factory=dict)
    """Input rows that are not worked on, by their place: the problem that each is given. Found by what the same key's
    work did before, so not of the key."""
    base: Base | None = None
    """Rows that are as they were there are taken from there. Saves work and shapes nothing, so not of the key."""
    last: tuple[Shard, ...] = ()
    """What the stage left in the recipe's last build, for a stage that `uses_aids`."""
    before: Mapping[str, Shard] = field(default_factory=dict)
    """Likewise of a stage that is aligned with its inputs, by name: what comes out as it was is not written again."""

    @property
    def label(self) -> str:
        """What a person knows this work by."""
        paths = [Path(item.path).name for unit in self.units for item in unit.inputs if isinstance(item, SourceFile)]
        if not self.units:
            return self.stage.name
        return f"{self.stage.name} of {paths[0] if len(paths) == 1 else f'{len(self.units)} shards'}"


def run_work(store: Store, work: Work, on_rows: OnRows, watch: Watch = iter) -> Record:
    """Run the stage, write its shards, publish its record last."""
    stage = work.stage
    rows_out = _reused(store, work, on_rows) if work.base is not None else None
    if rows_out is None:
        rows_in = _count_rows(watch(marked(_read_all(store, work), work.marks)), on_rows)
        rows_out = _transformed(store, work, rows_in)
    shards: list[Shard] = []
    counts: list[dict[str, int]] = []
    for name, batches in zip(work.names, _outputs(rows_out, work), strict=True):
        shard, counted = write_output(store, stage, batches, work.before.get(name))
        shards.append(shard)
        counts.append(counted)
    record = Record(
        stage=stage.name, key=work.key, key_fields=work.key_fields, shards=tuple(shards), counts=tuple(counts)
    )
    store.publish(record)
    return record


def write_output(
    store: Store, stage: Stage, batches: Iterable[pa.RecordBatch], before: Shard | None = None
) -> tuple[Shard, dict[str, int]]:
    """Write one shard of a stage, and count what is in it. It may well be as the one `before`: see Store.write."""
    counted: dict[str, int] = {}
    rows = _tallied(batches, stage.tally, counted)
    shard = store.write(stage.output, rows, compression=stage.compression, before=before)
    return shard, counted


def _reused(store: Store, work: Work, on_rows: OnRows) -> Iterator[pa.RecordBatch] | None:
    """The rows, those that did not change taken from the work's base; None where that cannot be."""
    unit, base = work.units[0], work.base
    if base is None:
        return None
    places = [
        place for place, (new, old) in enumerate(zip(unit.inputs, base.inputs, strict=True)) if new.digest != old.digest
    ]
    try:
        old = align([store.read(base.inputs[place], work.stage.inputs[place].names) for place in places])
        old_output = pa.Table.from_batches(store.read(base.output), schema=work.stage.output)
        rows = reused_rows(
            _count_rows(_read_all(store, work), on_rows), old, old_output, partial(_transformed, store, work)
        )
        first = next(rows, None)
    except (NotReusableError, IntegrityError, FileNotFoundError):
        return None
    return iter(()) if first is None else chain((first,), rows)


def _transformed(store: Store, work: Work, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    if not work.stage.uses_aids:
        return work.stage.transform(batches, work.config)
    aside = tuple(shard for unit in work.units for shard in unit.aside)
    aids = Aids(read=partial(_read_shard, store), aside=aside, last=work.last)
    return work.stage.transform(batches, work.config, aids)


def _read_shard(store: Store, shard: Shard, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    return store.read(shard, columns or None)


def search_work(
    store: Store, work: Work, first_row: int, on_open: Callable[[int, str], None], on_rows: OnRows, watch: Watch
) -> None:
    """Put the rows from `first_row` on through the stage one at a time and write nothing.

    `on_open` is told the place and the name (the URL, where there is one) of each row before the stage has it.
    """

    def single(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        row = 0
        for batch in batches:
            for idx in range(max(0, first_row - row), batch.num_rows):
                one = batch.slice(idx, 1)
                url = one.column("url")[0].as_py() if "url" in one.schema.names else None
                on_open(row + idx, url or f"row {row + idx}")
                yield one
            row += batch.num_rows

    rows_in = _count_rows(watch(single(marked(_read_all(store, work), work.marks))), on_rows)
    for _ in work.stage.transform(rows_in, work.config):
        pass


def align(streams: Sequence[Iterator[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
    """Merge streams that hold the same documents in the same order into one stream with all columns.

    Batches may be cut differently. Raises SchemaError where the `doc_id`s differ: rows are matched by
    name, never trusted by position.
    """
    if len(streams) == 1:
        yield from streams[0]
        return
    heads: list[pa.RecordBatch | None] = [_next_rows(stream) for stream in streams]
    while all(head is not None for head in heads):
        batches = [head for head in heads if head is not None]
        num_rows = min(batch.num_rows for batch in batches)
        yield _merge([batch.slice(0, num_rows) for batch in batches])
        for idx, batch in enumerate(batches):
            heads[idx] = batch.slice(num_rows) if batch.num_rows > num_rows else _next_rows(streams[idx])
    if any(head is not None for head in heads):
        raise SchemaError("got inputs of unequal length, wanted one row for each document in each: run verify.")


def _merge(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    first = batches[0]
    columns = {name: first.column(name) for name in first.schema.names}
    fields = {name: first.schema.field(name) for name in first.schema.names}
    for batch in batches[1:]:
        if not batch.column("doc_id").equals(columns["doc_id"]):
            raise SchemaError("got inputs whose documents differ, wanted the same ones in the same order: run verify.")
        for name in batch.schema.names:
            columns.setdefault(name, batch.column(name))
            fields.setdefault(name, batch.schema.field(name))
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=pa.schema(list(fields.values())))


def _next_rows(stream: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    return next((batch for batch in stream if batch.num_rows), None)


def _read_all(store: Store, work: Work) -> Iterator[pa.RecordBatch]:
    for unit in work.units:
        yield from align(
            [_read(store, item, schema) for item, schema in zip(unit.inputs, work.stage.inputs, strict=True)]
        )


def _read(store: Store, item: Shard | SourceFile, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    if isinstance(item, SourceFile):
        yield from _read_source(item)
    else:
        yield from store.read(item, schema.names)


def _read_source(source: SourceFile) -> Iterator[pa.RecordBatch]:
    """Pages of a source file. Raises InputError where it cannot be read, or is not what its digest says.

    A file that is written while a run goes on would otherwise be stored under the name of what it was.
    """
    path = Path(source.path)
    try:
        yield from READERS[source.kind](path, source.options)
        digest = digest_file(path)
    except OSError as error:
        raise InputError(
            f"got {error.strerror or error} for source file {path}, wanted one that can be read: check paths."
        ) from error
    if digest != source.digest:
        raise InputError(f"got source file {path} that changed during the run, wanted one at rest: run again.")


def _count_rows(batches: Iterable[pa.RecordBatch], on_rows: OnRows) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch
        on_rows(batch.num_rows)


def _outputs(batches: Iterator[pa.RecordBatch], work: Work) -> Iterator[Iterator[pa.RecordBatch]]:
    """One stream of batches for each output shard."""
    if work.stage.kind is not Kind.GLOBAL_ALIGNED:
        yield batches
        return
    cutter = _Cutter(batches)
    for unit in work.units:
        yield cutter.take(next(item.num_rows for item in unit.inputs if isinstance(item, Shard)))
    cutter.expect_end()


class _Cutter:
    """Cuts one stream of rows into consecutive runs of given lengths."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._rest: pa.RecordBatch | None = None

    def take(self, num_rows: int) -> Iterator[pa.RecordBatch]:
        while num_rows:
            batch = self._rest if self._rest is not None else _next_rows(self._batches)
            self._rest = None
            if batch is None:
                raise SchemaError(f"got {num_rows} rows too few from a global stage, wanted one for each row: mend it.")
            if batch.num_rows > num_rows:
                batch, self._rest = batch.slice(0, num_rows), batch.slice(num_rows)
            num_rows -= batch.num_rows
            yield batch

    def expect_end(self) -> None:
        if self._rest is not None or _next_rows(self._batches) is not None:
            raise SchemaError("got more rows from a global stage than went in, wanted one for each: mend it.")


def _tallied(
    batches: Iterable[pa.RecordBatch], tally: Tally | None, counted: dict[str, int]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for name, count in tally(batch).items() if tally is not None else ():
            counted[name] = counted.get(name, 0) + count
        yield batch
