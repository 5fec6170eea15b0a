"""The training loop. It reports each step to a callable and knows no tracker.

Run it again after a stop, a kill or a crash and it goes on from the newest valid checkpoint: on a CPU the
weights it ends with are, bit for bit, those of a run that was never stopped (same machine, same threads).
Run it again after the end and it gives back the recorded result.
"""

import contextlib
import dataclasses
import json
import logging
import math
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm import checkpoint
from llm.config import TRAINING_VERSION, ModelConfig, RunConfig, TrainConfig
from llm.data import TokenData, too_large
from llm.model import GPT
from llm.optim import adamw, learning_rate
from pipelines.digest import canonical, digest_file, digest_value
from pipelines.errors import ConfigError, TerminalError

_logger = logging.getLogger(__name__)

_Value = TypeVar("_Value")

_RESULT = "result.json"
_SHAPING_MODULES = ("config", "model", "data", "optim", "train")


class TrainingStoppedError(TerminalError):
    """A signal or the caller asked for a stop; the checkpoint is written and the same call goes on from it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """What happened up to the end of one update. The report of step 0 comes before the first."""

    step: int
    """Updates done."""
    num_tokens: int
    """Tokens trained on so far, repeats included."""
    loss: float | None
    """Mean training loss of this update's tokens, nats; None at step 0, like the three below."""
    learning_rate: float | None
    grad_norm: float | None
    """Norm of the whole gradient before clipping."""
    tokens_per_second: float | None
    """Of this update alone, validation and checkpoints not counted."""
    val_loss: float | None
    """Nats a token over the validation windows after this update; None where none was due."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What a finished training leaves."""

    steps: int
    num_tokens: int
    first_val_loss: float
    """Nats a token before the first update: about ln vocab_size."""
    final_val_loss: float
    final_train_loss: float
    """Of the last update's tokens."""
    seconds: float
    """In the loop, over all the processes that shared the work; lost steps are not counted."""
    checkpoint: Path
    parameters_digest: str
    resumed_from_step: int | None
    """Where the process that ended the training took it up; None where it began it."""


@dataclass(kw_only=True, slots=True)
class _Progress:
    """What the loop carries from step to step beside weights and moments."""

    step: int = 0
    seconds: float = 0.0
    first_val_loss: float | None = None
    val_loss: float | None = None
    train_loss: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """One training, its sizes resolved."""

    data: TokenData
    validation: TokenData
    model_config: ModelConfig
    config: TrainConfig
    device: torch.device
    num_steps: int
    num_sequences: int
    """Of one update, over all micro-batches."""
    identity: dict[str, Any]
    """What a checkpoint must agree with to be gone on from."""

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint says about the job."""
        return {
            **self.identity,
            "identity_digest": digest_value(self.identity),
            "model_config": dataclasses.asdict(self.model_config),
            "train_config": dataclasses.asdict(self.config),
            "code": _code(),
        }


def train(
    data: TokenData,
    validation: TokenData,
    model_config: ModelConfig,
    train_config: TrainConfig,
    run_config: RunConfig,
    folder: Path,
    *,
    on_step: Callable[[StepReport], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train a model in a folder, to the end or to a stop.

    SIGTERM and SIGINT (in the main thread), or `should_stop` (from any), end the current step, write a
    checkpoint and leave: the signal is then passed on to whoever handled it before. Raises ConfigError where
    the folder holds another training, EmptyCorpusError for too few tokens, TerminalError for a loss that is
    not finite, TrainingStoppedError after a stop.
    """
    job = _job(data, validation, model_config, train_config, run_config)
    folder.mkdir(parents=True, exist_ok=True)
    newest = checkpoint.newest_valid(folder)
    if newest is not None:
        _check_same_job(job, newest)
        result = _recorded_result(job, folder, newest)
        if result is not None:
            return result
    devices = [job.device] if job.device.type == "cuda" else []
    with _stop_signals() as received, _threads(run_config), torch.random.fork_rng(devices):
        return _run(
            job,
            folder,
            newest,
            use_compile=run_config.compile,
            on_step=on_step,
            should_stop=lambda: bool(received) or should_stop(),
        )


