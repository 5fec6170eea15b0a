"""The rungs in a process of their own: what else is measured of a model needs nothing of them, nor they of it.

It takes a line of JSON that says what to train on, and says line by line how far it is, then what it found.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm.data import TokenData
from llm.evaluation.ladder.climb import OnProgress, score_rungs
from llm.evaluation.ladder.rungs import Scored
from llm.starter import STARTER, end_with_starter
from pipelines.errors import CorpusmillError, TerminalError, TransientError


@dataclass(frozen=True, kw_only=True, slots=True)
class RungsJob:
    """What the rungs are trained on and scored on."""

    shards: tuple[str, ...]
    """Token shards, in the order of their digests."""
    dataset_digest: str
    split: str
    """Of the held-out documents."""
    vocab_size: int
    eot_token: int


@contextlib.contextmanager
def rungs_beside(job: RungsJob) -> Iterator[Callable[[OnProgress], dict[str, Scored]]]:
    """Train and score them while the block goes on; the call that it is given waits for them. They end with the block.

    The call raises TerminalError for a corpus that has no ladder, TransientError where the process was lost.
    """
    command = [sys.executable, "-m", "llm.evaluation.ladder.beside"]
    environment = os.environ | {STARTER: str(os.getpid())}
    with subprocess.Popen(  # noqa: S603 - our own command
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdin is not None  # noqa: S101 - they were asked for
        assert process.stdout is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # whoever waits is told how it ended
            process.stdin.write(json.dumps(asdict(job)) + "\n")
            process.stdin.flush()
        said = process.stdout

        def wait(on_progress: OnProgress) -> dict[str, Scored]:
            for line in said:
                told = json.loads(line)
                if "rung" in told:
                    on_progress(told["rung"], told["share"])
                elif "refused" in told:
                    raise TerminalError(told["refused"])
                else:
                    return {name: _scored(values) for name, values in told["found"].items()}
            raise TransientError(
                f"got exit code {process.wait()} of the process that trains the ladder, wanted its rungs: run the same "
                "command again, with more free memory if it was killed."
            )

        try:
            yield wait
        finally:
            process.kill()


def _scored(values: dict[str, Any]) -> Scored:
    return Scored(**{**values, "losses": np.array(values["losses"], dtype=np.float64)})


def main() -> None:
    """Train and score the rungs of the job on stdin."""
    starter = os.environ.get(STARTER)
    end_with_starter(signal.SIGKILL, int(starter) if starter else None)
    job = RungsJob(**json.loads(sys.stdin.readline()))
    shown: tuple[str, int] | None = None

    def on_progress(rung: str, share: float) -> None:
        nonlocal shown
        if shown != (rung, int(100 * share)):
            shown = (rung, int(100 * share))
            _say({"rung": rung, "share": share})

    shards = [Path(path) for path in job.shards]
    try:
        found = score_rungs(
            TokenData.open(shards, "train", digest=job.dataset_digest),
            TokenData.open(shards, job.split, digest=job.dataset_digest),
            vocab_size=job.vocab_size,
            eot_token=job.eot_token,
            on_progress=on_progress,
        )
    except CorpusmillError as error:
        _say({"refused": str(error)})
        return
    _say({"found": {name: {**asdict(each), "losses": each.losses.tolist()} for name, each in found.items()}})


def _say(told: dict[str, Any]) -> None:
    print(json.dumps(told), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
