"""The Hugging Face layout of GPT-2, out and in: transformers loads what is written here, with equal logits.

The published layout keeps the four matrices of a block as (in, out) and not as torch's (out, in) ("Conv1D"),
has no padding of the vocabulary, always has biases, and puts "transformer." before each name but those of the
first release.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llm.checkpoint import load_model
from llm.config import ModelConfig
from llm.model import GPT
from pipelines.errors import ConfigError, InputError, IntegrityError

_PREFIX = "transformer."
_TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
_MASKS = (".attn.bias", ".attn.masked_bias")
"""Constants that older releases stored beside the weights."""


def export_model(checkpoint_folder: Path, tokenizer_json: str, out: Path, eot_token: str) -> Path:
    """Write a checkpoint as a folder that AutoModelForCausalLM and AutoTokenizer load. Gives `out`.

    `tokenizer_json` is the text of a tokenizer.json, `eot_token` the text of its end-of-text token. What was
    written is read back and compared before the folder gets its name. Raises ConfigError where `out` is
    not empty or the tokenizer is not the model's.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"got {out}, which is not empty; wanted a new folder for the model: name another one.")
    model = load_model(checkpoint_folder)
    eot_id = _token_id(tokenizer_json, eot_token, model.config.vocab_size)
    temporary = out.with_name(f".writing-{out.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(_published_weights(model), temporary / "model.safetensors", metadata={"format": "pt"})
    (temporary / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    _write_json(temporary / "config.json", _published_config(model.config, eot_id))
    _write_json(temporary / "generation_config.json", {"bos_token_id": eot_id, "eos_token_id": eot_id})
    _write_json(
        temporary / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": eot_token,
            "eos_token": eot_token,
            "unk_token": eot_token,
            "clean_up_tokenization_spaces": False,
            "model_max_length": model.config.block_size,
        },
    )
    wanted, got = _published_weights(model), _published_weights(load_published(temporary))
    if wanted.keys() != got.keys() or not all(torch.equal(wanted[name], got[name]) for name in wanted):
        raise IntegrityError(
            f"got other weights back from {temporary}; wanted those of {checkpoint_folder}: try again."
        )
    if out.exists():
        out.rmdir()
    return temporary.rename(out)


def load_published(folder: Path) -> GPT:
    """A GPT-2 in the Hugging Face layout (config.json, model.safetensors) as a model, on the CPU.

    Raises InputError for another kind of model or for weights that do not fit its config.
    """
    try:
        fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
    except (OSError, ValueError) as error:
        raise InputError(
            f"got {str(error)!r} from {folder}; wanted config.json and model.safetensors: download the whole model."
        ) from error
    if fields.get("model_type") != "gpt2" or fields.get("activation_function", "gelu_new") != "gelu_new":
        raise InputError(f"got a {fields.get('model_type')!r} model in {folder}; wanted a gpt2 with gelu_new: use one.")
    model = GPT(
        ModelConfig(
            vocab_size=fields["vocab_size"],
            block_size=fields["n_positions"],
            n_layer=fields["n_layer"],
            n_head=fields["n_head"],
            n_embd=fields["n_embd"],
        )
    )
    try:
        model.load_state_dict(_own_weights(weights, model.config))
    except RuntimeError as error:
        raise InputError(
            f"got weights in {folder} that do not fit its config.json ({' '.join(str(error).split())}); "
            "wanted those of one model: download it again."
        ) from error
    return model.eval()


def _published_weights(model: GPT) -> dict[str, Tensor]:
    """Names and shapes as transformers stores them: no padding, no head (it is tied), biases always."""
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    weights["wte.weight"] = weights["wte.weight"][: model.config.vocab_size]
    for name in [name for name in weights if not model.config.bias and name.startswith(("h.", "ln_f"))]:
        weights[name.removesuffix("weight") + "bias"] = torch.zeros(weights[name].size(0))
    return {
        _PREFIX + name: (tensor.T if name.endswith(_TRANSPOSED) else tensor).contiguous()
        for name, tensor in weights.items()
    }


def _own_weights(published: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The reverse of _published_weights, for every release of the layout."""
    weights = {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in published.items()
        if name != "lm_head.weight" and not name.endswith(_MASKS)
    }
    weights = {name: tensor.T if name.endswith(_TRANSPOSED) else tensor for name, tensor in weights.items()}
    if "wte.weight" in weights:
        num_padding = config.padded_vocab_size - weights["wte.weight"].size(0)
        weights["wte.weight"] = torch.nn.functional.pad(weights["wte.weight"], (0, 0, 0, num_padding))
    return weights


def _published_config(config: ModelConfig, eot_id: int) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "tie_word_embeddings": True,
        "bos_token_id": eot_id,
        "eos_token_id": eot_id,
        "dtype": "float32",
    }


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
