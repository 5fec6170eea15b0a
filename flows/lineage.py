"""Lineage both ways: what each training saw of a page, and which pages stood in a step's batch or at a token's place.

A training's own token shards are asked, which a later build may not have any more; what it saw of them follows from its
seed and sizes (`llm.schedule`).
"""

import json
import logging
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows.jobs import known_trainings
from flows.recipe import Recipe
from flows.sources import collect, known_crawls
from flows.workspace import Workspace
from llm.config import TrainConfig
from llm.order import Segment
from llm.schedule import Schedule
from pipelines.errors import InputError
from pipelines.lineage import Sighting, Stretch, members, over, pages, places, representatives, stream
from pipelines.store import Manifest, Store
from pipelines.work import SourceFile

_logger = logging.getLogger(__name__)

TRAIN = "train"
_MAX_MEMBERS = 100
"""Shown of a cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training and the stream that it reads."""

    model: str
    """Name of its folder."""
    recipe: str
    is_finished: bool
    schedule: Schedule
    stretches: tuple[Stretch, ...]

    @property
    def num_missing(self) -> int:
        """Shards that are gone."""
        return sum(not stretch.is_there for stretch in self.stretches)


def open_training(place: Workspace, store: Store, facts: Mapping[str, Any]) -> Training:
    """A training that `known_trainings` lists. Raises InputError where what it did cannot be told any more."""
    folder = place.root / "models" / facts["folder"]
    state = _newest_state(folder)
    stretches = tuple(stream(store, facts["token_shards"], TRAIN, facts["num_train_tokens"]))
    block_size = state["model_config"]["block_size"]
    config = TrainConfig(**state["train_config"])
    schedule = Schedule(
        num_tokens=stretches[-1].end if stretches else 0,
        block_size=block_size,
        plan=tuple(Segment(**segment) for segment in state["progress"]["plan"]),
        seed=config.seed,
        num_steps=state["step"],
    )
    return Training(
        model=facts["folder"],
        recipe=facts["recipe"],
        is_finished=facts["is_finished"],
        schedule=schedule,
        stretches=stretches,
    )


def _newest_state(folder: Path) -> dict[str, Any]:
    for path in sorted(folder.glob("step-*/state.json"), reverse=True):
        try:
            state: dict[str, Any] = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if {"step", "model_config", "train_config"} <= state.keys():
            return state
    raise InputError(f"got no checkpoint in {folder}, wanted one: train again to have this model's lineage.")


# From a page


def add_lineage(
    story: dict[str, Any],
    place: Workspace,
    store: Store,
    done: Mapping[str, Manifest],
    sources: Mapping[str, SourceFile],
) -> None:
    """Add to what `explain` tells of a document: its file and how to read its record, its cluster, who saw it and when."""
    source = sources.get(story["unit"])
    story["source_file"] = source.path if source is not None else None
    story["record"] = _record(source, story["document"]["record_offset"])
    heads = representatives(store, done["dedup"])
    cluster = heads.get(story["doc_id"], story["doc_id"])
    rows = members(store, done, cluster, heads)
    story["cluster"] = {"doc_id": cluster, "size": len(rows), "members": rows[:_MAX_MEMBERS]}
    story["trainings"] = [
        found
        for facts in known_trainings(place)
        if (found := _seen_of(place, store, facts, story["doc_id"])) is not None
    ]
    story["models"] = [found["model"] for found in story["trainings"] if found.get("num_visits")]


def trainings_with(place: Workspace, store: Store, doc_id: str) -> list[dict[str, Any]]:
    """The trainings whose data held a document, which no build may have any more, with what they saw of it."""
    found = (_seen_of(place, store, facts, doc_id) for facts in known_trainings(place))
    return [each for each in found if each is not None and each.get("spans")]


