"""A model as a folder for others: the layout of published GPT-2, and one of our own for what is no GPT-2.

    config.json           what the model is
    model.safetensors     its weights, or model.safetensors.index.json and the files that it names

*GPT-2* (model_type "gpt2") is what transformers loads: learned positions, no norms on queries and keys. It keeps the four
matrices of a block as (in, out) and not as torch's (out, in) ("Conv1D"), always has biases, and puts "transformer."
before each name but those of the first release. *Ours* (model_type "corpusmill") has the fields of `ModelConfig` and our
own names. Neither has the padding of the vocabulary.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llm.config import Activation, ModelConfig
from llm.model import GPT
from pipelines.errors import ConfigError, InputError

OWN_TYPE = "corpusmill"
GPT2_TYPE = "gpt2"

_PREFIX = "transformer."
_HEAD = "lm_head.weight"
_EMBEDDING = "wte.weight"
_TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
_MASKS = (".attn.bias", ".attn.masked_bias")
"""Constants that older releases stored beside the weights."""
_ACTIVATION_NAMES: dict[str, Activation] = {
    "gelu_new": "gelu",
    "gelu_fast": "gelu",
    "gelu_accurate": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_python_tanh": "gelu",
    "relu2": "relu_squared",
}
"""As transformers calls them; the first of each kind is what we write. Its "gelu" has no tanh and is another function."""
_FIXED = {
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "n_inner": None,
}
"""What GPT-2's config may say otherwise and our model does not do."""
_SIZES = ("vocab_size", "n_layer", "n_head", "n_embd")


def model_type(config: ModelConfig) -> str:
    """Which layout a model has outside: GPT-2's where that can say all of it."""
    return GPT2_TYPE if config.positions == "learned" and not config.qk_norm else OWN_TYPE


def published_fields(config: ModelConfig, *, eot_token: int) -> dict[str, Any]:
    """What config.json says of a model."""
    if model_type(config) == OWN_TYPE:
        return {"model_type": OWN_TYPE, **dataclasses.asdict(config), "eos_token_id": eot_token}
    activation = next(name for name, ours in _ACTIVATION_NAMES.items() if ours == config.activation)
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": GPT2_TYPE,
        **{name: getattr(config, name) for name in _SIZES},
        "n_positions": config.block_size,
        "activation_function": activation,
        **{f"{name}_pdrop": config.dropout for name in ("resid", "embd", "attn")},
        **_FIXED,
        "tie_word_embeddings": config.tied_head,
        "bos_token_id": eot_token,
        "eos_token_id": eot_token,
        "dtype": "float32",
    }


def published_weights(model: GPT) -> Iterator[tuple[str, Tensor]]:
    """Names and shapes as the model's layout stores them, one after the other; views of the model where they can be."""
    config = model.config
    is_gpt2 = model_type(config) == GPT2_TYPE
    for name, parameter in model.named_parameters():
        tensor = parameter.detach()
        if name in (_EMBEDDING, _HEAD):
            tensor = tensor[: config.vocab_size]
        if not is_gpt2:
            yield name, tensor
            continue
        prefix = "" if name == _HEAD else _PREFIX
        yield prefix + name, tensor.T if name.endswith(_TRANSPOSED) else tensor
        if not config.bias and name.startswith(("h.", "ln_f")):
            yield prefix + name.removesuffix("weight") + "bias", torch.zeros(tensor.size(0))


def read_config(folder: Path) -> ModelConfig:
    """The config of a model in either layout. Raises InputError for another kind of model."""
    fields = _fields(folder)
    try:
        if fields.get("model_type") == OWN_TYPE:
            known = {item.name for item in dataclasses.fields(ModelConfig)}
            return ModelConfig(**{name: value for name, value in fields.items() if name in known})
        return _gpt2_config(fields, folder)
    except (TypeError, ConfigError) as error:
        raise InputError(
            f"got a config.json in {folder} that is no model's ({error}); wanted that of a GPT-2: download it again."
        ) from error


