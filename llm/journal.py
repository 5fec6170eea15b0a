"""What a training reported, on disk before anything else sees it: `journal.jsonl`, a line of JSON for each report.

A line is one object: `at_ms` (UTC), `kind`, what the report says, and last the CRC-32 of what stands before it. The
first line (`opened`) names the journal; each sitting that ends of itself adds an `ended` line, so a journal whose last
line is another one was left by a process that was killed. Lines are only ever added, each in one write; a line that is
not whole is no line. The numbers that JSON lacks are the texts "nan", "inf" and "-inf".

A kill loses nothing that was written. So a loop hands on the reports up to a step before the checkpoint of that step
counts: what comes after would never be reported again.

It needs the standard library alone, so that the process that trains can write it wherever that runs.
"""

import dataclasses
import fcntl
import json
import math
import os
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast, get_args

from llm.reports import EventKind, OnReport, Report, StepReport, StepSeconds, TrainEvent
from pipelines.errors import StorageError

JOURNAL = "journal.jsonl"
OPENED, STEP, ENDED = "opened", "step", "ended"

End = Literal["finished", "failed", "stopped", "killed"]
"""`killed` is written by whoever finds that a process left no word of its own."""

_SYNC_SECONDS = 5.0
_TAIL_BYTES = 1 << 16
_CHECK = b',"crc32":"%08x"}\n'
_CHECK_BYTES = len(_CHECK % 0)
_STEP_FIELDS = tuple(field.name for field in dataclasses.fields(StepReport) if field.name != "seconds")
_SECONDS_FIELDS = tuple(field.name for field in dataclasses.fields(StepSeconds))
_FIGURES = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "mfu", "val_loss")
_SAME = ("loss", "grad_norm", "val_loss")
"""A step with these figures, bit for bit, is the same step done again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One whole line of a journal."""

    at_ms: int
    """When it was written: milliseconds of UTC since 1970."""
    kind: str
    """`opened`, `step`, `ended`, or that of a `TrainEvent`."""
    facts: Mapping[str, Any]
    """Of a step the fields of its report; of an event `step`, `message`, `facts`; of an end `how` and `message`."""
    end: int
    """The byte after it."""


