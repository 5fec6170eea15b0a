"""Processes that share a training: exact sums, DDP, FSDP2, other numbers of them after a resume, one that is lost.

Real processes on loopback, as a training on several GPUs has them.
"""

import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processes_training import CPU, MODEL, TRAINING

from llm import checkpoint
from llm.distributed import PairwiseSum
from llm.journal import JOURNAL, STEP, read
from llm.launch import LaunchStoppedError, launch
from llm.worker import WorkerJob, work
from pipelines.errors import TerminalError, TransientError


@pytest.fixture
def job(corpus: Any, tmp_path: Path) -> Callable[..., Path]:
    """Write a job file for a folder by name; the configs' fields can be changed by name."""

    def job(folder: str, **changes: Any) -> Path:
        def changed(config: Any) -> Any:
            names = {field.name for field in dataclasses.fields(config)}
            return dataclasses.replace(config, **{name: changes[name] for name in changes.keys() & names})

        return WorkerJob(
            shards=(str(tmp_path / "0.arrow"),),
            dataset_digest="d",
            model=changed(MODEL),
            training=changed(TRAINING),
            run=changed(CPU),
            folder=str(tmp_path / folder),
            hold_after_step=changes.get("hold_after_step"),
        ).write(tmp_path / f"{folder}.json")

    return job


def run(job: Path, num_processes: int) -> None:
    """As `launch` does; one process is this one, which saves its start."""
    if num_processes > 1:
        launch(job, num_processes)
    else:
        work(WorkerJob.read(job))


def final(folder: Path) -> dict[str, str]:
    newest = checkpoint.newest_valid(folder)
    assert newest is not None
    assert checkpoint.step_of(newest) == 12
    return checkpoint.digests(newest)


def test_more_processes_give_the_same_bits(job: Callable[..., Path], tmp_path: Path) -> None:
    """Weights, moments, the guard's window and random state; with Muon, whose matrices see every bit of a gradient."""
    for num_processes in (1, 4):
        run(job(f"{num_processes}", optimizer="muon"), num_processes)
    assert final(tmp_path / "1") == final(tmp_path / "4")


class Killer:
    """Kills processes of a launch once a file is there."""

    def __init__(self, path: Path, ranks: tuple[int, ...]) -> None:
        self.path, self.ranks, self.is_done = path, ranks, False

    def __call__(self, pids: Sequence[int]) -> None:
        if not self.is_done and self.path.exists():
            self.is_done = True
            for rank in self.ranks:
                os.kill(pids[rank], signal.SIGKILL)


def test_a_resume_on_other_numbers_of_processes_gives_the_same_bits(job: Callable[..., Path], tmp_path: Path) -> None:
    run(job("whole"), 1)
    wanted = final(tmp_path / "whole")
    for before, after in ((1, 2), (2, 1)):
        name = f"{before}-{after}"
        killer = Killer(tmp_path / name / "step-00000008" / "manifest.json", tuple(range(before)))
        with pytest.raises(TransientError, match=r"ended with -9; wanted all processes to end well: run the same"):
            launch(job(name, hold_after_step=10), before, on_poll=killer)
        run(job(name), after)
        assert final(tmp_path / name) == wanted
        state = checkpoint.read_state(tmp_path / name / "step-00000012")
        assert state["num_processes"] == after


def assert_alike(folder: Path, other: Path, *, old: str = "") -> None:
    """To rounding: AdamW makes large steps of small differences where gradients are small."""
    results = [json.loads(path.read_text())["result"] for path in (folder / "result.json", other / f"{old}result.json")]
    assert results[0]["final_val_loss"] == pytest.approx(results[1]["final_val_loss"], abs=2e-4)
    checkpoints = folder / "step-00000012", other / f"{old}step-00000012"
    got, wanted = (dict(checkpoint.load_model(path).named_parameters()) for path in checkpoints)
    for name, parameter in wanted.items():
        if not name.endswith("c_attn.bias"):  # no loss depends on the biases of keys
            assert (got[name] - parameter).abs().mean() < 1e-3, name


