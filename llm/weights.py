"""Weights to begin a training with, from whatever folder holds them."""

from pathlib import Path

from torch import Tensor

from llm.checkpoint import load_model
from llm.export import load_published


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Weights by name, of a checkpoint or of a model in the Hugging Face layout. Raises InputError or IntegrityError."""
    model = load_model(folder) if (folder / "manifest.json").exists() else load_published(folder)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}
