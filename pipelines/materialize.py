"""Whether a stage must run again, and running it where it must.

The key of a piece of work is the digest of everything that shapes its output: stage name and
version, config, the content digests of its inputs, library versions, package data and the code
fingerprint. Paths, worker counts, hosts, clocks and run ids enter no key.
"""

import functools
import importlib.metadata
import importlib.util
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.digest import canonical, digest_file, digest_value
from pipelines.errors import IntegrityError, StageError, TransientError
from pipelines.executor import Executor, InlineExecutor
from pipelines.fingerprint import code_fingerprint
from pipelines.sources import READERS
from pipelines.stage import Kind, Stage
from pipelines.store import Entry, Manifest, Record, Shard, Store
from pipelines.work import Base, SourceFile, Unit, Work, write_output

_KEY_SCHEMA = 2
"""Raised when the meaning of a key changes; old records are then never found."""
ALL_UNITS = "all"
_GROUP_NUM_UNITS = 64
_MAX_WORKS_INLINE = 4
_WORKERS_START_SECONDS = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a stage is. `num_rows` counts rows read by what was computed in this run."""

    stage: str
    num_done: int
    num_shards: int
    num_rows: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """What running a stage did."""

    manifest: Manifest
    num_computed: int
    num_reused: int
    seconds: float


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class LastBuild:
    """What the recipe's last build left of a stage, and of those that it reads. A hint: it saves work."""

    output: Manifest
    inputs: tuple[Manifest, ...]


def with_aids(store: Store, works: Sequence[Work], last: LastBuild) -> list[Work]:
    """Works of a stage that know what it made of other versions of their units, where that can be of use."""
    if not works or not _takes_aids(works[0].stage):
        return list(works)
    outputs, inputs = last.output.by_unit(), [manifest.by_unit() for manifest in last.inputs]
    entries = [next((outputs[name] for name in work.names if name in outputs), None) for work in works]
    records = store.recorded_all(works[0].stage.name, {entry.key for entry in entries if entry is not None})
    return [
        work
        if entry is None or entry.key not in records
        else _with_aid(work, entry, records[entry.key], outputs, inputs)
        for work, entry in zip(works, entries, strict=True)
    ]


def _takes_aids(stage: Stage) -> bool:
    return stage.uses_aids or stage.is_row_wise or stage.kind is Kind.GLOBAL_ALIGNED


def _with_aid(
    work: Work, entry: Entry, record: Record, outputs: Mapping[str, Entry], inputs: Sequence[Mapping[str, Entry]]
) -> Work:
    changed = {field for field, value in work.key_fields.items() if record.key_fields.get(field) != value}
    if work.stage.kind is Kind.GLOBAL_ALIGNED:
        is_ours = changed <= {"inputs", "config"}
        return replace(work, before={name: each.shard for name, each in outputs.items()}) if is_ours else work
    if work.stage.uses_aids:
        return replace(work, last=(entry.shard,)) if changed <= {"inputs", "config"} else work
    found = [by_unit.get(work.names[0]) for by_unit in inputs]
    shards = tuple(each.shard for each in found if each is not None)
    if changed != {"inputs"} or [[shard.digest for shard in shards]] != record.key_fields["inputs"]:
        return work
    return replace(work, base=Base(shards, entry.shard))


@dataclass(frozen=True, slots=True)
class Derivation:
    """Works that need not run: what they leave was made from what the last build left under another config."""

    records: Mapping[str, Record]
    """By key. They are not published yet."""
    num_rewritten: int
    """Of them, those that are another shard than before."""
    missing: Sequence[Work]


def derive_works(store: Store, works: Sequence[Work], last: LastBuild) -> Derivation:
    """Make what can be made from the last build's shards, where the stage knows how: see Stage.derive."""
    if not works or works[0].stage.derive is None:
        return Derivation({}, 0, works)
    outputs = last.output.by_unit()
    entries = [outputs.get(work.names[0]) for work in works]
    known = store.recorded_all(works[0].stage.name, {entry.key for entry in entries if entry is not None})
    records: dict[str, Record] = {}
    missing: list[Work] = []
    num_rewritten = 0
    for work, entry in zip(works, entries, strict=True):
        record = _derived(store, work, entry, known[entry.key]) if entry is not None and entry.key in known else None
        if record is None or entry is None:
            missing.append(work)
        else:
            records[work.key] = record
            num_rewritten += record.shards != (entry.shard,)
    return Derivation(records, num_rewritten, missing)


