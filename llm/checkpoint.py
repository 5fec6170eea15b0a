"""Checkpoints that are whole or not there: weights, optimiser and state in one folder, step-00001000.

    model/*.safetensors       the weights, by published name
    optimizer/*.safetensors   what the optimisers carry, by parameter name
    loop.safetensors          the guard's window, and the random state of each process
    state.json                step, configs, digests, the plan of the data, measurements so far
    manifest.json             SHA-256 and size of each of them

A folder is written under a temporary name (.writing-step-...), its files are synced, the manifest comes last, then it is
renamed; an older one of the same step is first put aside under another name (.replaced-step-...). What a kill leaves of
either is published or removed at the next start (`tidy`). A damaged one that training goes on without is damaged-step-...
until training has passed it. Nothing is pickled. A model that every process holds is one file, written beside the steps that follow (`Writer`); one
that is sharded is written by all processes at once (torch.distributed.checkpoint, in its safetensors form). Either can
be read back into any number of processes.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from llm.config import ModelConfig
from llm.distributed import World
from llm.model import GPT
from llm.optim import Optimizers
from llm.sharding import is_part, local, whole
from pipelines.digest import digest_file
from pipelines.errors import FullDiskError, IntegrityError, StorageError, TerminalError

_logger = logging.getLogger(__name__)

_MODEL = "model"
_OPTIMIZER = "optimizer"
_LOOP = "loop.safetensors"
_STATE = "state.json"
_MANIFEST = "manifest.json"
_PREFIX = "step-"
_TEMPORARY = ".writing-"
_REPLACED = ".replaced-"
_DAMAGED = "damaged-"

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """What a checkpoint holds, copied away from what goes on changing."""

    step: int
    model: Tensors
    optimizer: Tensors
    loop: Tensors
    state: Mapping[str, Any]
    """Plain JSON; `val_loss` in it, where it is a number, makes the checkpoint one of the best or not."""

    @classmethod
    def of(
        cls, model: GPT, optimizers: Optimizers, loop: Tensors, state: Mapping[str, Any], *, step: int
    ) -> "Snapshot":
        """Copies in the host's memory."""
        return cls(
            step=step,
            model=_copied(model.named_parameters()),
            optimizer=_copied(optimizers.state()),
            loop=_copied(loop.items()),
            state=state,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Keep:
    """Which checkpoints stay: the newest, those with the least validation loss, and one to go back to past a spike."""

    last: int
    best: int
    window_steps: int = 0
    """Steps that training may have to go back: the newest checkpoint that is so much older than the newest stays, too."""


@dataclass(slots=True)
class Writer:
    """Writes one checkpoint at a time beside the training. Its errors come out of the next call."""

    folder: Path
    keep: Keep
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "checkpoint"))
    _pending: "Future[Path] | None" = None

    def write(self, snapshot: Snapshot) -> None:
        """Begin to write; waits for the one before."""
        self.wait()
        self._pending = self._pool.submit(write, self.folder, snapshot, self.keep)

    def wait(self) -> Path | None:
        """Until the last one is on the disk. Gives its folder, once; None where there was none."""
        pending, self._pending = self._pending, None
        return pending.result() if pending is not None else None

    def close(self) -> None:
        """Wait for the disk, whatever comes of it, and end the thread."""
        self._pool.shutdown(wait=True)


def write(folder: Path, snapshot: Snapshot, keep: Keep) -> Path:
    """Write a checkpoint, then remove those that `keep` does not name. Gives its folder.

    Raises TerminalError for a weight that is not finite (nothing is written), StorageError where the disk fails.
    """
    _refuse_not_finite(snapshot.model, snapshot.step)

    def fill(temporary: Path) -> None:
        for name, tensors in ((_MODEL, snapshot.model), (_OPTIMIZER, snapshot.optimizer)):
            (temporary / name).mkdir()
            save_file(tensors, temporary / name / f"{name}.safetensors")
        save_file(snapshot.loop, temporary / _LOOP)

    return _publish(folder, fill, snapshot.state, snapshot.step, keep)


def write_sharded(
    folder: Path,
    model: GPT,
    optimizers: Optimizers,
    loop: Tensors,
    state: Mapping[str, Any],
    *,
    step: int,
    keep: Keep,
    world: World,
) -> Path:
    """Write the parts of a model that each process holds; all call it. Likewise otherwise."""
    from torch.distributed import checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    _refuse_not_finite({name: local(p) for name, p in model.named_parameters()}, step, world)
    temporary = _temporary(folder, step)
    with _writing(folder, _name(step)):
        if world.is_main:
            _remove(temporary)
            temporary.mkdir(parents=True)
        world.wait()
        for name, tensors in ((_MODEL, dict(model.named_parameters())), (_OPTIMIZER, dict(optimizers.state()))):
            storage = HuggingFaceStorageWriter(str(temporary / name), save_distributed=True)
            try:
                dcp.save(  # type: ignore[attr-defined]
                    {key: tensor.detach() for key, tensor in tensors.items()}, storage_writer=storage
                )
            except CheckpointException as error:  # a BaseException, which would pass for a stop
                raise _failed_write(folder, _name(step), _first_failure(error.failures)) from error
        world.wait()
        if world.is_main:
            save_file(_copied(loop.items()), temporary / _LOOP)
            _publish(folder, None, state, step, keep)
    world.wait()
    return folder / _name(step)


