"""A process that ends with the one that started it, however that ends: `kill -9` included."""

import ctypes
import os
import signal
import sys

STARTER = "CORPUSMILL_STARTER"
"""In the environment: the process id of whoever starts workers."""
_PR_SET_PDEATHSIG = 1


def end_with_starter(signum: signal.Signals, starter: int | None = None) -> None:
    """Let the kernel send this process a signal when the thread that started it ends. Linux only; elsewhere nothing.

    `starter` is the process that should have started it: where that is gone already, it is too late to be told, and
    the signal is sent at once. Call it first of all.
    """
    if not sys.platform.startswith("linux"):
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if starter is not None and os.getppid() != starter:
        os.kill(os.getpid(), signum)
