"""Losses of continuations, against the model read token by token."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm.config import ModelConfig
from llm.evaluation.losses import continuation_losses, split_pair, text_losses
from llm.model import GPT
from pipelines.errors import ConfigError

EOT = 0
CONFIG = ModelConfig(vocab_size=30, block_size=12, n_layer=2, n_head=2, n_embd=16)


@pytest.fixture(scope="module")
def model() -> GPT:
    model = GPT(CONFIG, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)
    return model.eval()


def by_hand(model: GPT, context: list[int], continuation: list[int]) -> float:
    if len(continuation) > CONFIG.block_size:
        half = CONFIG.block_size // 2
        first = by_hand(model, context, continuation[:half])
        rest = [*context, *continuation[:half]], continuation[half:]
        if len(rest[1]) > CONFIG.block_size:
            return first + by_hand(model, *rest)
        parts = [rest[1][at : at + half] for at in range(0, len(rest[1]), half)]
        for part in parts:
            first += by_hand(model, rest[0], part)
            rest[0].extend(part)
        return first
    whole = [*context, *continuation][-(CONFIG.block_size + 1) :]
    with torch.no_grad():
        logs = torch.log_softmax(model.logits(model.states(torch.tensor([whole[:-1]])))[0].double(), dim=-1)
    places = range(len(whole) - len(continuation), len(whole))
    return -sum(float(logs[place - 1, whole[place]]) for place in places)


def test_sums_of_pairs_of_all_lengths(model: GPT) -> None:
    generator = np.random.default_rng(0)
    shapes = [(1, 1), (3, 9), (1, 12), (12, 1), (20, 5), (2, 2), (2, 31), (5, 13)]
    pairs = [tuple(generator.integers(0, 30, size).tolist() for size in shape) for shape in shapes]
    seen = []
    found = continuation_losses(model, pairs, lambda done, num: seen.append((done, num)))
    assert found == pytest.approx([by_hand(model, *pair) for pair in pairs], abs=1e-4)
    assert seen[-1] == (15, 15)


def test_a_uniform_model_gives_ln_vocab_size_a_token() -> None:
    model = GPT(CONFIG)
    with torch.no_grad():
        model.wte.weight.zero_()
    found = text_losses(model, lambda text: list(range(1, len(text) + 1)), EOT, ["a", "abcd"])
    assert found == pytest.approx([math.log(30), 4 * math.log(30)], abs=1e-5)


@pytest.mark.parametrize("pair", [([], [1]), ([1], []), ([1], [30])])
def test_what_cannot_be_scored_is_refused(model: GPT, pair) -> None:
    with pytest.raises(ConfigError, match="got"):
        continuation_losses(model, [pair])


@given(st.text("ab中", max_size=6), st.text("ab中", min_size=1, max_size=6))
def test_a_token_over_the_border_is_scored(context: str, continuation: str) -> None:
    """With an encoder that joins pairs, context and continuation are the whole text, and something is left to score."""

    def encode(text: str) -> list[int]:
        return [hash(text[at : at + 2]) for at in range(0, len(text), 2)]

    before, after = split_pair(encode, EOT, context, continuation)
    assert after
    assert [*before, *after] == [EOT, *encode(context + continuation)]
    assert before[1:] == encode(context)[: len(before) - 1]
