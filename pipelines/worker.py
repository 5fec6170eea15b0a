"""A worker process: it takes pieces of work from its pool and tells how far each is, then its end. See executor.py.

It is started as a program of its own and imports what its work names: no part of whatever program the pool is in, which
would take longer than the work where a few pages came in.
"""

import gc
import logging
import multiprocessing
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from pipelines.errors import CorpusmillError, may_pass
from pipelines.guard import CRASHED, bounded_memory, timed
from pipelines.isolation import OpenRow, Run, Search
from pipelines.log_lines import log_to_stderr, style_of, telling
from pipelines.redaction import Redactor
from pipelines.stage import RowBudget
from pipelines.store import Place, Record, Store
from pipelines.work import SourceFile, Work, run_work, search_work

logger = logging.getLogger(__name__)

_START = """
import gc, sys
gc.disable()  # what is imported stays, so that nothing is to be collected
sys.path[:] = sys.argv[2:]
from pipelines.worker import serve
serve(int(sys.argv[1]))
"""
_ENVIRONMENT: Mapping[str, str] = {"OPENBLAS_NUM_THREADS": "1"}
"""Unless the environment says otherwise: there is a worker a core, and threads that wait for work take CPU time."""


# What a worker tells of its task, beside numbers of rows and an OpenRow:


@dataclass(frozen=True, slots=True)
class Searched:
    """A search came to the end of its piece."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An error: it will be the same for this piece in any process, or passes by itself."""

    message: str
    is_transient: bool


@dataclass(frozen=True, slots=True)
class Died:
    """Nobody says so where the process is gone; a worker does of an exception that nobody raised on purpose."""

    problem: str
    """That of the page which it died on, if it was a page."""
    message: str


Message = int | OpenRow | Record | Searched | Refused | Died


def start_worker() -> tuple[subprocess.Popen[bytes], Connection]:
    """A worker, and the pipe on which it takes (Place, Run or Search, LogContext); it ends when that is closed."""
    ours, theirs = multiprocessing.Pipe()
    with theirs:
        # -S: no search for packages at the start, since it is told where they are, and where this one is.
        path = (str(Path(__file__).parents[1]), *sys.path)
        command = [sys.executable, "-S", "-c", _START, str(theirs.fileno()), *path]
        process = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
            command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env={**_ENVIRONMENT, **os.environ}
        )
    return process, ours


def budget_of(work: Work) -> RowBudget | None:
    """What a row of a piece may cost; None where nothing bounds it."""
    return work.stage.budget(work.config) if work.stage.budget is not None else None


def shard_label(work: Work) -> str | None:
    """What a piece goes by in logs: its source file, or the beginning of its unit's name; None where it is all units."""
    if len(work.units) != 1:
        return None
    sources = [Path(item.path).name for item in work.units[0].inputs if isinstance(item, SourceFile)]
    return sources[0] if sources else work.units[0].name[:16]


def serve(descriptor: int) -> None:
    """Work until the pool is gone, or wants no more. Logs to stderr as the environment asks: see log_lines.style_of."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends the workers
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, whatever it is doing: see guard.timed
    resource.setrlimit(
        resource.RLIMIT_CORE, (0, 0)
    )  # a crash on a hostile page must not fill the disk with people's data
    sys.meta_path.insert(0, _WithoutPandas())
    log_to_stderr(style_of(os.environ), Redactor.of(os.environ))
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - it has no name for it
    pipe = Connection(descriptor)
    threading.Thread(target=_end_with_pool, args=(descriptor,), daemon=True).start()
    stores: dict[Place, Store] = {}
    gc.freeze()
    gc.enable()
    while True:
        try:
            place, task, context = pipe.recv()
        except (EOFError, OSError):
            sys.stdout.flush()
            os._exit(0)  # nothing is left to say: to take all modules and tables down takes a fifth of a second
        store = stores.setdefault(place, Store(place))
        try:
            with telling(context, stage=task.work.stage.name, shard=shard_label(task.work)):
                _work(store, task, pipe)
        except CorpusmillError as error:
            pipe.send(Refused(str(error), may_pass(error)))
        except (BrokenPipeError, ConnectionResetError):
            return  # the parent is gone: nothing is left to work for
        except (ImportError, OSError) as error:  # the machine's fault, or the installation's, and no page's
            pipe.send(Refused(f"{type(error).__name__}: {error}", is_transient=False))
        except MemoryError:
            raise  # die, so that the parent tries once more in a fresh process
        except Exception as error:  # noqa: BLE001 - a defect in a stage is reported with its place, the pool goes on
            pipe.send(_unforeseen(task.work, error))


def _work(store: Store, task: Run | Search, pipe: Connection) -> None:
    started = time.monotonic()
    with bounded_memory(budget_of(task.work)):
        done = _done(store, task, pipe)
    seconds = time.monotonic() - started
    if isinstance(done, Record):
        num_rows = sum(shard.num_rows for shard in done.shards)
        logger.info("done in %.2f s", seconds, extra={"fields": {"num_rows": num_rows, "seconds": round(seconds, 3)}})
    pipe.send(done)


class _WithoutPandas:
    """Finds no pandas: pyarrow imports it, in 0.2 s, to know its objects, and no stage has any."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:  # noqa: ARG004
        """As importlib asks."""
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not for workers", name=name)


def _unforeseen(work: Work, error: Exception) -> Refused | Died:
    """What is told of an exception that nobody raised on purpose: its place, and where rows have a budget, in one line."""
    if work.stage.budget is None:
        return Refused(traceback.format_exc(limit=-4).strip(), is_transient=False)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split())[:200]
    return Died(CRASHED, f"{type(error).__name__} in {frame.name}, line {frame.lineno} of {frame.filename}: {said}")


def _done(store: Store, task: Run | Search, pipe: Connection) -> Record | Searched:
    """What a task comes to."""
    budget = budget_of(task.work)
    if isinstance(task, Search):
        watch = partial(timed, seconds=partial(_allowance, budget, is_patient=False))
        search_work(store, task.work, task.first_row, lambda row, name: pipe.send(OpenRow(row, name)), pipe.send, watch)
        return Searched()
    if budget is None:
        return run_work(store, task.work, pipe.send)
    return run_work(
        store, task.work, pipe.send, partial(timed, seconds=partial(_allowance, budget, is_patient=task.is_patient))
    )


def _allowance(budget: RowBudget | None, num_rows: int, *, is_patient: bool) -> float:
    """CPU seconds for a batch: as for one row, until each row was seen to keep its budget."""
    return 0.0 if budget is None else budget.seconds * (max(num_rows, 1) if is_patient else 1)


def _end_with_pool(descriptor: int) -> None:
    """End this process at once where the pool's is killed: a long piece of work would outlive it by minutes."""
    hung_up = select.poll()
    hung_up.register(descriptor, 0)  # that the other end is closed is always told
    hung_up.poll()
    os._exit(1)
