"""What a build would compute, and why, without doing it.

Keys of stages whose inputs are known are exact. Stages that cost seconds (policy, dedup, sample,
tokenizer) are run for real in a scratch folder, so that what follows a changed threshold is exact as
well. Where pages would first have to be extracted and measured, what follows cannot be known: the
plan counts what must be computed, and beside it the most that may have to be. A stage that comes out
as it was leaves everything below it as it was, so the two can lie far apart.
"""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.corpus import CorpusConfig, Node, corpus_nodes, units_of
from pipelines.executor import InlineExecutor
from pipelines.materialize import LastBuild, Piece, derive_works, look_up, manifest_of, pieces_of, works_of_pieces
from pipelines.stage import Kind
from pipelines.store import Entry, Manifest, Record, Shard, Store
from pipelines.work import SourceFile, Work

_NEW = Shard("new", 0, 0)
"""Stands for a shard that only a real run can know, and that no build has made."""
_OPEN = Shard("open", 0, 0)
"""Stands for a shard that only a real run can know, and that may come out as the last build left it."""


_MAX_SHOWN = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """What a run would do for one stage."""

    name: str
    shards: int
    compute: int
    """Shards that must be computed. A file that the last build did not have is taken to hold new pages."""
    reuse: int
    at_most: int
    """Shards that are computed if everything upstream that must be computed comes out different."""
    reasons: Mapping[str, int]
    """Why, with the number of shards; `at_most` in all."""


def plan_corpus(store: Store, recipe: str, sources: Sequence[SourceFile], config: CorpusConfig) -> list[StagePlan]:
    """Predict a build of `recipe`. Writes nothing to the store."""
    with tempfile.TemporaryDirectory(prefix="corpusmill-plan-") as folder:
        scratch = Store(Path(folder), beneath=store)
        done: dict[str, Manifest] = {}
        plans: list[StagePlan] = []
        for node in corpus_nodes(config):
            plan, done[node.name] = _plan_node(node, recipe, sources, config, scratch, done)
            plans.append(plan)
        return plans


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
    manifest = scratch.ref(recipe, node.name)
    last = manifest.by_unit() if manifest is not None else {}
    awaited = [name for name in node.needs if not all(_is_known(entry.shard) for entry in done[name].entries)]
    stage_config = None if awaited else node.configure(config, done, scratch)
    pieces = pieces_of(stage, units)
    known: list[Piece] = []
    reasons: Counter[str] = Counter()
    num_new = 0
    for piece in pieces:
        inputs = [item for unit in piece.units for item in unit.inputs]
        if not awaited and all(_is_known(item) for item in inputs):
            known.append(piece)
        elif _NEW in inputs:
            num_new += 1
            reasons["its input will be computed"] += 1
        else:
            reasons[f"the {awaited[0]} may change" if awaited else "its input may change"] += 1
    works = works_of_pieces(stage, stage_config, known) if known else []
    records, missing = look_up(scratch, works)
    num_rewritten = 0
    if manifest is not None:
        derivation = derive_works(scratch, missing, LastBuild(manifest, ()))
        records, missing = {**records, **derivation.records}, list(derivation.missing)
        num_rewritten = derivation.num_rewritten
    num_open = reasons.total()
    reasons.update(_why(work, _last_made(work, last), scratch) for work in missing)
    if num_rewritten:
        reasons["something in it is taken down"] += num_rewritten
    num_compute = num_new + len(missing) + num_rewritten
    plan = StagePlan(
        name=node.name,
        shards=len(pieces),
        compute=num_compute,
        reuse=len(pieces) - num_compute,
        at_most=num_open + len(missing) + num_rewritten,
        reasons=dict(reasons),
    )
    records |= _foreseen(node, missing, last, scratch)
    entries = manifest_of(stage, works, records).by_unit()
    names = [name for piece in pieces for name in piece.names]
    for name in names:
        entries.setdefault(name, Entry(unit=name, key="", shard=_OPEN if name in last else _NEW))
    return plan, Manifest(node.name, tuple(entries[name] for name in names))


def _is_known(item: Shard | SourceFile) -> bool:
    return item not in (_NEW, _OPEN)


def _foreseen(node: Node, missing: Sequence[Work], last: Mapping[str, Entry], scratch: Store) -> dict[str, Record]:
    """What will be made of missing works, where that can be known: by running what is cheap, or by what was made before."""
    records: dict[str, Record] = {}

    def keep(work: Work, record: Record) -> None:
        records[work.key] = record

    if node.is_cheap:
        InlineExecutor().run(scratch, missing, keep, lambda _num_rows: None)
    for work in missing:
        record = records.get(work.key) or _made_before(work, last, scratch)
        if record is not None:
            records[work.key] = record
    return records


def _made_before(work: Work, last: Mapping[str, Entry], scratch: Store) -> Record | None:
    """What the same work left, of which something is now damaged or gone: it will be the same again."""
    record = scratch.recorded(work.stage.name, work.key)
    entries = [last.get(name) for name in work.names]
    known = [entry for entry in entries if entry is not None and entry.key == work.key]
    if record is not None or not known or len(known) < len(entries):
        return record
    return Record(
        stage=work.stage.name,
        key=work.key,
        key_fields=work.key_fields,
        shards=tuple(entry.shard for entry in known),
        counts=tuple(entry.counts for entry in known),
    )


def _last_made(work: Work, last: Mapping[str, Entry]) -> Entry | None:
    if work.stage.kind in (Kind.MAP, Kind.GROUPED):
        return last.get(work.names[0])
    return next(iter(last.values()), None)  # the shards of a global stage were made together


def _why(work: Work, last: Entry | None, scratch: Store) -> str:
    """Which field of the key changed since the last build of this unit."""
    if last is None:
        return "new input"
    record = scratch.recorded(work.stage.name, last.key)
    if record is None or last.key == work.key:
        return "its shard is missing or damaged"
    changed = [name for name, value in work.key_fields.items() if record.key_fields.get(name) != value]
    if "config" in changed:
        details = _changed_paths(record.key_fields["config"], work.key_fields["config"])
        return f"config changed: {', '.join(details[:4])}"
    return f"{' and '.join(changed)} changed"


def _changed_paths(old: Any, new: Any, prefix: str = "") -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            path
            for name in sorted({*old, *new})
            for path in _changed_paths(old.get(name), new.get(name), f"{prefix}.{name}" if prefix else name)
        ]
    return [] if old == new else [f"{prefix} {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."
