"""Who runs the pieces of work: this process, or a pool of spawned ones.

Both have one interface: `run(works, on_done, on_rows)`. A pool worker that dies (out of memory, a
crash in a parser) takes only its own piece with it: that piece is tried once more in a fresh
process, then reported as failed, while the others go on.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from pipelines.errors import CorpusmillError, TransientError
from pipelines.store import Record, Store
from pipelines.work import OnRows, Work, run_work

logger = logging.getLogger(__name__)

OnDone = Callable[[Work, Record], None]
_MAX_CRASHES = 2


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
    """Runs everything in this process, one piece after the other."""

    def run(self, store: Store, works: Sequence[Work], on_done: OnDone, on_rows: OnRows) -> list[Failure]:
        failures = []
        for work in works:
            try:
                record = run_work(store, work, on_rows)
            except CorpusmillError as error:
                failures.append(_failure(work, error))
            else:
                on_done(work, record)
        return failures


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    work: Work | None = None


class PoolExecutor:
    """A pool of spawned processes that live as long as the pool."""

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    def run(self, store: Store, works: Sequence[Work], on_done: OnDone, on_rows: OnRows) -> list[Failure]:
        waiting = deque(works)
        crashes: dict[str, int] = {}
        failures: list[Failure] = []
        while waiting or any(worker.work for worker in self._workers):
            self._assign(store, waiting)
            busy = {worker.pipe: worker for worker in self._workers if worker.work is not None}
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                work = worker.work
                if work is None:
                    continue
                try:
                    message = worker.pipe.recv()
                except (EOFError, OSError):
                    self._bury(worker)
                    crashes[work.key] = crashes.get(work.key, 0) + 1
                    if crashes[work.key] < _MAX_CRASHES:
                        logger.warning("a worker died on %s; trying once more", work.label)
                        waiting.append(work)
                    else:
                        code = worker.process.exitcode
                        failures.append(
                            Failure(work, f"the worker process died twice on it (exit code {code})", is_transient=False)
                        )
                    continue
                match message:
                    case int(num_rows):
                        on_rows(num_rows)
                    case Record() as record:
                        worker.work = None
                        on_done(work, record)
                    case (str(text), bool(is_transient)):
                        worker.work = None
                        failures.append(Failure(work, text, is_transient))
        return failures

    def close(self) -> None:
        """End the worker processes."""
        for worker in list(self._workers):
            worker.pipe.close()
        for worker in list(self._workers):
            worker.process.join(timeout=2)
            self._bury(worker)

    def _assign(self, store: Store, waiting: deque[Work]) -> None:
        for worker in list(self._workers):
            if worker.work is None and not worker.process.is_alive():
                self._bury(worker)
        while waiting:
            idle = next((worker for worker in self._workers if worker.work is None), None)
            if idle is None:
                if len(self._workers) >= self._num_workers:
                    return
                idle = self._spawn()
            idle.work = waiting.popleft()
            with contextlib.suppress(OSError):  # a worker that died is found, and counted, where it is waited for
                idle.pipe.send((store.root, idle.work))

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


@contextmanager
def open_executor(num_workers: int) -> Iterator[Executor]:
    """An inline executor for no worker, else a pool that ends with the block."""
    if num_workers < 1:
        yield InlineExecutor()
        return
    pool = PoolExecutor(num_workers)
    try:
        yield pool
    finally:
        pool.close()


def _serve(pipe: Connection) -> None:
    """A worker process: take work, send row counts while it runs, then the record or the error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    stores: dict[Path, Store] = {}
    while True:
        try:
            root, work = pipe.recv()
        except (EOFError, OSError):
            return
        store = stores.setdefault(root, Store(root))
        try:
            pipe.send(run_work(store, work, pipe.send))
        except CorpusmillError as error:
            failure = _failure(work, error)
            pipe.send((failure.message, failure.is_transient))
        except (BrokenPipeError, ConnectionResetError):
            return  # the parent is gone: nothing is left to work for
        except MemoryError:
            raise  # die, so that the parent tries once more in a fresh process
        except Exception:  # noqa: BLE001 - a defect in a stage is reported with its place, the pool goes on
            pipe.send((traceback.format_exc(limit=-4).strip(), False))


def _end_with_parent() -> None:
    """End this process at once where the parent is killed: a long piece of work would outlive it by minutes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _failure(work: Work, error: CorpusmillError) -> Failure:
    return Failure(work, str(error), isinstance(error, TransientError))
