"""Who runs the pieces of work: this process, or a pool of spawned ones.

All have one interface: `run(works, on_done, on_rows)`. A pool worker that dies (out of memory, a crash in a parser) takes
only its own piece with it, while the others go on. Where the stage has a budget for a row, the rows on which workers die
or stall are found and recorded (`isolation`); else the piece is tried once more in a fresh process, then reported as failed.
"""

import contextlib
import logging
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

from pipelines.errors import CorpusmillError, TransientError
from pipelines.guard import CRASHED, TIMED_OUT, bounded_memory, timed
from pipelines.isolation import Case, Death, OpenRow, Run, Search, Step
from pipelines.stage import RowBudget
from pipelines.store import Place, Record, Store
from pipelines.work import OnRows, Work, run_work, search_work

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
                record = run_work(store, work, on_rows)
            except CorpusmillError as error:
                failures.append(Failure(work, str(error), isinstance(error, TransientError)))
            else:
                on_done(work, record)
        return failures


# What a worker tells of its task, beside numbers of rows and an OpenRow:


@dataclass(frozen=True, slots=True)
class _Searched:
    """A search came to the end of its piece."""


@dataclass(frozen=True, slots=True)
class _Refused:
    """An error: it will be the same for this piece in any process, or passes by itself."""

    message: str
    is_transient: bool


@dataclass(frozen=True, slots=True)
class _Died:
    """Nobody says so where the process is gone; a worker does of an exception that nobody raised on purpose."""

    problem: str
    """That of the page which it died on, if it was a page."""
    message: str


_Message = int | OpenRow | Record | _Searched | _Refused | _Died


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
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
            self.pipe.send((store.place, task))

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
        if self.task is None or (budget := _budget(self.task.work)) is None:
            return
        if self.row is not None or (isinstance(self.task, Run) and not self.task.is_patient):
            self.deadline = time.monotonic() + _IDLE_FACTOR * budget.seconds