def _publish(
    folder: Path, fill: Callable[[Path], None] | None, state: Mapping[str, Any], step: int, keep: Keep
) -> Path:
    """Give a folder its name once everything in it is on the disk; `fill` writes the tensors where they are not there."""
    target, temporary = folder / _name(step), _temporary(folder, step)
    with _writing(folder, _name(step)):
        if fill is not None:
            _remove(temporary)
            temporary.mkdir(parents=True)
        try:
            if fill is not None:
                fill(temporary)
            (temporary / _STATE).write_text(json.dumps({**state, "step": step}, indent=1, sort_keys=True))
            files = {path.relative_to(temporary).as_posix(): _entry(path) for path in _files(temporary)}
            (temporary / _MANIFEST).write_text(json.dumps({"step": step, "files": files}, indent=1, sort_keys=True))
            _sync_all(temporary)
        except (OSError, SafetensorError):
            # What was not synced may be read back whole until the machine stops: it must not be published later.
            with contextlib.suppress(OSError):
                _remove(temporary)
            raise
        _give_name(temporary, target)
        for old in _superfluous(folder, keep, target):
            _remove(old)
    return target


def _give_name(temporary: Path, target: Path) -> None:
    """Rename a whole, synced folder; at every moment it or the one that it replaces can be found by `tidy`."""
    replaced = target.with_name(_REPLACED + target.name)
    if target.exists():  # a damaged one, or the same step again
        _remove(replaced)
        target.rename(replaced)
    temporary.rename(target)
    _sync(target.parent)
    _remove(replaced)


def tidy(folder: Path) -> None:
    """Publish what a kill left complete under another name, remove what it tore. Nobody else may be writing there."""
    for temporary in sorted(folder.glob(f"{_TEMPORARY}{_PREFIX}*")):
        target = folder / temporary.name.removeprefix(_TEMPORARY)
        with _writing(folder, target.name):
            if _is_valid(temporary):  # later than the one of that name, where there is one
                _sync_all(temporary)
                _give_name(temporary, target)
                _logger.warning("%s was complete when its writer was killed: it is a checkpoint now", target)
            else:
                _remove(temporary)
    for replaced in sorted(folder.glob(f"{_REPLACED}{_PREFIX}*")):
        target = folder / replaced.name.removeprefix(_REPLACED)
        with _writing(folder, target.name):
            if not target.exists() and _is_valid(replaced):
                replaced.rename(target)
                _sync(folder)
            else:
                _remove(replaced)


def set_aside_after(folder: Path, step: int) -> None:
    """Put the checkpoints of later steps aside: they were found damaged and training goes on without them.

    Else they would count as the newest. They are renamed, not removed, as a disk may only have failed to read them, and
    removed once a later checkpoint is written.
    """
    for checkpoint in _folders(folder):
        if step_of(checkpoint) > step:
            aside = folder / (_DAMAGED + checkpoint.name)
            with _writing(folder, aside.name):
                _remove(aside)
                checkpoint.rename(aside)
            _logger.warning("%s is damaged and put aside as %s", checkpoint.name, aside)


def newest_valid(
    folder: Path, *, at_most: int | None = None, passed_over: Callable[[Path, str], None] | None = None
) -> Path | None:
    """The newest checkpoint in a folder whose every file is what its manifest says, or None.

    `at_most` is the last step that will do. `passed_over` is told of damaged ones, and why.
    """
    for checkpoint in _folders(folder):
        if at_most is not None and step_of(checkpoint) > at_most:
            continue
        try:
            verify(checkpoint)
        except IntegrityError as error:
            _logger.warning("checkpoint passed over: %s", error)
            if passed_over is not None:
                passed_over(checkpoint, str(error))
            continue
        return checkpoint
    return None


def oldest_valid(folder: Path) -> Path | None:
    """The oldest checkpoint in a folder whose every file is what its manifest says, or None."""
    for checkpoint in reversed(list(_folders(folder))):
        try:
            verify(checkpoint)
        except IntegrityError as error:
            _logger.warning("checkpoint passed over: %s", error)
            continue
        return checkpoint
    return None