def _seen_of(place: Workspace, store: Store, facts: Mapping[str, Any], doc_id: str) -> dict[str, Any] | None:
    """What a training saw of a document; None where its data did not hold it."""
    try:
        training = open_training(place, store, facts)
    except InputError as error:
        return {"model": facts["folder"], "problem": str(error)}
    steps: set[int] = set()
    num_visits = 0
    spans: list[dict[str, Any]] = []
    for stretch in training.stretches:
        if not stretch.is_there:
            continue
        table = places(store, stretch.digest, {TRAIN: stretch.start})
        for row in table.filter(
            pc.and_(pc.equal(table["doc_id"], doc_id), pc.equal(table["split"], TRAIN))
        ).to_pylist():
            start, end = row["stream_start"], row["stream_end"]
            steps.update(training.schedule.steps(start, end).tolist())
            num_visits += int(training.schedule.sightings(np.array([start]), np.array([end])).num_visits[0])
            spans.append(
                {"shard": stretch.digest, **{name: row[name] for name in ("token_row", "stream_start", "stream_end")}}
            )
    if not spans and not training.num_missing:
        return None
    found: dict[str, Any] = {
        "model": training.model,
        "recipe": training.recipe,
        "is_finished": training.is_finished,
        "num_steps": training.schedule.num_steps,
        "spans": spans,
        "first_step": min(steps, default=None),
        "last_step": max(steps, default=None),
        "num_visits": num_visits,
        "steps": sorted(steps),
    }
    if training.num_missing:
        gone = f"{training.num_missing} of its {len(training.stretches)} token shards are gone"
        found["problem"] = f"{gone}: what it saw there cannot be told"
    return found


def _record(source: SourceFile | None, offset: int | None) -> dict[str, Any] | None:
    """Where the record of a page is, and a command that shows it."""
    if source is None or offset is None:
        return None
    if source.kind != "warc":
        return {"row": offset, "command": None}
    unpack = {".gz": "gzip -dc", ".zst": "zstd -dc", ".lz4": "lz4 -dc"}.get(Path(source.path).suffix.lower(), "cat")
    return {"offset": offset, "command": f"tail -c +{offset + 1} {shlex.quote(source.path)} | {unpack} | head -n 40"}


def source_files(recipe: Recipe, place: Workspace) -> dict[str, SourceFile]:
    """The source files that are there now, by unit; none where they are gone, since what was built from them is not."""
    try:
        found = collect(recipe, place, known_crawls(recipe, place)[0], may_fetch=False).files
    except InputError:
        return {}
    return {item.unit: item for item in found}


# For the table


def everything_seen(place: Workspace, store: Store) -> dict[str, dict[str, Sighting]]:
    """What each training saw of every document, by model and doc_id; a training that nothing can be told of is left out."""
    seen: dict[str, dict[str, Sighting]] = {}
    for facts in known_trainings(place):
        try:
            training = open_training(place, store, facts)
        except InputError as error:
            _logger.warning("model %s is left out: %s", facts["folder"], error)
            continue
        if training.num_missing:
            _logger.warning("%d token shards of model %s are gone", training.num_missing, training.model)
        found = seen.setdefault(training.model, {})
        for stretch in training.stretches:
            if stretch.is_there:
                _add_sightings(found, places(store, stretch.digest, {TRAIN: stretch.start}), training.schedule)
    return seen


def _add_sightings(found: dict[str, Sighting], table: pa.Table, schedule: Schedule) -> None:
    table = table.filter(pc.equal(table["split"], TRAIN))
    seen = schedule.sightings(*(table[name].to_numpy() for name in ("stream_start", "stream_end")))
    figures = zip(seen.first_steps.tolist(), seen.last_steps.tolist(), seen.num_visits.tolist(), strict=True)
    for doc_id, (first, last, visits) in zip(table["doc_id"].to_pylist(), figures, strict=True):
        if visits:
            before = found.get(doc_id, (first, last, 0))  # without dedup a page may have two rows
            found[doc_id] = (min(first, before[0]), max(last, before[1]), visits + before[2])


# To the pages


@dataclass(frozen=True, slots=True, kw_only=True)
class _Range:
    """Tokens that are asked for: of a stream, from `start` to before `end`."""

    start: int
    end: int
    sequence: int | None = None
    """Which window of a step's batch it is."""


def trace_step(training: Training, step: int, store: Store) -> list[dict[str, Any]]:
    """The pages in the batch of a step, most tokens first, by doc_id; and what of it lay in shards that are gone.

    Raises InputError for a step that was not done.
    """
    schedule = training.schedule
    if not 1 <= step <= schedule.num_steps:
        raise InputError(
            f"got step {step}, wanted one of the {schedule.num_steps:,} that model {training.model} did: count from 1."
        )
    size = schedule.block_size
    ranges = [
        _Range(start=window * size, end=(window + 1) * size + 1, sequence=idx)
        for idx, window in enumerate(schedule.windows(step).tolist())
    ]
    return _holders(store, training.stretches, TRAIN, ranges)


