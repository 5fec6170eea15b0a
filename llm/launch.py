"""Several processes on this machine for one training, without a server: they meet by a file and talk over loopback.

On a cluster torchrun does this (`torchrun ... -m llm.worker JOB.json`). Here nothing listens beyond loopback.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from llm.distributed import RENDEZVOUS
from llm.starter import STARTER
from llm.worker import EXIT_STOPPED, EXIT_TRANSIENT
from pipelines.errors import TerminalError, TransientError

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 120.0
"""For a process to write a checkpoint after another one failed."""


class LaunchStoppedError(TerminalError):
    """The processes were asked to stop, wrote a checkpoint and left."""


def launch(
    job: Path,
    num_processes: int,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_poll: Callable[[Sequence[int]], None] = lambda _pids: None,
) -> None:
    """Run a job file on so many processes to its end; where one fails, end the others, quickly.

    `on_poll` is called some times a second with the ids of the processes. Raises LaunchStoppedError after a stop, TransientError where a process was
    lost and the same call goes on, TerminalError otherwise; the reason is that of the first process that gave one.
    """
    with tempfile.TemporaryDirectory(prefix="corpusmill-") as folder:
        logs = [Path(folder) / f"{rank}.log" for rank in range(num_processes)]
        processes = [
            _start(job, rank, num_processes, Path(folder) / "rendezvous", log) for rank, log in enumerate(logs)
        ]
        try:
            codes, is_stopped = _wait(processes, should_stop, on_poll)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        _raise_for(codes, is_stopped, [log.read_text(encoding="utf-8", errors="replace") for log in logs])


def _start(job: Path, rank: int, num_processes: int, rendezvous: Path, log: Path) -> "subprocess.Popen[bytes]":
    environment = os.environ | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        RENDEZVOUS: str(rendezvous),
        STARTER: str(os.getpid()),
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
    }
    command = [sys.executable, "-m", "llm.worker", str(job)]
    with log.open("wb") as file:
        return subprocess.Popen(command, env=environment, stderr=file)  # noqa: S603 - our own command


def _wait(
    processes: "list[subprocess.Popen[bytes]]",
    should_stop: Callable[[], bool],
    on_poll: Callable[[Sequence[int]], None],
) -> tuple[list[int], bool]:
    """Exit codes, once all have ended, and whether they were asked to."""
    deadline: float | None = None
    is_stopped = False
    while any(process.poll() is None for process in processes):
        failed = any(process.returncode not in (None, 0) for process in processes)
        if deadline is None and (failed or should_stop()):
            is_stopped = not failed
            deadline = time.monotonic() + _GRACE_SECONDS
            for process in processes:
                process.send_signal(signal.SIGTERM)
        if deadline is not None and time.monotonic() > deadline:
            for process in processes:
                process.kill()
        on_poll([process.pid for process in processes])
        time.sleep(_POLL_SECONDS)
    on_poll([])
    return [process.returncode for process in processes], is_stopped


def _raise_for(codes: list[int], is_stopped: bool, logs: list[str]) -> None:  # noqa: FBT001
    if not any(codes):
        return
    if is_stopped and set(codes) <= {
        0,
        EXIT_STOPPED,
        -signal.SIGTERM,
    }:  # a worker passes its signal on once it has saved
        raise LaunchStoppedError(
            "got a request to stop; the checkpoint is written: run the same command again to go on."
        )
    lines = [log.strip().splitlines()[-1] if log.strip() else "" for log in logs]
    told = {code: line for code, line in reversed(list(zip(codes, lines, strict=True))) if line}
    if 1 in told:
        raise TerminalError(told[1])
    lost = [f"process {rank} ended with {code}" for rank, code in enumerate(codes) if code < 0]
    if lost or EXIT_TRANSIENT in told:
        raise TransientError(
            f"got {', '.join(lost) or told[EXIT_TRANSIENT]}; wanted all processes to end well: "
            "run the same command again to go on from the newest checkpoint."
        )
    raise TerminalError(f"got exit codes {codes} and {lines}; wanted 0 of each process: mend what they say.")
