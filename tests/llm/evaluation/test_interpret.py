"""What is shown of a model's inside is what it does."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.config import ModelConfig
from llm.evaluation.interpret import inspect, pieces, surprisals
from llm.model import GPT
from pipelines.errors import ConfigError

EOT = 0
PLAIN = ModelConfig(vocab_size=40, block_size=16, n_layer=3, n_head=2, n_embd=16)
MODERN = replace(PLAIN, positions="rotary", qk_norm=True, activation="relu_squared", tied_head=False)
IDS = st.lists(st.integers(1, 39), max_size=15)


def large(config: ModelConfig) -> GPT:
    model = GPT(config, seed=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)
    return model.eval()


MODELS = {"plain": large(PLAIN), "modern": large(MODERN)}


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15)
@given(ids=IDS)
def test_the_last_lens_is_the_model_and_attention_is_causal(name: str, ids: list[int]) -> None:
    model = MODELS[name]
    found = inspect(model, ids, EOT, num_top=40)
    size = len(ids) + 1
    assert found.attention.shape == (3, 2, size, size)
    assert np.allclose(found.attention.sum(axis=-1), 1, atol=1e-5)
    assert not np.triu(found.attention, 1).any()
    with torch.no_grad():
        wanted = torch.softmax(model.logits(model.states(torch.tensor([[EOT, *ids]])))[0], dim=-1).numpy()
    assert np.allclose(np.take_along_axis(wanted, found.lens_ids[-1], axis=1), found.lens_probabilities[-1], atol=1e-5)
    assert np.allclose(found.lens_probabilities.sum(axis=-1), 1, atol=1e-4)
    chosen = wanted[np.arange(len(ids)), ids] if ids else np.zeros(0)
    assert np.allclose(found.surprisal_bits, -np.log2(chosen), atol=1e-3)
    assert np.allclose(found.surprisal_bits, surprisals(model, ids, EOT), atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_the_weights_are_those_with_which_the_model_mixes(name: str) -> None:
    """Values mixed by the shown weights give the output of the attention itself."""
    model = MODELS[name]
    seen: list[tuple[torch.Tensor, ...]] = []
    attention = model.h[1].attn
    hook = attention.register_forward_hook(lambda _, given, out: seen.append((given[0], given[1], out)))
    found = inspect(model, [5, 6, 7, 8, 9], EOT)
    hook.remove()
    x, rotation, out = seen[0]
    with torch.no_grad():
        _, _, v = attention.heads(x, rotation)
        mixed = torch.from_numpy(found.attention[1]) @ v[0]  # (H, T, D)
        again = attention.c_proj(mixed.transpose(0, 1).reshape(1, 6, 16))
    assert torch.allclose(again, out, atol=1e-4)


def test_before_the_first_layer_the_lens_knows_the_token_alone() -> None:
    model = GPT(PLAIN, seed=0).eval()
    with torch.no_grad():
        model.wpe.weight.zero_()
    found = inspect(model, [7, 9, 7], EOT, num_top=1)
    assert found.lens_ids[0, :, 0].tolist() == [EOT, 7, 9, 7]  # with a tied head each token is likest to itself
    assert not model._forward_hooks
    assert not any(block._forward_pre_hooks for block in model.h)


@given(st.integers(0, 60))
def test_every_token_of_a_long_text_is_scored_once(size: int) -> None:
    """A model that looks at nothing scores each token alike, wherever windows begin."""
    model = GPT(PLAIN, seed=0)
    with torch.no_grad():
        model.wte.weight.zero_()
    seen: list[tuple[int, int]] = []
    found = surprisals(model, [3] * size, EOT, lambda done, num: seen.append((done, num)))
    assert found == pytest.approx(np.full(size, np.log2(40)), abs=1e-4)
    assert not size or seen[-1] == (size, size)


def test_surprisals_far_into_a_text_are_those_of_its_window() -> None:
    model, ids = MODELS["plain"], np.random.default_rng(0).integers(1, 40, 50).tolist()
    found, read = surprisals(model, ids, EOT), [EOT, *ids]
    for at, end in ((3, 16), (20, 24), (49, 50)):
        window = torch.tensor([read[max(0, end - 16) : at + 1]])
        with torch.no_grad():
            logs = torch.log_softmax(model.logits(model.states(window))[0, -1], dim=-1)
        assert found[at] == pytest.approx(-float(logs[ids[at]]) / np.log(2), abs=1e-3)


def test_what_the_model_cannot_read_is_refused() -> None:
    with pytest.raises(ConfigError, match="wanted at most 15"):
        inspect(MODELS["plain"], [1] * 16, EOT)
    with pytest.raises(ConfigError, match="token id 40"):
        surprisals(MODELS["plain"], [40], EOT)


@given(st.text("ab é山里🙂", max_size=12))
def test_pieces_make_up_the_text(text: str) -> None:
    def decode(ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")

    found = pieces(list(text.encode()), decode)
    assert "".join(found) == text
    assert len(found) == len(text.encode())