def best(folder: Path) -> Path | None:
    """The checkpoint with the least validation loss of those that are kept; the newest of equals; None where none has one."""
    return next(iter(_best_first(_whole(folder))), None)


def last(folder: Path) -> Path | None:
    """The newest checkpoint in a folder, whole or not; None where there is none."""
    return next(iter(_folders(folder)), None)


def step_of(checkpoint: Path) -> int:
    """Updates done, from a checkpoint's name."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def remove_after(folder: Path, step: int) -> None:
    """Remove the checkpoints of later steps: training went back and takes another way."""
    for checkpoint in _folders(folder):
        if step_of(checkpoint) > step:
            _remove(checkpoint)


def verify(checkpoint: Path) -> None:
    """Read every byte of a checkpoint again. Raises IntegrityError where it is not what its manifest says."""
    try:
        files = json.loads((checkpoint / _MANIFEST).read_text())["files"]
        wrong = [name for name, entry in files.items() if _entry(checkpoint / name) != entry]
        kinds = {name.partition("/")[0] for name in files}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(
            f"got {str(error)!r} from {checkpoint}; wanted a checkpoint with its manifest: use another one."
        ) from error
    if wrong or not {_MODEL, _OPTIMIZER, _LOOP, _STATE} <= kinds:
        raise IntegrityError(
            f"got a changed {wrong[0] if wrong else 'list of files'} in {checkpoint}; wanted the bytes that its "
            "manifest names: use an older checkpoint."
        )


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The state that was saved with a checkpoint, `step` included."""
    state: dict[str, Any] = json.loads((checkpoint / _STATE).read_text())
    return state


def read_config(checkpoint: Path) -> ModelConfig:
    """The config of a checkpoint's model."""
    return ModelConfig(**read_state(checkpoint)["model_config"])


def restore(checkpoint: Path, model: GPT, optimizers: Optimizers) -> Tensors:
    """Put saved weights and moments into a model and its optimisers, whole or sharded; gives the loop's tensors."""
    optimizers.prepare()
    _load(checkpoint / _MODEL, dict(model.named_parameters()))
    _load(checkpoint / _OPTIMIZER, dict(optimizers.state()))
    return load_file(checkpoint / _LOOP)


def load_model(checkpoint: Path) -> GPT:
    """The model of a checkpoint, on the CPU, ready to evaluate. Raises IntegrityError for a damaged one."""
    verify(checkpoint)
    model = GPT.empty(read_config(checkpoint))
    _load(checkpoint / _MODEL, dict(model.named_parameters()))
    return model.eval()


def digest_parameters(model: GPT) -> str:
    """Digest of every weight: equal exactly where all bits are. 64 hex characters."""
    return digest_tensors(model.named_parameters())


def digest_tensors(named: Iterable[tuple[str, Tensor]]) -> str:
    """Digest of tensors and their names. With sharded ones all processes call it. 64 hex characters."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda item: item[0]):
        values = whole(tensor).detach().cpu().contiguous()
        sha256.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        sha256.update(values.view(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def digests(checkpoint: Path) -> dict[str, str]:
    """Digests of what a checkpoint holds in whole tensors: parameters, optimizer, guard, random (of the first process)."""
    loop = load_file(checkpoint / _LOOP)
    parts = {
        "parameters": load_file(checkpoint / _MODEL / f"{_MODEL}.safetensors"),
        "optimizer": load_file(checkpoint / _OPTIMIZER / f"{_OPTIMIZER}.safetensors"),
        "guard": {name: tensor for name, tensor in loop.items() if name.startswith("guard.")},
        "random": {name: tensor for name, tensor in loop.items() if name.startswith("random.0.")},
    }
    return {name: digest_tensors(tensors.items()) for name, tensors in parts.items()}


def write_file(path: Path, text: str) -> None:
    """Write a small file so that it is whole or not there."""
    temporary = path.with_name(_TEMPORARY + path.name)
    temporary.write_text(text)
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


@torch.no_grad()
def _load(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill tensors, whole or sharded, from the files in a folder, whole or sharded. Raises IntegrityError."""
    files = sorted(folder.glob("*.safetensors"))
    targets = {name: tensor.detach() for name, tensor in tensors.items()}
    if len(files) != 1 or any(is_part(tensor) for tensor in targets.values()):
        from torch.distributed import checkpoint as dcp
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

        alone = not torch.distributed.is_initialized()
        with warnings.catch_warnings():  # it warns of what no_dist asks for
            warnings.simplefilter("ignore", UserWarning)
            try:
                dcp.load(  # type: ignore[attr-defined]
                    targets, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=alone
                )
            except CheckpointException as error:  # a BaseException, which would pass for a stop
                raise _failed_read(folder, _first_failure(error.failures)) from error
        return
    with safe_open(files[0], framework="pt") as saved:
        if set(saved.keys()) != targets.keys():
            name = sorted(set(saved.keys()) ^ targets.keys())[0]
            raise IntegrityError(
                f"got {files[0]} and a model that differ in {name}; wanted those of one training: remove that step."
            )
        for name, target in targets.items():
            target.copy_(saved.get_tensor(name))


