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

_CHUNK_NUM_LOGITS_CPU = 1 << 22
"""Logits held at once: 16 MiB in fp32. Half as many make the products 3 % slower, twice as many no faster."""
_CHUNK_NUM_LOGITS_GPU = 1 << 27
"""256 MiB in bf16, enough to fill a large GPU. Those of a step of 16 x 1,024 tokens would be six times that."""


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
        d_head = torch.zeros_like(head)
        with torch.autocast(states.device.type, enabled=False):
            for part in _chunks(targets.numel(), head):
                chunk, wanted = states[part].to(dtype), targets[part, None]
                logits = torch.mm(chunk, weight.T)  # (n, P)
                if vocab_size < logits.size(1):
                    logits[:, vocab_size:] = -math.inf
                largest = logits.amax(dim=1, keepdim=True).float()
                d_logits = torch.softmax(logits, dim=1, dtype=torch.float32)  # (n, P), softmax so far
                # ln sum exp, from the largest probability: that is at least 1 / P and never underflows
                log_sums = largest - d_logits.amax(dim=1, keepdim=True).log()
                loss += (log_sums - logits.gather(1, wanted).float()).sum()
                d_logits.scatter_add_(1, wanted, torch.full_like(log_sums, -1.0))
                d_logits = d_logits.to(dtype)
                if d_states.dtype == dtype and d_head.dtype == dtype:
                    torch.mm(d_logits, weight, out=d_states[part])
                    d_head.addmm_(d_logits.T, chunk)
                else:
                    d_states[part] = d_logits @ weight
                    d_head += d_logits.T @ chunk
        ctx.save_for_backward(d_states, d_head)
        ctx.num_targets = targets.numel()
        return loss / targets.numel()

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor, Tensor, None, None]:
        d_states, d_head = ctx.saved_tensors
        scale = d_loss / ctx.num_targets
        return d_states * scale.to(d_states.dtype), d_head * scale, None, None


mean_cross_entropy: Callable[[Tensor, Tensor, Tensor, int], Tensor] = _MeanCrossEntropy.apply
"""Mean cross-entropy, nats, a scalar in fp32: states (N, C), head (P, C), targets (N,), vocab_size."""


def _is_autocast(states: Tensor) -> bool:
    return bool(torch.is_autocast_enabled(states.device.type))


def _chunks(num_tokens: int, head: Tensor) -> list[slice]:
    num_logits = _CHUNK_NUM_LOGITS_GPU if head.is_cuda else _CHUNK_NUM_LOGITS_CPU
    size = max(1, num_logits // head.size(0))
    return [slice(start, min(start + size, num_tokens)) for start in range(0, num_tokens, size)]
