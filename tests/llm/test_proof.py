"""The proof of resume holds, and finds what would break it."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import llm.proof
import llm.worker
from llm.config import ModelConfig, RunConfig, TrainConfig
from llm.journal import Journal
from llm.proof import Attempt, Proof, prove_resume
from llm.reports import StepReport
from llm.worker import WorkerJob, work
from pipelines.errors import ConfigError, TransientError


@pytest.fixture
def job(corpus: Any, tmp_path: Path) -> WorkerJob:
    return WorkerJob(
        shards=(str(tmp_path / "0.arrow"),),
        dataset_digest="d",
        model=ModelConfig(vocab_size=50, block_size=8, n_layer=2, n_head=2, n_embd=16, dropout=0.1),
        training=TrainConfig(max_steps=99, micro_batch_size=8, tokens_per_step=64, optimizer="muon"),
        run=RunConfig(device="cpu"),
        folder="",
    )


def test_killed_and_resumed_is_uninterrupted_bit_for_bit(job: WorkerJob, tmp_path: Path) -> None:
    told: list[str] = []
    proof = prove_resume(job, 6, tmp_path / "proof", tell=told.append)
    assert proof.differences == {}
    assert [attempt.name for attempt in proof.attempts] == told
    assert [attempt.processes for attempt in proof.attempts] == [(1,), (1, 1), (1, 2), (2, 1)]
    assert proof.notes == ()
    assert proof.attempts[0].resumed_from_step is None
    assert all(attempt.resumed_from_step in (1, 2, 3) for attempt in proof.attempts[1:])  # killed at step 3
    assert set(proof.attempts[0].digests) == {"parameters", "optimizer", "guard", "random", "batches"}
    assert len({attempt.digests["parameters"] for attempt in proof.attempts}) == 1


def test_a_difference_is_named() -> None:
    same = {"parameters": "a", "batches": "b"}
    attempts = tuple(
        Attempt(name=name, processes=(1,), killed_after_step=None, digests=digests)
        for name, digests in (("one", same), ("two", same | {"batches": "c"}))
    )
    assert Proof(num_steps=4, device="cpu", attempts=attempts).differences == {"two": ["batches"]}


def test_what_cannot_be_split_is_refused(job: WorkerJob, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got 2 steps to prove a resume with; wanted at least 4"):
        prove_resume(job, 2, tmp_path / "a")
    odd = dataclasses.replace(job, training=dataclasses.replace(job.training, tokens_per_step=24, micro_batch_size=3))
    with pytest.raises(ConfigError, match="got 3 sequences a step in micro-batches of 3; wanted twice a power of two"):
        prove_resume(odd, 6, tmp_path / "b")


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process each, and Ctrl-C where it would wait to be killed."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    def killed(job: Path, *_: object) -> None:
        with pytest.raises(KeyboardInterrupt):
            work(WorkerJob.read(job))

    monkeypatch.setattr(llm.worker.signal, "pause", interrupted)
    monkeypatch.setattr(llm.proof, "launch", lambda path, _size: work(WorkerJob.read(path)))
    monkeypatch.setattr(llm.proof, "_kill_at", killed)


@pytest.mark.usefixtures("in_this_process")
def test_on_one_gpu_it_proves_what_one_gpu_can_and_says_so(
    job: WorkerJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the recipe shards the model, whose files have no digests of whole tensors."""
    asked: list[dict[str, bool]] = []
    monkeypatch.setattr(llm.proof, "_devices", lambda _run: ("cuda", 1))
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda **options: asked.append(options))
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    sharded = dataclasses.replace(job, run=RunConfig(device="cpu", parallelism="sharded"))
    proof = prove_resume(sharded, 4, tmp_path / "proof")
    assert proof.differences == {}
    assert [attempt.processes for attempt in proof.attempts] == [(1,), (1, 1)]
    assert asked == [{"mode": True, "warn_only": True}] * 3
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    for note, word in zip(proof.notes, ("sharded", "on 2 processes", "deterministic kernels"), strict=True):
        assert word in note


@pytest.mark.parametrize(
    ("device", "num_gpus", "wanted"),
    [
        (None, 0, ("cpu", 2)),
        ("cpu", 8, ("cpu", 2)),
        (None, 1, ("cuda", 1)),
        ("cuda", 8, ("cuda", 8)),
        ("cuda:1", 8, ("cuda", 1)),
    ],
)
def test_as_many_processes_as_gpus(
    device: str | None, num_gpus: int, wanted: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    assert llm.proof._devices(RunConfig(device=device)) == wanted


@pytest.mark.usefixtures("in_this_process")
def test_a_training_that_begins_anew_proves_nothing(
    job: WorkerJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm.proof, "_kill_at", lambda *_: None)
    with pytest.raises(TransientError, match=r"began anew after its kill at step 2 .*run the proof again"):
        prove_resume(job, 4, tmp_path / "proof")


@pytest.mark.parametrize("is_written", [True, False], ids=["written in time", "never written"])
def test_the_kill_waits_for_a_checkpoint(
    is_written: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which is written beside the steps: the step of the kill may be done before there is any."""
    killed: list[int] = []
    clock = itertools.count(step=100)
    monkeypatch.setattr(llm.proof.os, "kill", lambda pid, _signal: killed.append(pid))
    monkeypatch.setattr(llm.proof.time, "monotonic", lambda: next(clock))

    def launch(_job: Path, _size: int, *, on_poll: Callable[[Sequence[int]], None]) -> None:
        on_poll([7])
        with Journal(tmp_path) as journal:
            figures = dict.fromkeys(field.name for field in dataclasses.fields(StepReport))
            journal.write(StepReport(**{**figures, "step": 2, "num_tokens": 1, "batch_digest": "d"}))
        on_poll([7])
        assert killed == []
        if is_written:
            (tmp_path / "step-00000001").mkdir()
        else:
            for _ in range(3):
                on_poll([7])
        on_poll([7])
        raise TransientError("ended with -9")

    monkeypatch.setattr(llm.proof, "launch", launch)
    llm.proof._kill_at(tmp_path / "job.json", 1, tmp_path, 2)
    assert killed == [7]
