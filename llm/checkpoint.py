"""Checkpoints that are whole or not there: weights, optimiser and state in one folder, step-00001000.

    model.safetensors       the weights, by published name
    optimizer.safetensors   AdamW's moments, by parameter name
    state.json              step, configs, digests, measurements so far
    manifest.json           SHA-256 and size of each of them

A folder is written under a temporary name, its files are synced, the manifest comes last, then it is renamed.
Nothing is pickled. No random state is stored, because none lasts longer than a step: the order of the data and
dropout are functions of the seed and the step.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llm.config import ModelConfig
from llm.model import GPT
from pipelines.digest import digest_file
from pipelines.errors import IntegrityError, StorageError, TerminalError

_logger = logging.getLogger(__name__)

_MODEL = "model.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_STATE = "state.json"
_MANIFEST = "manifest.json"
_PREFIX = "step-"
_TEMPORARY = ".writing-"


def save(
    folder: Path, model: GPT, optimizer: torch.optim.Optimizer, state: dict[str, Any], *, step: int, keep_last: int
) -> Path:
    """Write the checkpoint of a step, then remove all but the newest `keep_last`. Gives its folder.

    Raises TerminalError for a weight that is not finite (nothing is written), StorageError where the disk fails.
    """
    bad = [name for name, p in model.named_parameters() if not bool(torch.isfinite(p).all())]
    if bad:
        raise TerminalError(
            f"got a weight of {bad[0]} that is not finite at step {step}; wanted finite weights in a checkpoint: "
            "lower the learning rate and go on from the checkpoint before."
        )
    target = folder / f"{_PREFIX}{step:08d}"
    temporary = folder / f"{_TEMPORARY}{target.name}"
    try:
        _remove(temporary)
        temporary.mkdir(parents=True)
        save_file(_on_cpu(dict(model.named_parameters())), temporary / _MODEL)
        save_file(_on_cpu(dict(_moments(model, optimizer))), temporary / _OPTIMIZER)
        (temporary / _STATE).write_text(json.dumps({**state, "step": step}, indent=1, sort_keys=True))
        files = {path.name: _entry(path) for path in sorted(temporary.iterdir())}
        (temporary / _MANIFEST).write_text(json.dumps({"step": step, "files": files}, indent=1, sort_keys=True))
        for path in (*temporary.iterdir(), temporary):
            _sync(path)
        _remove(target)  # only a damaged one, or the same step again
        temporary.rename(target)
        _sync(folder)
        for old in _folders(folder)[keep_last:]:
            _remove(old)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"got {str(error)!r} while writing the checkpoint of step {step}; wanted room in {folder}: "
            "free the disk and run again, the checkpoints before it are whole."
        ) from error
    return target


def newest_valid(folder: Path) -> Path | None:
    """The newest checkpoint in a folder whose every file is what its manifest says, or None."""
    for checkpoint in _folders(folder):
        try:
            verify(checkpoint)
        except IntegrityError as error:
            _logger.warning("checkpoint passed over: %s", error)
            continue
        return checkpoint
    return None


def verify(checkpoint: Path) -> None:
    """Read every byte of a checkpoint again. Raises IntegrityError where it is not what its manifest says."""
    try:
        files = json.loads((checkpoint / _MANIFEST).read_text())["files"]
        wrong = [name for name, entry in files.items() if _entry(checkpoint / name) != entry]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(
            f"got {str(error)!r} from {checkpoint}; wanted a checkpoint with its manifest: use another one."
        ) from error
    if wrong or not {_MODEL, _OPTIMIZER, _STATE} <= files.keys():
        raise IntegrityError(
            f"got a changed {wrong[0] if wrong else 'list of files'} in {checkpoint}; wanted the bytes that its "
            "manifest names: use an older checkpoint."
        )


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The state that was saved with a checkpoint, `step` included."""
    state: dict[str, Any] = json.loads((checkpoint / _STATE).read_text())
    return state


def restore(checkpoint: Path, model: GPT, optimizer: torch.optim.Optimizer) -> None:
    """Put saved weights and moments into a model and its optimiser."""
    _load_weights(checkpoint, model)
    saved = load_file(checkpoint / _OPTIMIZER)
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            key: saved[f"{name}.{key}"].to(parameter.device) for key in ("step", "exp_avg", "exp_avg_sq")
        }


def load_model(checkpoint: Path) -> GPT:
    """The model of a checkpoint, on the CPU, ready to evaluate. Raises IntegrityError for a damaged one."""
    verify(checkpoint)
    model = GPT(ModelConfig(**read_state(checkpoint)["model_config"]))
    _load_weights(checkpoint, model)
    return model.eval()


def digest_parameters(model: GPT) -> str:
    """Digest of every weight: equal exactly where all bits are. 64 hex characters."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(_on_cpu(dict(model.named_parameters())).items()):
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha256.update(tensor.numpy().data)
    return sha256.hexdigest()


def write_file(path: Path, text: str) -> None:
    """Write a small file so that it is whole or not there."""
    temporary = path.with_name(_TEMPORARY + path.name)
    temporary.write_text(text)
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


def _load_weights(checkpoint: Path, model: GPT) -> None:
    model.load_state_dict(load_file(checkpoint / _MODEL))


def _moments(model: GPT, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            yield f"{name}.{key}", value


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": digest_file(path), "num_bytes": path.stat().st_size}


def _folders(folder: Path) -> list[Path]:
    """Checkpoints by name, newest first."""
    return sorted(folder.glob(f"{_PREFIX}*"), reverse=True)


def _remove(checkpoint: Path) -> None:
    """Remove a folder, its manifest first: half a removed checkpoint must not look whole."""
    if checkpoint.exists():
        (checkpoint / _MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(checkpoint)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
