"""From a training's journal to its MLflow run: in batches, as often as it takes.

The journal is the truth and the tracker a reader of it. What a run has of it is noted in `shipped.json` after each
answer; what is sent again because an answer was lost carries the same times and steps, and MLflow takes it once.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flows.tracker.execution import NOTE
from llm.journal import ENDED, JOURNAL, OPENED, STEP, Entry, journal_id, number, read
from pipelines.markdown import plain

if TYPE_CHECKING:
    from flows.tracker.tracking import Measured, TrackedRun

_SHIPPED = "shipped.json"
_HEADING = "**Events of the training**"
_MAX_NOTED = 50
"""Events in the description of a run; all are in the artifact."""
_MAX_URLS = 3
"""Of an event there; likewise."""

_NAMES = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "tokens_per_second": "train/tokens_per_second",
    "mfu": "train/mfu",
    "val_loss": "validation/loss",
}
_UNEVENTFUL = frozenset({OPENED, STEP, ENDED, "started", "checkpoint_written"})
_COUNTED_FROM_THE_START = ("step_skipped", "rolled_back")
"""Kinds whose count is 0 in a run that had none, so that runs can be compared by it."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a run has a journal: the byte, and how many events of each kind stand before it."""

    offset: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    def after(self, entry: Entry) -> "Position":
        """The position behind an entry."""
        if entry.kind in _UNEVENTFUL:
            return replace(self, offset=entry.end)
        return Position(entry.end, {**self.counts, entry.kind: self.counts.get(entry.kind, 0) + 1})


def measured(entry: Entry, position: Position) -> "list[Measured]":
    """The metrics of one entry; `position` is the one behind it."""
    from flows.tracker.tracking import Measured

    if entry.kind == OPENED:
        return [Measured(f"events/{kind}", 0.0, entry.at_ms, 0) for kind in _COUNTED_FROM_THE_START]
    step = entry.facts.get("step", 0)
    if entry.kind in position.counts:
        return [Measured(f"events/{entry.kind}", float(position.counts[entry.kind]), entry.at_ms, step)]
    if entry.kind != STEP:
        return []
    figures = {metric: number(entry.facts.get(name)) for name, metric in _NAMES.items()}
    figures |= {f"train/seconds/{name}": number(value) for name, value in (entry.facts.get("seconds") or {}).items()}
    return [Measured(name, value, entry.at_ms, step) for name, value in figures.items() if value is not None]


def ship(run: "TrackedRun", folder: Path, *, answered: Callable[[], None] = lambda: None) -> None:
    """Send what a run lacks of a folder's journal, noting how far it has it after each answer.

    The journal is synced first, so that a run never holds what a power cut takes from the journal.
    """
    from flows.tracker.tracking import MAX_METRICS_A_BATCH

    path = folder / JOURNAL
    position = _read_position(folder, run.run_id)
    if not path.exists() or path.stat().st_size <= position.offset:
        return
    _sync(path)
    batch: list[Measured] = []
    reached = position
    for entry in read(path, position.offset):
        position = position.after(entry)
        metrics = measured(entry, position)
        if len(batch) + len(metrics) > MAX_METRICS_A_BATCH:
            run.send(batch)
            _write_position(folder, run.run_id, reached)
            answered()
            batch = []
        batch += metrics
        reached = position
    run.send(batch)
    _write_position(folder, run.run_id, reached)
    answered()


def named_documents(folder: Path) -> list[str]:
    """The doc_ids that the events of a folder's journal name, such as those of a step whose loss rose."""
    naming = read(folder / JOURNAL, holding=b'"doc_ids"')
    return sorted({doc_id for entry in naming for doc_id in _doc_ids(entry)})


def describe(run: "TrackedRun", folder: Path, urls: Mapping[str, str] = MappingProxyType({})) -> None:
    """Let a run tell what happened: in its description, and each event with its facts as an artifact, `events.jsonl`.

    An event that names documents gets those of `urls`, by doc_id, that are theirs: where they come from.
    """
    path = folder / JOURNAL
    told = [entry for entry in read(path) if entry.kind not in (OPENED, STEP)]
    if not told:
        return
    with TemporaryDirectory() as temporary:
        events = Path(temporary) / "events.jsonl"
        with events.open("w", encoding="utf-8") as file:
            for entry in told:
                line: dict[str, Any] = {"at_ms": entry.at_ms, "kind": entry.kind, **entry.facts}
                if doc_ids := _doc_ids(entry):
                    line["urls"] = {doc_id: urls[doc_id] for doc_id in doc_ids if doc_id in urls}
                file.write(json.dumps(line, ensure_ascii=False))
                file.write("\n")
        run.log_files(events)
    noted = [entry for entry in told if entry.kind not in _UNEVENTFUL]
    if not noted or not run.tag(NOTE, _HEADING).startswith(_HEADING):
        return  # nothing to tell, or a person wrote there
    lines = [
        f"- step {each.facts['step']:,}, {each.kind}: {each.facts['message']}{_pages(each, urls)}"
        for each in noted[-_MAX_NOTED:]
    ]
    if len(noted) > len(lines):
        lines.insert(0, f"- and {len(noted) - len(lines):,} before them, see events.jsonl")
    run.set_tags({NOTE: "\n".join([_HEADING, "", *lines])})


def _doc_ids(entry: Entry) -> list[str]:
    return list((entry.facts.get("facts") or {}).get("doc_ids", ()))


def _pages(entry: Entry, urls: Mapping[str, str]) -> str:
    """A sentence on the pages of an event, in Markdown; empty where it names none that is known."""
    found = list(dict.fromkeys(urls[doc_id] for doc_id in _doc_ids(entry) if doc_id in urls))
    if not found:
        return ""
    others = f" and {len(found) - _MAX_URLS:,} others" if len(found) > _MAX_URLS else ""
    return f" Pages: {', '.join(plain(url) for url in found[:_MAX_URLS])}{others}."


def _read_position(folder: Path, run_id: str) -> Position:
    """How far a run has the journal as it is; from the start where that is not known."""
    try:
        known = json.loads((folder / _SHIPPED).read_bytes())
        position = Position(int(known["offset"]), dict(known["counts"]))
        is_this = known["run_id"] == run_id and known["journal"] == journal_id(folder / JOURNAL)
        is_whole = position.offset <= (folder / JOURNAL).stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return Position()
    return position if is_this and is_whole else Position()


def _write_position(folder: Path, run_id: str, position: Position) -> None:
    known: dict[str, Any] = {
        "run_id": run_id,
        "journal": journal_id(folder / JOURNAL),
        "offset": position.offset,
        "counts": dict(position.counts),
    }
    temporary = folder / f".{_SHIPPED}"
    temporary.write_text(json.dumps(known), encoding="utf-8")
    temporary.replace(folder / _SHIPPED)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
