"""A model from whatever folder holds it: a training's, one of its checkpoints, or a published one."""

from pathlib import Path
from typing import Literal

from torch import Tensor

from llm import checkpoint, published
from llm.config import ModelConfig
from llm.model import GPT
from pipelines.errors import InputError

Which = Literal["last", "best"]
"""Of a training's checkpoints: the newest, or the one with the least validation loss."""

_STATE = "state.json"


def model_folder(folder: Path, which: Which = "last") -> Path:
    """The folder that holds the weights: a checkpoint where `folder` is a training's, else itself. Raises InputError."""
    if (folder / _STATE).exists() or (folder / "config.json").exists():
        return folder
    found = checkpoint.last(folder)
    if which == "best" and found is not None:
        found = checkpoint.best(folder) or found
    if found is None:
        raise InputError(
            f"got {folder} without a model; wanted the folder of a training, of a checkpoint, or one with config.json and "
            "model.safetensors: check the path."
        )
    return found


def read_config(folder: Path, which: Which = "last") -> ModelConfig:
    """What the model of a folder is; no weight is read. Raises InputError."""
    place = model_folder(folder, which)
    return checkpoint.read_config(place) if (place / _STATE).exists() else published.read_config(place)


def read_model(folder: Path, which: Which = "last") -> GPT:
    """The model of a folder, on the CPU, ready to evaluate. Raises InputError, or IntegrityError for a damaged one."""
    place = model_folder(folder, which)
    return checkpoint.load_model(place) if (place / _STATE).exists() else published.load_published(place)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Weights by name, to begin a training with. Raises likewise."""
    return {name: parameter.detach() for name, parameter in read_model(folder).named_parameters()}


def tokenizer_file(folder: Path) -> Path | None:
    """The tokenizer.json of a model: beside it, or in the training's folder above a checkpoint. None: it has none."""
    places = (folder, folder.parent) if (folder / _STATE).exists() else (folder,)
    return next((place / "tokenizer.json" for place in places if (place / "tokenizer.json").is_file()), None)
