"""Several texts after one prompt, drawn side by side: what is measured of what a model writes."""

from collections.abc import Sequence

import torch

from llm.model import GPT, KeyValueCache
from llm.sample import Sampling, choose
from pipelines.digest import digest_value
from pipelines.errors import ConfigError


def write_several(
    model: GPT, prompt_ids: Sequence[int], sampling: Sampling, *, num: int, eot_token: int
) -> list[list[int]]:
    """`num` continuations of a prompt, each by a seed of its own, without an end-of-text token.

    Prompt and text have to fit into the block_size. The k-th does not hang on how many are drawn. Raises ConfigError.
    """
    room = model.config.block_size
    if not prompt_ids or len(prompt_ids) + sampling.max_tokens > room:
        raise ConfigError(
            f"got a prompt of {len(prompt_ids)} tokens and max_tokens {sampling.max_tokens}, wanted at least one of the "
            f"former and both within the model's block_size of {room}: lower max_tokens."
        )
    model.eval()
    prompt = list(prompt_ids)
    generators = [
        torch.Generator().manual_seed(int(digest_value([sampling.seed, prompt, number])[:15], 16))
        for number in range(num)
    ]
    found: list[list[int]] = [[] for _ in range(num)]
    is_open = [True] * num
    cache, unread = KeyValueCache(), torch.tensor([prompt] * num, device=model.wte.weight.device)  # (num, T)
    for _ in range(sampling.max_tokens):
        with torch.inference_mode():
            logits = model.logits(model.states(unread, cache=cache)[:, -1]).cpu()  # (num, V)
        tokens = [choose(row, sampling, generator) for row, generator in zip(logits, generators, strict=True)]
        for number, token in enumerate(tokens):
            is_open[number] = is_open[number] and token != eot_token
            if is_open[number]:
                found[number].append(token)
        if not any(is_open):
            break
        unread = torch.tensor(tokens, device=model.wte.weight.device)[:, None]
    return found
