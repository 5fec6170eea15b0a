"""Learning rate and parameter groups."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.config import ModelConfig, TrainConfig
from llm.model import GPT
from llm.optim import _orthogonal, optimizers, rate_part

CONFIG = TrainConfig(max_steps=101, learning_rate=1.0, min_learning_rate_ratio=0.1, warmup_steps=20)


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.05), (9, 0.5), (19, 1.0), (20, 1.0), (60, 0.55), (100, 0.1), (500, 0.1)]
)
def test_learning_rate_rises_and_falls(step: int, rate: float) -> None:
    assert rate_part(step, CONFIG, num_steps=101) == pytest.approx(rate)


@settings(deadline=None)
@given(num_steps=st.integers(1, 200), warmup_steps=st.integers(0, 250), step=st.integers(0, 250))
def test_learning_rate_stays_within_its_bounds(num_steps: int, warmup_steps: int, step: int) -> None:
    config = TrainConfig(max_steps=num_steps, learning_rate=2e-3, warmup_steps=warmup_steps)
    now, then = (2e-3 * rate_part(at, config, num_steps=num_steps) for at in (step, step + 1))
    assert 0 < now <= 2e-3
    assert (then >= now) if step + 1 < warmup_steps else (then <= now or step + 1 == warmup_steps)


def test_only_matrices_decay() -> None:
    model = GPT(ModelConfig(vocab_size=10, block_size=4, n_layer=1, n_head=1, n_embd=4))
    decayed, spared = optimizers(model, TrainConfig(max_steps=1, weight_decay=0.3)).adamw.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {
        *("wte.weight", "wpe.weight", "h.0.attn.c_attn.weight", "h.0.attn.c_proj.weight"),
        *("h.0.mlp.c_fc.weight", "h.0.mlp.c_proj.weight"),
    }
    assert len(decayed["params"]) + len(spared["params"]) == len(names)


@pytest.mark.parametrize("part", [0.25, 1.0])
def test_an_update_moves_as_far_as_the_rate_says(part: float) -> None:
    """AdamW's first step moves every weight by its rate; Muon's moves a matrix by its rate times the matrix it makes."""
    model = GPT(ModelConfig(vocab_size=10, block_size=4, n_layer=1, n_head=1, n_embd=4))
    config = TrainConfig(
        max_steps=9, warmup_steps=4, optimizer="muon", learning_rate=1e-3, muon_learning_rate=0.1, weight_decay=0.0
    )
    both = optimizers(model, config)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert both.set_rates(round(4 * part) - 1, num_steps=9) == 1e-3 * part
    both.step(torch.zeros(()))
    moved = {name: (before[name] - parameter.detach()) for name, parameter in model.named_parameters()}
    assert moved["wte.weight"].numpy() == pytest.approx(1e-3 * part, rel=1e-3)
    direction = _orthogonal(torch.ones(4, 4), 1)
    assert moved["h.0.attn.c_proj.weight"].numpy() == pytest.approx(0.1 * part * direction.numpy(), rel=1e-3)
