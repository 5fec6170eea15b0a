"""The training loop. It reports to a callable and knows no tracker.

Run it again after a stop, a kill or a crash and it goes on from the newest valid checkpoint: on CPUs the weights it ends
with are, bit for bit, those of a run that was never stopped, on as many processes or more or fewer (same machine, same
threads a process). Run it again after the end and it gives back the recorded result. Under torchrun every process calls
it; the first one reports and writes.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from llm import checkpoint
from llm.batches import Batch, check_ids, prefetched, read_batch
from llm.checkpoint import Keep, Snapshot, Writer
from llm.clock import Clock
from llm.config import ModelConfig, RunConfig, TrainConfig
from llm.data import TokenData
from llm.devices import num_free_cores, peak_flops
from llm.distributed import World, joined
from llm.gradients import Engine
from llm.guard import Guard
from llm.job import Job, TrainResult
from llm.memory import with_advice
from llm.model import GPT
from llm.optim import Optimizers, optimizers
from llm.order import Segment, samples_of_step, windows_of_samples, with_batch_size, without_steps
from llm.reports import EventKind, OnReport, StepReport, StepSeconds, TrainEvent
from llm.sharding import part_like
from llm.stopping import stop_signals
from llm.validation import probe_loss, validation_loss
from pipelines.errors import ConfigError, TerminalError, TransientError

__all__ = ["TrainResult", "TrainingStoppedError", "train"]

_Value = TypeVar("_Value")

_STEPS_BETWEEN_READINGS_GPU = 10
_CONTINUITY_TOLERANCE = {"fp32": 1e-3, "bf16": 2e-2}
"""Relative difference of the probe's loss after a resume, beyond which something is not as it was."""


class TrainingStoppedError(TerminalError):
    """A signal or the caller asked for a stop; the checkpoint is written and the same call goes on from it."""


@dataclass(kw_only=True, slots=True)
class _Progress:
    """What the loop carries from step to step beside weights, moments and the guard."""

    plan: tuple[Segment, ...]
    step: int = 0
    seconds: float = 0.0
    first_val_loss: float | None = None
    val_loss: float | None = None
    """The last one, and the update that it was measured after."""
    val_step: int | None = None
    train_loss: float | None = None
    num_skipped_steps: int = 0
    num_rollbacks: int = 0

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "_Progress":
        """As a checkpoint keeps it."""
        values = dict(state["progress"])
        return cls(**{**values, "plan": tuple(Segment(**segment) for segment in values["plan"])})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Unread:
    """Measurements of a step that are still on the device."""

    step: int
    loss: Tensor
    norm: Tensor
    skipped: Tensor
    rate: float
    clock: Clock
    checkpoint_seconds: float
    log_seconds: float
    val_loss: float | None
    batch_digest: str


class _SpikeError(Exception):
    """Too many updates were skipped; training goes back. Holds the first and the last of them, counted from 0."""


def train(
    data: TokenData,
    validation: TokenData,
    model_config: ModelConfig,
    train_config: TrainConfig,
    run_config: RunConfig,
    folder: Path,
    *,
    on_report: OnReport,
    should_stop: Callable[[], bool] = lambda: False,
    weights: Mapping[str, Tensor] | None = None,
) -> TrainResult:
    """Train a model in a folder, to the end or to a stop.

    `weights` are those to begin with, by name, where train_config.start_from names their digest. SIGTERM and SIGINT
    (in the main thread), or `should_stop` (from any), end the current step, write a checkpoint and leave: the signal is
    then passed on to whoever handled it before. Raises ConfigError where the folder holds another training,
    EmptyCorpusError for too few tokens, TerminalError where training cannot go on, TransientError where another process
    was lost, TrainingStoppedError after a stop.
    """
    with joined(run_config) as world:
        job = Job.of(data, validation, model_config, train_config, folder, num_processes=world.size)
        report = on_report if world.is_main else _unheard
        folder.mkdir(parents=True, exist_ok=True)
        if world.is_main:
            checkpoint.tidy(folder)
        newest = _agreed_newest(folder, world, report)
        if newest is not None:
            job.check(newest)
            result = job.recorded(newest)
            if result is not None:
                return result
        if world.is_main:
            checkpoint.set_aside_after(folder, -1 if newest is None else checkpoint.step_of(newest))
        devices = [world.device] if world.device.type == "cuda" else []
        with stop_signals() as received, _threads(run_config, world), torch.random.fork_rng(devices):
            return _Loop.of(job, run_config, world, report, weights).run(
                newest, should_stop=lambda: bool(received) or should_stop()
            )


