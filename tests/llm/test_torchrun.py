"""torchrun as a child: it trains as the loop does alone, stops with a checkpoint, listens to nobody, and leaves nobody behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from deadline import wait_for
from processes_training import CPU, MODEL, TRAINING

from llm import checkpoint
from llm.torchrun import Torchrun, torchrun
from llm.worker import WorkerJob, work
from pipelines.errors import TerminalError, TransientError

STARTER = """
import os, sys
from pathlib import Path
from llm.torchrun import Torchrun, torchrun
torchrun(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Torchrun(stop_seconds=20))
"""

AGENT = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
import llm.torchrun
def main(_):
    ThreadPoolExecutor().submit(threading.Event().wait)  # as torch's wait for the first line of a rank that is gone
    return int(sys.argv[5]) if sys.argv[5] else 1 / 0
llm.torchrun.main = main
llm.torchrun.run_agent(sys.argv[1:])
"""


class Stopped(BaseException):
    """What a signal's handler raises."""


MARK = "CORPUSMILL_TEST_MARK"


@pytest.fixture
def job(corpus: Any, tmp_path: Path) -> Callable[..., Path]:
    """Write a job file for a folder by name; `hold_after_step` lets a training wait there."""

    def job(folder: str, **changes: Any) -> Path:
        return WorkerJob(
            shards=(str(tmp_path / "0.arrow"),),
            dataset_digest=changes.get("dataset_digest", "d"),
            model=MODEL,
            training=TRAINING,
            run=CPU,
            folder=str(tmp_path / folder),
            hold_after_step=changes.get("hold_after_step"),
        ).write(tmp_path / f"{folder}.json")

    return job