class PoolExecutor:
    """A pool of spawned processes that live as long as the pool."""

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers
        self._context = multiprocessing.get_context("spawn")
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
                    case _Searched():
                        follow(task, cases[task.work.key].after_search())
                    case _Refused(text, is_transient):
                        failures.append(Failure(task.work, text, is_transient))
                    case _Died(problem, text):
                        case = cases.setdefault(task.work.key, Case(task.work))
                        follow(task, _after_death(case, task, worker.death(problem, text), on_rows))
        return failures

    def close(self) -> None:
        """End the worker processes."""
        for worker in list(self._workers):
            worker.pipe.close()
        for worker in list(self._workers):
            worker.process.join(timeout=2)
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

    def _receive(self, worker: _Worker) -> _Message:
        try:
            message: _Message = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker)
        else:
            return message
        code = worker.process.exitcode
        if code == -signal.SIGPROF or (code == -signal.SIGKILL and _is_late(worker)):
            return _Died(TIMED_OUT, "the worker process made no progress on it, twice")
        return _Died(CRASHED, f"the worker process died twice on it (exit code {code})")

    def _assign(self, store: Store, waiting: deque[Run | Search]) -> None:
        for worker in list(self._workers):
            if worker.task is None and not worker.process.is_alive():
                self._bury(worker)
        while waiting:
            idle = next((worker for worker in self._workers if worker.task is None), None)
            if idle is None:
                if len(self._workers) >= self._num_workers:
                    return
                idle = self._spawn()
            idle.begin(store, waiting.popleft())

    def _spawn(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _bury(self, worker: _Worker) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
        worker.pipe.close()
        if worker.process.is_alive():
            worker.process.terminate()
        worker.process.join()


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


@contextmanager
def open_executor(num_workers: int) -> Iterator[Executor]:
    """A pool that ends with the block; for no worker, this process, and one beside it for what strangers' pages can crash."""
    executor = PoolExecutor(num_workers) if num_workers > 0 else BesideExecutor()
    try:
        yield executor
    finally:
        executor.close()


def _budget(work: Work) -> RowBudget | None:
    return work.stage.budget(work.config) if work.stage.budget is not None else None


def _is_late(worker: _Worker) -> bool:
    return worker.deadline is not None and worker.deadline <= time.monotonic()


def _after_death(case: Case, task: Run | Search, death: Death, on_rows: OnRows) -> Step:
    """What follows the end of a worker in the middle of a task, told in the log."""
    num_marks = len(case.marks)
    step = case.after_death(task, death)
    if isinstance(task, Run):
        on_rows(-death.num_rows)
    if len(case.marks) > num_marks:
        logger.warning("a page of %s is recorded with its problem: %s", task.work.label, case.latest_mark())
    elif isinstance(task, Run) and isinstance(step, Run):
        logger.warning("a worker died on %s; trying once more", task.work.label)
    elif isinstance(task, Run) and isinstance(step, Search):
        done = "stalled" if death.problem == TIMED_OUT else "died"
        logger.warning("a worker %s on %s; looking for the page", done, task.work.label)
    return step


def _serve(pipe: Connection) -> None:
    """A worker process: take tasks, tell how far each is while it runs, then its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends the workers
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, whatever it is doing: see guard.timed
    resource.setrlimit(
        resource.RLIMIT_CORE, (0, 0)
    )  # a crash on a hostile page must not fill the disk with people's data
    sys.meta_path.insert(0, _WithoutPandas())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    stores: dict[Place, Store] = {}
    while True:
        try:
            place, task = pipe.recv()
        except (EOFError, OSError):
            sys.stdout.flush()
            os._exit(0)  # nothing is left to say: to take all modules and tables down takes a fifth of a second
        store = stores.setdefault(place, Store(place))
        try:
            with bounded_memory(_budget(task.work)):
                pipe.send(_done(store, task, pipe))
        except CorpusmillError as error:
            pipe.send(_Refused(str(error), isinstance(error, TransientError)))
        except (BrokenPipeError, ConnectionResetError):
            return  # the parent is gone: nothing is left to work for
        except (ImportError, OSError) as error:  # the machine's fault, or the installation's, and no page's
            pipe.send(_Refused(f"{type(error).__name__}: {error}", is_transient=False))
        except MemoryError:
            raise  # die, so that the parent tries once more in a fresh process
        except Exception as error:  # noqa: BLE001 - a defect in a stage is reported with its place, the pool goes on
            pipe.send(_unforeseen(task.work, error))


class _WithoutPandas:
    """Finds no pandas: pyarrow imports it, in 0.2 s, to know its objects, and no stage has any."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:  # noqa: ARG004
        """As importlib asks."""
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not for workers", name=name)


def _unforeseen(work: Work, error: Exception) -> _Refused | _Died:
    """What is told of an exception that nobody raised on purpose: its place, and where rows have a budget, in one line."""
    if work.stage.budget is None:
        return _Refused(traceback.format_exc(limit=-4).strip(), is_transient=False)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split())[:200]
    return _Died(CRASHED, f"{type(error).__name__} in {frame.name}, line {frame.lineno} of {frame.filename}: {said}")


def _done(store: Store, task: Run | Search, pipe: Connection) -> Record | _Searched:
    """What a task comes to."""
    budget = _budget(task.work)
    if isinstance(task, Search):
        watch = partial(timed, seconds=partial(_allowance, budget, is_patient=False))
        search_work(store, task.work, task.first_row, lambda row, name: pipe.send(OpenRow(row, name)), pipe.send, watch)
        return _Searched()
    if budget is None:
        return run_work(store, task.work, pipe.send)
    return run_work(
        store, task.work, pipe.send, partial(timed, seconds=partial(_allowance, budget, is_patient=task.is_patient))
    )


def _allowance(budget: RowBudget | None, num_rows: int, *, is_patient: bool) -> float:
    """CPU seconds for a batch: as for one row, until each row was seen to keep its budget."""
    return 0.0 if budget is None else budget.seconds * (max(num_rows, 1) if is_patient else 1)


def _end_with_parent() -> None:
    """End this process at once where the parent is killed: a long piece of work would outlive it by minutes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
