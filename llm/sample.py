"""Text from a model, one token at a time. Ids in, ids out: a tokenizer is the caller's."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llm.model import GPT, KeyValueCache
from pipelines.errors import ConfigError


@torch.no_grad()
def generate(
    model: GPT,
    prompt_ids: Sequence[int],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
    eot_token: int | None = None,
) -> list[int]:
    """The ids that follow a prompt, at most max_tokens of them; ends after eot_token where the model writes it.

    Temperature 0 takes the likeliest token each time; above 0 the draw depends on the seed alone. top_k keeps
    the k likeliest tokens. The model reads the last block_size tokens; where they overflow it goes on with the
    newer half of them. Raises ConfigError for options or ids that make no sense.
    """
    _check(model, prompt_ids, max_tokens=max_tokens, temperature=temperature, top_k=top_k)
    model.eval()
    block_size = model.config.block_size
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device draws alike
    context = list(prompt_ids)[-block_size:]
    unread, cache = context, KeyValueCache()
    generated: list[int] = []
    while len(generated) < max_tokens:
        if cache.num_tokens + len(unread) > block_size:
            context = context[-max(1, block_size // 2) :]
            unread, cache = context, KeyValueCache()
        states = model.states(torch.tensor([unread], device=model.wte.weight.device), cache=cache)  # (1, T, C)
        token = _choose(model.logits(states[0, -1]), temperature=temperature, top_k=top_k, generator=generator)
        generated.append(token)
        if token == eot_token:
            break
        context = [*context, token]
        unread = [token]
    return generated


def _choose(logits: Tensor, *, temperature: float, top_k: int | None, generator: torch.Generator) -> int:
    """One id of logits (V,)."""
    logits = logits.double().cpu()
    if temperature == 0:
        return int(logits.argmax())
    if top_k is not None and top_k < logits.numel():
        logits[logits < logits.topk(top_k).values[-1]] = -torch.inf
    probabilities = torch.softmax(logits / temperature, dim=0)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _check(model: GPT, prompt_ids: Sequence[int], *, max_tokens: int, temperature: float, top_k: int | None) -> None:
    vocab_size = model.config.vocab_size
    if not prompt_ids:
        raise ConfigError("got an empty prompt; wanted at least one token: begin with the end-of-text token.")
    outside = [token for token in prompt_ids if not 0 <= token < vocab_size]
    if outside:
        raise ConfigError(
            f"got token id {outside[0]} in the prompt; wanted ids below the model's vocab_size of {vocab_size}: "
            "encode with the tokenizer that the model was trained with."
        )
    if max_tokens < 0:
        raise ConfigError(f"got max_tokens {max_tokens}; wanted at least 0.")
    if not 0 <= temperature < float("inf"):
        raise ConfigError(f"got temperature {temperature}; wanted a number of at least 0: 0 takes the likeliest token.")
    if top_k is not None and top_k < 1:
        raise ConfigError(f"got top_k {top_k}; wanted at least 1: leave it out for off.")