@torch.no_grad()
def load_published(folder: Path) -> GPT:
    """A model in either layout, on the CPU, in fp32 whatever its file has.

    Weights are read one by one, so a model takes its own memory and that of its largest matrix. Raises InputError for
    another kind of model, for pickled weights, and for weights that do not fit its config.
    """
    config = read_config(folder)
    files = _weight_files(folder)
    model = GPT.empty(config)
    wanted = {name: parameter.detach() for name, parameter in model.named_parameters()}
    missing, is_gpt2 = set(wanted), model_type(config) == GPT2_TYPE
    for name, stored in _tensors(files):
        own = name.removeprefix(_PREFIX) if is_gpt2 else name
        if is_gpt2 and own.endswith(_MASKS):
            continue
        if own == _HEAD and config.tied_head:
            _check_tied(stored, files, folder)
            continue
        if own not in wanted:
            raise _misfit(folder, f"{name}, which the model does not have")
        tensor = stored.T if is_gpt2 and own.endswith(_TRANSPOSED) else stored
        target = wanted[own]
        if own in (_EMBEDDING, _HEAD):
            target[config.vocab_size :] = 0.0  # the padding
            target = target[: config.vocab_size]
        if tensor.shape != target.shape or not tensor.is_floating_point():
            raise _misfit(folder, f"{name} of {tensor.dtype} {tuple(tensor.shape)}, not {tuple(target.shape)}")
        target.copy_(tensor)
        missing.discard(own)
    if missing:
        raise _misfit(folder, f"no {min(missing)}")
    return model.eval()


def _gpt2_config(fields: dict[str, Any], folder: Path) -> ModelConfig:
    activation = fields.get("activation_function", "gelu_new")
    if fields.get("model_type") != GPT2_TYPE or activation not in _ACTIVATION_NAMES:
        raise InputError(
            f"got a {fields.get('model_type')!r} model with {activation!r} in {folder}; wanted a gpt2 with one of "
            f"{', '.join(_ACTIVATION_NAMES)}: use one."
        )
    usual = {
        **_FIXED,
        "n_inner": fields.get("n_inner") if fields.get("n_inner") == 4 * fields.get("n_embd", 0) else None,
    }
    for name, value in usual.items():
        if fields.get(name, value) != value:
            raise InputError(
                f"got a gpt2 with {name} {fields[name]!r} in {folder}; wanted {value!r}, as published: use another one."
            )
    sizes = {**fields, "n_positions": fields.get("n_positions", fields.get("n_ctx"))}
    absent = [name for name in (*_SIZES, "n_positions") if not isinstance(sizes.get(name), int)]
    if absent:
        raise InputError(f"got a config.json without {absent[0]} in {folder}; wanted a whole one: download it again.")
    return ModelConfig(
        **{name: sizes[name] for name in _SIZES},
        block_size=sizes["n_positions"],
        activation=_ACTIVATION_NAMES[activation],
        tied_head=fields.get("tie_word_embeddings", True),
    )


def _fields(folder: Path) -> dict[str, Any]:
    return _read_json(folder / "config.json", "config.json and model.safetensors: download the whole model")


def _read_json(path: Path, wanted: str) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"got {str(error)!r} from {path.parent}; wanted {wanted}: name its folder.") from error
    if not isinstance(fields, dict):
        raise InputError(f"got {path}, which is no mapping; wanted {wanted}: name its folder.")
    return fields


def _weight_files(folder: Path) -> dict[str, Path]:
    """Which file holds each tensor, in the order of files."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists() or not index.exists():
        files = [whole]
    else:
        named = _read_json(index, "an index of weights").get("weight_map")
        names = set(named.values()) if isinstance(named, dict) else set()
        if not names or any(Path(name).name != name for name in names):
            raise InputError(f"got {index} without files of its own folder; wanted a weight_map: download it again.")
        files = [folder / name for name in sorted(names)]
    pickled = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.ckpt*"))
    if not files[0].exists() and pickled:
        raise InputError(
            f"got {pickled[0].name} in {folder}, which may run code when it is read; wanted model.safetensors: where you "
            "trust it, load it with transformers and write it with save_pretrained(folder)."
        )
    found = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                found.update(dict.fromkeys(file.keys(), path))
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"got {str(error)!r} from {path}; wanted config.json and model.safetensors: download the whole model."
            ) from error
    return found


def _tensors(files: dict[str, Path]) -> Iterator[tuple[str, Tensor]]:
    """One after the other, read when they are asked for."""
    for path in dict.fromkeys(files.values()):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                yield name, file.get_tensor(name)


def _check_tied(head: Tensor, files: dict[str, Path], folder: Path) -> None:
    """A file may repeat the embedding as the head; another head is not the model that its config says."""
    name = next((name for name in files if name.removeprefix(_PREFIX) == _EMBEDDING), None)
    if name is None:
        return  # told of as missing
    with safe_open(files[name], framework="pt") as file:
        if not torch.equal(head, file.get_tensor(name)):
            raise InputError(
                f"got a head in {folder} that differs from its embedding; wanted both the same, as its config.json says: "
                "set tie_word_embeddings to false in it to keep the head."
            )


def _misfit(folder: Path, what: str) -> InputError:
    return InputError(
        f"got weights in {folder} that do not fit its config.json ({what}); wanted those of one model: download it again."
    )
