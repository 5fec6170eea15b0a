"""A model that a training begins with: `training.start_from`. It enters the training's key by its weights, never by its path."""

import functools
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from llm.config import ModelConfig
from pipelines.errors import ConfigError, InputError, IntegrityError

FROM_START = "from_start"
"""The preset that takes the shape of the model to start from."""

_WITHOUT_WEIGHTS = ("dropout", "zero_init")
"""What may differ from the model to start from."""


def start_config(folder: Path) -> ModelConfig:
    """The shape of the model in a folder. Raises ConfigError where there is none."""
    from llm.weights import read_config

    try:
        return read_config(folder)
    except (InputError, OSError, ValueError, KeyError) as error:
        raise ConfigError(f"training.start_from: {error}") from error


def start_digest(folder: Path) -> str:
    """The digest of its weights. Raises ConfigError or IntegrityError where they cannot be read."""
    from llm.weights import model_folder

    files = sorted(path for path in model_folder(folder).rglob("*") if path.is_file())
    return _digest(folder, tuple((path, *_times(path)) for path in files))


@functools.lru_cache(maxsize=4)  # a run asks before, while and after it trains
def _digest(folder: Path, _seen: tuple[Any, ...]) -> str:
    from llm.checkpoint import digest_parameters
    from llm.weights import read_model

    try:
        return digest_parameters(read_model(folder))
    except InputError as error:
        raise ConfigError(f"training.start_from: {error}") from error
    except IntegrityError as error:
        raise IntegrityError(f"training.start_from: {error}") from error


def _times(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def check_shape(wanted: ModelConfig, start: ModelConfig) -> None:
    """Raise ConfigError where the weights of one model do not fit another."""
    free = (*_WITHOUT_WEIGHTS, "block_size") if wanted.positions == start.positions == "rotary" else _WITHOUT_WEIGHTS
    names = [item.name for item in fields(ModelConfig) if item.name not in free]
    differing = [name for name in names if getattr(wanted, name) != getattr(start, name)]
    if differing:
        got = ", ".join(f"{name} {getattr(wanted, name)}" for name in differing)
        have = ", ".join(f"{getattr(start, name)}" for name in differing)
        raise ConfigError(
            f"model: got {got}, wanted {have} of the model in training.start_from: "
            f"set preset to {FROM_START} and leave sizes out."
        )


def check_tokenizer(tokenizer_json: str, folder: Path) -> None:
    """Raise ConfigError where a tokenizer is not, vocabulary and merges, that of the model in a folder."""
    from llm.weights import model_folder, tokenizer_file

    path = tokenizer_file(model_folder(folder))
    if path is None:
        raise ConfigError(
            f"training.start_from: got {folder} without a tokenizer.json, wanted the model's beside it: put it there."
        )
    if _vocabulary(tokenizer_json) != _vocabulary(path.read_text(encoding="utf-8")):
        raise ConfigError(
            "tokenizer: got another vocabulary or other merges than those of the model in training.start_from, wanted its "
            f"own: set tokenizer.kind to file and tokenizer.path to {path}."
        )


def _vocabulary(tokenizer_json: str) -> Any:
    """Ids by token and merges in order, however the file writes them."""
    try:
        spec = json.loads(tokenizer_json)
        added = {token["content"]: token["id"] for token in spec.get("added_tokens") or []}
        merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in spec["model"]["merges"]]
        return {**spec["model"]["vocab"], **added}, merges
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"got a tokenizer that cannot be read ({error!r}), wanted a tokenizer.json: replace it."
        ) from error
