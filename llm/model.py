"""GPT-2 in one file (Radford et al. 2019): learned positions, pre-norm blocks, GELU (tanh), tied head.

Parameters carry the published names (wte, wpe, h.0.attn.c_attn, ...), so that weights load by name.
The logits equal those of transformers' GPT2LMHeadModel; a test holds that.

Shapes: B sequences, T tokens, C = n_embd, H = n_head, D = C / H, V = vocab_size, P = padded_vocab_size.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from llm.config import ModelConfig

_INIT_STD = 0.02
_CHUNK_NUM_LOGITS = 1 << 25
"""Logits held at once: 128 MiB in fp32. Those of a step of 16 x 1,024 tokens would be 3.3 GB."""


class KeyValueCache:
    """Keys and values of the tokens seen so far, a pair for each layer: each (B, H, T, D)."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def num_tokens(self) -> int:
        return self._layers[0][0].size(2) if self._layers else 0

    def extend(self, layer_idx: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new tokens; give back those of all."""
        if layer_idx in self._layers:
            past_k, past_v = self._layers[layer_idx]
            k, v = torch.cat([past_k, k], dim=2), torch.cat([past_v, v], dim=2)
        self._layers[layer_idx] = (k, v)
        return k, v


class Attention(nn.Module):
    """Causal self-attention: each token looks at itself and those before it."""

    def __init__(self, config: ModelConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor, cache: KeyValueCache | None) -> Tensor:
        num_sequences, num_tokens, n_embd = x.shape
        heads = (num_sequences, num_tokens, self.n_head, n_embd // self.n_head)
        q, k, v = (y.view(heads).transpose(1, 2) for y in self.c_attn(x).split(n_embd, dim=2))  # each (B, H, T, D)
        if cache is not None:
            k, v = cache.extend(self.layer_idx, k, v)
        y = F.scaled_dot_product_attention(
            q, k, v, is_causal=num_tokens > 1, dropout_p=self.dropout if self.training else 0.0
        )  # (B, H, T, D)
        y = y.transpose(1, 2).reshape(x.shape)  # (B, T, C)
        return F.dropout(self.c_proj(y), self.dropout, self.training)


class MLP(nn.Module):
    """Two linear layers, four times as wide between."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.c_fc(x), approximate="tanh")  # (B, T, 4C)
        return F.dropout(self.c_proj(y), self.dropout, self.training)


class Block(nn.Module):
    """Attention, then an MLP, each normalised before and added to the residual stream after."""

    def __init__(self, config: ModelConfig, layer_idx: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = Attention(config, layer_idx)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: KeyValueCache | None) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """The model. Its first weights depend on `seed` alone."""

    def __init__(self, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.padded_vocab_size, config.n_embd)  # also the head
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(Block(config, layer_idx) for layer_idx in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)
        self._initialise(seed)

    def _initialise(self, seed: int) -> None:
        """Normal with deviation 0.02; on the way back into the residual stream divided by sqrt(2 n_layer)."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() >= 2:
                into_residual = name.endswith("c_proj.weight")
                std = _INIT_STD / math.sqrt(2 * self.config.n_layer) if into_residual else _INIT_STD
                nn.init.normal_(parameter, std=std, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        with torch.no_grad():
            self.wte.weight[self.config.vocab_size :] = 0.0  # the padding

    def forward(self, ids: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Token ids (B, T) to the states before the head (B, T, C).

        A cache takes the whole prompt first, then one token at a time, block_size in all.
        """
        start = 0 if cache is None else cache.num_tokens
        if start and ids.size(1) > 1:
            raise ValueError("a filled cache takes one token at a time")
        positions = torch.arange(start, start + ids.size(1), device=ids.device)  # (T,)
        x = self.wte(ids) + self.wpe(positions)  # (B, T, C)
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.h:
            x = block(x, cache)
        return self.ln_f(x)

    def logits(self, states: Tensor) -> Tensor:
        """(..., C) -> (..., V): the vocabulary without its padding."""
        return F.linear(states, self.wte.weight)[..., : self.config.vocab_size]

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy, nats a token, of targets (B, T) after ids (B, T). A scalar."""
        states = self(ids).flatten(0, 1)  # (B T, C)
        return _mean_cross_entropy(states, self.wte.weight, targets.flatten(), self.config.vocab_size)

    @torch.no_grad()
    def token_losses(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, nats, of each target: (B, T), (B, T) -> (B, T)."""
        states = self(ids).flatten(0, 1)
        chunks = zip(*(y.split(_chunk_size(self.wte.weight)) for y in (states, targets.flatten())), strict=True)
        losses = [F.cross_entropy(self.logits(chunk).float(), wanted, reduction="none") for chunk, wanted in chunks]
        return torch.cat(losses).view_as(targets)


def _chunk_size(weight: Tensor) -> int:
    return max(1, _CHUNK_NUM_LOGITS // weight.size(0))


class _MeanCrossEntropy(torch.autograd.Function):
    """Linear head and mean cross-entropy in one, chunk by chunk, so that all logits are never held at once.

    The gradient of the logits is softmax minus one-hot: it is known in the forward pass, where the logits
    are, so each chunk gives its part of both gradients at once and is forgotten. Nothing is computed twice.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, vocab_size: int) -> Tensor:
        """states (N, C), weight (P, C), targets (N,) -> scalar."""
        loss = states.new_zeros((), dtype=torch.float32)
        d_states = torch.empty_like(states)
        d_weight = torch.zeros_like(weight)
        size = _chunk_size(weight)
        for start in range(0, targets.numel(), size):
            chunk, wanted = states[start : start + size], targets[start : start + size, None]
            logits = F.linear(chunk, weight)  # (n, P)
            logits[:, vocab_size:] = -math.inf
            log_probabilities = F.log_softmax(logits, dim=1, dtype=torch.float32)
            loss -= log_probabilities.gather(1, wanted).sum()
            d_logits = log_probabilities.exp_()
            d_logits.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
            d_states[start : start + size] = d_logits @ weight
            d_weight += d_logits.T @ chunk
        ctx.save_for_backward(d_states, d_weight)
        ctx.num_targets = targets.numel()
        return loss / targets.numel()

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor, Tensor, None, None]:
        d_states, d_weight = ctx.saved_tensors
        scale = d_loss / ctx.num_targets
        return d_states * scale, d_weight * scale, None, None


_mean_cross_entropy: Callable[[Tensor, Tensor, Tensor, int], Tensor] = _MeanCrossEntropy.apply
