"""One run writes a workspace at a time. Who it is is told; who is gone is in nobody's way; what the lock says is not trusted."""

import os
import re
import signal
import socket
from pathlib import Path

import pytest

from flows.workspace import Workspace, writing
from pipelines.errors import StorageError


def refusal(folder: Path) -> str:
    with pytest.raises(StorageError) as caught, writing(Workspace(folder)):
        pass
    return str(caught.value)


def test_the_owner_is_named_in_one_sentence(tmp_path, holder):
    wanted = (
        rf"got a workspace in use by process {holder.pid} on {re.escape(socket.gethostname())} "
        rf"since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC \({re.escape(str(tmp_path))}\), wanted it free: "
        r"wait for that run, or pass another --workspace\."
    )
    assert re.fullmatch(wanted, refusal(tmp_path))


def test_a_killed_owner_does_not_block(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with writing(Workspace(tmp_path)):
        said = (tmp_path / "lock").read_text()
    assert said.startswith(f"process {os.getpid()} on ")
    assert said.count("\n") == 1


GARBAGE = [b"", b"\xff\xfe\x00", b"12345", b"process x\nprocess y" * 10_000, "进程".encode()]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_in_the_lock_is_neither_shown_nor_a_crash(tmp_path, holder, garbage):
    (tmp_path / "lock").write_bytes(garbage)
    assert refusal(tmp_path).startswith("got a workspace in use by another process (")
    holder.kill()
    holder.wait()
    (tmp_path / "lock").write_bytes(garbage)
    with writing(Workspace(tmp_path)):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_folder_in_place_of_the_lock_is_named(tmp_path):
    (tmp_path / "lock").mkdir()
    assert "Is a directory" in refusal(tmp_path)