def _refuse_not_finite(model: Tensors, step: int, world: World | None = None) -> None:
    bad = next((name for name, tensor in model.items() if not bool(torch.isfinite(tensor).all())), None)
    if bad is not None or (world is not None and world.any(bad is not None)):
        raise TerminalError(
            f"got a weight of {bad or 'another process'} that is not finite at step {step}; wanted finite weights in a "
            "checkpoint: lower the learning rate and go on from the checkpoint before."
        )


def _copied(named: Iterable[tuple[str, Tensor]]) -> Tensors:
    """In the host's memory, each a copy of its own."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in named}


@contextlib.contextmanager
def _writing(folder: Path, name: str) -> Iterator[None]:
    """Turn what a disk says while a checkpoint is written or renamed into a StorageError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise _failed_write(folder, name, error) from error


def _failed_write(folder: Path, name: str, error: BaseException) -> StorageError:
    is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    return (FullDiskError if is_full else StorageError)(
        f"got {_said(error)!r} while writing {name}; wanted room in {folder}: "
        "free the disk and run again, the checkpoints before it are whole."
    )


def _failed_read(folder: Path, error: BaseException) -> StorageError | IntegrityError:
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return StorageError(
            f"got {_said(error)!r} while reading {folder}; wanted files that can be read: mend the disk and run again."
        )
    return IntegrityError(
        f"got {_said(error)!r} from {folder}; wanted the tensors of this training's model: remove that step to use an "
        "older checkpoint."
    )


def _first_failure(failures: Mapping[int, tuple[BaseException, Any]]) -> BaseException:
    """Of the processes that failed together, that of the lowest rank."""
    return min(failures.items())[1][0]


def _said(error: BaseException) -> str:
    """In one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _superfluous(folder: Path, keep: Keep, written: Path) -> list[Path]:
    """What may go, now that a checkpoint was written, which stays whatever else is there. A damaged one keeps no place."""
    newest_first = _whole(folder)
    newest = max(step_of(path) for path in (*newest_first, written))
    far_enough = [path for path in newest_first if step_of(path) <= newest - keep.window_steps]
    too_near = newest_first[: len(newest_first) - len(far_enough)]
    kept = {written, *newest_first[: keep.last], *_best_first(newest_first)[: keep.best]}
    # The one to go back to, and the next in line: were it removed now, none would ever grow old enough to follow.
    kept |= {*far_enough[:1], *too_near[-1:]}
    passed = [path for path in folder.glob(f"{_DAMAGED}{_PREFIX}*") if path.name.removeprefix(_DAMAGED) <= written.name]
    return [path for path in _folders(folder) if path not in kept] + passed


def _whole(folder: Path) -> list[Path]:
    """Checkpoints whose files are there, each as long as its manifest says; newest first. None of the files is read."""
    return [path for path in _folders(folder) if _looks_whole(path)]


def _looks_whole(checkpoint: Path) -> bool:
    """Raises OSError where the disk cannot tell: what it cannot read now is no reason to remove it."""
    try:
        files = json.loads((checkpoint / _MANIFEST).read_text())["files"]
        return bool(files) and all(
            (checkpoint / name).stat().st_size == entry["num_bytes"] for name, entry in files.items()
        )
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _is_valid(checkpoint: Path) -> bool:
    try:
        verify(checkpoint)
    except IntegrityError:
        return False
    return True


def _best_first(newest_first: list[Path]) -> list[Path]:
    """Those that have a validation loss, the least first, of equals the newest."""
    known = [(loss, -step_of(path), path) for path in newest_first if (loss := _val_loss(path)) is not None]
    return [path for *_, path in sorted(known)]


def _val_loss(checkpoint: Path) -> float | None:
    try:
        value = read_state(checkpoint).get("val_loss")
    except (OSError, ValueError):
        return None
    return float(value) if isinstance(value, int | float) else None


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": digest_file(path), "num_bytes": path.stat().st_size}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _name(step: int) -> str:
    return f"{_PREFIX}{step:08d}"


def _temporary(folder: Path, step: int) -> Path:
    return folder / f"{_TEMPORARY}{_name(step)}"


def _folders(folder: Path) -> list[Path]:
    """Checkpoints by name, newest first."""
    return sorted(folder.glob(f"{_PREFIX}*"), reverse=True)


def _remove(checkpoint: Path) -> None:
    """Remove a folder, its manifest first: half a removed checkpoint must not look whole."""
    if checkpoint.exists():
        (checkpoint / _MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(checkpoint)


def _sync_all(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
