"""From a training's journal to its MLflow run: in batches, beside the training, as often as it takes.

The journal is the truth and the tracker a reader of it. What a run has of it is noted in `shipped.json` after each
answer; what is sent again because an answer was lost carries the same times and steps, and MLflow takes it once.
A tracker that is down, slow or refusing costs the training nothing: a thread of its own waits for it.
"""

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from flows.system_metrics import sampler
from llm.journal import ENDED, JOURNAL, OPENED, STEP, Entry, journal_id, number, read
from pipelines.markdown import plain

if TYPE_CHECKING:
    from flows.tracking import Measured, TrackedRun

_SHIPPED = "shipped.json"
_PASS_SECONDS = 5.0
"""Between two looks at the journal."""
_SAMPLE_SECONDS = 10.0
"""Between two looks at how busy the machine is; a machine that the tracker does not hear of in time is not made up for."""
_MAX_WAIT_SECONDS = 20.0
"""Between two tries of a tracker that does not answer; the first waits as long as a look."""
_TURN_SECONDS = 1e-4
"""How long the thread may keep Python's lock while a training waits for it."""
_SILENCE_SECONDS = 10.0
"""Without an answer, at the end of a training, and it is left to a later run."""
_END_SECONDS = 30.0
"""For all that is left at the end of a training."""
_HURRIED_SECONDS = 4.0
"""Likewise, where the training was asked to stop: whoever asked ends it by force some time later."""
_NOTE = "mlflow.note.content"
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
    from flows.tracking import Measured

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
    from flows.tracking import MAX_METRICS_A_BATCH

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


UrlsOf = Callable[[Sequence[str]], Mapping[str, str]]
"""doc_ids -> the URLs of those that are known."""


def describe(run: "TrackedRun", folder: Path, urls_of: UrlsOf = lambda _doc_ids: {}) -> None:
    """Let a run tell what happened: in its description, and each event with its facts as an artifact, `events.jsonl`.

    An event that names documents, such as those of a step whose loss rose, gets `urls`: where they come from, by doc_id.
    """
    path = folder / JOURNAL
    told = [entry for entry in read(path) if entry.kind not in (OPENED, STEP)]
    if not told:
        return
    named = sorted({doc_id for entry in told for doc_id in _doc_ids(entry)})
    urls = urls_of(named) if named else {}
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
    if not noted or not run.tag(_NOTE, _HEADING).startswith(_HEADING):
        return  # nothing to tell, or a person wrote there
    lines = [
        f"- step {each.facts['step']:,}, {each.kind}: {each.facts['message']}{_pages(each, urls)}"
        for each in noted[-_MAX_NOTED:]
    ]
    if len(noted) > len(lines):
        lines.insert(0, f"- and {len(noted) - len(lines):,} before them, see events.jsonl")
    run.set_tags({_NOTE: "\n".join([_HEADING, "", *lines])})


def _doc_ids(entry: Entry) -> list[str]:
    return list((entry.facts.get("facts") or {}).get("doc_ids", ()))


def _pages(entry: Entry, urls: Mapping[str, str]) -> str:
    """A sentence on the pages of an event, in Markdown; empty where it names none that is known."""
    found = list(dict.fromkeys(urls[doc_id] for doc_id in _doc_ids(entry) if doc_id in urls))
    if not found:
        return ""
    others = f" and {len(found) - _MAX_URLS:,} others" if len(found) > _MAX_URLS else ""
    return f" Pages: {', '.join(plain(url) for url in found[:_MAX_URLS])}{others}."


class Shipper:
    """A thread that opens a run as soon as the tracker answers, and ships the journal to it until the end."""

    def __init__(self, folder: Path, open_run: "Callable[[], TrackedRun]", *, is_server: bool) -> None:
        self._folder = folder
        self._is_server = is_server
        self._open_run = open_run
        self._finish: Callable[[TrackedRun], None] | None = None
        self._ending = threading.Event()
        self._abandoned = threading.Event()
        self._answered_at = time.monotonic()
        self._problem: str | None = None
        self._is_done = False
        # A second's import on the thread would hold up steps, and so would its turns: each operator of a step gives Python's
        # lock away and waits for it again, up to 5 ms a time, while the thread puts a batch together.
        import flows.tracking  # noqa: F401

        self._usual_turn_seconds = sys.getswitchinterval()
        sys.setswitchinterval(_TURN_SECONDS)
        self._thread = threading.Thread(target=self._work, name="shipping", daemon=True)
        self._thread.start()

    def end(self, finish: "Callable[[TrackedRun], None]", *, is_hurried: bool = False) -> str | None:
        """Ship what is left and finish the run. None when that is done, or what kept it from being done.

        A server that gives no answer for 10 s is given up, and any after 30 s in all; a file is never waited for in vain.
        Whoever was asked to stop is hurried: 4 s in all.
        """
        silence, in_all = (_HURRIED_SECONDS, _HURRIED_SECONDS) if is_hurried else (_SILENCE_SECONDS, _END_SECONDS)
        sys.setswitchinterval(self._usual_turn_seconds)
        self._finish = finish
        began = self._answered_at = time.monotonic()
        self._ending.set()
        while self._thread.is_alive():
            if not self._is_server:
                self._thread.join()
                break
            now = time.monotonic()
            left = min(self._answered_at + silence, began + in_all) - now
            if left <= 0:
                self._abandoned.set()
                return self._problem or f"no answer in {now - began:.0f} s"
            self._thread.join(left)
        return None if self._is_done else self._problem or "no answer"

    def _work(self) -> None:
        run: TrackedRun | None = None
        wait = _PASS_SECONDS
        is_last = False
        sample: Callable[[], Sequence[Measured]] | None = None
        sampled_at = -math.inf
        while not is_last:
            is_last = self._ending.is_set()  # what is asked for while we are at it gets a try of its own
            try:
                if run is None:
                    run = self._open_run()
                    self._answered()
                ship(run, self._folder, answered=self._answered)
                if is_last and self._finish is not None:
                    self._finish(run)
                    self._is_done = True
                elif time.monotonic() - sampled_at >= _SAMPLE_SECONDS:
                    sample = sample or sampler(run.started_at_ms)
                    run.send(sample())
                    sampled_at = time.monotonic()
                wait = _PASS_SECONDS
                self._problem = None
            except _AbandonedError:
                return
            except Exception as error:  # noqa: BLE001 - whatever a tracker does, the training goes on
                self._problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                wait = min(2 * wait, _MAX_WAIT_SECONDS)
            if not is_last:
                self._ending.wait(wait)

    def _answered(self) -> None:
        self._answered_at = time.monotonic()
        if self._abandoned.is_set():
            raise _AbandonedError


class _AbandonedError(Exception):
    """Nobody waits any more: a later run ships the rest."""


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
