"""The head and cross-entropy in one, a chunk of tokens at a time, so that all logits are never held at once.

The gradient of the logits is softmax minus one-hot: it is known in the forward pass, where the logits are, so each
chunk gives its part of both gradients at once and is forgotten. No logit is computed twice.

Shapes: N tokens, C states, P rows of the head, of which the first vocab_size are tokens and the rest are padding.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

_CHUNK_NUM_LOGITS_CPU = 1 << 21
"""Logits held at once: 8 MiB in fp32, which stay in a cache. Four times as many take 8 % more time."""
_CHUNK_NUM_TOKENS_CPU = 128
"""At least, whatever the vocabulary: every chunk adds to the whole gradient of the head. Half as many take a seventh more."""
_CHUNK_NUM_LOGITS_GPU = 1 << 27
"""256 MiB in bf16, enough to fill a large GPU. Those of a step of 16 x 1,024 tokens would be six times that."""
_LEAST_PROBABILITY = 1e-30
"""Below it fp32 loses digits, and then all of them."""


def token_cross_entropies(states: Tensor, head: Tensor, targets: Tensor, vocab_size: int) -> Tensor:
    """Cross-entropy, nats, of each target: (N, C), (P, C), (N,) -> (N,) in fp32. Has no gradient."""
    losses = torch.empty(targets.shape, dtype=torch.float32, device=states.device)
    for part in _chunks(targets.numel(), head):
        logits = F.linear(states[part], head)[:, :vocab_size].float()
        losses[part] = F.cross_entropy(logits, targets[part], reduction="none")
    return losses


class _MeanCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, targets: Tensor, vocab_size: int) -> Tensor:
        dtype = torch.get_autocast_dtype(states.device.type) if _is_autocast(states) else states.dtype
        weight = head.to(dtype)
        loss = torch.zeros((), dtype=torch.float32, device=states.device)
        d_states = torch.empty_like(states)
        d_head = torch.empty_like(head)
        is_eager = dtype == torch.float32 and states.device.type == "cpu" and not torch.compiler.is_compiling()
        with torch.autocast(states.device.type, enabled=False):
            for part in _chunks(targets.numel(), head):
                chunk, wanted = states[part].to(dtype), targets[part, None]
                logits = torch.mm(chunk, weight.T)  # (n, P)
                if vocab_size < logits.size(1):
                    logits[:, vocab_size:].fill_(-math.inf)
                probabilities, losses = (_softmax_in_place if is_eager else _softmax)(logits, wanted)
                if losses is None:
                    losses = token_cross_entropies(chunk, weight, targets[part], vocab_size)
                loss += losses.sum()
                probabilities.scatter_add_(1, wanted, probabilities.new_full(wanted.shape, -1.0))
                d_logits = probabilities.to(dtype)
                if d_states.dtype == dtype and d_head.dtype == dtype:
                    torch.mm(d_logits, weight, out=d_states[part])
                    d_head.addmm_(d_logits.T, chunk, beta=0 if part.start == 0 else 1)  # 0: what was there is not read
                else:
                    d_states[part] = d_logits @ weight
                    if part.start == 0:
                        d_head.copy_(d_logits.T @ chunk)
                    else:
                        d_head += d_logits.T @ chunk
        ctx.save_for_backward(d_states, d_head)
        ctx.num_targets = targets.numel()
        return loss / targets.numel()

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor, Tensor, None, None]:
        d_states, d_head = ctx.saved_tensors
        scale = d_loss / ctx.num_targets
        return d_states.mul_(scale.to(d_states.dtype)), d_head.mul_(scale), None, None


mean_cross_entropy: Callable[[Tensor, Tensor, Tensor, int], Tensor] = _MeanCrossEntropy.apply
"""Mean cross-entropy, nats, a scalar in fp32: states (N, C), head (P, C), targets (N,), vocab_size."""


def _softmax(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """(n, P), (n, 1) -> probabilities in fp32 (n, P) and losses (n, 1), without asking the device."""
    largest = logits.amax(dim=1, keepdim=True).float()
    probabilities = torch.softmax(logits, dim=1, dtype=torch.float32)
    # ln sum exp, from the largest probability: that is at least 1 / P and never underflows
    log_sums = largest - probabilities.amax(dim=1, keepdim=True).log()
    return probabilities, log_sums - logits.gather(1, wanted).float()


def _softmax_in_place(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor | None]:
    """The same in a single pass over the logits, which become the probabilities; no losses where one is too small for it."""
    probabilities = torch.softmax(logits, dim=1, out=logits)
    of_wanted = probabilities.gather(1, wanted)
    losses = None if bool((of_wanted < _LEAST_PROBABILITY).any()) else -of_wanted.log()
    return probabilities, losses


def _is_autocast(states: Tensor) -> bool:
    return bool(torch.is_autocast_enabled(states.device.type))


def _chunks(num_tokens: int, head: Tensor) -> list[slice]:
    num_logits, least = (_CHUNK_NUM_LOGITS_GPU, 1) if head.is_cuda else (_CHUNK_NUM_LOGITS_CPU, _CHUNK_NUM_TOKENS_CPU)
    size = max(least, num_logits // head.size(0))
    return [slice(start, min(start + size, num_tokens)) for start in range(0, num_tokens, size)]
