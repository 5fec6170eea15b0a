"""Learning rate and parameter groups."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.config import ModelConfig, TrainConfig
from llm.model import GPT
from llm.optim import optimizers, rate_part

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
