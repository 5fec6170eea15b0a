"""Rungs in a process of their own: the same as in this one, and an end in one sentence where there are none."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_ladder_climb import ENGLISH, EOT, byte_rows, opened

from llm.evaluation.ladder.beside import RungsJob, rungs_beside
from llm.evaluation.ladder.climb import score_rungs
from pipelines.errors import TerminalError, TransientError


@pytest.fixture
def job(write_shard) -> RungsJob:
    shard = write_shard(byte_rows(ENGLISH), name="beside.arrow")
    return RungsJob(shards=(str(shard),), dataset_digest="d", split="test", vocab_size=257, eot_token=EOT)


def test_the_rungs_are_those_of_this_process(job, write_shard) -> None:
    heard = []
    with rungs_beside(job) as wait:
        wanted = score_rungs(*opened(write_shard, byte_rows(ENGLISH)), vocab_size=257, eot_token=EOT)
        found = wait(lambda *each: heard.append(each))
    assert list(found) == list(wanted)
    for name, each in found.items():
        assert np.array_equal(each.losses, wanted[name].losses), name
        assert replace(each, losses=None, cpu_seconds=None) == replace(wanted[name], losses=None, cpu_seconds=None)
    assert [rung for rung, share in heard if share == 1] == list(wanted)


def test_a_corpus_without_a_ladder_is_refused_in_its_own_words(job) -> None:
    with pytest.raises(TerminalError, match="got token id"), rungs_beside(replace(job, vocab_size=5)) as wait:
        wait(print)


def test_a_process_that_was_killed_is_told_of_and_none_is_left(job) -> None:
    with rungs_beside(job) as wait:
        (pid,) = children()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(TransientError, match="exit code -9"):
            wait(lambda *_: None)
    with pytest.raises(KeyError), rungs_beside(job):
        raise KeyError
    assert not children()


def children() -> list[int]:
    """Processes of this one's that train rungs."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            is_ours = parent == os.getpid() and "ladder.beside" in (folder / "cmdline").read_text()
        except OSError:
            continue
        if is_ours:
            found.append(int(folder.name))
    return found
