"""What a build would compute, and why, without doing it.

Keys of stages whose inputs are known are exact. Stages that cost seconds (policy, dedup, sample)
are run for real in a scratch folder, so that what follows a changed threshold is exact as well.
Where pages would first have to be extracted, their effect on other shards cannot be known: the
plan counts what must be computed, and beside it the most that may have to be.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.corpus import CorpusConfig, Node, corpus_nodes, units_of
from pipelines.executor import InlineExecutor
from pipelines.materialize import ALL_UNITS, manifest_of, works_of
from pipelines.stage import Kind
from pipelines.store import Entry, Manifest, Record, Shard, Store
from pipelines.work import SourceFile, Unit, Work

_UNKNOWN = Shard("", 0, 0)
"""Stands for a shard that only a real run can know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """What a run would do for one stage."""

    name: str
    shards: int
    compute: int
    """Shards that must be computed."""
    reuse: int
    at_most: int
    """Shards that are computed if everything upstream that must be computed comes out different."""
    reasons: Mapping[str, int]
    """Why, with the number of shards."""


def plan_corpus(store: Store, recipe: str, sources: Sequence[SourceFile], config: CorpusConfig) -> list[StagePlan]:
    """Predict a build of `recipe`. Writes nothing to the store."""
    with tempfile.TemporaryDirectory(prefix="corpusmill-plan-") as folder:
        scratch = Store(Path(folder), beneath=store)
        done: dict[str, Manifest] = {}
        plans: list[StagePlan] = []
        for node in corpus_nodes(config):
            plan, manifest = _plan_node(node, recipe, sources, config, scratch, done)
            plans.append(plan)
            done[node.name] = manifest
        return _with_upper_bounds(plans)


def _plan_node(
    node: Node,
    recipe: str,
    sources: Sequence[SourceFile],
    config: CorpusConfig,
    scratch: Store,
    done: Mapping[str, Manifest],
) -> tuple[StagePlan, Manifest]:
    stage = node.stage
    units = units_of(node, sources, done)
    last = scratch.ref(recipe, node.name)
    last_entries = last.by_unit() if last is not None else {}
    config_known = all(_is_known(done[name]) for name in node.needs)
    if not config_known:
        # A new tokenizer: its bytes are not known yet, but they will not be the old ones.
        entries = tuple(Entry(unit=unit.name, key="", shard=_UNKNOWN) for unit in units)
        reasons = {f"{' and '.join(node.needs)} will be made anew": len(units)}
        return _plan(node, len(units), len(units), len(units), reasons), Manifest(stage.name, entries)
    stage_config = node.configure(config, done, scratch)
    known = [unit for unit in units if _UNKNOWN not in unit.inputs]
    unknown = [unit for unit in units if _UNKNOWN in unit.inputs]
    if stage.kind is Kind.MAP:
        return _plan_map(node, stage_config, known, unknown, last_entries, scratch)
    return _plan_global(node, stage_config, units, unknown, last_entries, scratch)


def _plan_map(
    node: Node,
    stage_config: Any,
    known: Sequence[Unit],
    unknown: Sequence[Unit],
    last: Mapping[str, Entry],
    scratch: Store,
) -> tuple[StagePlan, Manifest]:
    works = works_of(node.stage, stage_config, known)
    records, missing = _look_up(scratch, works)
    reasons: dict[str, int] = {}
    for work in missing:
        _count(reasons, _why(work, last.get(work.units[0].name), scratch))
    if unknown:
        reasons["its input will be computed"] = len(unknown)
    if node.is_cheap:
        records |= _run_in_scratch(scratch, missing)
    by_unit = manifest_of(node.stage, works, records).by_unit()
    entries = [by_unit.get(unit.name, Entry(unit=unit.name, key="", shard=_UNKNOWN)) for unit in (*known, *unknown)]
    num_compute = len(missing) + len(unknown)
    manifest = Manifest(node.name, tuple(sorted(entries, key=lambda entry: entry.unit)))
    return _plan(node, len(entries), num_compute, num_compute, reasons), manifest


