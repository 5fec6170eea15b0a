"""What a model writes after prompts, the likeliest token each time: many prompts of unlike lengths at once.

Prompts are read together with padding on their right, which no token of theirs sees. Each goes on from its own end: what
it writes takes the padding's place in the cache, and a mask hides what is left of it.

Shapes: B prompts, T tokens, C states, H heads, D = C / H.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llm.evaluation.likelihood import Speaker
from llm.model import GPT, KeyValueCache
from pipelines.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What the model wrote after a prompt."""

    text: str
    """Without the stop text that ended it."""
    num_tokens: int
    """That the model chose, an end-of-text token included."""
    ended: bool
    """By a stop text or the end of the text; otherwise it was cut off."""


def write_until(speaker: Speaker, prompts: Sequence[str], *, until: Sequence[str], max_tokens: int) -> list[Written]:
    """What the model writes after each prompt, in their order, up to one of the texts `until`.

    Of a prompt the last block_size - max_tokens tokens are read, as many as leave room, as lm-evaluation-harness 0.4 does.
    Raises ConfigError where that is none.
    """
    block_size = speaker.model.config.block_size
    if not 1 <= max_tokens < block_size:
        raise ConfigError(
            f"got max_tokens {max_tokens}, wanted at least 1 and fewer than the model's block_size of {block_size}: "
            "correct it."
        )
    ids = [tuple((speaker.encode(prompt) or [speaker.eot_token])[max_tokens - block_size :]) for prompt in prompts]
    order = sorted(set(ids), key=lambda each: (len(each), each))
    found: dict[tuple[int, ...], Written] = {}
    for start in range(0, len(order), speaker.batch_size):
        batch = order[start : start + speaker.batch_size]
        found |= zip(batch, _written(speaker, batch, until, max_tokens), strict=True)
    return [found[each] for each in ids]


def _written(
    speaker: Speaker, prompts: Sequence[tuple[int, ...]], until: Sequence[str], max_tokens: int
) -> list[Written]:
    chosen: list[list[int]] = [[] for _ in prompts]
    done = [False] * len(prompts)
    for tokens in _greedy_steps(speaker.model, prompts, max_tokens):
        for row, token in enumerate(tokens):
            if not done[row]:
                chosen[row].append(token)
                is_end = token == speaker.eot_token
                done[row] = is_end or first_stop(speaker.decode(chosen[row]), until) is not None
        if all(done):
            break
    texts = [speaker.decode([token for token in row if token != speaker.eot_token]) for row in chosen]
    return [
        Written(text=text[: first_stop(text, until)], num_tokens=len(row), ended=is_done)
        for text, row, is_done in zip(texts, chosen, done, strict=True)
    ]


def first_stop(text: str, until: Sequence[str]) -> int | None:
    """Where the first of the stop texts begins; None where there is none."""
    return min((at for each in until if (at := text.find(each)) >= 0), default=None)


def _greedy_steps(model: GPT, prompts: Sequence[tuple[int, ...]], max_tokens: int) -> Iterator[list[int]]:
    """The likeliest next token of each prompt, then that after it, and so on: max_tokens lists of B ids."""
    device = model.wte.weight.device
    model.eval()
    sizes = torch.tensor([len(prompt) for prompt in prompts], device=device)
    ids = torch.zeros((len(prompts), int(sizes.max())), dtype=torch.long, device=device)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt, device=device)
    rows = torch.arange(len(prompts), device=device)
    cache = _RowCache(sizes)
    for step in range(max_tokens):
        with torch.inference_mode():
            if step == 0:
                states = model.states(ids, cache=cache)[rows, sizes - 1]  # (B, C)
            else:
                states = _next_states(model, ids, cache)
            ids = model.logits(states).argmax(dim=-1, keepdim=True)  # (B, 1)
        yield ids[:, 0].tolist()


class _RowCache(KeyValueCache):
    """Keys and values where each row has its own number of tokens: the whole prompts first, then a token a row."""

    def __init__(self, positions: Tensor) -> None:
        super().__init__()
        self.positions = positions
        """Where the next token of each row goes: (B,)."""
        self._rows: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer_idx: int, k: Tensor, v: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
        """Keys and values of new tokens, (B, H, T, D) each; gives those of the prompts, or all that a mask may choose from."""
        if layer_idx not in self._rows:
            shape = (*k.shape[:2], block_size, k.shape[3])
            self._rows[layer_idx] = (k.new_zeros(shape), v.new_zeros(shape))
            for kept, new in zip(self._rows[layer_idx], (k, v), strict=True):
                kept[:, :, : k.size(2)] = new
            return k, v
        rows, end = torch.arange(k.size(0), device=k.device), self.num_tokens + 1  # num_tokens: of the longest row
        for kept, new in zip(self._rows[layer_idx], (k, v), strict=True):
            kept[rows, :, self.positions] = new[:, :, 0]
        kept_k, kept_v = self._rows[layer_idx]
        return kept_k[:, :, :end], kept_v[:, :, :end]


def _next_states(model: GPT, ids: Tensor, cache: _RowCache) -> Tensor:
    """The states after one more token of each row, (B, 1) -> (B, C); the rows then have one more token."""
    x, rotation, positions = model.wte(ids), None, cache.positions  # (B, 1, C)
    if model.config.positions == "learned":
        x = x + model.wpe(positions)[:, None]
    else:
        rotation = model.rotation[:, positions][:, :, None, None]  # (2, B, 1, 1, D / 2)
    keys = torch.arange(cache.num_tokens + 1, device=ids.device)
    mask = (keys <= positions[:, None])[:, None, None]  # (B, 1, 1, T)
    for block in model.h:
        x = block(x, rotation, mask, cache, None)
    cache.positions = positions + 1
    cache.num_tokens += 1
    states: Tensor = model.ln_f(x)[:, 0]
    return states
