"""A process that keeps another: runs a command, and ends with its standard input, and with it all that came of the command.

keeper.py [--user NAME] COMMAND...

It takes in whatever loses its parent (a flow run outlives its worker, in a session of its own), so that nothing is left
when the test ends, however that ends. Exits with the command's status once the command has ended.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_GRACE_SECONDS = 20.0


def main() -> None:
    """Run the command."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    command = sys.argv[1:]
    options = {}
    if command[0] == "--user":
        options = {"user": command[1], "group": command[1], "extra_groups": []}
        command = command[2:]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
    threading.Thread(target=_end_with_starter, args=(child.pid,), daemon=True).start()
    code = child.wait()
    end_all()
    os._exit(code if code >= 0 else 128 - code)


def _end_with_starter(pid: int) -> None:
    os.read(0, 1)
    try:
        os.kill(pid, signal.SIGTERM)  # the main thread sees it end, and ends what is left of it
    except ProcessLookupError:
        return
    time.sleep(_GRACE_SECONDS)
    end_all()
    os._exit(1)


def end_all() -> None:
    """End every descendant: ask, then kill."""
    deadline = time.monotonic() + _GRACE_SECONDS
    asked: set[int] = set()
    while left := descendants():
        for pid in left:
            how = signal.SIGKILL if time.monotonic() > deadline else signal.SIGTERM
            if how == signal.SIGKILL or pid not in asked:
                asked.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)
        reap()
        time.sleep(0.05)


def reap() -> None:
    """Take leave of children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def descendants() -> list[int]:
    """All below this process that have not ended."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state != "Z":
            parents[int(path.parent.name)] = int(parent)
    found, waiting = [], [os.getpid()]
    while waiting:
        below = [pid for pid, parent in parents.items() if parent in waiting]
        found += below
        waiting = below
    return found


if __name__ == "__main__":
    main()
