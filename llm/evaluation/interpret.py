"""Inside a model while it reads a text: which token looks at which, what each layer would say, what surprises it.

Attention maps are the softmax weights of each head. They show where information may come from, not why something was said
(Jain and Wallace 2019, "Attention is not Explanation"). The logit lens (nostalgebraist 2020) reads the state after each
layer as if it were the last, through the final norm and the head; early layers of small models often say little by it.

Shapes: T tokens read, the end-of-text token before the text among them; L layers, H heads, k tokens named.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm.evaluation.losses import Progress, no_progress
from llm.model import GPT, Attention
from pipelines.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What happened in the model, as arrays."""

    ids: tuple[int, ...]
    """(T,) as they were read: the end-of-text token, then the text."""
    attention: NDArray[np.float32]
    """(L, H, T, T): of each query its weights over keys. Rows sum to one; above the diagonal all is 0."""
    lens_ids: NDArray[np.int64]
    """(L + 1, T, k): the likeliest next tokens, the likeliest first; before the first layer, then after each."""
    lens_probabilities: NDArray[np.float32]
    """(L + 1, T, k)."""
    lens_bits: NDArray[np.float32]
    """(L + 1, T - 1): surprise at the token that does come next."""

    @property
    def surprisal_bits(self) -> NDArray[np.float32]:
        """(T - 1,): of each token of the text, by the whole model."""
        found: NDArray[np.float32] = self.lens_bits[-1]
        return found


def inspect(model: GPT, ids: Sequence[int], eot_token: int, *, num_top: int = 3) -> Inspection:
    """Read a text once and keep what each layer did. Raises ConfigError for one longer than block_size with its eot_token."""
    read = _checked(model, (eot_token, *ids))
    if len(read) > model.config.block_size:
        raise ConfigError(
            f"got a text of {len(ids)} tokens, wanted at most {model.config.block_size - 1}, which with the end-of-text "
            "token fill the model's block_size: cut it."
        )
    states, attention = _watched(model, torch.tensor([read], device=model.wte.weight.device))
    wanted = torch.tensor(read[1:], device=states[0].device)
    named, probabilities, bits = [], [], []
    for state in states:
        with torch.inference_mode():
            logs = torch.log_softmax(model.logits(model.ln_f(state))[0].float(), dim=-1)  # (T, V)
            top = logs.topk(min(num_top, logs.size(1)), dim=-1)
        named.append(top.indices.cpu().numpy())
        probabilities.append(top.values.exp().cpu().numpy())
        bits.append((-logs[:-1].gather(1, wanted[:, None])[:, 0] / np.log(2)).cpu().numpy())
    return Inspection(
        ids=read,
        attention=np.stack([each.cpu().numpy() for each in attention]),
        lens_ids=np.stack(named),
        lens_probabilities=np.stack(probabilities),
        lens_bits=np.stack(bits),
    )


def surprisals(model: GPT, ids: Sequence[int], eot_token: int, progress: Progress = no_progress) -> NDArray[np.float64]:
    """Bits of each token of a text of any length: (len(ids),).

    Each is read after at least half a block_size of what precedes it, or all of it.
    """
    read = np.array(_checked(model, (eot_token, *ids)), np.int64)
    block_size = model.config.block_size
    found = np.zeros(len(ids))
    start, device = 0, model.wte.weight.device
    while start < len(ids):
        end = min(len(ids), start + (block_size if start == 0 else max(1, block_size // 2)))
        window = torch.from_numpy(read[max(0, end - block_size) : end + 1]).to(device)[None]
        losses = model.token_losses(window[:, :-1], window[:, 1:])[0].double().cpu().numpy()
        found[start:end] = losses[losses.size - (end - start) :] / np.log(2)
        start = end
        progress(end, len(ids))
    return found


def pieces(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[str]:
    """What each token adds to the text; a character of several tokens stands with its last, the others are empty."""
    found, known = [], ""
    for end in range(1, len(ids) + 1):
        text = decode(ids[:end])
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            found.append("")
            continue
        found.append(text[len(known) :])
        known = text
    return found


def _checked(model: GPT, ids: Sequence[int]) -> tuple[int, ...]:
    if outside := [token for token in ids if not 0 <= token < model.config.vocab_size]:
        raise ConfigError(
            f"got token id {outside[0]}, wanted ids below the model's vocab_size of {model.config.vocab_size}: "
            "encode with the tokenizer that the model was trained with."
        )
    model.eval()
    return tuple(int(token) for token in ids)


def _watched(model: GPT, ids: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """States (1, T, C) before the first block and after each; attention weights (H, T, T) of each block."""
    states: list[Tensor] = []
    attention: list[Tensor] = []

    def keep_state(_block: Any, arguments: tuple[Any, ...]) -> None:
        states.append(arguments[0])

    def keep_weights(module: Attention, arguments: tuple[Any, ...]) -> None:
        q, k, _ = module.heads(arguments[0], arguments[1])
        scores = (q @ k.transpose(-2, -1))[0].float() / q.size(-1) ** 0.5  # (H, T, T)
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        attention.append(torch.softmax(scores.masked_fill(hidden, -torch.inf), dim=-1))

    hooks = [block.register_forward_pre_hook(keep_state) for block in model.h]
    hooks += [each.register_forward_pre_hook(keep_weights) for each in model.modules() if isinstance(each, Attention)]
    hooks.append(model.ln_f.register_forward_pre_hook(keep_state))
    try:
        with torch.inference_mode():
            model.states(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return states, attention