class Journal:
    """A journal that is being written, by one process at a time; any of its threads may."""

    def __init__(self, folder: Path) -> None:
        """Open a folder's journal, or begin it; what a kill tore off its end is cut.

        Raises StorageError where another process writes it, or where the disk does not let us.
        """
        self.path = folder / JOURNAL
        self._size = 0
        self._last: tuple[str, str | None] = ("", None)
        self._said: dict[tuple[str, int], str] = {}
        self._lock = threading.Lock()
        with _storage_errors(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._take_up()
        except BaseException:
            os.close(self._descriptor)
            raise
        self._closing = threading.Event()
        self._syncing = threading.Thread(target=self._sync_often, name="journal-sync", daemon=True)
        self._syncing.start()

    def write(self, report: Report) -> None:
        """Add a report. A step that was done again, after a resume or a rollback, and gave the same is not added."""
        kind, facts = _told(report)
        name, said = _identity(kind, facts)
        with self._lock:
            if name is not None and self._said.get(name) == said:
                return
            self._append(kind, facts)
            if name is not None:
                self._said[name] = said

    def end(self, how: End, message: str = "") -> None:
        """Say how a sitting ended. Said again with nothing between, it is not added."""
        with self._lock:
            if self._last != (ENDED, how):
                self._append(ENDED, {"how": how, "message": message})
                self._last = (ENDED, how)

    def sync(self) -> None:
        """Return when all that was written is on the disk."""
        with _storage_errors(self.path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Sync, and let others write."""
        if not self._closing.is_set():
            self._closing.set()
            self._syncing.join()
            try:
                self.sync()
            finally:
                os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _take_up(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"got a training that another process is at ({self.path}), wanted it free: wait for that one."
            ) from None
        with _storage_errors(self.path):
            for entry in read(self.path):
                self._size = entry.end
                self._last = (entry.kind, entry.facts.get("how"))
                name, said = _identity(entry.kind, entry.facts)
                if name is not None:
                    self._said[name] = said
            os.ftruncate(self._descriptor, self._size)
        if self._size == 0:
            self._append(OPENED, {"id": uuid.uuid4().hex})

    def _append(self, kind: str, facts: Mapping[str, Any]) -> None:
        rest = line = _line({"at_ms": time.time_ns() // 1_000_000, "kind": kind, **facts})
        with _storage_errors(self.path):
            try:
                while rest:  # a full disk takes a part, and says so at the next
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:
                os.ftruncate(self._descriptor, self._size)
                raise
        self._size += len(line)
        self._last = (kind, None)

    def _sync_often(self) -> None:
        synced = -1
        while not self._closing.wait(_SYNC_SECONDS):
            if self._size != synced:
                synced = self._size
                with suppress(OSError):  # the last one, at the end, is the one that counts
                    os.fsync(self._descriptor)


@contextmanager
def journal(folder: Path, *, stopped_by: tuple[type[BaseException], ...] = ()) -> Iterator[Journal]:
    """The journal of one sitting, which ends with the block: finished, failed, or stopped by one of these exceptions.

    What is no Exception (Ctrl-C, an orchestrator's signal) stops it, too.
    """
    with Journal(folder) as opened:
        try:
            yield opened
        except BaseException as error:
            is_stop = isinstance(error, stopped_by) or not isinstance(error, Exception)
            opened.end("stopped" if is_stop else "failed", f"{type(error).__name__}: {error}"[:2000])
            raise
        opened.end("finished")


def read(path: Path, offset: int = 0, *, holding: bytes = b"") -> Iterator[Entry]:
    """The whole lines of a journal from a byte on, also while it is written. None where there is no journal.

    Lines that do not hold these bytes are passed over, some twenty times as fast as they are read.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        for line in file:
            offset += len(line)
            entry = _entry(line, offset) if holding in line else None
            if entry is not None:
                yield entry


def follower(path: Path, on_report: OnReport) -> Callable[[], None]:
    """A call that hands on what another process has added to a journal since the last call, from its end as it is now on."""
    offset = path.stat().st_size if path.exists() else 0

    def follow() -> None:
        nonlocal offset
        if not path.exists():
            return
        for entry in read(path, offset):
            offset = entry.end
            report = _report(entry)
            if report is not None:
                on_report(report)

    return follow


def _report(entry: Entry) -> Report | None:
    """What a line was written of; None where that was no report."""
    facts = dict(entry.facts)
    if entry.kind == STEP:
        seconds = facts.pop("seconds", None)
        figures: dict[str, Any] = {
            name: number(facts[name]) if name in _FIGURES else facts[name] for name in _STEP_FIELDS
        }
        return StepReport(**figures, seconds=None if seconds is None else StepSeconds(**seconds))
    if entry.kind in get_args(EventKind):
        return TrainEvent(kind=cast("EventKind", entry.kind), **facts)
    return None


def last_entry(path: Path) -> Entry | None:
    """The last whole line, found from the end."""
    size, num_bytes = path.stat().st_size if path.exists() else 0, _TAIL_BYTES
    while True:
        start = max(0, size - num_bytes)
        last = None
        for last in read(path, start):  # noqa: B007 - what the search begins in the middle of is no whole line
            pass
        if last is not None or start == 0:
            return last
        num_bytes *= 8


def is_damaged(path: Path) -> bool:
    """Whether a line before the last whole one is not whole. A kill tears the end alone."""
    is_torn = False
    with path.open("rb") as file:
        for line in file:
            is_whole = _entry(line, 0) is not None
            if is_whole and is_torn:
                return True
            is_torn = is_torn or not is_whole
    return False


def journal_id(path: Path) -> str | None:
    """The name that a journal was given when it was begun."""
    first = next(read(path), None)
    return None if first is None else first.facts.get("id")


def is_left(path: Path) -> bool:
    """Whether a journal's writer is gone, on this host, without a word on how it ended."""
    last = last_entry(path)
    if last is None or last.kind == ENDED:
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def number(value: Any) -> float | None:
    """A figure of an entry; None for what is none."""
    if isinstance(value, str):
        return float(value) if value in ("nan", "inf", "-inf") else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _told(report: Report) -> tuple[str, dict[str, Any]]:
    if not isinstance(report, StepReport):
        return report.kind, {"step": report.step, "message": report.message, "facts": dict(report.facts)}
    facts = {name: getattr(report, name) for name in _STEP_FIELDS}
    seconds = report.seconds
    facts["seconds"] = None if seconds is None else {name: getattr(seconds, name) for name in _SECONDS_FIELDS}
    return STEP, facts


def _identity(kind: str, facts: Mapping[str, Any]) -> tuple[tuple[str, int] | None, str]:
    """What a line is about, where doing the step again says it again, and what it says of that."""
    if kind == STEP:
        return (kind, facts["step"]), " ".join(_text(facts.get(name)) for name in _SAME)
    if kind == "step_skipped":
        return (kind, facts["step"]), f"{zlib.crc32(_json(facts)):08x}"
    return None, ""


def _text(value: Any) -> str:
    """A figure, exactly: the shortest decimals that give the same bits back."""
    figure = number(value)
    return "-" if figure is None else repr(figure)


def _line(body: Mapping[str, Any]) -> bytes:
    text = _json(body)[:-1]
    return text + _CHECK % zlib.crc32(text)


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        return json.dumps(_plain(body), separators=(",", ":"), allow_nan=False).encode()


def _plain(value: Any) -> Any:
    """A value with texts for the numbers that JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _entry(line: bytes, end: int) -> Entry | None:
    text, check = line[:-_CHECK_BYTES], line[-_CHECK_BYTES:]
    if not text or check != _CHECK % zlib.crc32(text):
        return None
    facts = json.loads(text + b"}")
    return Entry(facts.pop("at_ms"), facts.pop("kind"), facts, end)


@contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"got {error} from {path}, wanted a journal of the training: mend the disk and run again."
        ) from error
