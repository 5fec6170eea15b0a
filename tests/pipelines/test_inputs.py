"""Digests of source files are remembered, and never wrong: whatever the clock does and whatever became of the memory."""

import os
import random
from pathlib import Path, PosixPath
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipelines.inputs
from pipelines.digest import digest_bytes
from pipelines.inputs import digest_files

SECOND_NS = 1_000_000_000


class Disk:
    """One file on a file system whose clock ticks slowly and may be set back. The kernel stamps each write."""

    def __init__(self, folder: Path, tick_ns: int) -> None:
        self.real, self.memory, self.tick_ns = folder / "file", folder / "digests.json", tick_ns
        self.now_ns = 1_700_000_000 * SECOND_NS
        self.mtime_ns = self.ctime_ns = 0
        self.marks: set[tuple[int, int]] = set()
        """Times of writes that no longer are the file's: one that comes again cannot be told from the first."""
        self.write(b"0")

    def write(self, data: bytes, age_ns: int = 0) -> None:
        """Write in place; `age_ns` sets the modification time that much earlier, or later, as cp and rsync do."""
        self.real.write_bytes(data)
        self.marks.add((self.mtime_ns, self.ctime_ns))
        self.ctime_ns = self.now_ns // self.tick_ns * self.tick_ns
        self.mtime_ns = self.ctime_ns - age_ns

    def digest(self) -> str:
        disk = self

        class File(PosixPath):
            def stat(self, **_: object) -> SimpleNamespace:  # type: ignore[override]
                return SimpleNamespace(st_size=1, st_mtime_ns=disk.mtime_ns, st_ctime_ns=disk.ctime_ns, st_ino=7)

        path = File(self.real)
        return digest_files([path, path], self.memory)[path]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 9), st.sampled_from([0, 0, 3, -3, 3600, -3600])),
        st.tuples(st.just("pass"), st.sampled_from([0, 1, 1_900_000, 2_500_000, 3_600_000_000]), st.just(0)),
        st.tuples(st.just("set back"), st.sampled_from([1, 1_500_000, 5_000_000, 3_600_000_000, 10**13]), st.just(0)),
        st.tuples(st.just("look"), st.just(0), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=300)
@given(steps=STEPS, tick=st.sampled_from([1_000, 4_000_000, SECOND_NS, 2 * SECOND_NS]))
def test_no_history_of_clock_and_writes_gives_a_wrong_digest(tmp_path_factory, steps, tick):
    disk = Disk(tmp_path_factory.mktemp("disk"), tick)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.inputs.time, "time_ns", lambda: disk.now_ns)
        was_set_back = False
        for step, value, more in [*steps, ("look", 0, 0)]:
            match step:
                case "write":
                    disk.write(str(value).encode(), more * SECOND_NS)
                case "pass":
                    disk.now_ns += value * 1_000
                case "set back":
                    disk.now_ns -= value * 1_000
                    was_set_back = True
                case "look":
                    if was_set_back and (disk.mtime_ns, disk.ctime_ns) in disk.marks:
                        return  # set back to the very tick of an earlier write: no mark can tell
                    assert disk.digest() == digest_bytes(disk.real.read_bytes())


@pytest.mark.parametrize("ahead_seconds", [0, 1, 3600])
def test_what_changed_now_or_in_the_future_is_read_each_time(tmp_path, monkeypatch, ahead_seconds):
    memory, path = tmp_path / "digests.json", tmp_path / "file"
    path.write_bytes(b"one")
    later = path.stat().st_mtime_ns + 60 * SECOND_NS
    monkeypatch.setattr(pipelines.inputs.time, "time_ns", lambda: later)
    digest_files([path], memory)
    remembered = memory.read_bytes()
    now = path.stat().st_mtime_ns - ahead_seconds * SECOND_NS  # the clock was set back
    monkeypatch.setattr(pipelines.inputs.time, "time_ns", lambda: now)
    reads = []
    monkeypatch.setattr(pipelines.inputs, "digest_file", lambda path: reads.append(path) or "read")
    assert digest_files([path], memory) == {path: "read"}
    assert reads == [path]
    assert memory.read_bytes() != remembered, "what was remembered of such a time is forgotten"


def test_a_flipped_byte_in_the_memory_costs_time_and_no_truth(tmp_path, monkeypatch):
    memory, path = tmp_path / "digests.json", tmp_path / "file"
    path.write_bytes(b"one")
    later = path.stat().st_mtime_ns + 60 * SECOND_NS
    monkeypatch.setattr(pipelines.inputs.time, "time_ns", lambda: later)
    wanted = digest_files([path], memory)
    whole = memory.read_bytes()
    for place in range(len(whole)):
        memory.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert digest_files([path], memory) == wanted
        assert memory.read_bytes() == whole
    for damage in (b"", b"{}", b"[]", whole[:-3], random.Random(0).randbytes(200), os.fsencode("\n\n")):
        memory.write_bytes(damage)
        assert digest_files([path], memory) == wanted