def _derived(store: Store, work: Work, entry: Entry, before: Record) -> Record | None:
    stage = work.stage
    changed = {field for field, value in work.key_fields.items() if before.key_fields.get(field) != value}
    if stage.derive is None or changed != {"config"}:
        return None
    try:
        found = stage.derive(partial(store.read, entry.shard), before.key_fields["config"], work.config)
        if found is None:
            return None
        as_it_is = entry.shard, entry.counts
        shard, counts = as_it_is if found.batches is None else write_output(store, stage, found.batches)
    except (IntegrityError, FileNotFoundError):  # the shard is gone or damaged: the work is done as if it never was
        return None
    return Record(stage=stage.name, key=work.key, key_fields=work.key_fields, shards=(shard,), counts=(dict(counts),))


@dataclass(frozen=True, slots=True)
class Piece:
    """Units that are worked on together, and the names of the shards that are made of them."""

    names: tuple[str, ...]
    units: tuple[Unit, ...]


def pieces_of(stage: Stage, units: Sequence[Unit]) -> list[Piece]:
    """How a stage's units are worked on: each by itself, in groups, or all together."""
    match stage.kind:
        case Kind.MAP:
            return [Piece((unit.name,), (unit,)) for unit in units]
        case Kind.GROUPED:
            return _groups(units)
        case Kind.GLOBAL_ALIGNED:
            return [Piece(tuple(unit.name for unit in units), tuple(units))]
        case Kind.GLOBAL:
            return [Piece((ALL_UNITS,), tuple(units))]


