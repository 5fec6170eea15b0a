"""One process of a training, from a job file: `python -m llm.worker JOB.json`, alone, under `llm.launch` or torchrun.

Needs torch, numpy, pyarrow and safetensors alone, as GPU hosts have them. The job file names the shards, the configs and
the folder; reports go to the journal in that folder. Exit codes: 0 done, 3 stopped and can be gone on with, 75 a failure
that may pass (as in BSD's sysexits), 1 any other; the reason is one line on stderr.
"""

import json
import math
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from llm.config import ModelConfig, RunConfig, TrainConfig
from llm.data import TokenData
from llm.distributed import is_main_process
from llm.journal import journal
from llm.reports import OnReport, Report, StepReport
from llm.starter import STARTER, end_with_starter
from llm.train import TrainingStoppedError, train
from llm.weights import read_weights
from pipelines.errors import CorpusmillError, InputError, may_pass

EXIT_STOPPED = 3
EXIT_TRANSIENT = 75
_UNDER_TORCHRUN = "TORCHELASTIC_RUN_ID"
_LINE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerJob:
    """What a process needs to take part in a training."""

    shards: tuple[str, ...]
    """Token shards, in the order of their digests."""
    dataset_digest: str
    model: ModelConfig
    training: TrainConfig
    run: RunConfig
    folder: str
    start_from: str | None = None
    """A folder of weights to begin with, where the training's config names their digest."""
    hold_after_step: int | None = None
    """Wait there to be killed: for the proof of resume."""
    deterministic: bool = False
    """Ask torch for kernels whose sums have one order, where it has such: on GPUs, for the proof of resume."""

    def write(self, path: Path) -> Path:
        """Write the job file. Gives its path."""
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> "WorkerJob":
        """Raises InputError for a file that is none."""
        try:
            fields: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            configs = {"model": ModelConfig, "training": TrainConfig, "run": RunConfig}
            values = {name: configs[name](**value) if name in configs else value for name, value in fields.items()}
            return cls(**{**values, "shards": tuple(values["shards"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"got {str(error)!r} from {path}; wanted a job file of this version: let `corpusmill train` write it."
            ) from error


def work(job: WorkerJob) -> None:
    """Take part in a training to its end."""
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [Path(path) for path in job.shards]
    if job.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
    written = journal(folder, stopped_by=(TrainingStoppedError,)) if is_main_process() else nullcontext()
    with written as lines:
        show = _printer() if is_main_process() and _UNDER_TORCHRUN in os.environ else None

        def on_report(report: Report) -> None:
            if lines is not None:
                lines.write(report)
            if show is not None:
                show(report)
            if isinstance(report, StepReport) and report.step == job.hold_after_step:
                signal.pause()

        train(
            TokenData.open(paths, "train", digest=job.dataset_digest),
            TokenData.open(paths, "validation", digest=job.dataset_digest),
            job.model,
            job.training,
            job.run,
            folder,
            on_report=on_report,
            weights=None if job.start_from is None else read_weights(Path(job.start_from)),
        )


def _printer() -> OnReport:
    """Writes how far the training is, for torchrun's log, and what happened in it: few lines of many reports."""
    shown_at = -math.inf

    def show(report: Report) -> None:
        nonlocal shown_at
        if not isinstance(report, StepReport):
            print(f"step {report.step:,}: {report.kind}: {report.message}", flush=True)  # noqa: T201
        elif report.loss is not None and time.monotonic() - shown_at >= _LINE_SECONDS:
            shown_at = time.monotonic()
            figures = {"loss": report.loss, "tokens_per_second": report.tokens_per_second}
            told = ", ".join(f"{name} {value:,.4g}" for name, value in figures.items() if value is not None)
            print(f"step {report.step:,}: {told}", flush=True)  # noqa: T201

    return show


def main(arguments: list[str]) -> int:
    """Run the job that is named; gives the exit code."""
    starter = os.environ.get(STARTER)
    end_with_starter(signal.SIGKILL, int(starter) if starter else None)
    if len(arguments) != 1:
        print(f"got {len(arguments)} arguments, wanted one: python -m llm.worker JOB.json", file=sys.stderr)  # noqa: T201
        return 2
    try:
        work(WorkerJob.read(Path(arguments[0])))
    except CorpusmillError as error:
        print(str(error), file=sys.stderr, flush=True)  # noqa: T201
        if isinstance(error, TrainingStoppedError):
            return EXIT_STOPPED
        return EXIT_TRANSIENT if may_pass(error) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
