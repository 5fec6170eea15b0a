"""A run that finds its workspace in use waits, says for whom, and gives up in one sentence."""

import subprocess
from pathlib import Path

import pytest

from flows.deployed import waiting
from flows.deployed.waiting import writing_in_turn
from flows.workspace import Workspace, held_lock
from pipelines.errors import InUseError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_POLL_SECONDS", 0.01)


def test_it_gets_its_turn(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    told: list[str] = []

    def end_holder(sentence: str) -> None:
        told.append(sentence)
        holder.kill()

    with writing_in_turn(Workspace(tmp_path), 60, end_holder) as store:
        store.clear_temporary()
    assert len(told) == 1
    assert f"in use by process {holder.pid}" in told[0]


def test_it_gives_up(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with (
        pytest.raises(InUseError, match="wanted it free: wait for that run"),
        writing_in_turn(Workspace(tmp_path), 0.1),
    ):
        pass


def test_a_child_that_inherits_the_lock_keeps_others_out(tmp_path: Path) -> None:
    """So that what a killed flow leaves to end by itself is not written over meanwhile."""
    place = Workspace(tmp_path)
    with writing_in_turn(place, 0):
        lock = held_lock()
        assert lock is not None
        child = subprocess.Popen(["sleep", "60"], pass_fds=[lock])
    with pytest.raises(InUseError), writing_in_turn(place, 0.1):
        pass
    child.kill()
    child.wait()
    with writing_in_turn(place, 0):
        assert held_lock() is not None
    assert held_lock() is None