def _groups(units: Sequence[Unit]) -> list[Piece]:
    """Groups by the first bits of a digest of the unit's name; their number doubles, so that about 32 to 64 are in each."""
    num_bits = max(0, (len(units) - 1) // _GROUP_NUM_UNITS).bit_length()
    members: dict[str, list[Unit]] = {}
    for unit in units:
        place = int(digest_value(unit.name)[:8], 16) >> (32 - num_bits)
        members.setdefault(f"group {place} of {1 << num_bits}", []).append(unit)
    return [Piece((name,), tuple(members[name])) for name in sorted(members)]


def works_of(stage: Stage, config: Any, units: Sequence[Unit]) -> list[Work]:
    """The pieces of work of a stage."""
    return works_of_pieces(stage, config, pieces_of(stage, units))


def works_of_pieces(stage: Stage, config: Any, pieces: Sequence[Piece]) -> list[Work]:
    """Works under their keys. What all keys have in common is worked out once."""
    common = _common_fields(stage, config)
    return [_work(stage, config, piece, common, digest_value(common)) for piece in pieces]


def _common_fields(stage: Stage, config: Any) -> dict[str, Any]:
    return {
        "schema": _KEY_SCHEMA,
        "stage": stage.name,
        "version": stage.version,
        "config": canonical(config),
        "libraries": _library_versions(("pyarrow", *stage.libraries)),
        "package_data": {name: _package_data_digest(name) for name in stage.package_data},
    }


def materialize(
    store: Store,
    stage: Stage,
    config: Any,
    units: Sequence[Unit],
    executor: Executor,
    on_progress: OnProgress,
    last: LastBuild | None = None,
) -> StageResult:
    """Run what is missing of a stage and return its manifest. What the `last` build left may save work.

    Raises StageError (or TransientError, where every failure may pass) naming the shards that failed;
    the finished ones stay, and the next call goes on from there.
    """
    started = time.monotonic()
    works = works_of(stage, config, units)
    records, missing = look_up(store, works)
    num_pieces = len(records) + len(missing)
    num_rows = num_rewritten = 0
    if last is not None:
        derivation = derive_works(store, missing, last)
        for record in derivation.records.values():
            store.publish(record)
        records |= derivation.records
        num_rewritten = derivation.num_rewritten
        missing = with_aids(store, derivation.missing, last)
        if _is_quick(stage, missing, last.output.by_unit()):
            executor = InlineExecutor()

    def report() -> None:
        on_progress(
            Progress(
                stage=stage.name,
                num_done=len(records),
                num_shards=num_pieces,
                num_rows=num_rows,
                seconds=time.monotonic() - started,
            )
        )

    def on_done(work: Work, record: Record) -> None:
        records[work.key] = record
        report()

    def on_rows(num_more: int) -> None:
        nonlocal num_rows
        num_rows += num_more
        report()

    report()
    failures = executor.run(store, missing, on_done, on_rows) if missing else []
    if failures:
        shown = "; ".join(f"{failure.work.label}: {failure.message}" for failure in failures[:5])
        error = TransientError if all(failure.is_transient for failure in failures) else StageError
        raise error(
            f"{len(failures)} of {len(works)} shards of stage {stage.name!r} failed ({shown}); finished shards are kept: mend the cause and run again."
        )
    return StageResult(
        manifest=manifest_of(stage, works, records),
        num_computed=len(missing) + num_rewritten,
        num_reused=len(works) - len(missing) - num_rewritten,
        seconds=time.monotonic() - started,
    )


def _is_quick(stage: Stage, works: Sequence[Work], before: Mapping[str, Entry]) -> bool:
    """Whether works take less than the start of workers, as far as can be told."""
    if len(works) <= _MAX_WORKS_INLINE and all(work.base is not None for work in works):
        return True  # a few rows of a few shards
    if stage.row_seconds is None or stage.budget is not None:
        return False
    num_rows = 0
    for work in works:
        entry = before.get(work.names[0])
        inputs = [item.num_rows for unit in work.units for item in unit.inputs[:1] if isinstance(item, Shard)]
        num_rows += entry.shard.num_rows if entry is not None else sum(inputs)
    return num_rows * stage.row_seconds < _WORKERS_START_SECONDS


def expect_same_code(work: Work) -> None:
    """Raise StageError where this process would not make of a piece of work what its key promises.

    For workers on other hosts, where another version may be installed: what they make is stored under the key.
    """
    readers = frozenset(_reader_modules(work.units))
    here = _common_fields(work.stage, work.config) | {"code": _stage_fingerprint(work.stage, readers)}
    others = [name for name, value in here.items() if work.key_fields.get(name) != value]
    if others:
        raise StageError(
            f"got {' and '.join(others)} of stage {work.stage.name!r} on host {socket.gethostname()} that differ from those "
            "where the run was started, wanted the same: install the same version of corpusmill and its lock file there."
        )


def look_up(store: Store, works: Sequence[Work]) -> tuple[dict[str, Record], list[Work]]:
    """The records that are there, by key, and what is missing: units of equal content are one piece of work."""
    by_key: dict[str, Work] = {}
    for work in works:
        by_key.setdefault(work.key, work)
    records = store.find_all(works[0].stage.name, by_key) if works else {}
    return records, [work for key, work in by_key.items() if key not in records]


def manifest_of(stage: Stage, works: Sequence[Work], records: Mapping[str, Record]) -> Manifest:
    """The manifest of the given works; those without a record are left out."""
    entries = []
    for work in works:
        record = records.get(work.key)
        if record is None:
            continue
        entries += [
            Entry(unit=name, key=work.key, shard=shard, counts=counts)
            for name, shard, counts in zip(work.names, record.shards, record.counts, strict=True)
        ]
    return Manifest(stage.name, tuple(entries))


def _work(stage: Stage, config: Any, piece: Piece, common: Mapping[str, Any], common_digest: str) -> Work:
    own = {
        "inputs": [unit.digests for unit in piece.units],
        "reading": sorted(
            {item.reading for unit in piece.units for item in unit.inputs if isinstance(item, SourceFile)}
        ),
        "code": _stage_fingerprint(stage, frozenset(_reader_modules(piece.units))),
    }
    key = digest_value([common_digest, own])
    return Work(stage=stage, config=config, units=piece.units, names=piece.names, key=key, key_fields={**common, **own})


def _reader_modules(units: Sequence[Unit]) -> set[str]:
    return {READERS[item.kind].__module__ for unit in units for item in unit.inputs if isinstance(item, SourceFile)}


def _stage_fingerprint(stage: Stage, readers: frozenset[str]) -> str:
    return _fingerprint(frozenset({stage.transform.__module__, *readers}))


@functools.cache
def _fingerprint(modules: frozenset[str]) -> str:
    return code_fingerprint(modules)


@functools.cache
def _library_versions(names: tuple[str, ...]) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in names}


@functools.cache
def _package_data_digest(name: str) -> str:
    package, _, folder = name.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise StageError(f"got package data {name!r}, wanted a folder inside a first-party package: mend the stage.")
    root = Path(spec.origin).parent / folder
    return digest_value(
        {str(path.relative_to(root)): digest_file(path) for path in sorted(root.rglob("*")) if path.is_file()}
    )