def _run(
    job: _Job,
    folder: Path,
    newest: Path | None,
    *,
    use_compile: bool,
    on_step: Callable[[StepReport], None],
    should_stop: Callable[[], bool],
) -> TrainResult:
    config = job.config
    model = GPT(job.model_config, seed=config.seed).to(job.device)
    optimizer = adamw(model, config)
    progress = _Progress()
    if newest is not None:
        checkpoint.restore(newest, model, optimizer)
        progress = _Progress(**checkpoint.read_state(newest)["progress"])
    resumed_from_step = progress.step or None
    loss_of: Callable[[Tensor, Tensor], Tensor] = torch.compile(model.loss) if use_compile else model.loss

    started = time.perf_counter() - progress.seconds
    if progress.step == 0:
        progress.first_val_loss = _validation_loss(model, job)
        on_step(_first_report(progress.first_val_loss))
    while progress.step < job.num_steps:
        report = _step(model, loss_of, optimizer, job, progress)
        progress.seconds = time.perf_counter() - started
        stopping = should_stop()
        if stopping or _is_due(progress.step, config.checkpoint_every_steps, job.num_steps):
            state = {**job.state, "progress": dataclasses.asdict(progress)}
            newest = checkpoint.save(folder, model, optimizer, state, step=progress.step, keep_last=config.keep_last)
        on_step(report)
        if stopping and progress.step < job.num_steps:
            raise TrainingStoppedError(
                f"got a request to stop at step {progress.step} of {job.num_steps}; the checkpoint is written: "
                "run the same command again to go on."
            )
    result = TrainResult(
        steps=progress.step,
        num_tokens=progress.step * config.tokens_per_step,
        first_val_loss=_measured(progress.first_val_loss),
        final_val_loss=_measured(progress.val_loss),
        final_train_loss=_measured(progress.train_loss),
        seconds=progress.seconds,
        checkpoint=_measured(newest),
        parameters_digest=checkpoint.digest_parameters(model),
        resumed_from_step=resumed_from_step,
    )
    _record_result(job, folder, result)
    return result


def _measured(value: _Value | None) -> _Value:
    """A value that every finished training has."""
    if value is None:
        raise RuntimeError("a finished training without a measurement: a fault in the loop")
    return value


def _job(
    data: TokenData, validation: TokenData, model_config: ModelConfig, config: TrainConfig, run_config: RunConfig
) -> _Job:
    num_sequences = config.sequences_per_step(model_config.block_size)
    num_windows = data.num_windows(model_config.block_size)
    validation.num_windows(model_config.block_size)  # refuses an empty one before any work
    identity = {
        "training_version": TRAINING_VERSION,
        "dataset_digest": data.digest,
        "validation_digest": validation.digest,
        "model": canonical(model_config),
        "training": canonical(config),
    }
    return _Job(
        data=data,
        validation=validation,
        model_config=model_config,
        config=config,
        device=_device(run_config),
        num_steps=config.num_steps(tokens_per_epoch=num_windows * model_config.block_size),
        num_sequences=num_sequences,
        identity=identity,
    )


