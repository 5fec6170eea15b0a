"""Who runs the pieces of work: this process, or a pool of spawned ones.

All have one interface: `run(works, on_done, on_rows)`. A pool worker that dies (out of memory, a crash in a parser) takes
only its own piece with it, while the others go on. Where the stage has a budget for a row, the rows on which workers die
or stall are found and recorded (`isolation`); else the piece is tried once more in a fresh process, then reported as failed.
"""

import contextlib
import gc
import logging
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Protocol

from pipelines.errors import CorpusmillError, may_pass
from pipelines.guard import CRASHED, TIMED_OUT
from pipelines.isolation import Case, Death, OpenRow, Run, Search, Step
from pipelines.log_lines import here, telling
from pipelines.store import Record, Store
from pipelines.work import OnRows, Work, run_work
from pipelines.worker import Died, Message, Refused, Searched, budget_of, shard_label, start_worker

logger = logging.getLogger(__name__)

OnDone = Callable[[Work, Record], None]
_IDLE_FACTOR = 10
"""So many times its budget of CPU time may pass by the clock before a row counts as one that will never end."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A piece of work that could not be done."""

    work: Work
    message: str
    is_transient: bool


class Executor(Protocol):
    """Runs pieces of work; returns those that failed. Finished ones are in the store."""

    def run(self, store: Store, works: Sequence[Work], on_done: OnDone, on_rows: OnRows) -> list[Failure]: ...


class InlineExecutor:
    """Runs everything in this process, one piece after the other. A page that crashes it, crashes it."""

    def run(self, store: Store, works: Sequence[Work], on_done: OnDone, on_rows: OnRows) -> list[Failure]:
        failures = []
        for work in works:
            try:
                with telling(stage=work.stage.name, shard=shard_label(work)):
                    record = run_work(store, work, on_rows)
            except CorpusmillError as error:
                failures.append(Failure(work, str(error), may_pass(error)))
            else:
                on_done(work, record)
        return failures


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    task: Run | Search | None = None
    row: OpenRow | None = None
    num_rows: int = 0
    """Rows of its task that are done."""
    deadline: float | None = None
    """By the monotonic clock, in seconds: when it is killed unless it says something."""

    def begin(self, store: Store, task: Run | Search) -> None:
        self.task, self.row, self.num_rows = task, None, 0
        self.wait_for_more()
        with contextlib.suppress(OSError):  # a worker that died is found, and counted, where it is waited for
            self.pipe.send((store.place, task, here()))

    def advance(self, message: int | OpenRow) -> None:
        """Note how far it is."""
        if isinstance(message, int):
            self.num_rows += message
            self.row = None
        else:
            self.row = message
        self.wait_for_more()

    def death(self, problem: str, message: str) -> Death:
        """Its end, and where it was."""
        return Death(problem=problem, message=message, row=self.row, num_rows=self.num_rows)

    def wait_for_more(self) -> None:
        """Give it time until its next word: none is bounded between two rows of a search, or once each was searched."""
        self.deadline = None
        if self.task is None or (budget := budget_of(self.task.work)) is None:
            return
        if self.row is not None or (isinstance(self.task, Run) and not self.task.is_patient):
            self.deadline = time.monotonic() + _IDLE_FACTOR * budget.seconds