@pytest.mark.parametrize("parallelism", ["replicated", "sharded"])
def test_ddp_and_fsdp_learn_the_same(parallelism: str, job: Callable[..., Path], tmp_path: Path) -> None:
    """To rounding; a sharded checkpoint is read back by one process, and by two, and the other way round."""
    options = {"parallelism": parallelism, "exact_reduction": False, "dropout": 0.0, "optimizer": "muon"}
    alone = {**options, "parallelism": "replicated"}
    run(job("alone", **alone), 1)
    run(job("shared", **options), 2)
    assert_alike(tmp_path / "shared", tmp_path / "alone")
    is_sharded = len(list((tmp_path / "shared/step-00000012/optimizer").iterdir())) > 1
    assert is_sharded == (parallelism == "sharded")
    for folder, num_processes in (("shared", 1), ("alone", 2)):
        for path in ("step-00000012", "result.json"):
            (tmp_path / folder / path).rename(tmp_path / folder / f"old-{path}")
        run(job(folder, **(alone if num_processes == 1 else options)), num_processes)
        assert_alike(tmp_path / folder, tmp_path / folder, old="old-")


def test_a_lost_process_ends_the_training_quickly_and_loses_no_step(job: Callable[..., Path], tmp_path: Path) -> None:
    """The first process writes what all of them have: no step that was reported is made again."""
    killer = Killer(tmp_path / "run" / "step-00000008" / "manifest.json", (1,))
    began = time.monotonic()
    with pytest.raises(TransientError, match="process 1 ended with -9"):
        launch(job("run", max_steps=100_000, checkpoint_every_steps=8, eval_every_steps=None), 2, on_poll=killer)
    assert time.monotonic() - began < 60
    newest = checkpoint.newest_valid(tmp_path / "run")
    assert newest is not None
    reported = [entry.facts["step"] for entry in read(tmp_path / "run" / JOURNAL) if entry.kind == STEP]
    assert checkpoint.step_of(newest) >= 8
    assert reported == [*range(checkpoint.step_of(newest) + 1)], "the last whole step is told of, too"


def test_a_stop_reaches_every_process(job: Callable[..., Path], tmp_path: Path) -> None:
    is_begun = tmp_path / "run" / "step-00000004" / "manifest.json"
    with pytest.raises(LaunchStoppedError, match="the checkpoint is written: run the same command again"):
        launch(job("run", max_steps=100_000, eval_every_steps=None), 2, should_stop=is_begun.exists)
    assert checkpoint.newest_valid(tmp_path / "run") is not None


def test_a_wrong_input_is_told_by_its_own_words(job: Callable[..., Path]) -> None:
    with pytest.raises(TerminalError, match="got token id 49; wanted ids below the model's vocab_size of 30"):
        launch(job("run", vocab_size=30), 2)
    with pytest.raises(TerminalError, match=r"micro_batch_size x block_size x num_processes = 2 x 8 x 3 = 48"):
        launch(job("three"), 3)


@settings(deadline=None, max_examples=60)
@given(num_processes=st.sampled_from([1, 2, 4, 8]), num_each=st.sampled_from([1, 2, 4]), data=st.data())
def test_sums_in_pairs_do_not_depend_on_how_terms_are_shared(num_processes: int, num_each: int, data: Any) -> None:
    num_terms = 8 * num_each
    numbers = st.floats(-1e6, 1e6, width=32)
    terms = data.draw(st.lists(numbers, min_size=num_terms, max_size=num_terms))

    def total(values: list[torch.Tensor]) -> torch.Tensor:
        running = PairwiseSum()
        for value in values:
            running.add([value.clone()])
        return running.result()[0]

    tensors = [torch.tensor(term) for term in terms]
    share = num_terms // num_processes
    parts = [total(tensors[start : start + share]) for start in range(0, num_terms, share)]
    assert torch.equal(total(parts), total(tensors))
