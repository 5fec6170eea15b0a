"""transformers loads what is exported, with equal logits and equal token ids."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2Model

from llm import checkpoint
from llm.checkpoint import Keep, Snapshot
from llm.config import ModelConfig, TrainConfig
from llm.export import export_model
from llm.model import GPT
from llm.optim import optimizers
from llm.published import load_published
from llm.sample import Sampling, generate
from pipelines.errors import ConfigError, InputError

EOT = "<|endoftext|>"
TEXTS = [
    "The mill turns, and turns again.",
    "水车转动，磨坊里磨出了白面。",
    "  two  spaces\n\n\ttab é 🙂",
    "don't <b>1.5</b>",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=301, special_tokens=[EOT], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def save(**changes) -> Path:
        shape = {"vocab_size": 301, "block_size": 32, "n_layer": 2, "n_head": 2, "n_embd": 16, "dropout": 0.1}
        config = ModelConfig(**{**shape, **changes})
        model = GPT(config, seed=1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        state = {"model_config": dataclasses.asdict(config)}
        snapshot = Snapshot.of(model, optimizers(model, TrainConfig(max_steps=1)), {}, state, step=1)
        return checkpoint.write(tmp_path / "run", snapshot, Keep(last=1, best=0))

    return save


@pytest.mark.parametrize("bias", [True, False])
def test_transformers_gives_equal_logits_and_ids(bias: bool, save, tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = save(bias=bias)
    out = export_model(folder, tokenizer.to_str(), tmp_path / "out", EOT)
    ours = checkpoint.load_model(folder)
    theirs = AutoModelForCausalLM.from_pretrained(out).eval()
    their_tokenizer = AutoTokenizer.from_pretrained(out)
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        assert their_tokenizer(text)["input_ids"] == ids
        assert their_tokenizer.decode(ids) == text
        with torch.no_grad():
            wanted = ours.logits(ours.states(torch.tensor([ids[:32]])))
            got = theirs(torch.tensor([ids[:32]])).logits
        assert got.shape == wanted.shape  # the padding is cut
        assert (got - wanted).abs().max() < 1e-4
    assert their_tokenizer.eos_token == EOT
    assert theirs.generation_config.eos_token_id == tokenizer.token_to_id(EOT) == theirs.config.eos_token_id
    prompt = torch.tensor([tokenizer.encode("The mill").ids])
    continued = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False, eos_token_id=None
    )
    greedy = generate(ours, prompt[0].tolist(), Sampling(max_tokens=8, temperature=0))
    assert continued[0, prompt.size(1) :].tolist() == list(greedy)


def test_an_exported_model_is_read_back(save, tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = save()
    model = load_published(export_model(folder, tokenizer.to_str(), tmp_path / "out", EOT))
    for name, parameter in checkpoint.load_model(folder).named_parameters():
        rows = 301 if name == "wte.weight" else None
        assert torch.equal(model.get_parameter(name)[:rows], parameter[:rows]), name


def test_first_releases_load_by_name(tmp_path: Path) -> None:
    """They have no prefix, and masks among the weights."""
    theirs = GPT2Model(GPT2Config(vocab_size=64, n_positions=8, n_layer=1, n_head=2, n_embd=16)).eval()
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert "wte.weight" in weights
    save_file({**weights, "h.0.attn.bias": torch.ones(1, 1, 8, 8)}, tmp_path / "model.safetensors")
    ids = torch.arange(8)[None]
    with torch.no_grad():
        assert (load_published(tmp_path).states(ids) - theirs(ids).last_hidden_state).abs().max() < 1e-4


def test_what_cannot_be_exported_is_refused(save, tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder, out = save(), tmp_path / "out"
    with pytest.raises(ConfigError, match="got the end-of-text token '</s>'"):
        export_model(folder, tokenizer.to_str(), out, "</s>")
    with pytest.raises(ConfigError, match="got a tokenizer that cannot be read"):
        export_model(folder, "{}", out, EOT)
    larger = json.loads(tokenizer.to_str())
    larger["added_tokens"].append({**larger["added_tokens"][0], "id": 301, "content": "<|x|>"})
    with pytest.raises(ConfigError, match=r"got a tokenizer with ids up to 301; wanted ids below .* 301"):
        export_model(folder, json.dumps(larger), out, EOT)
    assert not out.exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="which is not empty; wanted a new folder"):
        export_model(folder, tokenizer.to_str(), tmp_path / "full", EOT)


def test_other_models_are_refused(save, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"wanted config.json and model.safetensors"):
        load_published(tmp_path)
    out = export_model(save(), tokenizer.to_str(), tmp_path / "out", EOT)
    config = json.loads((out / "config.json").read_text())
    for change, message in [
        ({"model_type": "llama"}, "got a 'llama' model"),
        ({"n_layer": 3}, "do not fit its config.json"),
    ]:
        (out / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(InputError, match=message):
            load_published(out)