def trace_offset(store: Store, stretches: Sequence[Stretch], split: str, offset: int) -> list[dict[str, Any]]:
    """The page whose token stands at an offset of a stream. Raises InputError beyond its end, or where its shard is gone."""
    num_tokens = stretches[-1].end if stretches else 0
    if not num_tokens:
        raise InputError(
            f"got the split {split!r}, which has no tokens, wanted train, validation or test: name another."
        )
    if not 0 <= offset < num_tokens:
        raise InputError(f"got offset {offset}, wanted 0 to {num_tokens - 1:,}: the tokens of the split {split!r}.")
    found = _holders(store, stretches, split, [_Range(start=offset, end=offset + 1)])
    if found[0]["doc_id"] is None:
        places(store, found[0]["token_shard"])  # raises: it is gone
    return found


def trace_shard(store: Store, digest: str, offset: int) -> list[dict[str, Any]]:
    """The page whose token stands at an offset of a token shard. Raises InputError beyond its end, or where it is gone."""
    table = places(store, digest)
    num_tokens = pc.sum(table["num_tokens"]).as_py() or 0
    if not 0 <= offset < num_tokens:
        raise InputError(f"got offset {offset}, wanted 0 to {num_tokens - 1:,}: the tokens of shard {digest[:16]}.")
    (row,) = over(table, offset, offset + 1, "token").to_pylist()
    start = offset - row["token_start"]
    return [_holder(digest, row, [{"sequence": None, "start": start, "end": start + 1}])]


def _holders(store: Store, stretches: Sequence[Stretch], split: str, ranges: Sequence[_Range]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for stretch in stretches:
        here = [each for each in ranges if each.start < stretch.end and each.end > stretch.start]
        if here and stretch.is_there:
            found += _in_shard(store, stretch, split, here)
        elif here:
            parts = [
                {"sequence": each.sequence, "start": max(each.start, stretch.start), "end": min(each.end, stretch.end)}
                for each in here
            ]
            found.append(_holder(stretch.digest, {"doc_id": None, "split": split}, parts))
    return sorted(found, key=lambda item: -item["num_tokens"])


def add_pages(
    holders: list[dict[str, Any]], store: Store, done: Mapping[str, Manifest], sources: Mapping[str, SourceFile]
) -> None:
    """Add to each document that was traced where it comes from, as far as a build still has it."""
    doc_ids = sorted({holder["doc_id"] for holder in holders if holder["doc_id"] is not None})
    found = pages(store, done, doc_ids) if {"extract", "dedup"} <= done.keys() else {}
    for holder in holders:
        page = found.get(holder["doc_id"], {})
        source = sources.get(page.get("unit", ""))
        holder |= {
            name: page.get(name) for name in ("url", "fetched_at", "unit", "record_offset", "decision", "reason")
        }
        holder["source_file"] = source.path if source is not None else None


def full_digest(digests: Iterable[str], beginning: str) -> str:
    """The shard that is meant by the beginning of its digest. Raises InputError where that is none, or several."""
    found = {digest for digest in digests if beginning and digest.startswith(beginning)}
    if len(found) != 1:
        raise InputError(
            f"got shard {beginning!r}, the beginning of {len(found)} digests of token shards, wanted that of one: see "
            "`corpusmill explain` or the manifest of tokenize."
        )
    return found.pop()


def _in_shard(store: Store, stretch: Stretch, split: str, ranges: Sequence[_Range]) -> Iterator[dict[str, Any]]:
    table = places(store, stretch.digest, {split: stretch.start})
    table = table.filter(pc.equal(table["split"], split))
    starts, ends = (table[name].to_numpy() for name in ("stream_start", "stream_end"))
    parts: dict[int, list[dict[str, Any]]] = {}
    for each in ranges:
        first, last = np.searchsorted(ends, each.start, side="right"), np.searchsorted(starts, each.end, side="left")
        for idx in range(int(first), int(last)):
            start, end = max(each.start, int(starts[idx])), min(each.end, int(ends[idx]))
            begin = int(starts[idx])
            parts.setdefault(idx, []).append({"sequence": each.sequence, "start": start - begin, "end": end - begin})
    for idx, found in parts.items():
        yield _holder(stretch.digest, table.slice(idx, 1).to_pylist()[0], found)


def _holder(digest: str, row: Mapping[str, Any], parts: list[dict[str, Any]]) -> dict[str, Any]:
    """A document and which of its tokens are meant; of a shard that is gone, no document, and places in the stream."""
    return {
        "doc_id": row["doc_id"],
        "split": row["split"],
        "token_shard": digest,
        "token_row": row.get("token_row"),
        "token_start": row.get("token_start"),
        "stream_start": row.get("stream_start"),
        "num_tokens": sum(part["end"] - part["start"] for part in parts),
        "ranges": parts,
    }
