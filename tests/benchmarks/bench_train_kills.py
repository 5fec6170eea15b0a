"""Random kills during training: `python tests/benchmarks/bench_train_kills.py [--kills 30] [--seed 0]`.

Trainings of a small model, with Muon and dropout, are killed with SIGKILL at random times (while they start, step, validate or
write), gone on with on one process or two, in turn at random, until they end. Each must end with the digests of a training that
was never stopped. Prints a row for each training and exits 1 where one differs.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from llm import checkpoint
from llm.config import ModelConfig, RunConfig, TrainConfig
from llm.launch import launch
from llm.worker import WorkerJob
from pipelines.errors import CorpusmillError
from pipelines.schemas import TOKENS

NUM_STEPS = 240
MODEL = ModelConfig(vocab_size=512, block_size=64, n_layer=3, n_head=4, n_embd=64, dropout=0.1)
TRAINING = TrainConfig(
    max_steps=NUM_STEPS,
    micro_batch_size=8,
    tokens_per_step=32 * 64,
    optimizer="muon",
    learning_rate=3e-3,
    warmup_steps=20,
    eval_every_steps=25,
    checkpoint_every_steps=7,
)


def write_shard(path: Path) -> Path:
    """Documents of a random walk over the vocabulary."""
    draw = np.random.default_rng(0)
    rows = [
        {
            "doc_id": str(idx),
            "split": "validation" if idx % 20 == 0 else "train",
            "num_bytes": 1,
            "tokens": [*np.cumsum(draw.integers(1, 4, size=int(draw.integers(50, 400)))) % 511 + 1, 0],
        }
        for idx in range(400)
    ]
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, TOKENS) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=TOKENS))
    return path


def killer(after_seconds: float) -> Callable[[Sequence[int]], None]:
    """Kill all processes of a launch so many seconds after its start."""
    due = time.monotonic() + after_seconds

    def kill(pids: Sequence[int]) -> None:
        if time.monotonic() >= due:
            for pid in pids:
                with suppress(ProcessLookupError):  # it has been seen to its end
                    os.kill(pid, signal.SIGKILL)

    return kill


def train_with_kills(job: WorkerJob, path: Path, draw: random.Random, *, most_kills: int) -> int:
    """Train to the end through at most so many kills. Gives how many there were."""
    num_kills = 0
    while True:
        size = draw.choice((1, 2))
        run = replace(job.run, num_processes=size)
        on_poll = killer(draw.uniform(1.0, 15.0)) if num_kills < most_kills else lambda _pids: None
        try:
            launch(replace(job, run=run).write(path), size, on_poll=on_poll)
        except CorpusmillError as error:
            if "-9" not in str(error):
                raise
            num_kills += 1
            continue
        return num_kills


def main() -> int:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, num_kills, num_wrong = random.Random(options.seed), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = WorkerJob(
            shards=(str(write_shard(folder / "tokens.arrow")),),
            dataset_digest="walks",
            model=MODEL,
            training=TRAINING,
            run=RunConfig(device="cpu", num_threads=1),
            folder=str(folder / "whole"),
        )
        launch(job.write(folder / "job.json"), 1)
        wanted = checkpoint.digests(folder / "whole" / f"step-{NUM_STEPS:08d}")
        print(f"uninterrupted: parameters {wanted['parameters'][:12]}", flush=True)
        while num_kills < options.kills:
            place = folder / f"after-{num_kills}"
            found = train_with_kills(
                replace(job, folder=str(place)), folder / "job.json", draw, most_kills=options.kills - num_kills
            )
            num_kills += found
            got = checkpoint.digests(place / f"step-{NUM_STEPS:08d}")
            differing = [part for part in wanted if got[part] != wanted[part]]
            num_wrong += bool(differing)
            print(f"{found} kills, {num_kills} in all: {', '.join(differing) or 'equal'}", flush=True)
    return 1 if num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