class PoolExecutor:
    """A pool of spawned processes that live as long as the pool."""

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers
        self._workers: list[_Worker] = []

    def run(self, store: Store, works: Sequence[Work], on_done: OnDone, on_rows: OnRows) -> list[Failure]:
        waiting: deque[Run | Search] = deque(Run(work) for work in works)
        cases: dict[str, Case] = {}
        failures: list[Failure] = []

        def follow(task: Run | Search, step: Step) -> None:
            if isinstance(step, str):
                failures.append(Failure(task.work, step, is_transient=False))
            else:
                waiting.append(step)

        while waiting or any(worker.task for worker in self._workers):
            self._assign(store, waiting)
            for worker, task in self._heard():
                message = self._receive(worker)
                if isinstance(message, int | OpenRow):
                    worker.advance(message)
                    if isinstance(message, int) and isinstance(task, Run):
                        on_rows(message)
                    continue
                worker.task = None
                match message:
                    case Record() as record:
                        on_done(task.work, record)
                    case Searched():
                        follow(task, cases[task.work.key].after_search())
                    case Refused(text, is_transient):
                        failures.append(Failure(task.work, text, is_transient))
                    case Died(problem, text):
                        case = cases.setdefault(task.work.key, Case(task.work))
                        follow(task, _after_death(case, task, worker.death(problem, text), on_rows))
        return failures

    def close(self) -> None:
        """End the worker processes."""
        for worker in list(self._workers):
            worker.pipe.close()
        for worker in list(self._workers):
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(timeout=2)
            self._bury(worker)

    def _heard(self) -> list[tuple[_Worker, Run | Search]]:
        """Workers that said something of their task, ended, or were killed for saying nothing."""
        busy = {worker.pipe: (worker, worker.task) for worker in self._workers if worker.task is not None}
        deadlines = [worker.deadline for worker, _ in busy.values() if worker.deadline is not None]
        timeout = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        heard = [busy[pipe] for pipe in wait(list(busy), timeout)]  # type: ignore[index]
        if heard:
            return heard
        late = [each for each in busy.values() if _is_late(each[0])]
        for worker, _ in late:
            worker.process.kill()
        return late

    def _receive(self, worker: _Worker) -> Message:
        try:
            message: Message = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker)
        else:
            return message
        code = worker.process.returncode
        if code == -signal.SIGPROF or (code == -signal.SIGKILL and _is_late(worker)):
            return Died(TIMED_OUT, "the worker process made no progress on it, twice")
        return Died(CRASHED, f"the worker process died twice on it (exit code {code})")

    def _assign(self, store: Store, waiting: deque[Run | Search]) -> None:
        for worker in list(self._workers):
            if worker.task is None and worker.process.poll() is not None:
                self._bury(worker)
        while waiting:
            idle = next((worker for worker in self._workers if worker.task is None), None)
            if idle is None:
                if len(self._workers) >= self._num_workers:
                    return
                idle = self._spawn()
            idle.begin(store, waiting.popleft())

    def _spawn(self) -> _Worker:
        worker = _Worker(*start_worker())
        self._workers.append(worker)
        return worker

    def _bury(self, worker: _Worker) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
        worker.pipe.close()
        if worker.process.poll() is None:
            worker.process.terminate()
        worker.process.wait()


class BesideExecutor:
    """Runs in this process what has no budget for a row, and the rest in one other, which a page may crash."""

    def __init__(self) -> None:
        self._inline = InlineExecutor()
        self._pool = PoolExecutor(1)

    def run(self, store: Store, works: Sequence[Work], on_done: OnDone, on_rows: OnRows) -> list[Failure]:
        guarded = [work for work in works if work.stage.budget is not None]
        others = [work for work in works if work.stage.budget is None]
        failures = self._pool.run(store, guarded, on_done, on_rows)
        return failures + self._inline.run(store, others, on_done, on_rows)

    def close(self) -> None:
        """End the other process, if it was needed."""
        self._pool.close()


_GC_THRESHOLDS = (10_000, 20, 20)
"""Python's own looks for cycles every 700 objects: a twentieth of the time of a small change, and stages make next to none."""


@contextmanager
def open_executor(num_workers: int) -> Iterator[Executor]:
    """A pool that ends with the block; for no worker, this process, and one beside it for what strangers' pages can crash."""
    executor = PoolExecutor(num_workers) if num_workers > 0 else BesideExecutor()
    thresholds = gc.get_threshold()
    gc.freeze()  # what is imported stays
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        yield executor
    finally:
        gc.set_threshold(*thresholds)
        executor.close()


def _is_late(worker: _Worker) -> bool:
    return worker.deadline is not None and worker.deadline <= time.monotonic()


def _after_death(case: Case, task: Run | Search, death: Death, on_rows: OnRows) -> Step:
    """What follows the end of a worker in the middle of a task, told in the log."""
    num_marks = len(case.marks)
    step = case.after_death(task, death)
    if isinstance(task, Run):
        on_rows(-death.num_rows)
    with telling(stage=task.work.stage.name, shard=shard_label(task.work)):
        if len(case.marks) > num_marks:
            logger.warning("a page of %s is recorded with its problem: %s", task.work.label, case.latest_mark())
        elif isinstance(task, Run) and isinstance(step, Run):
            logger.warning("a worker died on %s; trying once more", task.work.label)
        elif isinstance(task, Run) and isinstance(step, Search):
            done = "stalled" if death.problem == TIMED_OUT else "died"
            logger.warning("a worker %s on %s; looking for the page", done, task.work.label)
    return step
