"""One training under torchrun on this machine, as a child that passes on being stopped and leaves nobody behind.

    starter (a flow)  --SIGTERM-->  agent: this module, torchrun inside  --SIGTERM-->  ranks: llm.worker

A stop takes that way down; the ranks write a checkpoint and leave. A starter that is killed takes the agent with it
(the kernel sends SIGTERM), an agent that is killed its ranks (SIGKILL). The agent is given what its starter holds open,
such as a lock, so that nobody else begins before the last of them has gone.

torchrun's own meeting place listens on every interface. Here its agent meets itself, and the ranks each other, by files,
and they talk over loopback.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from llm.distributed import RENDEZVOUS
from llm.starter import STARTER, end_with_starter
from llm.worker import EXIT_STOPPED, EXIT_TRANSIENT
from pipelines.errors import TerminalError, TransientError

_POLL_SECONDS = 0.05
_MARGIN_SECONDS = 2.0
"""For the agent, after its ranks were killed."""
_NUM_LINES = 20
"""Of the log's end, that are looked through for a reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Torchrun:
    """How a training is run beside its flow."""

    stop_seconds: float = 10.0
    """For the ranks to write a checkpoint when they are asked to stop; then they are killed."""
    hold_open: tuple[int, ...] = ()
    """Descriptors that stay open as long as the agent lives."""
    on_line: Callable[[str], None] = lambda _line: None
    """Called with each line that agent and ranks write; all of them are in the log."""


def torchrun(
    job: Path, num_processes: int, log: Path, options: Torchrun, *, on_poll: Callable[[], None] = lambda: None
) -> None:
    """Run a job file on so many processes to its end; `log` is gone on with. Call it from the main thread.

    It is stopped by an exception, raised by `on_poll` or by a signal's handler, as Prefect's and Python's own are: that
    goes on once the ranks have written a checkpoint and left, or were killed because they took too long. Raises
    TransientError where a process was lost and the same call goes on, TerminalError otherwise; the reason is that of the
    first process that failed.
    """
    with tempfile.TemporaryDirectory(prefix="corpusmill-") as name, log.open("ab") as written, log.open("rb") as read:
        folder = Path(name)
        read.seek(0, os.SEEK_END)
        agent = _start(job, num_processes, folder, written.fileno(), options)
        try:
            while agent.poll() is None:
                _pass_on(read, options.on_line)
                on_poll()
                time.sleep(_POLL_SECONDS)
        except BaseException:
            _stop(agent, options.stop_seconds)
            raise
        finally:
            if agent.poll() is None:
                agent.kill()  # which takes the ranks along
            agent.wait()
            _pass_on(read, options.on_line)
        on_poll()
        _raise_for(agent.returncode, reason=folder / "reason")


def _start(job: Path, num_processes: int, folder: Path, log: int, options: Torchrun) -> "subprocess.Popen[bytes]":
    environment = os.environ | {
        RENDEZVOUS: str(folder / "ranks"),
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        # torch 2.11 knows no such time: it waits 30 s, unless we end it before
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(max(1, round(options.stop_seconds))),
        "PYTHONUNBUFFERED": "1",
    }
    arguments = [str(os.getpid()), str(job), str(num_processes), str(folder)]
    return subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "llm.torchrun", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=options.hold_open,
        start_new_session=True,  # it is stopped once, by us: a second signal would interrupt its waiting for the ranks
    )


def _stop(agent: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Ask it to end, and wait as long as it has; another exception meanwhile ends the waiting."""
    agent.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        agent.wait(seconds + _MARGIN_SECONDS)


def _pass_on(log: BinaryIO, on_line: Callable[[str], None]) -> None:
    for line in log.readlines():
        if text := line.decode("utf-8", "replace").rstrip():
            on_line(text)


def _raise_for(code: int, *, reason: Path) -> None:
    if code == 0:
        return
    told = reason.read_text(encoding="utf-8").strip() if reason.is_file() else ""
    if code < 0 or code in (EXIT_TRANSIENT, EXIT_STOPPED):
        raise TransientError(
            f"got {told or f'a process that ended with {code}'}; wanted all processes to end well: "
            "run the same command again to go on from the newest checkpoint."
        )
    raise TerminalError(told or f"got exit code {code} from torchrun, wanted 0: see its log.")


# the agent


def main(arguments: Sequence[str]) -> int:
    """Run torchrun for a starter: its process id, the job, the number of ranks, a scratch folder."""
    starter, job, num_processes, folder = arguments
    end_with_starter(signal.SIGTERM, int(starter))
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as run

    os.environ[STARTER] = str(os.getpid())
    try:
        run(_options(Path(folder), int(num_processes), job))
    except SignalException:
        return EXIT_STOPPED
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        return _failed(codes, Path(folder))
    return 0


def _options(folder: Path, num_processes: int, job: str) -> list[str]:
    return [
        "--nnodes=1",
        f"--nproc-per-node={num_processes}",
        "--max-restarts=0",  # a new call goes on from the newest checkpoint, and says so
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={folder / 'agents'}",
        "--rdzv-conf=store_type=file",
        "--local-addr=127.0.0.1",
        "--monitor-interval=0.1",
        f"--log-dir={folder / 'logs'}",
        "--redirects=3",
        "--tee=3",
        "-m",
        "llm.worker",
        job,
    ]


def _failed(codes: Mapping[int, int], folder: Path) -> int:
    """Write down why ranks failed; gives the exit code."""
    reasons = {rank: _last_line(folder, rank) for rank in codes}
    terminal = [rank for rank, code in codes.items() if code not in (EXIT_TRANSIENT, EXIT_STOPPED) and code > 0]
    told = [reasons[rank] for rank in terminal or codes if reasons[rank]]
    lost = [f"process {rank} ended with {code}" for rank, code in codes.items() if code < 0]
    text = (told or [f"exit codes {json.dumps(codes)}"])[0] if terminal or not lost else ", ".join(lost)
    (folder / "reason").write_text(text, encoding="utf-8")
    return 1 if terminal else EXIT_TRANSIENT


def _last_line(folder: Path, rank: int) -> str:
    for path in sorted((folder / "logs").rglob(f"attempt_*/{rank}/stderr.log"), reverse=True):
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-_NUM_LINES:]
        if lines:
            return lines[-1]
    return ""


def run_agent(arguments: Sequence[str]) -> NoReturn:
    """`main`, and the end of this process, whatever torch's threads do.

    Those that pass on a rank's lines wait for ever for one that was ended before its first, and Python would wait for
    them: the agent would outlive its starter, and hold what that held open.
    """
    code = 1
    try:
        code = main(arguments)
    except BaseException:  # noqa: BLE001 - said, as Python would
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        if os.getppid() != int(arguments[0]):  # nobody else removes it now
            shutil.rmtree(arguments[3], ignore_errors=True)
        os._exit(code)


if __name__ == "__main__":
    run_agent(sys.argv[1:])