def _plan_global(
    node: Node,
    stage_config: Any,
    units: Sequence[Unit],
    unknown: Sequence[Unit],
    last: Mapping[str, Entry],
    scratch: Store,
) -> tuple[StagePlan, Manifest]:
    num_shards = 1 if node.stage.kind is Kind.GLOBAL else len(units)
    names = [ALL_UNITS] if node.stage.kind is Kind.GLOBAL else [unit.name for unit in units]
    if not unknown:
        works = works_of(node.stage, stage_config, units)
        records, missing = _look_up(scratch, works)
        reasons = {_why(missing[0], next(iter(last.values()), None), scratch): 1} if missing else {}
        if missing and node.is_cheap:
            records |= _run_in_scratch(scratch, missing)
        entries = manifest_of(node.stage, works, records).entries or tuple(
            Entry(unit=name, key="", shard=_UNKNOWN) for name in names
        )
        num_compute = 1 if missing else 0
        return _plan(node, num_shards, num_compute, num_compute, reasons), Manifest(node.name, entries)
    # New pages cannot be judged before they are read. What is old is taken to stay as it was.
    new = {unit.name for unit in unknown}
    entries = tuple(
        last[name] if name in last and name not in new else Entry(unit=name, key="", shard=_UNKNOWN) for name in names
    )
    return _plan(node, num_shards, 1, 1, {"its inputs will be computed": 1}), Manifest(node.name, entries)


def _plan(node: Node, shards: int, compute: int, at_most: int, reasons: Mapping[str, int]) -> StagePlan:
    num_works = shards if node.stage.kind is Kind.MAP else min(shards, 1)
    return StagePlan(
        name=node.name,
        shards=num_works,
        compute=compute,
        reuse=num_works - compute,
        at_most=at_most,
        reasons=reasons,
    )


def _is_known(manifest: Manifest) -> bool:
    return all(entry.shard != _UNKNOWN for entry in manifest.entries)


def _look_up(store: Store, works: Sequence[Work]) -> tuple[dict[str, Record], list[Work]]:
    found = {work.key: store.find(work.stage.name, work.key) for work in works}
    records = {key: record for key, record in found.items() if record is not None}
    return records, [work for work in works if work.key not in records]


def _run_in_scratch(scratch: Store, works: Sequence[Work]) -> dict[str, Record]:
    records: dict[str, Record] = {}

    def keep(work: Work, record: Record) -> None:
        records[work.key] = record

    InlineExecutor().run(scratch, works, keep, lambda _num_rows: None)
    return records


def _why(work: Work, last: Entry | None, store: Store) -> str:
    """Which field of the key changed since the last build of this unit."""
    if last is None:
        return "new input"
    record = store.find(work.stage.name, last.key)
    if record is None:
        return "its shard is missing or damaged"
    changed = [name for name, value in work.key_fields.items() if record.key_fields.get(name) != value]
    if "config" in changed:
        details = _changed_paths(record.key_fields["config"], work.key_fields["config"])
        return f"config changed: {', '.join(details[:4])}"
    return f"{' and '.join(changed)} changed" if changed else "its shard is missing or damaged"


def _changed_paths(old: Any, new: Any, prefix: str = "") -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            path
            for name in sorted({*old, *new})
            for path in _changed_paths(old.get(name), new.get(name), f"{prefix}.{name}" if prefix else name)
        ]
    return [] if old == new else [f"{prefix} {old!r} -> {new!r}"]


def _count(reasons: dict[str, int], reason: str) -> None:
    reasons[reason] = reasons.get(reason, 0) + 1


def _with_upper_bounds(plans: Sequence[StagePlan]) -> list[StagePlan]:
    """Set `at_most` after a global stage with unknown inputs: its outcome may touch every shard downstream."""
    bounded: list[StagePlan] = []
    is_open = False
    for plan in plans:
        bounded.append(replace(plan, at_most=plan.shards) if is_open else plan)
        is_open = is_open or "its inputs will be computed" in plan.reasons
    return bounded
