"""The proof of resume holds, and finds what would break it."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from llm.config import ModelConfig, RunConfig, TrainConfig
from llm.proof import Attempt, Proof, prove_resume
from llm.worker import WorkerJob
from pipelines.errors import ConfigError


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
