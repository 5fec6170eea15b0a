"""Whether a stage must run again, and running it where it must.

The key of a piece of work is the digest of everything that shapes its output: stage name and
version, config, the content digests of its inputs, library versions, package data and the code
fingerprint. Paths, worker counts, hosts, clocks and run ids enter no key.
"""

import functools
import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.digest import canonical, digest_file, digest_value
from pipelines.errors import StageError, TransientError
from pipelines.executor import Executor
from pipelines.fingerprint import code_fingerprint
from pipelines.sources import READERS
from pipelines.stage import Kind, Stage
from pipelines.store import Entry, Manifest, Record, Store
from pipelines.work import SourceFile, Unit, Work

_KEY_SCHEMA = 1
"""Raised when the meaning of a key changes; old records are then never found."""
ALL_UNITS = "all"


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


def works_of(stage: Stage, config: Any, units: Sequence[Unit]) -> list[Work]:
    """The pieces of work of a stage: one for each unit of a map stage, one in all for a global stage."""
    if stage.kind is Kind.MAP:
        return [_work(stage, config, (unit,)) for unit in units]
    return [_work(stage, config, tuple(units))]


def materialize(
    store: Store, stage: Stage, config: Any, units: Sequence[Unit], executor: Executor, on_progress: OnProgress
) -> StageResult:
    """Run what is missing of a stage and return its manifest.

    Raises StageError (or TransientError, where every failure may pass) naming the shards that failed;
    the finished ones stay, and the next call goes on from there.
    """
    started = time.monotonic()
    works = works_of(stage, config, units)
    records, missing = look_up(store, works)
    num_pieces = len(records) + len(missing)
    num_rows = 0

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
        num_computed=len(missing),
        num_reused=len(works) - len(missing),
        seconds=time.monotonic() - started,
    )


def look_up(store: Store, works: Sequence[Work]) -> tuple[dict[str, Record], list[Work]]:
    """The records that are there, by key, and what is missing: units of equal content are one piece of work."""
    records: dict[str, Record] = {}
    missing: dict[str, Work] = {}
    for work in works:
        if work.key in records or work.key in missing:
            continue
        record = store.find(work.stage.name, work.key)
        if record is None:
            missing[work.key] = work
        else:
            records[work.key] = record
    return records, list(missing.values())


def manifest_of(stage: Stage, works: Sequence[Work], records: Mapping[str, Record]) -> Manifest:
    """The manifest of the given works; those without a record are left out."""
    entries = []
    for work in works:
        record = records.get(work.key)
        if record is None:
            continue
        entries += [
            Entry(unit=name, key=work.key, shard=shard, counts=counts)
            for name, shard, counts in zip(output_names(stage, work.units), record.shards, record.counts, strict=True)
        ]
    return Manifest(stage.name, tuple(entries))


def output_names(stage: Stage, units: Sequence[Unit]) -> list[str]:
    """The names that the shards made of some units go by in a manifest."""
    return [ALL_UNITS] if stage.kind is Kind.GLOBAL else [unit.name for unit in units]


def _work(stage: Stage, config: Any, units: tuple[Unit, ...]) -> Work:
    fields = {
        "schema": _KEY_SCHEMA,
        "stage": stage.name,
        "version": stage.version,
        "config": canonical(config),
        "inputs": [unit.digests for unit in units],
        "reading": sorted({item.reading for unit in units for item in unit.inputs if isinstance(item, SourceFile)}),
        "libraries": _library_versions(("pyarrow", *stage.libraries)),
        "package_data": {name: _package_data_digest(name) for name in stage.package_data},
        "code": _stage_fingerprint(stage, frozenset(_reader_modules(units))),
    }
    return Work(stage=stage, config=config, units=units, key=digest_value(fields), key_fields=fields)


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