@dataclass(kw_only=True, slots=True)
class _Loop:
    """One process's training: what it computes with, and how far it is."""

    job: Job
    engine: Engine
    optimizers: Optimizers
    guard: Guard
    world: World
    report: OnReport
    weights: Mapping[str, Tensor] | None
    steps_between_readings: int
    peak_flops: float | None
    writer: Writer
    progress: _Progress
    unread: list[_Unread] = field(default_factory=list)
    log_seconds: float = 0.0
    checkpoint_seconds: float = 0.0
    started: float = 0.0
    """By the clock, less the seconds of the processes before."""

    @classmethod
    def of(
        cls, job: Job, run_config: RunConfig, world: World, report: OnReport, weights: Mapping[str, Tensor] | None
    ) -> "_Loop":
        """A training at its beginning."""
        config = job.config
        model = _first_model(job, weights)
        engine = Engine.of(model, config, run_config, world, eot_token=job.data.eot_token)
        peak = peak_flops(world.device, precision=engine.precision)
        usual = _STEPS_BETWEEN_READINGS_GPU if world.device.type == "cuda" else 1
        return cls(
            job=job,
            engine=engine,
            optimizers=optimizers(model, config),
            guard=Guard.of(config, world.device),
            world=world,
            report=report,
            weights=weights,
            steps_between_readings=run_config.report_every_steps or usual,
            peak_flops=None if peak is None else peak * world.size,
            writer=Writer(
                job.folder, Keep(last=config.keep_last, best=config.keep_best, window_steps=config.spike_window_steps)
            ),
            progress=_Progress(plan=job.first_plan),
        )

    def run(self, newest: Path | None, *, should_stop: Callable[[], bool]) -> TrainResult:
        """From a checkpoint, or from the beginning, to the end."""
        resumed_from_step = None
        if newest is not None:
            self._restore(newest)
            resumed_from_step = self.progress.step
        try:
            if resumed_from_step is None:
                self._begin()
            while True:
                try:
                    return self._to_the_end(should_stop, resumed_from_step)
                except _SpikeError as spike:
                    self._roll_back(*spike.args)
        finally:
            self.writer.close()

    # From the first step to the last

    def _to_the_end(self, should_stop: Callable[[], bool], resumed_from_step: int | None) -> TrainResult:
        progress, job = self.progress, self.job
        num_steps = job.num_steps(progress.step, progress.plan)
        first_step = progress.step
        self.started = time.perf_counter() - progress.seconds
        with self._lost_process_named(saves=False), prefetched(self._read, first_step, num_steps) as batches:
            while progress.step < num_steps:
                self._step(batches, num_steps)
                if progress.step == first_step + 2:
                    self.world.become_impatient()
                is_last = progress.step == num_steps
                is_due = is_last or progress.step % self.steps_between_readings == 0
                stopping = not is_last and self._is_stop_asked(should_stop())
                if stopping or _is_due(progress.step, job.config.checkpoint_every_steps, num_steps):
                    self._read_measurements()
                    self._save(waits=stopping or is_last)
                elif is_due:
                    self._read_measurements()
                if stopping:
                    raise TrainingStoppedError(
                        f"got a request to stop at step {progress.step} of {num_steps}; the checkpoint is written: "
                        "run the same command again to go on."
                    )
        return self._result(resumed_from_step)

    def _is_stop_asked(self, asked: bool) -> bool:  # noqa: FBT001 - a vote
        with self._lost_process_named(saves=True):
            return self.world.any(asked)

    def _step(self, batches: Iterator[Batch], num_steps: int) -> None:
        """One update, then validation where it is due. The host waits for nothing on the device.

        What differs from step to step (batch, rates, the guard's place) is put into tensors first. From there to the
        optimisers' end every step asks the same of the same memory and nothing back, as a CUDA graph must, which
        replays what was captured once.
        """
        progress, config, clock = self.progress, self.job.config, Clock(self.world.device)
        log_seconds, checkpoint_seconds = self._taken_seconds()
        clock.lap("start")
        batch = next(batches)
        _seed_random_state(config.seed, progress.step, self.world)
        self.engine.take(batch)
        rate = self.optimizers.set_rates(progress.step, num_steps=num_steps)
        self.guard.set_place(progress.step)
        clock.lap("data")
        with self._lost_process_named(saves=True):
            losses = with_advice(
                partial(self._accumulate, clock),
                partial(self._attempt, batch),
                micro_batch_size=config.micro_batch_size,
                num_sequences=len(batch.tokens),
            )
            norm = self.engine.clip()
        loss = losses.mean()
        skips = self.guard.judge(loss, norm)
        self.optimizers.step(skips)
        clock.lap("optimizer")
        progress.step += 1
        val_loss = None
        if _is_due(progress.step, config.eval_every_steps, num_steps):
            val_loss = progress.val_loss = self._validation_loss()
            progress.val_step = progress.step
        self.unread.append(
            _Unread(
                step=progress.step,
                loss=loss,
                norm=norm,
                skipped=skips,
                rate=rate,
                clock=clock,
                checkpoint_seconds=checkpoint_seconds,
                log_seconds=log_seconds,
                val_loss=val_loss,
                batch_digest=batch.digest,
            )
        )

    def _accumulate(self, clock: Clock) -> Tensor:
        if not self.optimizers.is_prepared:  # here, so that a lack of memory for the moments is advised on, too
            self.optimizers.prepare()
        return self.engine.accumulate(clock)

    def _read(self, step: int) -> Batch:
        """This process's part of a step, and the check of its token ids: in the thread that reads ahead."""
        config, model_config = self.job.config, self.job.model_config
        batch = read_batch(
            self.job.data,
            self.progress.plan,
            step,
            seed=config.seed,
            block_size=model_config.block_size,
            world=self.world,
        )
        check_ids(batch.tokens, model_config.vocab_size)
        return batch

    def _begin(self) -> None:
        self._event("started", "Training begins.", {"num_parameters": self.job.model_config.num_parameters})
        self.progress.first_val_loss = self._validation_loss()
        report = StepReport(
            step=0,
            num_tokens=0,
            loss=None,
            learning_rate=None,
            grad_norm=None,
            tokens_per_second=None,
            mfu=None,
            seconds=None,
            val_loss=self.progress.first_val_loss,
            batch_digest=None,
        )
        self.report(report)

    def _result(self, resumed_from_step: int | None) -> TrainResult:
        self._note_written()
        progress, folder = self.progress, self.job.folder
        parameters_digest = checkpoint.digest_parameters(self.engine.model)
        newest = folder / f"step-{progress.step:08d}"
        self.world.wait()
        result = TrainResult(
            steps=progress.step,
            num_tokens=self.job.num_tokens(progress.step, progress.plan),
            first_val_loss=_measured(progress.first_val_loss),
            final_val_loss=_measured(progress.val_loss),
            final_train_loss=_measured(progress.train_loss),
            seconds=progress.seconds,
            checkpoint=newest,
            best_checkpoint=checkpoint.best(folder) or newest,
            parameters_digest=parameters_digest,
            num_skipped_steps=progress.num_skipped_steps,
            num_rollbacks=progress.num_rollbacks,
            resumed_from_step=resumed_from_step,
        )
        if self.world.is_main:
            self.job.record(result)
        self.world.wait()
        return result

    # Measurements

    def _validation_loss(self) -> float:
        loss = validation_loss(
            self.engine,
            self.job.validation,
            block_size=self.job.model_config.block_size,
            max_tokens=self.job.config.eval_tokens,
        )
        if not math.isfinite(loss):
            raise TerminalError(
                f"got a validation loss of {loss} at step {self.progress.step}; wanted finite numbers: lower the learning "
                "rate or lengthen the warm-up and train in another folder. No checkpoint of these weights was written."
            )
        return loss

    def _read_measurements(self, *, judges: bool = True) -> None:
        """Wait for the device, once for all steps since the last time, and report them.

        Where it `judges`, it raises where training must not go on.
        """
        if not self.unread:
            return
        began = time.perf_counter()
        unread, self.unread = self.unread, []
        rows = torch.stack([torch.stack([one.loss, one.norm, one.skipped]) for one in unread]).tolist()
        first_skipped = None
        for one, (loss, norm, skipped) in zip(unread, rows, strict=True):
            self.report(self._step_report(one, loss, norm))
            if not skipped:
                self.progress.train_loss = loss
            else:
                self.progress.num_skipped_steps += 1
                first_skipped = one.step - 1 if first_skipped is None else first_skipped
                self._note_skipped(one.step, loss, norm)
        if first_skipped is not None and judges:
            self._check_skipped()
        self.log_seconds += time.perf_counter() - began

    def _step_report(self, one: _Unread, loss: float, norm: float) -> StepReport:
        model_config, laps = self.job.model_config, one.clock.seconds()
        computing = sum(laps.values())
        tokens_per_second = samples_of_step(one.step - 1, self.progress.plan).size * model_config.block_size / computing
        mfu = None if self.peak_flops is None else tokens_per_second * model_config.flops_per_token / self.peak_flops
        return StepReport(
            step=one.step,
            num_tokens=self.job.num_tokens(one.step, self.progress.plan),
            loss=loss,
            learning_rate=one.rate,
            grad_norm=norm,
            tokens_per_second=tokens_per_second,
            mfu=mfu,
            seconds=StepSeconds(
                data=laps["data"],
                forward=laps["forward"],
                backward=laps["backward"],
                optimizer=laps["optimizer"],
                log=one.log_seconds,
                checkpoint=one.checkpoint_seconds,
                whole=computing + one.log_seconds + one.checkpoint_seconds,
            ),
            val_loss=one.val_loss,
            batch_digest=one.batch_digest,
        )

    def _taken_seconds(self) -> tuple[float, float]:
        taken = self.log_seconds, self.checkpoint_seconds
        self.log_seconds = self.checkpoint_seconds = 0.0
        return taken

    def _event(self, kind: EventKind, message: str, facts: Mapping[str, Any], *, step: int | None = None) -> None:
        at = self.progress.step if step is None else step
        self.report(TrainEvent(kind=kind, step=at, message=message, facts=facts))

    # Spikes

    def _note_skipped(self, step: int, loss: float, norm: float) -> None:
        facts = {"loss": loss, "grad_norm": norm, **self._documents(step - 1, step - 1)}
        message = f"The update of step {step} was not made: its loss of {loss:.4g} or gradient norm of {norm:.4g} is "
        is_finite = math.isfinite(loss) and math.isfinite(norm)
        reason = "far above those before it." if is_finite else "not finite."
        self._event("step_skipped", message + reason, facts, step=step)

    def _documents(self, first: int, last: int) -> dict[str, Any]:
        """The windows and documents of steps counted from 0, both included."""
        samples = np.concatenate([samples_of_step(step, self.progress.plan) for step in range(first, last + 1)])
        windows = windows_of_samples(samples, seed=self.job.config.seed, num_windows=self.job.num_windows)
        doc_ids = self.job.data.documents_of(windows, self.job.model_config.block_size) if self.world.is_main else []
        return {"first_step": first + 1, "last_step": last + 1, "windows": windows.tolist(), "doc_ids": doc_ids}

    def _check_skipped(self) -> None:
        """Raise _SpikeError where too many updates of the window were skipped."""
        step, size = self.progress.step, self.guard.skipped.numel()
        flags = self.guard.skipped.tolist()
        skipped = [at for at in range(max(0, step - size), step) if flags[at % size] > 0]
        if len(skipped) > self.job.config.max_skipped_steps:
            raise _SpikeError(skipped[0], skipped[-1])

    def _roll_back(self, first: int, last: int) -> None:
        """Go back to before the first skipped update and leave out the data up to the last. Raises TerminalError at the limit."""
        config, folder = self.job.config, self.job.folder
        num_rollbacks, num_skipped, now = (
            self.progress.num_rollbacks,
            self.progress.num_skipped_steps,
            self.progress.step,
        )
        if num_rollbacks >= config.max_rollbacks:
            raise TerminalError(
                f"got {num_skipped} updates that could not be made and {num_rollbacks} returns to a checkpoint by step "
                f"{now}; wanted at most {config.max_skipped_steps} of them within {config.spike_window_steps} steps: "
                "lower the learning rate or lengthen the warm-up and train in another folder."
            )
        self._note_written()
        self.world.wait()
        plan = self.progress.plan
        newest = _agreed_newest(folder, self.world, self.report, at_most=first)
        if newest is None:  # a later one has nothing of the updates that were not made, and is no reason to begin anew
            newest = _agreed_oldest(folder, self.world, at_most=last)
            first = first if newest is None else checkpoint.step_of(newest)
        facts = self._documents(first, last)
        plan = without_steps(plan, first, last)
        if newest is not None:
            self._restore(newest, is_rollback=True)
        else:
            self._restart()
        self.progress.plan = plan
        self.progress.num_rollbacks, self.progress.num_skipped_steps = num_rollbacks + 1, num_skipped
        if self.world.is_main:
            checkpoint.remove_after(folder, self.progress.step)
        message = f"Back from step {now} to step {self.progress.step}; the data of steps {first + 1} to {last + 1} is left out."
        self._event("rolled_back", message, {"from_step": now, **facts})
        self._save(waits=True)

    def _restart(self) -> None:
        """As before the first update, but for the plan."""
        first = self.progress.first_val_loss
        with torch.no_grad():
            fresh = dict(_first_model(self.job, self.weights).named_parameters())
            for name, parameter in self.engine.model.named_parameters():
                parameter.copy_(part_like(fresh[name], parameter))
        for _, tensor in self.optimizers.state():
            tensor.zero_()
        self.guard.load(Guard.of(self.job.config, self.world.device).state())
        self.progress = _Progress(plan=self.job.first_plan, first_val_loss=first)

    # Checkpoints

    def _save(self, *, waits: bool) -> None:
        began = time.perf_counter()
        self.progress.seconds = began - self.started
        self._note_written()
        progress, world = self.progress, self.world
        is_validated = progress.val_step == progress.step
        state = {
            **self.job.state,
            "progress": dataclasses.asdict(progress),
            "val_loss": progress.val_loss if is_validated else None,
            "probe_loss": self._probe_loss(self._num_probe_windows),
            "probe_windows": self._num_probe_windows,
            "precision": self.engine.precision,
            "num_processes": world.size,
        }
        with self._lost_process_named(saves=True):
            loop = {**self.guard.state(), **_random_states(world)}
        if self.engine.is_sharded:
            keep = self.writer.keep
            model, folder = self.engine.model, self.job.folder
            checkpoint.write_sharded(
                folder, model, self.optimizers, loop, state, step=progress.step, keep=keep, world=world
            )
        elif world.is_main:
            self.writer.write(Snapshot.of(self.engine.model, self.optimizers, loop, state, step=progress.step))
        if waits:
            self._note_written()
            world.wait()
        self.checkpoint_seconds += time.perf_counter() - began

    def _note_written(self) -> None:
        """Wait for the checkpoint that is being written, if one is, and tell of it."""
        written = self.writer.wait()
        if written is not None:
            step = checkpoint.step_of(written)
            facts = {"checkpoint": written.name, "val_loss": checkpoint.read_state(written)["val_loss"]}
            self._event("checkpoint_written", f"The checkpoint of step {step} is on the disk.", facts, step=step)

    def _restore(self, newest: Path, *, is_rollback: bool = False) -> None:
        loop = checkpoint.restore(newest, self.engine.model, self.optimizers)
        self.guard.load(loop)
        state = checkpoint.read_state(newest)
        self.progress = _Progress.of(state)
        progress, num_sequences = self.progress, self.job.num_sequences
        progress.plan = with_batch_size(progress.plan, progress.step, num_sequences)
        if not is_rollback:
            self._check_continuity(state)

    @property
    def _num_probe_windows(self) -> int:
        return min(self.job.validation.num_windows(self.job.model_config.block_size), self.job.config.micro_batch_size)

    def _probe_loss(self, num_windows: int) -> float:
        block_size = self.job.model_config.block_size
        return probe_loss(self.engine, self.job.validation, block_size=block_size, num_windows=num_windows)

    def _check_continuity(self, state: Mapping[str, Any]) -> None:
        """The same weights on the same text have the same loss, or something is not as it was: say which, or refuse."""
        num_windows = state.get("probe_windows", self._num_probe_windows)  # of then: micro_batch_size may be another
        before, after = state["probe_loss"], self._probe_loss(num_windows)
        difference = abs(after - before) / max(abs(before), 1e-9)
        facts = {
            "probe_loss_before": before,
            "probe_loss_after": after,
            "relative_difference": difference,
            "num_processes": self.world.size,
            "num_processes_before": state["num_processes"],
            "precision_before": state["precision"],
            "precision": self.engine.precision,
        }
        precisions = {state["precision"], self.engine.precision}
        tolerance = max(_CONTINUITY_TOLERANCE[name] for name in precisions)
        if not difference <= tolerance:
            raise TerminalError(
                f"got a loss of {after:.6f} on the probe after the resume at step {self.progress.step}; wanted "
                f"{before:.6f}, as it was when the checkpoint was written: go back to the torch and code of then "
                "(state.json names them), or begin anew in another folder."
            )
        word = "the same" if difference == 0 else f"{difference:.1e} off"
        self._event(
            "resumed", f"Training goes on from step {self.progress.step}; the loss of its probe is {word}.", facts
        )

    # Trouble

    def _attempt(self, batch: Batch, micro_batch_size: int) -> None:
        """Take the memory that a step takes in micro-batches of so many sequences, moments included."""
        self.optimizers.prepare()
        self.engine.attempt(batch, micro_batch_size)

    @contextlib.contextmanager
    def _lost_process_named(self, *, saves: bool) -> Iterator[None]:
        """Where an exchange with other processes fails, leave quickly; `saves` says that the last update is whole to write."""
        try:
            yield
        except RuntimeError as error:  # DistBackendError and gloo's errors are
            if self.world.size == 1 or not _is_lost_process(error):
                raise
            # On a GPU whatever is asked now would wait behind an exchange that never ends.
            if saves and self.world.is_main and self.world.device.type == "cpu" and not self.engine.is_sharded:
                self._save_alone()
            raise TransientError(
                f"got {str(error).splitlines()[0][:200]!r} at step {self.progress.step + 1}; wanted all {self.world.size} "
                "processes to answer: look at the other processes' last lines, then run the same command again to go on "
                "from the checkpoint."
            ) from error

    def _save_alone(self) -> None:
        """A checkpoint of the last whole update, without the others."""
        newest = self.writer.wait()
        if newest is not None and checkpoint.step_of(newest) == self.progress.step:
            return
        self._read_measurements(judges=False)  # they are whole, but nobody is left to agree on what follows
        alone = dataclasses.replace(self.world, size=1)
        state = {
            **self.job.state,
            "progress": dataclasses.asdict(self.progress),
            "val_loss": None,
            "probe_loss": self._probe_loss(self._num_probe_windows),
            "probe_windows": self._num_probe_windows,
            "precision": self.engine.precision,
            "num_processes": self.world.size,
        }
        loop = {**self.guard.state(), **_random_states(alone)}
        self.writer.write(Snapshot.of(self.engine.model, self.optimizers, loop, state, step=self.progress.step))
        self.writer.wait()


