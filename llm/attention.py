"""Causal attention on a CPU in fp32, as products of blocks: a quarter less time than torch's kernel for such windows.

torch's kernel computes every score twice more in the backward pass. Here the probabilities are kept, which short windows
have room for, and blocks of queries leave out the keys that come after them.

Shapes: B sequences, H heads, T tokens, D units of a head.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_NUM_BLOCKS = 4
"""Of queries: they compute 5/8 of the square of scores. Eight would compute 9/16, in products that are too small."""
_LEAST_NUM_TOKENS = 64
"""Below it the products are too small for their number."""
_MOST_NUM_BYTES = 32 << 20
"""Of a layer's probabilities, which are kept until the backward pass."""


def is_for_blocks(q: Tensor) -> bool:
    """Whether causal attention of queries (B, H, T, D) is quicker, and has the room, in blocks."""
    num_sequences, num_heads, num_tokens, _ = q.shape
    return (
        q.device.type == "cpu"
        and q.dtype == torch.float32
        and num_tokens >= _LEAST_NUM_TOKENS
        and num_sequences * num_heads * num_tokens**2 * q.element_size() <= _MOST_NUM_BYTES
        and not torch.compiler.is_compiling()
    )


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shape, num_tokens = q.shape, q.size(2)
        scaled = q.flatten(0, 1) * (1 / math.sqrt(q.size(3)))  # (B H, T, D), as are keys and values
        k, v = k.flatten(0, 1), v.flatten(0, 1)
        y, kept = torch.empty_like(scaled), []
        for block in _blocks(num_tokens):
            weights = torch.bmm(scaled[:, block], k[:, : block.stop].mT)  # (B H, block, T so far)
            own = weights[:, :, block]
            own.add_(own.new_full(own.shape[1:], -math.inf).triu_(1))
            torch.softmax(weights, dim=2, out=weights)
            y[:, block] = torch.bmm(weights, v[:, : block.stop])
            kept.append(weights)
        ctx.save_for_backward(scaled, k, v, *kept)
        return y.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scaled, k, v, *kept = ctx.saved_tensors
        shape, d_y = d_y.shape, d_y.flatten(0, 1)
        d_q, d_k, d_v = torch.empty_like(scaled), torch.empty_like(k), torch.empty_like(v)
        for block, weights in reversed([*zip(_blocks(d_y.size(1)), kept, strict=True)]):
            so_far, d_block = slice(block.stop), d_y[:, block]
            _add_products(d_v, so_far, weights.mT, d_block)
            d_weights = torch.bmm(d_block, v[:, so_far].mT)
            d_scores = torch._softmax_backward_data(d_weights, weights, 2, weights.dtype)  # noqa: SLF001 - it has no other name
            d_q[:, block] = torch.bmm(d_scores, k[:, so_far])
            _add_products(d_k, so_far, d_scores.mT, scaled[:, block])
        d_q *= 1 / math.sqrt(d_q.size(2))
        return d_q.view(shape), d_k.view(shape), d_v.view(shape)


causal_attention: Callable[[Tensor, Tensor, Tensor], Tensor] = _CausalAttention.apply
"""softmax(q k / sqrt(D)) v over the keys up to each query: (B, H, T, D) each -> (B, H, T, D)."""


def _add_products(total: Tensor, rows: slice, a: Tensor, b: Tensor) -> None:
    """Add products to some rows of a sum; the first ones are of all its rows, and begin it."""
    if rows.stop == total.size(1):
        torch.bmm(a, b, out=total)
    else:
        total[:, rows].baddbmm_(a, b)


def _blocks(num_tokens: int) -> list[slice]:
    size = math.ceil(num_tokens / _NUM_BLOCKS)
    return [slice(start, min(start + size, num_tokens)) for start in range(0, num_tokens, size)]
