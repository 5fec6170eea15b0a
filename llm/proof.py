"""Proof of resume: a training that is killed and gone on with ends with the bits of one that never stopped.

Real processes, killed with SIGKILL while they train. Compared by digest: the parameters, what the optimisers carry, the
guard's window, the random state, and which windows every update saw.
"""

import dataclasses
import math
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm import checkpoint
from llm.config import TrainConfig
from llm.journal import JOURNAL, STEP, read
from llm.launch import launch
from llm.worker import WorkerJob
from pipelines.digest import digest_value
from pipelines.errors import ConfigError, TransientError

_OTHER_NUM_PROCESSES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One training of the proof, and what its last checkpoint holds."""

    name: str
    processes: tuple[int, ...]
    """How many shared it, before each kill and after the last."""
    killed_after_step: int | None
    digests: dict[str, str]
    """Of parameters, optimizer, guard, random and batches: 64 hex characters each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """All attempts; the first was never stopped."""

    num_steps: int
    device: str
    attempts: tuple[Attempt, ...]

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
    plans = (
        ("uninterrupted", (1,)),
        ("killed, resumed", (1, 1)),
        (f"killed, resumed on {_OTHER_NUM_PROCESSES} processes", (1, _OTHER_NUM_PROCESSES)),
        (f"begun on {_OTHER_NUM_PROCESSES}, killed, resumed on 1", (_OTHER_NUM_PROCESSES, 1)),
    )
    attempts = []
    for idx, (name, processes) in enumerate(plans):
        tell(name)
        place = folder / f"attempt-{idx}"
        place.mkdir(parents=True)
        for num, size in enumerate(processes):
            run = dataclasses.replace(job.run, num_processes=size, num_threads=1, exact_reduction=True)
            last = num == len(processes) - 1
            part = dataclasses.replace(
                job, training=training, run=run, folder=str(place), hold_after_step=None if last else kill_step
            )
            path = part.write(place / f"job-{num}.json")
            if last:
                launch(path, size)
            else:
                _kill_at(path, size, place / JOURNAL, kill_step)
        newest = place / f"step-{num_steps:08d}"
        digests = {**checkpoint.digests(newest), "batches": _batches(place / JOURNAL)}
        was_killed = kill_step if len(processes) > 1 else None
        attempts.append(Attempt(name=name, processes=processes, killed_after_step=was_killed, digests=digests))
    return Proof(num_steps=num_steps, device=job.run.device or "auto", attempts=tuple(attempts))


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


def _kill_at(job: Path, num_processes: int, journal: Path, step: int) -> None:
    """Start processes and kill them all, with SIGKILL, once a step is in the journal."""
    is_killed = False

    def kill_when_due(pids: Sequence[int]) -> None:
        nonlocal is_killed
        if not is_killed and journal.exists() and any(reached == step for reached, _ in _steps(journal)):
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


def _steps(journal: Path) -> Sequence[tuple[int, str]]:
    """Every step with the digest of its batch, as they were written."""
    entries = (entry for entry in read(journal) if entry.kind == STEP and entry.facts["batch_digest"] is not None)
    return [(int(entry.facts["step"]), str(entry.facts["batch_digest"])) for entry in entries]


def _batches(journal: Path) -> str:
    """Digest of what every step saw; of a step that was done again the later time."""
    return digest_value(sorted(dict(_steps(journal)).items()))
