"""Configs refuse what cannot work, in one sentence that says what to do."""

import re
from typing import Any

import pytest

from llm.config import PRESETS, ModelConfig, RunConfig, TrainConfig
from llm.model import GPT
from pipelines.digest import digest_value
from pipelines.errors import ConfigError

SHAPE: dict[str, Any] = {"vocab_size": 100, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8}


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (ModelConfig, {**SHAPE, "n_head": 3}, "got n_embd 8 and n_head 3; wanted n_embd divisible by n_head."),
        (ModelConfig, {**SHAPE, "n_layer": 0}, "got n_layer 0; wanted a whole number of at least 1."),
        (ModelConfig, {**SHAPE, "vocab_size": 1.5}, "got vocab_size 1.5; wanted a whole number"),
        (ModelConfig, {**SHAPE, "dropout": 1.0}, "got dropout 1.0; wanted at least 0 and less than 1"),
        (TrainConfig, {}, "got no budget; wanted exactly one of max_steps, num_epochs, num_tokens"),
        (TrainConfig, {"max_steps": 1, "num_tokens": 2}, "wanted exactly one of"),
        (TrainConfig, {"max_steps": -1}, "got max_steps -1; wanted a number above 0."),
        (TrainConfig, {"max_steps": 1, "learning_rate": 0.0}, "got learning_rate 0.0"),
        (TrainConfig, {"max_steps": 1, "learning_rate": float("nan")}, "got learning_rate nan"),
        (TrainConfig, {"max_steps": 1, "grad_clip": 0.0}, "got grad_clip 0.0; .* use null for off"),
        (TrainConfig, {"max_steps": 1, "beta2": 1.0}, "got beta2 1.0"),
        (TrainConfig, {"max_steps": 1, "min_learning_rate_ratio": 2.0}, "got min_learning_rate_ratio 2.0"),
        (TrainConfig, {"max_steps": 1, "keep_last": 0}, "got keep_last 0"),
        (TrainConfig, {"max_steps": 1, "eval_every_steps": 0}, "got eval_every_steps 0"),
        (RunConfig, {"num_threads": 0}, "got num_threads 0"),
    ],
)
def test_bad_configs_are_refused(kind: type, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**fields)


def test_tokens_per_step_must_be_whole_micro_batches() -> None:
    config = TrainConfig(max_steps=1, micro_batch_size=4, tokens_per_step=1000)
    with pytest.raises(ConfigError, match=re.escape("4 x 128 = 512: use 1024")):
        config.sequences_per_step(128)
    assert config.sequences_per_step(250) == 4


@pytest.mark.parametrize(
    ("budget", "num_steps"),
    [({"max_steps": 7}, 7), ({"num_tokens": 2049}, 3), ({"num_epochs": 1}, 10), ({"num_epochs": 2.5}, 25)],
)
def test_each_budget_in_steps(budget: dict[str, Any], num_steps: int) -> None:
    assert TrainConfig(tokens_per_step=1024, **budget).num_steps(tokens_per_epoch=10_240) == num_steps


@pytest.mark.parametrize(
    ("preset", "millions"),
    [("nano", 1.1), ("gpt2_124m", 124.4), ("gpt2_350m", 354.8), ("gpt2_774m", 774.0), ("gpt2_1_5b", 1557.6)],
)
def test_presets_have_the_published_sizes(preset: str, millions: float) -> None:
    assert PRESETS[preset]().num_parameters / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("bias", [True, False])
def test_number_of_parameters_is_the_models(bias: bool) -> None:
    config = ModelConfig(**{**SHAPE, "vocab_size": 128}, bias=bias)  # no padding
    assert config.num_parameters == sum(parameter.numel() for parameter in GPT(config).parameters())


def test_checkpoint_habits_are_not_identity() -> None:
    one, two = TrainConfig(max_steps=1), TrainConfig(max_steps=1, checkpoint_every_steps=3, keep_last=9)
    assert digest_value(one) == digest_value(two) != digest_value(TrainConfig(max_steps=1, seed=1))
