"""A training in a process of its own, for tests that kill it: `run_training.py SHARD FOLDER DEATH`.

DEATH says how it ends: "none", "SIGTERM 5" (after step 5), "SIGKILL-fsync 7" (in the middle of writing a
checkpoint, at the seventh fsync). Prints the parameters' digest at the end.
"""

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llm.config import ModelConfig, RunConfig, TrainConfig
from llm.data import TokenData
from llm.reports import Report, StepReport
from llm.train import TrainResult, train


def run_training(shard: str, folder: str, death: str) -> TrainResult:
    how, _, when = death.partition(" ")

    def on_report(report: Report) -> None:
        if how == "SIGTERM" and isinstance(report, StepReport) and report.step == int(when):
            os.kill(os.getpid(), signal.SIGTERM)

    if how == "SIGKILL-fsync":
        fsync, left = os.fsync, iter(range(int(when) - 1, -1, -1))

        def fsync_or_die(descriptor: int) -> None:
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            fsync(descriptor)

        os.fsync = fsync_or_die

    return train(
        TokenData.open([Path(shard)], "train", digest="d"),
        TokenData.open([Path(shard)], "validation", digest="d"),
        ModelConfig(vocab_size=50, block_size=8, n_layer=2, n_head=2, n_embd=16, dropout=0.1),
        TrainConfig(max_steps=12, micro_batch_size=4, tokens_per_step=64, learning_rate=1e-2, checkpoint_every_steps=4),
        RunConfig(device="cpu", num_threads=2),
        Path(folder),
        on_report=on_report,
    )


if __name__ == "__main__":
    result = run_training(*sys.argv[1:])
    print(result.resumed_from_step, result.parameters_digest)  # noqa: T201
