"""The process beside a training that fills its MLflow run from the journal, and the hand that holds it.

A process and not a thread: a thread would hold Python's lock while it imports MLflow, packs figures or unpacks answers,
and every operation of a step waits for that lock. A tracker that is down, slow or refusing costs the training nothing.

    training  --TrainingRun, then Ending-->  process: this module's `main`  --ready, answered, done-->  training

Both directions are lines of JSON. The process ends when the training's has gone, whatever it was doing: what it had not
sent, the next one sends.
"""

import contextlib
import json
import logging
import math
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.settings import log_style, redactor
from flows.tracker.shipping import ship
from flows.tracker.system_metrics import sampler
from flows.tracker.training_run import Ending, TrainingRun
from pipelines.log_lines import log_to_stderr

if TYPE_CHECKING:
    from flows.tracker.tracking import Measured, TrackedRun

_START_SECONDS = 60.0
"""For the process to import MLflow, on a machine that has much else to do."""
_HURRIED_SECONDS = 4.0
"""For all that is left at the end of a training that was asked to stop: whoever asked ends it by force some time later."""
_NICENESS = 5
"""The training goes first."""

_READY, _ANSWERED, _DONE, _PROBLEM = "ready", "answered", "done", "problem"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How often, and how long for. Seconds."""

    between_looks: float = 5.0
    """At the journal."""
    between_samples: float = 10.0
    """Of how busy the machine is; one that the tracker does not take in time is not made up for."""
    between_tries: float = 20.0
    """At most, of a tracker that does not answer; the first waits as long as a look."""
    silence: float = 10.0
    """Without an answer, at the end of a training, and it is left to a later run."""
    at_the_end: float = 30.0
    """For all that is left then."""


PACE = Pace()


class Shipper:
    """Opens a run as soon as the tracker answers, and fills it beside the training until the end."""

    def __init__(self, run: TrainingRun) -> None:
        self._run = run
        self._pace = PACE
        self._process = _start(run, self._pace)

    def end(self, ending: Ending, *, is_hurried: bool = False) -> str | None:
        """Send what is left, and how the training ended. None when that is done, or what kept it from being done.

        A server that gives no answer for 10 s is given up, and any after 30 s in all; a file is never waited for in vain.
        Whoever was asked to stop is hurried: 4 s in all.
        """
        if self._process.poll() is not None:  # somebody ended it
            self._process = _start(self._run, self._pace)
        try:
            return self._told(ending, is_hurried=is_hurried)
        finally:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()  # type: ignore[union-attr]

    def _told(self, ending: Ending, *, is_hurried: bool) -> str | None:
        process, pace = self._process, self._pace
        with contextlib.suppress(BrokenPipeError):
            _write(process.stdin, asdict(ending))
        began = heard_at = time.monotonic()
        start, silence, at_the_end = _START_SECONDS, pace.silence, pace.at_the_end
        if is_hurried:
            start = silence = at_the_end = _HURRIED_SECONDS
        is_ready = False
        buffer = b""
        while True:
            limit = min(heard_at + silence, began + at_the_end) if is_ready else began + start
            left = limit - time.monotonic() if self._run.is_on_a_server else None
            if left is not None and left <= 0:
                return f"no answer in {time.monotonic() - heard_at:.0f} s"
            if not select.select([process.stdout], [], [], left)[0]:
                continue
            more = os.read(process.stdout.fileno(), 1 << 16)  # type: ignore[union-attr]
            if not more:
                return f"no answer (the process that asks it ended with {process.wait()})"
            *lines, buffer = (buffer + more).split(b"\n")
            for line in lines:
                heard_at = time.monotonic()
                said = json.loads(line)
                if said["said"] == _DONE:
                    return None
                if said["said"] == _PROBLEM:
                    return str(said["problem"])
                if said["said"] == _READY and not is_ready and not is_hurried:
                    began = heard_at
                is_ready = True


def _start(run: TrainingRun, pace: Pace) -> "subprocess.Popen[bytes]":
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "flows.tracker.shipper"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
        bufsize=0,
    )
    with contextlib.suppress(BrokenPipeError):  # its exit code is told at the end
        _write(process.stdin, {"run": asdict(run), "pace": asdict(pace)})
    return process


def _write(pipe: Any, value: Any) -> None:
    pipe.write(json.dumps(value).encode() + b"\n")


# the process


def main() -> None:
    """Fill a run until its training ends: a line of stdin says which run, another how the training ended."""
    for signum in (signal.SIGINT, signal.SIGTERM):  # they are for the training, which then says how it ends
        signal.signal(signum, signal.SIG_IGN)
    os.nice(_NICENESS)
    said = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever prints
    log_to_stderr(log_style(), redactor())
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would tell of each try of a server that is down
    first = json.loads(sys.stdin.readline() or "null")
    if first is None:
        return
    endings: queue.Queue[Ending] = queue.Queue()
    threading.Thread(target=_listen, args=(endings,), daemon=True).start()

    def say(word: str, **more: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            _write(said, {"said": word, **more})

    import flows.tracker.tracking  # noqa: F401 - the seconds that it takes are no silence of the tracker

    say(_READY)
    _work(TrainingRun(**first["run"]), Pace(**first["pace"]), endings, say)
    os._exit(0)  # MLflow's threads are not waited for


def _listen(endings: "queue.Queue[Ending]") -> None:
    for line in sys.stdin:
        endings.put(Ending(**json.loads(line)))
    os._exit(0)  # the training's process is gone


def _work(run: TrainingRun, pace: Pace, endings: "queue.Queue[Ending]", say: Callable[..., None]) -> None:
    folder = Path(run.folder)
    tracked: TrackedRun | None = None
    sample: Callable[[], Sequence[Measured]] | None = None
    sampled_at = -math.inf
    ending: Ending | None = None
    wait = pace.between_looks

    def answered() -> None:
        if ending is not None:  # before, nobody reads, and the pipe would be full one day
            say(_ANSWERED)

    while True:
        try:
            if tracked is None:
                tracked = run.open()
                answered()
            ship(tracked, folder, answered=answered)
            if time.monotonic() - sampled_at >= pace.between_samples:
                sample = sample or sampler(tracked.started_at_ms)
                tracked.send(sample())
                answered()
                sampled_at = time.monotonic()
            if ending is not None:
                run.end(tracked, ending)
                say(_DONE)
            wait = pace.between_looks
        except Exception as error:  # noqa: BLE001 - whatever a tracker does, the training goes on
            wait = min(2 * wait, pace.between_tries)
            if ending is not None:
                say(_PROBLEM, problem=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        if ending is not None:
            return
        with contextlib.suppress(queue.Empty):
            ending = endings.get(timeout=wait)  # what is asked for while we are at it gets a try of its own
            say(_ANSWERED)


if __name__ == "__main__":
    main()
