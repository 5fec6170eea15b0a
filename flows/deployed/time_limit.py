"""A limit on how long a run may take, that holds.

Prefect's own time-out raises an error in the main thread when that gets to it, and in a thread never. Here a run that is
over its time is asked to stop as by a person (SIGTERM: a training writes its checkpoint), and where it has not stopped
some time after that, a thread of the C library's kind ends the process with a dump of all stacks, even where Python is
stuck in a call that never returns.
"""

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.errors import TerminalError

_GRACE_SECONDS = 60.0


class TimeLimitError(TerminalError):
    """The run took longer than it may; what was finished is kept."""


@contextmanager
def time_limit(seconds: float, grace_seconds: float = _GRACE_SECONDS) -> Iterator[None]:
    """Raise TimeLimitError in the main thread after so long, and end the process where that is of no use.

    Enter it in the main thread of a process that SIGTERM stops by an exception, as Prefect's and the command's do.
    """
    is_over = threading.Event()

    def stop() -> None:
        is_over.set()
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    faulthandler.dump_traceback_later(seconds + grace_seconds, exit=True, file=sys.__stderr__ or 2)
    try:
        yield
    except BaseException as error:
        if is_over.is_set():
            raise TimeLimitError(
                f"got no end after {seconds / 3600:,.2f} hours, wanted one by then; what was finished is kept: run it "
                "again to go on, or raise max_hours."
            ) from error
        raise
    finally:
        timer.cancel()
        faulthandler.cancel_dump_traceback_later()