def _step(
    model: GPT,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    job: _Job,
    progress: _Progress,
) -> StepReport:
    """One update, then validation where it is due. Raises before the update where it would do harm."""
    began = time.perf_counter()
    config, block_size = job.config, job.model_config.block_size
    windows = job.data.batch(
        progress.step, seed=config.seed, num_sequences=job.num_sequences, block_size=block_size
    )  # (num_sequences, T + 1)
    _check_ids(windows, job.model_config.vocab_size)
    rate = learning_rate(progress.step, config, num_steps=job.num_steps)
    for group in optimizer.param_groups:
        group["lr"] = rate

    model.train()
    micro_batches = np.split(windows, job.num_sequences // config.micro_batch_size)
    total = torch.zeros((), device=job.device)
    for micro_idx, micro_batch in enumerate(micro_batches):
        torch.manual_seed(_dropout_seed(config.seed, progress.step, micro_idx))
        with _precision(job.device):
            loss = loss_of(*_inputs_and_targets(micro_batch, job.device)) / len(micro_batches)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    largest = math.inf if config.grad_clip is None else config.grad_clip
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), largest)
    loss_value, norm_value = torch.stack([total, norm]).tolist()  # the only wait for the device
    if not (math.isfinite(loss_value) and math.isfinite(norm_value)):
        raise TerminalError(
            f"got loss {loss_value} and gradient norm {norm_value} at step {progress.step + 1}; wanted finite numbers: "
            "lower the learning rate or lengthen the warm-up and train in another folder. The update was not made."
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

    seconds = time.perf_counter() - began
    progress.step += 1
    progress.train_loss = loss_value
    val_loss = None
    if _is_due(progress.step, config.eval_every_steps, job.num_steps):
        val_loss = progress.val_loss = _validation_loss(model, job)
    return StepReport(
        step=progress.step,
        num_tokens=progress.step * config.tokens_per_step,
        loss=loss_value,
        learning_rate=rate,
        grad_norm=norm_value,
        tokens_per_second=config.tokens_per_step / seconds,
        val_loss=val_loss,
    )


def _validation_loss(model: GPT, job: _Job) -> float:
    """Mean loss, nats a token, over the first windows of the validation stream, in order, without dropout."""
    block_size = job.model_config.block_size
    num_windows = job.validation.num_windows(block_size)
    if job.config.eval_tokens is not None:
        num_windows = min(num_windows, math.ceil(job.config.eval_tokens / block_size))
    model.eval()
    total = 0.0
    for start in range(0, num_windows, job.config.micro_batch_size):
        end = min(num_windows, start + job.config.micro_batch_size)
        windows = job.validation.windows(np.arange(start, end), block_size)
        _check_ids(windows, job.model_config.vocab_size)
        with _precision(job.device):
            losses = model.token_losses(*_inputs_and_targets(windows, job.device))
        total += losses.sum(dtype=torch.float64).item()
    return total / (num_windows * block_size)


def _inputs_and_targets(windows: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, T + 1) -> (B, T), (B, T): each token and the one after it."""
    ids = torch.from_numpy(windows).to(device)
    return ids[:, :-1], ids[:, 1:]


def _check_ids(windows: NDArray[np.int64], vocab_size: int) -> None:
    largest = int(windows.max())
    if largest >= vocab_size:
        raise too_large(largest, vocab_size)


def _dropout_seed(seed: int, step: int, micro_idx: int) -> int:
    """A seed for each micro-batch, so that no random state outlives one."""
    return int(np.random.SeedSequence([seed, step, micro_idx]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _is_due(step: int, every: int | None, num_steps: int) -> bool:
    return step == num_steps or (every is not None and step % every == 0)


def _first_report(val_loss: float) -> StepReport:
    return StepReport(
        step=0,
        num_tokens=0,
        loss=None,
        learning_rate=None,
        grad_norm=None,
        tokens_per_second=None,
        val_loss=val_loss,
    )


def _check_same_job(job: _Job, newest: Path) -> None:
    """Raise ConfigError where a checkpoint belongs to another training; note where only the code changed."""
    state = checkpoint.read_state(newest)
    if state.get("identity_digest") != digest_value(job.identity):
        there, here = (_flat(side) for side in ({key: state.get(key) for key in job.identity}, job.identity))
        name = next((name for name in here if there.get(name) != here[name]), "config")
        raise ConfigError(
            f"got {name} {here.get(name)!r}; wanted {there.get(name)!r}, which {newest.parent} was begun with: "
            "set it back to go on, or train in another folder to begin anew."
        )
    if state.get("code") != _code():
        _logger.warning("the training code or torch changed since %s was written: bits may differ", newest.name)


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat.update(_flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item})
    return flat


def _code() -> dict[str, str]:
    """What computed: a digest of the modules that shape the weights, and the versions below them."""
    here = Path(__file__).parent
    digests = {name: digest_file(here / f"{name}.py") for name in _SHAPING_MODULES}
    return {"digest": digest_value(digests), "torch": str(torch.__version__), "python": platform.python_version()}


def _record_result(job: _Job, folder: Path, result: TrainResult) -> None:
    fields = {**dataclasses.asdict(result), "checkpoint": result.checkpoint.name}
    fields["identity_digest"] = digest_value(job.identity)
    record = {"result": fields, "sha256": digest_value(fields)}
    checkpoint.write_file(folder / _RESULT, json.dumps(record, indent=1, sort_keys=True))


def _recorded_result(job: _Job, folder: Path, newest: Path) -> TrainResult | None:
    """The result of a finished training; None where there is none, or where it or its checkpoint is damaged."""
    try:
        record = json.loads((folder / _RESULT).read_text())
        fields = dict(record["result"])
        whole = record["sha256"] == digest_value(fields)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        whole, fields = False, {}
    if not whole or fields.pop("identity_digest") != digest_value(job.identity):
        _logger.warning("%s is damaged and is written again", folder / _RESULT)
        return None
    if fields["checkpoint"] != newest.name:
        return None
    return TrainResult(**{**fields, "checkpoint": newest})


def _device(run_config: RunConfig) -> torch.device:
    name = run_config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either
        raise ConfigError(
            f"got device {name!r}, which torch cannot use here; wanted 'cpu' or 'cuda': leave it out to choose."
        ) from error
    return device


def _precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bf16 where the device is made for it: on a CPU without AMX it is 25 times slower than fp32."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


@contextlib.contextmanager
def _threads(run_config: RunConfig) -> Iterator[None]:
    """Use that many CPU threads inside, as many as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(run_config.num_threads or len(os.sched_getaffinity(0)))  # containers lend only some cores
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that SIGTERM and SIGINT are noted in while inside; they are passed on at the end.

    Only the main thread can listen: in another one the list stays empty.
    """
    received: list[int] = []

    def note(signum: int, _frame: FrameType | None) -> None:
        received.append(signum)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {signum: signal.signal(signum, note) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler or signal.SIG_DFL)
        for noted in received:
            signal.raise_signal(noted)
