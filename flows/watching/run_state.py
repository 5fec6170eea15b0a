"""What runs now, how the last run of each flow ended, and counters that only grow: one small file in the workspace.

Whoever holds the workspace writes `state.json`, whole and under a temporary name, every two seconds, and no one else ever does. So
`status` and `metrics` look at it beside a run and wait for nothing. It is a record for people and monitors: no run reads
it to decide anything, and a run goes on where it cannot be written.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from flows.settings import redactor
from flows.watching.measures import MAX_SERIES, MEASURES, RATES
from flows.workspace import Workspace
from pipelines.log_lines import LogContext, here, telling

State = dict[str, Any]

_VERSION = 1
_WRITE_SECONDS = 2.0
_ALIVE_SECONDS = 60.0
"""A process on another host that has not written for so long is gone."""
_MAX_MESSAGE_CHARS = 2000
_MAX_RUNS = 100
"""Flows of recipes whose last run is kept; the oldest goes."""
_STOPS = ("TrainingStoppedError", "LaunchStoppedError")
"""Errors that say that a stop was asked for. By name: their modules bring torch."""
_VERBS = {"crawl": "crawl run", "build_corpus": "build", "train": "train", "evaluate": "evaluate", "pipeline": "run"}


def state_path(place: Workspace) -> Path:
    """Where the state of a workspace lies."""
    return place.root / "state.json"


def read_state(place: Workspace) -> State:
    """What is known; an empty state where nothing is, or where the file is damaged."""
    try:
        found = json.loads(state_path(place).read_bytes())
        if isinstance(found, dict) and found.get("version") == _VERSION:
            return _empty() | found
    except (OSError, ValueError):
        pass
    return _empty()


def is_alive(state: Mapping[str, Any], now: float | None = None) -> bool:
    """Whether the process that the state names is there: by its id and start on this host, by its last word on another."""
    process = state.get("process")
    if not process:
        return False
    if process["host"] == socket.gethostname() and process["started"] is not None:
        return _started(process["pid"]) == process["started"]
    return (time.time() if now is None else now) - state["updated_at"] < _ALIVE_SECONDS


class Recorder:
    """Takes what a run says of itself; a thread writes it down. Series over `MAX_SERIES` of a measure are left out."""

    def __init__(self, place: Workspace) -> None:
        self._path = state_path(place)
        self._lock = threading.Lock()
        """Of the state."""
        self._writing = threading.Lock()
        """Of the file: the thread and the end of a flow write it."""
        self._seen: dict[str, float] = {}
        self._ended = threading.Event()
        self._failed_in: str | None = None
        self.state = read_state(place)
        for flow in self.state["running"]:  # left by a process that was killed
            self._end(flow, "killed", "its process was killed", self.state["updated_at"])
        self._rest()
        self.state |= {
            "process": {"pid": os.getpid(), "started": _started(os.getpid()), "host": socket.gethostname()},
            "running": [],
            "progress": None,
        }
        self._thread = threading.Thread(target=self._write_on, name="state", daemon=True)

    def start(self) -> None:
        """Write now, and from now on."""
        self.write()
        self._thread.start()

    def stop(self) -> None:
        """Say that nothing runs any more."""
        self._ended.set()
        self._thread.join()
        with self._lock:
            self.state |= {"process": None, "running": [], "progress": None}
            self._rest()
        self.write()

    def add(self, name: str, amount: float, **labels: str) -> None:
        """Let a counter grow."""
        if amount > 0:
            with self._lock:
                self._put(name, self._value(name, labels) + amount, labels)

    def set(self, name: str, value: float | None, **labels: str) -> None:
        """What a gauge shows from now on; None changes nothing."""
        if value is not None:
            with self._lock:
                self._put(name, value, labels)

    def get(self, name: str, **labels: str) -> float | None:
        """What a measure shows; None where it never showed anything."""
        with self._lock:
            return self.state["series"].get(name, {}).get(_key(name, labels))

    def reach(self, name: str, total: float, **labels: str) -> None:
        """Let a counter grow by what a total, counted from 0 in this run, is above the highest that was told so far."""
        key = f"{name} {_key(name, labels)}"
        with self._lock:
            before = self._seen.get(key, 0.0)
            if total > before:
                self._seen[key] = total
                self._put(name, self._value(name, labels) + total - before, labels)

    def replace(self, name: str, values: Mapping[str, float], label: str, **labels: str) -> None:
        """All series of a gauge with these labels, by the value of one more label: what is not named any more goes."""
        with self._lock:
            kept = self.state["series"].get(name, {})
            ours = [
                key
                for key in kept
                if all(
                    dict(zip(MEASURES[name].labels, json.loads(key), strict=True))[each] == value
                    for each, value in labels.items()
                )
            ]
            for key in ours:
                del kept[key]
            for each, value in values.items():
                self._put(name, value, {**labels, label: each})

    def progress(self, stage: str, num_done: int, total: int | None, note: str) -> None:
        """How far the run is."""
        self.state["progress"] = {"stage": stage, "done": num_done, "of": total, "note": note[:200], "at": time.time()}

    def write(self) -> None:
        """Replace the file. What cannot be written is not: the run is what counts."""
        temporary = self._path.with_name(".state.json.tmp")
        with self._writing, contextlib.suppress(OSError):
            with self._lock:
                self.state["updated_at"] = time.time()
                text = json.dumps(self.state, ensure_ascii=False)
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self._path)

    def begin_flow(self, flow: State) -> None:
        """A flow begins, within those that run already."""
        with self._lock:
            self.state["running"] = [*self.state["running"], flow]

    def end_flow(self, flow: State, outcome: str, message: str | None, kind: str | None) -> None:
        """The flow that began last ends."""
        with self._lock:
            self.state["running"] = [each for each in self.state["running"] if each is not flow]
            if outcome == "failed":
                self._failed_in = self._failed_in or flow["flow"]
                flow = {**flow, "failed_in": self._failed_in}
            self._end(flow, outcome, message, time.time())
            labels = {"flow": flow["flow"], "recipe": flow["recipe"]}
            if kind is not None:
                name = "corpusmill_errors_total"
                self._put(name, self._value(name, labels | {"kind": kind}) + 1, labels | {"kind": kind})
        self.write()

    def _end(self, flow: State, outcome: str, message: str | None, at: float) -> None:
        runs = self.state["runs"]
        key = f"{flow['flow']} {flow['recipe']}"
        success = at if outcome == "finished" else runs.pop(key, {}).get("succeeded_at")
        runs.pop(key, None)
        ended = {"outcome": outcome, "message": message, "ended_at": at, "succeeded_at": success}
        runs[key] = {**flow, **ended}
        while len(runs) > _MAX_RUNS:
            del runs[next(iter(runs))]
        name, labels = "corpusmill_runs_total", {"flow": flow["flow"], "recipe": flow["recipe"], "outcome": outcome}
        self._put(name, self._value(name, labels) + 1, labels)

    def _value(self, name: str, labels: Mapping[str, str]) -> float:
        return float(self.state["series"].get(name, {}).get(_key(name, labels), 0.0))

    def _put(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        series = self.state["series"].setdefault(name, {})
        key = _key(name, labels)
        if key in series or len(series) < MAX_SERIES:
            series[key] = value

    def _rest(self) -> None:
        for name in RATES:
            series = self.state["series"].get(name, {})
            series |= dict.fromkeys(series, 0.0)

    def _write_on(self) -> None:
        while not self._ended.wait(_WRITE_SECONDS):
            self.write()


_recorder: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


def recorder() -> Recorder | None:
    """Of the run in this context; None where nothing is recorded."""
    return _recorder.get()


@contextmanager
def recorded(
    place: Workspace,
    flow: str,
    recipe: str,
    *,
    recipe_path: str | None,
    flow_run_id: str | None,
    verb: str | None = None,
) -> Iterator[Recorder]:
    """Record a flow for the length of the block, which holds the workspace; a flow within another shares its recorder.

    What is raised leaves the block without a secret in it: Prefect keeps it, and the logs. Records that are logged
    within carry the flow run and the recipe.
    """
    outer = _recorder.get()
    kept = outer or Recorder(place)
    started = {
        "flow": flow,
        "recipe": recipe,
        "flow_run_id": flow_run_id,
        "started_at": time.time(),
        "again": " ".join(
            [
                "corpusmill",
                verb or _VERBS.get(flow, flow),
                *([recipe_path] if recipe_path else []),
                "--workspace",
                str(place.root),
            ]
        ),
    }
    token = _recorder.set(kept)
    kept.begin_flow(started)
    if outer is None:
        kept.start()
    outcome, message, kind = "stopped", "got a request to stop", None  # Ctrl-C and Prefect's signals are no Exceptions
    context = LogContext(flow_run_id=here().flow_run_id or flow_run_id, recipe=recipe)
    try:
        with telling(context):
            yield kept
        outcome, message = "finished", ""
    except Exception as error:
        safe = redactor().error(error)
        message = " ".join(str(safe).split())[:_MAX_MESSAGE_CHARS]
        if type(error).__name__ not in _STOPS:
            outcome, kind = "failed", type(error).__name__
        if safe is error:
            raise
        raise safe from None
    finally:
        _recorder.reset(token)
        kept.end_flow(started, outcome, message or None, kind)
        if outer is None:
            kept.stop()


def _empty() -> State:
    return {
        "version": _VERSION,
        "updated_at": 0.0,
        "process": None,
        "running": [],
        "progress": None,
        "runs": {},
        "series": {},
    }


def _key(name: str, labels: Mapping[str, str]) -> str:
    """The values of a measure's labels, in the order of its table. A label that is missing is a KeyError of ours."""
    return json.dumps([labels[label] for label in MEASURES[name].labels], ensure_ascii=False)


def _started(pid: int) -> int | None:
    """When a process began, in ticks since the machine did; None where there is none, or nobody says."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])
