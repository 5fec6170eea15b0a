"""A checkpoint as a folder that others load, verified before it gets its name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from llm.checkpoint import load_model
from llm.config import ModelConfig
from llm.model import GPT
from llm.published import GPT2_TYPE, load_published, model_type, published_fields, published_weights
from pipelines.errors import ConfigError, IntegrityError

Check = Callable[[Path, GPT], None]
"""Compares a folder with the model that it was written from; raises where they differ."""


def export_model(
    checkpoint_folder: Path, tokenizer_json: str, out: Path, eot_token: str, *, check: Check | None = None
) -> Path:
    """Write a checkpoint as a folder: for transformers where it is a GPT-2, else in a layout of our own. Gives `out`.

    `tokenizer_json` is the text of a tokenizer.json, `eot_token` the text of its end-of-text token. What was
    written is read back and every bit compared, and `check` may look too, before the folder gets its name.
    Raises ConfigError where `out` is not empty or the tokenizer is not the model's.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"got {out}, which is not empty; wanted a new folder for the model: name another one.")
    model = load_model(checkpoint_folder)
    eot_id = _token_id(tokenizer_json, eot_token, model.config.vocab_size)
    temporary = out.with_name(f".writing-{out.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _write(model, tokenizer_json, temporary, eot_token, eot_id)
        _compare(model, temporary)
        if check is not None:
            check(temporary, model)
        if out.exists():
            out.rmdir()
        return temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(model: GPT, tokenizer_json: str, folder: Path, eot_token: str, eot_id: int) -> None:
    weights = {name: tensor.contiguous() for name, tensor in published_weights(model)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    _write_json(folder / "config.json", published_fields(model.config, eot_token=eot_id))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(model.config, eot_token))
    if model_type(model.config) == GPT2_TYPE:
        _write_json(folder / "generation_config.json", {"bos_token_id": eot_id, "eos_token_id": eot_id})


def _tokenizer_config(config: ModelConfig, eot_token: str) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": eot_token,
        "eos_token": eot_token,
        "unk_token": eot_token,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config.block_size,
    }


def _compare(model: GPT, folder: Path) -> None:
    """Every bit of the file, and of what our own reader makes of it. Raises IntegrityError."""
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
        for name, tensor in published_weights(model):
            names.discard(name)
            if not torch.equal(file.get_tensor(name), tensor):
                raise _differs(name, folder)
    read = dict(load_published(folder).named_parameters())
    for name, parameter in model.named_parameters():
        rows = model.config.vocab_size if name in ("wte.weight", "lm_head.weight") else parameter.size(0)
        if not torch.equal(read[name][:rows], parameter[:rows]):
            raise _differs(name, folder)
    if names:
        raise _differs(min(names), folder)


def _differs(name: str, folder: Path) -> IntegrityError:
    return IntegrityError(
        f"got another {name} back from {folder}; wanted that of the checkpoint: look at the disk and try again."
    )


def _token_id(tokenizer_json: str, eot_token: str, vocab_size: int) -> int:
    """Id of the end-of-text token. Raises ConfigError where the tokenizer is not one for this model."""
    try:
        tokenizer = json.loads(tokenizer_json)
        ids = {**tokenizer["model"]["vocab"], **{t["content"]: t["id"] for t in tokenizer.get("added_tokens", [])}}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"got a tokenizer that cannot be read ({error!r}); wanted the text of a tokenizer.json: "
            "give that of the model."
        ) from error
    if eot_token not in ids:
        raise ConfigError(f"got the end-of-text token {eot_token!r}; wanted one of the tokenizer's tokens: name it.")
    if max(ids.values()) >= vocab_size:
        raise ConfigError(
            f"got a tokenizer with ids up to {max(ids.values())}; wanted ids below the model's vocab_size of "
            f"{vocab_size}: give the tokenizer that the model was trained with."
        )
    return int(ids[eot_token])


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