def _first_model(job: Job, weights: Mapping[str, Tensor] | None) -> GPT:
    """Fresh weights, or those that were given. Raises ConfigError where they are not those that the config names."""
    model = GPT(job.model_config, seed=job.config.seed)
    if weights is not None:
        try:
            model.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise ConfigError(
                f"got weights that do not fit the model ({' '.join(str(error).split())[:300]}); wanted those of a model "
                "of the same shape: set the section model to it."
            ) from error
    wanted = job.config.start_from
    got = checkpoint.digest_parameters(model) if weights is not None else None
    if wanted != got:
        raise ConfigError(
            f"got weights with the digest {got} to start from; wanted {wanted}: give those that were named."
        )
    return model


def _agreed_newest(folder: Path, world: World, report: OnReport, *, at_most: int | None = None) -> Path | None:
    """The newest valid checkpoint as the first process sees it."""

    def passed_over(path: Path, reason: str) -> None:
        event = TrainEvent(
            kind="checkpoint_passed_over",
            step=checkpoint.step_of(path),
            message=reason,
            facts={"checkpoint": path.name},
        )
        report(event)

    newest = checkpoint.newest_valid(folder, at_most=at_most, passed_over=passed_over) if world.is_main else None
    step = int(world.gather([float(checkpoint.step_of(newest)) if newest is not None else -1.0])[0][0])
    return folder / f"step-{step:08d}" if step >= 0 else None


