"""A tiny random model with a byte-level tokenizer, exported as transformers reads it."""

import dataclasses
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from flows.evaluation.suite_files import read_cases
from flows.evaluation.suites import SHIPPED
from llm import checkpoint
from llm.checkpoint import Keep, Snapshot
from llm.config import ModelConfig, TrainConfig
from llm.export import export_model
from llm.model import GPT
from llm.optim import optimizers

EOT = "<|endoftext|>"


def tokenizer_json() -> str:
    """Trained on the shipped suites: whole words and Chinese characters are tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=[EOT], initial_alphabet=alphabet, show_progress=False)
    cases = (
        case for name in ("en", "zh") for case in read_cases(SHIPPED / f"summarisation_{name}.jsonl", "summarisation")
    )
    tokenizer.train_from_iterator([case.values["text"] for case in cases], trainer)
    return tokenizer.to_str()


def export_tiny(folder: Path) -> Path:
    """Weights far from zero, so that the model has opinions; a context that few prompts fit in."""
    config = ModelConfig(vocab_size=700, block_size=96, n_layer=2, n_head=2, n_embd=32)
    model = GPT(config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    state = {"model_config": dataclasses.asdict(config)}
    snapshot = Snapshot.of(model, optimizers(model, TrainConfig(max_steps=1)), {}, state, step=1)
    saved = checkpoint.write(folder / "run", snapshot, Keep(last=1, best=0))
    return export_model(saved, tokenizer_json(), folder / "exported", EOT)
