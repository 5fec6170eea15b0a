"""Generation: greedy and drawn, with and without an end."""

from typing import Any

import pytest
import torch

from llm import sample
from llm.config import ModelConfig
from llm.model import GPT
from llm.sample import Sampling
from pipelines.errors import ConfigError

CONFIG = ModelConfig(vocab_size=50, block_size=16, n_layer=2, n_head=2, n_embd=16)
PROMPT = [3, 14, 15]


@pytest.fixture
def model() -> GPT:
    model = GPT(CONFIG, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
        model.wte.weight[CONFIG.vocab_size :] = 100.0  # the padding would win, were it let in
    return model


def generate(
    model: GPT, prompt: list[int], *, eot_token: int | None = None, document_masks: bool = False, **options: Any
) -> list[int]:
    tokens = sample.generate(model, prompt, Sampling(**options), eot_token=eot_token, document_masks=document_masks)
    return list(tokens)


def greedy_by_hand(model: GPT, ids: list[int], num_tokens: int) -> list[int]:
    model.eval()
    for _ in range(num_tokens):
        with torch.no_grad():
            ids = [*ids, int(model.logits(model.states(torch.tensor([ids])))[0, -1].argmax())]
    return ids[-num_tokens:]


def test_temperature_0_takes_the_likeliest(model: GPT) -> None:
    wanted = greedy_by_hand(model, PROMPT, 13)  # to the last place of the context
    assert generate(model, PROMPT, max_tokens=13, temperature=0, seed=1) == wanted
    assert generate(model, PROMPT, max_tokens=13, temperature=0.7, top_k=1, seed=2) == wanted
    assert len(set(wanted)) > 1


def test_a_full_context_goes_on_with_its_newer_half(model: GPT) -> None:
    long = [*PROMPT, *generate(model, PROMPT, max_tokens=14, temperature=0)]  # 17 ids: one more than fits
    assert generate(model, PROMPT, max_tokens=20, temperature=0)[14:] == greedy_by_hand(model, long[-8:], 6)
    assert generate(model, list(range(40)), max_tokens=1, temperature=0) == greedy_by_hand(
        model, list(range(24, 40)), 1
    )


def test_a_draw_depends_on_the_seed_alone(model: GPT) -> None:
    def draw(seed: int, **options: Any) -> list[int]:
        return generate(model, PROMPT, max_tokens=60, temperature=1.0, seed=seed, **options)

    one = draw(1)
    torch.manual_seed(7)
    assert draw(1) == one != draw(2)
    assert len(one) == 60
    assert all(0 <= token < CONFIG.vocab_size for token in one)
    assert len(set(draw(1, top_k=2))) < len(set(one))


def test_it_ends_after_the_end_of_text_token(model: GPT) -> None:
    free = generate(model, PROMPT, max_tokens=30, seed=1)
    eot_token = free[10]
    assert generate(model, PROMPT, max_tokens=30, seed=1, eot_token=eot_token) == free[: free.index(eot_token) + 1]
    assert generate(model, PROMPT, max_tokens=0) == []


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ([], {}, "got an empty prompt; wanted at least one token: begin with the end-of-text token"),
        ([50], {}, "got token id 50 in the prompt; wanted ids below the model's vocab_size of 50"),
        ([-1], {}, "got token id -1"),
        (PROMPT, {"temperature": -1.0}, "got temperature -1.0"),
        (PROMPT, {"temperature": float("nan")}, "got temperature nan"),
        (PROMPT, {"top_k": 0}, "got top_k 0"),
        (PROMPT, {"max_tokens": -1}, "got max_tokens -1"),
    ],
)
def test_senseless_requests_are_refused(model: GPT, prompt: list[int], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generate(model, prompt, **{"max_tokens": 3, **options})