def _agreed_oldest(folder: Path, world: World, *, at_most: int) -> Path | None:
    """The oldest valid checkpoint as the first process sees it; none of a later step."""
    oldest = checkpoint.oldest_valid(folder) if world.is_main else None
    step = int(world.gather([float(checkpoint.step_of(oldest)) if oldest is not None else -1.0])[0][0])
    return folder / f"step-{step:08d}" if 0 <= step <= at_most else None


def _is_due(step: int, every: int | None, num_steps: int) -> bool:
    return step == num_steps or (every is not None and step % every == 0)


def _is_lost_process(error: RuntimeError) -> bool:
    if isinstance(error, torch.distributed.DistError):
        return True
    return any(word in str(error) for word in ("gloo", "NCCL", "Connection", "Timed out", "timed out"))


def _measured(value: _Value | None) -> _Value:
    """A value that every finished training has."""
    if value is None:
        raise RuntimeError("a finished training without a measurement: a fault in the loop")
    return value


def _unheard(_: Any) -> None:
    """Only the first process reports."""


def _seed_random_state(seed: int, step: int, world: World) -> None:
    """Nothing in a step draws from torch's generators, but what a caller does within a report may: the same after a resume."""
    words = np.random.SeedSequence([seed, step, world.rank]).generate_state(1, np.uint64)
    word = int(words[0] >> np.uint64(1))
    # torch.manual_seed would keep the whole stack as text for each kind of device that is not in use: 4 ms a step.
    torch.default_generator.manual_seed(word)
    if world.device.type == "cuda":
        torch.cuda.manual_seed(word)


def _random_states(world: World) -> dict[str, Tensor]:
    """Of every process, by rank."""
    mine = {"cpu": torch.get_rng_state()}
    if world.device.type == "cuda":
        mine["cuda"] = torch.cuda.get_rng_state(world.device)
    found = {}
    for kind, state in mine.items():
        for rank, values in enumerate(world.gather(state.tolist())):
            found[f"random.{rank}.{kind}"] = torch.tensor(values, dtype=torch.uint8)
    return found


@contextlib.contextmanager
def _threads(run_config: RunConfig, world: World) -> Iterator[None]:
    """Use that many CPU threads inside, as many as before outside; likewise TF32 for what is computed in fp32."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    beside = world.size if world.device.type == "cpu" else 1
    torch.set_num_threads(run_config.num_threads or max(1, num_free_cores() // beside))
    if world.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