@pytest.fixture(autouse=True)
def mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """In the environment of everything that a test starts; what is left of it ends with the test."""
    name = tmp_path.name + str(os.getpid())
    monkeypatch.setenv(MARK, name)
    yield name
    for pid in living(name):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def living(mark: str) -> dict[int, str]:
    """The processes, but for this one, that were started under a mark: id to command."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if (
                    f"{MARK}={mark}\0".encode() in (entry / "environ").read_bytes()
                    and (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
                ):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def ranks(mark: str) -> list[int]:
    return sorted(pid for pid, command in living(mark).items() if "llm.worker" in command)


def listening(pids: list[int]) -> set[str]:
    """The addresses, as the kernel writes them, that processes listen on."""
    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                sockets.add(str(descriptor.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].partition(":")[0])
    return found


def test_it_gives_the_bits_of_one_process_and_listens_on_loopback_alone(
    job: Callable[..., Path], tmp_path: Path, mark: str
) -> None:
    work(WorkerJob.read(job("alone")))
    heard: set[str] = set()
    lines: list[str] = []
    options = Torchrun(on_line=lines.append)
    torchrun(
        job("two"), 2, tmp_path / "train.log", options, on_poll=lambda: heard.update(listening(list(living(mark))))
    )
    names = [checkpoint.newest_valid(tmp_path / folder) for folder in ("alone", "two")]
    assert [name.name for name in names if name is not None] == ["step-00000012", "step-00000012"]
    assert checkpoint.digests(names[0]) == checkpoint.digests(names[1])  # type: ignore[arg-type]
    assert heard == {"0100007F"}, "127.0.0.1, as gloo's ranks do"
    assert living(mark) == {}


def test_a_starter_that_is_killed_leaves_a_checkpoint_and_nobody(
    job: Callable[..., Path], tmp_path: Path, mark: str
) -> None:
    path = job("killed", hold_after_step=10)
    starter = subprocess.Popen([sys.executable, "-c", STARTER, path, "1", tmp_path / "train.log"])
    wait_for("held training", (tmp_path / "killed" / "step-00000008" / "manifest.json").exists)
    assert len(ranks(mark)) == 1
    journal = tmp_path / "killed" / "journal.jsonl"
    wait_for("step 10", lambda: b'"step":10' in journal.read_bytes())
    starter.kill()
    starter.wait()
    wait_for("end of all", lambda: not living(mark), 20)
    newest = checkpoint.newest_valid(tmp_path / "killed")
    assert newest is not None
    assert newest.name in ("step-00000010", "step-00000011"), "the ranks were asked to stop, and saved"
    torchrun(job("killed"), 1, tmp_path / "train.log", Torchrun())
    assert checkpoint.newest_valid(tmp_path / "killed").name == "step-00000012"  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_stop_is_passed_on_and_ends_with_a_checkpoint(job: Callable[..., Path], tmp_path: Path, mark: str) -> None:
    path = job("stopped", hold_after_step=10)

    def stop() -> None:
        if (tmp_path / "stopped" / "step-00000008" / "manifest.json").exists():
            raise Stopped

    with pytest.raises(Stopped):
        torchrun(path, 2, tmp_path / "train.log", Torchrun(stop_seconds=20), on_poll=stop)
    assert living(mark) == {}
    newest = checkpoint.newest_valid(tmp_path / "stopped")
    assert newest is not None
    assert 8 <= checkpoint.step_of(newest) < 12


@pytest.mark.slow
def test_ranks_that_do_not_stop_in_time_are_killed(job: Callable[..., Path], tmp_path: Path, mark: str) -> None:
    """A rank that is frozen stands for one that hangs in a write to a dead disk."""
    path = job("frozen", hold_after_step=10)

    began: list[float] = []

    def stop() -> None:
        if (tmp_path / "frozen" / "step-00000008" / "manifest.json").exists():
            os.kill(ranks(mark)[0], signal.SIGSTOP)
            began.append(time.monotonic())
            raise Stopped

    with pytest.raises(Stopped):
        torchrun(path, 1, tmp_path / "train.log", Torchrun(stop_seconds=2), on_poll=stop)
    assert time.monotonic() - began[0] < 6
    assert living(mark) == {}
    assert checkpoint.newest_valid(tmp_path / "frozen").name == "step-00000008"  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_rank_that_is_lost_may_be_tried_again(job: Callable[..., Path], tmp_path: Path, mark: str) -> None:
    path = job("lost", hold_after_step=10)

    def kill() -> None:
        if (tmp_path / "lost" / "step-00000008" / "manifest.json").exists():
            for pid in ranks(mark)[:1]:
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(TransientError, match=r"ended with -9; wanted all processes to end well: run the same"):
        torchrun(path, 2, tmp_path / "train.log", Torchrun(), on_poll=kill)
    torchrun(job("lost"), 2, tmp_path / "train.log", Torchrun())
    assert checkpoint.newest_valid(tmp_path / "lost").name == "step-00000012"  # type: ignore[union-attr]


@pytest.mark.slow
def test_an_agent_that_is_killed_takes_its_ranks_along(job: Callable[..., Path], tmp_path: Path, mark: str) -> None:
    path = job("agent", hold_after_step=10)

    def kill() -> None:
        if (tmp_path / "agent" / "step-00000008" / "manifest.json").exists():
            for pid, command in living(mark).items():
                if "llm.torchrun" in command:
                    os.kill(pid, signal.SIGKILL)

    with pytest.raises(TransientError, match="a process that ended with -9"):
        torchrun(path, 2, tmp_path / "train.log", Torchrun(), on_poll=kill)
    wait_for("end of the ranks", lambda: not living(mark), 5)


@pytest.mark.slow
def test_what_cannot_go_on_is_said_in_the_words_of_the_rank(job: Callable[..., Path], tmp_path: Path) -> None:
    torchrun(job("other"), 1, tmp_path / "train.log", Torchrun())
    with pytest.raises(TerminalError, match=r"got dataset_digest 'e'; wanted 'd', which .* was begun with"):
        torchrun(job("other", dataset_digest="e"), 1, tmp_path / "train.log", Torchrun())
    assert "got dataset_digest" in (tmp_path / "train.log").read_text()


@pytest.mark.parametrize("code", ["75", ""])
def test_an_agent_ends_though_torch_still_waits(tmp_path: Path, code: str) -> None:
    for starter, is_kept in ((os.getpid(), True), (1 << 22, False)):  # the second is none that there is
        (tmp_path / "scratch").mkdir(exist_ok=True)
        arguments = [str(starter), "job.json", "1", str(tmp_path / "scratch"), code]
        done = subprocess.run([sys.executable, "-c", AGENT, *arguments], timeout=60, capture_output=True, check=False)
        assert done.returncode == int(code or 1)
        assert (b"ZeroDivisionError" in done.stderr) == (not code)
        assert (tmp_path / "scratch").exists() == is_kept
