"""A limit that holds: over Python that can be asked to stop, over C code that cannot."""

import subprocess
import sys
import time

import pytest

PROGRAM = """
import ctypes, signal, sys
from flows.deployed.time_limit import TimeLimitError, time_limit

class Stopped(BaseException):
    pass

def stop(*_):
    raise Stopped

signal.signal(signal.SIGTERM, stop)
try:
    with time_limit(0.3, grace_seconds=0.3):
        {body}
    {after}
except TimeLimitError as error:
    print(error, flush=True)
    sys.exit(7)
except Stopped:
    print("stopped by somebody else", flush=True)
    sys.exit(8)
"""


def run(body: str, after: str = "pass") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body, after=after)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_python_is_asked_to_stop() -> None:
    done = run("import time; time.sleep(50)")
    assert done.returncode == 7, done.stderr
    assert "got no end after 0.00 hours, wanted one by then; what was finished is kept: run it again" in done.stdout


def test_a_call_that_never_returns_and_holds_the_interpreter_is_ended() -> None:
    """`PyDLL` keeps the interpreter's lock: no handler and no thread of Python's runs any more."""
    began = time.monotonic()
    done = run("ctypes.PyDLL(None).sleep(50)")
    assert time.monotonic() - began < 20
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "in <module>" in done.stderr, "where it hung"


@pytest.mark.parametrize("body", ["pass", "import time; time.sleep(0.01)"])
def test_what_ends_in_time_is_left_alone(body: str) -> None:
    done = run(body, after="import time; time.sleep(0.8)")
    assert done.returncode == 0, done.stderr


def test_a_stop_by_somebody_else_stays_one() -> None:
    assert run("import os; os.kill(os.getpid(), signal.SIGTERM)").returncode == 8
