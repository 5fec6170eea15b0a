"""Proof of resume: a training that is killed and gone on with ends with the bits of one that never stopped.

Real processes, killed with SIGKILL while they train, once a checkpoint is there to go on from. Compared by digest: the parameters, what the optimisers carry, the
guard's window, the random state, and which windows every update saw.
"""

import dataclasses
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from llm import checkpoint
from llm.config import RunConfig, TrainConfig
from llm.journal import JOURNAL, STEP, read
from llm.launch import launch
from llm.worker import WorkerJob
from pipelines.digest import digest_value
from pipelines.errors import ConfigError, TransientError

_OTHER_NUM_PROCESSES = 2
_CHECKPOINT_SECONDS = 300.0
"""For the checkpoint that is being written when the step of the kill is reached."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One training of the proof, and what its last checkpoint holds."""

    name: str
    processes: tuple[int, ...]
    """How many shared it, before each kill and after the last."""
    killed_after_step: int | None
    digests: dict[str, str]
    """Of parameters, optimizer, guard, random and batches: 64 hex characters each."""
    resumed_from_step: int | None = None
    """The checkpoint that it went on from after the kill."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """All attempts; the first was never stopped."""

    num_steps: int
    device: str
    attempts: tuple[Attempt, ...]
    notes: tuple[str, ...] = ()
    """What it does not prove, or does otherwise than the training would."""

    @property
    def differences(self) -> dict[str, list[str]]:
        """By attempt, what differs from the first. Empty: the proof holds."""
        wanted = self.attempts[0].digests
        found = {one.name: [part for part in wanted if one.digests[part] != wanted[part]] for one in self.attempts}
        return {name: parts for name, parts in found.items() if parts}


def prove_resume(
    job: WorkerJob, num_steps: int, folder: Path, *, tell: Callable[[str], None] = lambda _name: None
) -> Proof:
    """Train num_steps in a folder of its own: through, killed and resumed, and killed and resumed on other processes.

    The data, model and optimiser are the job's; the batch is split so that two processes have a power of two of
    micro-batches each, one thread computes, and checkpoints come every few steps. Raises ConfigError where so few steps
    or sequences cannot be split.
    """
    training = _training(job.training, job.model.block_size, num_steps)
    kill_step = max(2, num_steps // 2)
    device_type, num_shares = _devices(job.run)
    plans = [("uninterrupted", (1,)), ("killed, resumed", (1, 1))]
    if num_shares >= _OTHER_NUM_PROCESSES:
        plans += [
            (f"killed, resumed on {_OTHER_NUM_PROCESSES} processes", (1, _OTHER_NUM_PROCESSES)),
            (f"begun on {_OTHER_NUM_PROCESSES}, killed, resumed on 1", (_OTHER_NUM_PROCESSES, 1)),
        ]
    attempts = []
    for idx, (name, processes) in enumerate(plans):
        tell(name)
        place = folder / f"attempt-{idx}"
        place.mkdir(parents=True)
        for num, size in enumerate(processes):
            run = dataclasses.replace(
                job.run, num_processes=size, num_threads=1, exact_reduction=True, parallelism="replicated"
            )
            last = num == len(processes) - 1
            part = dataclasses.replace(
                job,
                training=training,
                run=run,
                folder=str(place),
                hold_after_step=None if last else kill_step,
                deterministic=device_type != "cpu",
            )
            path = part.write(place / f"job-{num}.json")
            if last:
                launch(path, size)
            else:
                _kill_at(path, size, place, kill_step)
        newest = place / f"step-{num_steps:08d}"
        digests = {**checkpoint.digests(newest), "batches": _batches(place / JOURNAL)}
        was_killed = kill_step if len(processes) > 1 else None
        resumed = _resumed_from(place / JOURNAL)
        if was_killed and not resumed:
            raise TransientError(
                f"got a training that began anew after its kill at step {kill_step} ({name}); wanted one that goes on from "
                "a checkpoint, as nothing else proves a resume: run the proof again."
            )
        attempts.append(
            Attempt(
                name=name,
                processes=processes,
                killed_after_step=was_killed,
                digests=digests,
                resumed_from_step=resumed,
            )
        )
    return Proof(
        num_steps=num_steps,
        device=job.run.device or "auto",
        attempts=tuple(attempts),
        notes=tuple(_notes(job.run, device_type, num_shares)),
    )


def _devices(run: RunConfig) -> tuple[str, int]:
    """The kind of device that it is computed on, and how many processes can have one each."""
    name = run.device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = name.partition(":")[0]
    if kind == "cpu":
        return kind, _OTHER_NUM_PROCESSES
    return kind, torch.cuda.device_count() if name == "cuda" else 1


def _notes(run: RunConfig, device_type: str, num_shares: int) -> Iterator[str]:
    if run.parallelism != "replicated":
        yield (
            f"Each process held the whole model: the recipe's {run.parallelism} sums are in no fixed order, so that a resume "
            "of them is equal to rounding, not bit for bit."
        )
    if num_shares < _OTHER_NUM_PROCESSES:
        yield f"Nothing was resumed on {_OTHER_NUM_PROCESSES} processes: there is one device for them."
    if device_type != "cpu":
        yield (
            f"On {device_type} torch was asked for deterministic kernels, which a training does not ask for: there bits may "
            "differ from run to run, resumed or not, and an operation without such a kernel may differ here, too."
        )


def _training(config: TrainConfig, block_size: int, num_steps: int) -> TrainConfig:
    if num_steps < 4:
        raise ConfigError(f"got {num_steps} steps to prove a resume with; wanted at least 4, to be killed in between.")
    num_sequences = config.tokens_per_step // block_size
    share = math.gcd(num_sequences // _OTHER_NUM_PROCESSES, config.micro_batch_size)
    if num_sequences % _OTHER_NUM_PROCESSES or (num_sequences // _OTHER_NUM_PROCESSES // share).bit_count() != 1:
        raise ConfigError(
            f"got {num_sequences} sequences a step in micro-batches of {config.micro_batch_size}; wanted twice a power of "
            "two of micro-batches: set training.tokens_per_step to such a multiple."
        )
    return dataclasses.replace(
        config,
        max_steps=num_steps,
        num_epochs=None,
        num_tokens=None,
        micro_batch_size=share,
        warmup_steps=min(config.warmup_steps, num_steps // 2),
        eval_every_steps=None,
        checkpoint_every_steps=max(1, num_steps // 5),
    )


def _kill_at(job: Path, num_processes: int, folder: Path, step: int) -> None:
    """Start processes and kill them all, with SIGKILL, once a step is in the journal and a checkpoint before it on the disk.

    A checkpoint is written beside the steps: killed at once, a short training could leave none, and begin anew.
    """
    journal = folder / JOURNAL
    is_killed = False
    deadline: float | None = None

    def kill_when_due(pids: Sequence[int]) -> None:
        nonlocal is_killed, deadline
        if is_killed or not journal.exists() or all(reached != step for reached, _ in _steps(journal)):
            return
        deadline = deadline or time.monotonic() + _CHECKPOINT_SECONDS
        if checkpoint.last(folder) is not None or time.monotonic() > deadline:
            is_killed = True
            for pid in pids:
                os.kill(pid, signal.SIGKILL)

    try:
        launch(job, num_processes, on_poll=kill_when_due)
    except TransientError:
        if is_killed:
            return
        raise
    raise RuntimeError("a training that waits to be killed ended by itself: a fault in the worker")


def _resumed_from(journal: Path) -> int | None:
    """The step that a training last went on from; None where it never did."""
    steps = [int(entry.facts["step"]) for entry in read(journal) if entry.kind == "resumed"]
    return steps[-1] if steps else None


def _steps(journal: Path) -> Sequence[tuple[int, str]]:
    """Every step with the digest of its batch, as they were written."""
    entries = (entry for entry in read(journal) if entry.kind == STEP and entry.facts["batch_digest"] is not None)
    return [(int(entry.facts["step"]), str(entry.facts["batch_digest"])) for entry in entries]


def _batches(journal: Path) -> str:
    """Digest of what every step saw; of a step that was done again the later time."""
    return digest_value(sorted(dict(_steps(journal)).items()))
