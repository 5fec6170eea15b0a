"""Suggestions: the published formulas, plans that a training takes as they are, and what is said beside them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.config import ModelConfig, TrainConfig, gpt2_124m, nano
from llm.model import GPT
from llm.suggest import step_law_learning_rate, step_law_tokens_per_step, suggest
from pipelines.errors import ConfigError


def test_the_law_gives_its_published_sizes() -> None:
    """At 1e9 parameters and 1e11 tokens: computed by hand from the paper's formulas."""
    assert step_law_learning_rate(10**9, 10**11) == pytest.approx(1.79 * 10 ** (-0.713 * 9 + 0.307 * 11))
    assert step_law_learning_rate(10**9, 10**11) == pytest.approx(1.632e-3, rel=1e-3)
    assert step_law_tokens_per_step(10**11) == pytest.approx(1.107e6, rel=1e-3)


@pytest.mark.parametrize("config", [nano(), gpt2_124m(vocab_size=512, block_size=64)])
def test_the_body_is_what_is_no_embedding(config: ModelConfig) -> None:
    names = ("wte.weight", "wpe.weight")
    model = GPT(config)
    assert config.num_body_parameters == sum(p.numel() for n, p in model.named_parameters() if n not in names)


@given(
    num_windows=st.integers(1, 10**8),
    micro_batch_size=st.integers(1, 64),
    num_processes=st.sampled_from([1, 2, 8]),
    num_epochs=st.floats(0.01, 50),
    preset=st.sampled_from([nano, gpt2_124m]),
)
def test_every_plan_is_one_that_a_training_takes(
    num_windows, micro_batch_size, num_processes, num_epochs, preset
) -> None:
    model = preset()
    unit = micro_batch_size * model.block_size * num_processes
    training = TrainConfig(num_epochs=num_epochs, micro_batch_size=micro_batch_size, tokens_per_step=unit)
    found = suggest(model, training, num_windows=num_windows, num_processes=num_processes)
    for plan in (found.same_budget, found.compute_optimal):
        taken = TrainConfig(
            max_steps=plan.max_steps,
            micro_batch_size=plan.micro_batch_size,
            tokens_per_step=plan.tokens_per_step,
            learning_rate=plan.learning_rate,
            warmup_steps=plan.warmup_steps,
        )
        taken.sequences_per_step(model.block_size, num_processes=num_processes)
        assert plan.micro_batch_size <= micro_batch_size
        assert plan.num_tokens == plan.max_steps * plan.tokens_per_step
        assert plan.warmup_steps < plan.max_steps
    optimal, wanted = found.compute_optimal, min(20 * model.num_parameters, 4 * num_windows * model.block_size)
    assert abs(optimal.num_tokens - wanted) <= max(optimal.tokens_per_step, wanted / 2)
    assert found.as_configured.max_steps == training.num_steps(tokens_per_epoch=found.tokens_per_epoch)


def test_notes_say_what_is_wrong_with_a_plan() -> None:
    few = suggest(gpt2_124m(), TrainConfig(num_epochs=10, tokens_per_step=16_384), num_windows=1000)
    said = " ".join(few.notes)
    assert "reads its corpus 10.0 times" in said
    assert "feed a model of up to 204,800 parameters (less than the smallest preset)" in said
    assert "tokens a parameter are few" in said
    assert "carried beyond that" in said
    enough = suggest(gpt2_124m(), TrainConfig(num_tokens=2_500_000_000, tokens_per_step=491_520), num_windows=2_500_000)
    assert enough.notes == ()
    muon = TrainConfig(num_tokens=2_500_000_000, tokens_per_step=491_520, optimizer="muon")
    assert [note[:11] for note in suggest(gpt2_124m(), muon, num_windows=2_500_000).notes] == ["The law is "]


def test_a_corpus_without_a_window_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"shorter than one window, wanted 129 training tokens"):
        suggest(nano(), TrainConfig(max_steps=1), num_windows=0)
