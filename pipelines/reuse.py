"""Rows that did not change since the last build are taken from there; the others are worked on.

A shard is the unit of identity: its key names all of its inputs. Below that, a stage whose rows do not depend on each
other gives for equal rows equal rows, so a shard in which one outcome changed costs one row of work, and the reading.
The bytes are those of working on every row: the same values, in the same batches.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


class NotReusableError(Exception):
    """Which output row stems from which input row cannot be told: all rows must be worked on."""


def reused_rows(
    batches: Iterable[pa.RecordBatch],
    old_batches: Iterator[pa.RecordBatch],
    old_output: pa.Table,
    transform: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]],
) -> Iterator[pa.RecordBatch]:
    """What `transform` would yield for the batches.

    `old_batches` hold the columns that may differ, and `doc_id`, of the rows that `old_output` was made of. Raises
    NotReusableError, before it yields anything.
    """
    seen: list[tuple[pa.Array, Flags]] = []
    old_ids: list[pa.Array] = []

    def changed() -> Iterator[pa.RecordBatch]:
        old = _Recut(old_batches)
        for batch in batches:
            before = old.take(batch.num_rows)
            old_ids.extend(part.column("doc_id") for part in before)
            is_same = _same(batch, before)
            seen.append((batch.column("doc_id"), is_same))
            if not is_same.all():
                yield batch.filter(pa.array(~is_same))
        old_ids.extend(part.column("doc_id") for part in old.rest())

    fresh = pa.Table.from_batches(transform(changed()), schema=old_output.schema)
    no_ids = pa.array([], pa.string())
    new_ids = pa.concat_arrays([no_ids, *(ids for ids, _ in seen)])
    is_same = np.concatenate([np.empty(0, np.bool_), *(flags for _, flags in seen)])
    places = np.where(
        is_same,
        _places(new_ids, pa.concat_arrays([no_ids, *old_ids]), old_output, is_same, is_old=True),
        _places(new_ids, new_ids.filter(pa.array(~is_same)), fresh, ~is_same, is_old=False),
    )
    both = pa.concat_tables([old_output, fresh])
    places = np.where(is_same | (places < 0), places, places + old_output.num_rows)
    start = 0
    for ids, _ in seen:
        wanted = places[start : start + len(ids)]
        start += len(ids)
        wanted = wanted[wanted >= 0]
        if len(wanted):
            yield _rows(both, wanted)


def _places(new_ids: pa.Array, of_inputs: pa.Array, output: pa.Table, chosen: Flags, *, is_old: bool) -> Indices:
    """(rows,) where the output of each chosen row stands, -1 where it came to nothing."""
    places = np.full(len(new_ids), -1, np.int64)
    if output.num_rows == len(of_inputs):
        places[chosen] = np.flatnonzero(chosen) if is_old else np.arange(int(chosen.sum()))
        return places
    ids = output.column("doc_id").combine_chunks()
    if len(of_inputs.unique()) < len(of_inputs) or len(new_ids.unique()) < len(new_ids):
        raise NotReusableError
    places[chosen] = pc.index_in(new_ids.filter(pa.array(chosen)), value_set=ids).fill_null(-1).to_numpy()
    return places


def _rows(table: pa.Table, places: Indices) -> pa.RecordBatch:
    if (np.diff(places) == 1).all():
        part = table.slice(int(places[0]), len(places))
    else:
        part = table.take(pa.array(places))
    (batch,) = part.combine_chunks().to_batches()
    return batch


def _same(batch: pa.RecordBatch, before: Sequence[pa.RecordBatch]) -> Flags:
    """Which rows are equal in the columns of `before`; those beyond its end are not."""
    is_same = np.zeros(batch.num_rows, np.bool_)
    start = 0
    for part in before:
        here = batch.slice(start, part.num_rows)
        equal = np.ones(part.num_rows, np.bool_)
        for name in part.schema.names:
            equal &= _equal(here.column(name), part.column(name))
        is_same[start : start + part.num_rows] = equal
        start += part.num_rows
    return is_same


def _equal(a: pa.Array, b: pa.Array) -> Flags:
    if a.equals(b):
        return np.ones(len(a), np.bool_)
    if pa.types.is_nested(a.type):
        return np.array([x == y for x, y in zip(a.to_pylist(), b.to_pylist(), strict=True)], np.bool_)
    both_null = pc.and_(a.is_null(), b.is_null())
    equal: Flags = pc.or_(pc.fill_null(pc.equal(a, b), fill_value=False), both_null).to_numpy(zero_copy_only=False)
    return equal


class _Recut:
    """Takes runs of rows of given lengths out of a stream of batches."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._left: pa.RecordBatch | None = None

    def take(self, num_rows: int) -> list[pa.RecordBatch]:
        """The next rows; fewer where the stream ends."""
        parts = []
        while num_rows:
            batch = self._left if self._left is not None else next(self._batches, None)
            self._left = None
            if batch is None:
                break
            if batch.num_rows > num_rows:
                batch, self._left = batch.slice(0, num_rows), batch.slice(num_rows)
            num_rows -= batch.num_rows
            parts.append(batch)
        return parts

    def rest(self) -> Iterator[pa.RecordBatch]:
        """All that is left."""
        if self._left is not None:
            yield self._left
        yield from self._batches
