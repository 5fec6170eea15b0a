"""What one page may cost a worker process, held by the operating system: no check runs while a page is worked on.

A page that takes too long ends its process by a timer of CPU time, so that a busy machine gives no other result than an
idle one. A page that takes too much memory gets none, which is the end of most parsers. Who finds the page afterwards,
and has it recorded, is `isolation`.
"""

import contextlib
import resource
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from pipelines.stage import RowBudget

CRASHED = "page_crashed"
"""The problem of a page on which a worker process died, or raised what no stage raises on purpose, twice."""
TIMED_OUT = "page_timeout"
"""The problem of a page on which a worker process used up its budget of time, twice."""

_PROBLEM = "problem"


def marked(batches: Iterable[pa.RecordBatch], marks: Mapping[int, str]) -> Iterator[pa.RecordBatch]:
    """The rows, with the given problems in the places (counted from 0) of those that are not to be worked on."""
    first = 0
    for batch in batches:
        found = {row - first: problem for row, problem in marks.items() if first <= row < first + batch.num_rows}
        first += batch.num_rows
        if not found:
            yield batch
            continue
        problems = batch.column(_PROBLEM).to_pylist()
        for row, problem in found.items():
            problems[row] = problem
        column = batch.schema.get_field_index(_PROBLEM)
        yield batch.set_column(column, batch.schema.field(column), pa.array(problems, batch.schema.field(column).type))


def timed(batches: Iterable[pa.RecordBatch], seconds: Callable[[int], float]) -> Iterator[pa.RecordBatch]:
    """The batches; this process ends by SIGPROF where it uses more CPU time on one than `seconds` says for its rows."""
    try:
        for batch in batches:
            signal.setitimer(signal.ITIMER_PROF, seconds(batch.num_rows))
            yield batch
            signal.setitimer(signal.ITIMER_PROF, 0)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@contextlib.contextmanager
def bounded_memory(budget: RowBudget | None) -> Iterator[None]:
    """Let this process take at most the budget's memory beyond what it has now; None bounds nothing.

    Counts private writable pages (RLIMIT_DATA): mapped files and libraries are free. Only Linux tells how many there
    are, elsewhere nothing is bounded.
    """
    num_now = _private_bytes() if budget is not None else None
    if budget is None or num_now is None:
        yield
        return
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = num_now + budget.memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def _private_bytes() -> int | None:
    pa.allocate_buffer(1 << 16)  # Arrow's allocator sets a gigabyte of addresses aside at its first call
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("VmData:")]
    return int(sizes[0]) << 10 if sizes else None
