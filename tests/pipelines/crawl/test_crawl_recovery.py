"""What a killed process left is cut back to what the ledger vouches for."""

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.crawl.entries import OpenFile
from pipelines.crawl.frontier import Frontier
from pipelines.crawl.recovery import last_whole_member_end, recover

MEMBERS = [
    gzip.compress(body, mtime=0) for body in (b"", b"one", os.urandom(3000), b"x" * 3_000_000, "中文".encode() * 99)
]
ENDS = [sum(map(len, MEMBERS[:n])) for n in range(len(MEMBERS) + 1)]
WHOLE = b"".join(MEMBERS)
NAME = "crawl-000001.warc.gz"


@given(st.integers(0, len(WHOLE)), st.sampled_from([b"", b"\0\0\0\0", b"junk behind it"]))
def test_last_whole_member(tmp_path_factory: pytest.TempPathFactory, num_bytes: int, tail: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "members.gz"
    path.write_bytes(WHOLE[:num_bytes] + (tail if num_bytes in ENDS else b""))
    assert last_whole_member_end(path) == max(end for end in ENDS if end <= num_bytes)


def announce(frontier: Frontier, num_bytes: int) -> OpenFile:
    file = frontier.add_file(NAME)
    frontier.commit([], file=file, num_bytes=num_bytes)
    return file


@pytest.mark.parametrize(
    ("vouched", "on_disk", "left"),
    [
        (ENDS[2], WHOLE, WHOLE[: ENDS[2]]),
        (ENDS[2], WHOLE[: ENDS[2]], WHOLE[: ENDS[2]]),
        (ENDS[2], WHOLE[: ENDS[2] + 5], WHOLE[: ENDS[2]]),
        (ENDS[4], WHOLE[: ENDS[3] + 5], WHOLE[: ENDS[3]]),  # the disk lost what the ledger has
        (0, WHOLE, None),  # killed before the first commit
        (0, None, None),
        (ENDS[2], None, None),
    ],
)
def test_an_open_file_of_the_ledger(tmp_path: Path, vouched: int, on_disk: bytes | None, left: bytes | None) -> None:
    path = tmp_path / NAME
    with Frontier(tmp_path) as frontier:
        announce(frontier, vouched)
        if on_disk is not None:
            path.with_name(NAME + ".open").write_bytes(on_disk)
        recover(frontier, tmp_path)
        assert (path.read_bytes() if path.exists() else None) == left
        assert frontier.open_files() == []
        assert not list(tmp_path.glob("*.open"))
        recover(frontier, tmp_path)
        assert (path.read_bytes() if path.exists() else None) == left


def test_a_file_renamed_but_not_recorded_is_not_touched(tmp_path: Path) -> None:
    with Frontier(tmp_path) as frontier:
        announce(frontier, ENDS[2])
        (tmp_path / NAME).write_bytes(WHOLE[: ENDS[2]])
        recover(frontier, tmp_path)
        assert frontier.open_files() == []
    assert (tmp_path / NAME).read_bytes() == WHOLE[: ENDS[2]]


def test_an_open_file_without_a_ledger_keeps_its_whole_records(tmp_path: Path) -> None:
    (tmp_path / (NAME + ".open")).write_bytes(WHOLE[: ENDS[3] + 7])
    with Frontier(tmp_path) as frontier:
        recover(frontier, tmp_path)
    assert (tmp_path / NAME).read_bytes() == WHOLE[: ENDS[3]]
