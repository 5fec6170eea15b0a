"""GPT-2 in one file (Radford et al. 2019): learned positions, pre-norm blocks, GELU (tanh), tied head.

Parameters carry the published names (wte, wpe, h.0.attn.c_attn, ...), so that weights load by name.
The logits equal those of transformers' GPT2LMHeadModel; a test holds that. What later work changed (rotary
positions, norms on queries and keys, squared ReLU, a head of its own) is off unless the config names it.

Shapes: B sequences, T tokens, C = n_embd, H = n_head, D = C / H, V = vocab_size, P = padded_vocab_size.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.utils.checkpoint import checkpoint

from llm.attention import causal_attention, is_for_blocks
from llm.config import ModelConfig
from llm.dropout import Dropout, attention_with_dropout
from llm.loss import mean_cross_entropy, token_cross_entropies

_INIT_STD = 0.02
_ROTARY_BASE = 10_000.0

Mask = Tensor | BlockMask
"""Which keys a query sees: booleans (B, 1, T, T), or their blocks for FlexAttention."""


class KeyValueCache:
    """Keys and values of the tokens seen so far, each (B, H, block_size, D) for each layer, in place."""

    def __init__(self) -> None:
        self.num_tokens = 0
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer_idx: int, k: Tensor, v: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new tokens, (B, H, T, D) each; give back those of all, as views."""
        if layer_idx not in self._layers:
            shape = (*k.shape[:2], block_size, k.shape[3])
            self._layers[layer_idx] = (k.new_empty(shape), v.new_empty(shape))
        end = self.num_tokens + k.size(2)
        for kept, new in zip(self._layers[layer_idx], (k, v), strict=True):
            kept[:, :, self.num_tokens : end] = new
        kept_k, kept_v = self._layers[layer_idx]
        return kept_k[:, :, :end], kept_v[:, :, :end]


class Attention(nn.Module):
    """Causal self-attention: each token looks at itself and those before it."""

    def __init__(self, config: ModelConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.config = config
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def heads(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of normalised states (B, T, C), as they meet: (B, H, T, D) each."""
        num_sequences, num_tokens, n_embd = x.shape
        heads = (num_sequences, num_tokens, self.config.n_head, n_embd // self.config.n_head)
        q, k, v = (y.view(heads).transpose(1, 2) for y in self.c_attn(x).split(n_embd, dim=2))  # each (B, H, T, D)
        if self.config.qk_norm:
            q, k = (F.rms_norm(y, (y.size(-1),)) for y in (q, k))
        if rotation is not None:
            q, k = (_rotated(y, rotation) for y in (q, k))
        return q.to(v.dtype), k.to(v.dtype), v  # autocast has norms in fp32, and FlexAttention takes one type alone

    def forward(
        self,
        x: Tensor,
        rotation: Tensor | None,
        mask: Mask | None,
        cache: KeyValueCache | None,
        dropout: Dropout | None,
    ) -> Tensor:
        q, k, v = self.heads(x, rotation)
        if cache is not None:
            k, v = cache.extend(self.layer_idx, k, v, self.config.block_size)
        # What differs from layer to layer is read only where it counts: torch.compile would make a layer's code for each.
        salt = 0 if dropout is None else 4 * self.layer_idx + 1
        y = _attend(q, k, v, mask, dropout, salt=salt)  # (B, H, T, D)
        y = self.c_proj(y.transpose(1, 2).reshape(x.shape))  # (B, T, C)
        return y if dropout is None else dropout(y, salt=4 * self.layer_idx + 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, dropout: Dropout | None, *, salt: int) -> Tensor:
    """(B, H, T, D) each -> (B, H, T, D); causal where there is no mask."""
    if dropout is not None:
        if isinstance(mask, BlockMask):
            raise TypeError("dropout needs the mask as booleans")
        return attention_with_dropout(q, k, v, mask, dropout, salt=salt)
    if isinstance(mask, BlockMask):
        y: Tensor = flex_attention(q, k, v, block_mask=mask)
        return y
    is_causal = mask is None and q.size(2) > 1
    if is_causal and is_for_blocks(q):
        return causal_attention(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal)


def _rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn each pair (i, i + D / 2) of (B, H, T, D) by the angles whose cosine and sine are in (2, T, D / 2)."""
    cos, sin = rotation.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class MLP(nn.Module):
    """Two linear layers, four times as wide between."""

    def __init__(self, config: ModelConfig, layer_idx: int) -> None:
        super().__init__()
        self.salt = 4 * layer_idx + 3
        self.is_relu_squared = config.activation == "relu_squared"
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor, dropout: Dropout | None) -> Tensor:
        y = self.c_fc(x)  # (B, T, 4C)
        y = F.relu(y).square() if self.is_relu_squared else F.gelu(y, approximate="tanh")
        y = self.c_proj(y)
        return y if dropout is None else dropout(y, salt=self.salt)


class Block(nn.Module):
    """Attention, then an MLP, each normalised before and added to the residual stream after."""

    def __init__(self, config: ModelConfig, layer_idx: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = Attention(config, layer_idx)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config, layer_idx)

    def forward(
        self,
        x: Tensor,
        rotation: Tensor | None,
        mask: Mask | None,
        cache: KeyValueCache | None,
        dropout: Dropout | None,
    ) -> Tensor:
        x = x + self.attn(self.ln_1(x), rotation, mask, cache, dropout)
        return x + self.mlp(self.ln_2(x), dropout)


class GPT(nn.Module):
    """The model. Its first weights depend on `seed` alone; None leaves them to whoever fills them."""

    def __init__(self, config: ModelConfig, *, seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        self.checkpoints_activations = False
        """Whether blocks are computed again in the backward pass."""
        self.wte = nn.Embedding(config.padded_vocab_size, config.n_embd)  # also the head where that is tied
        if config.positions == "learned":
            self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(Block(config, layer_idx) for layer_idx in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)
        if not config.tied_head:
            self.lm_head = nn.Linear(config.n_embd, config.padded_vocab_size, bias=False)
        if config.positions == "rotary":
            self.rotation: Tensor
            self.register_buffer(
                "rotation", _rotation(config.block_size, config.n_embd // config.n_head), persistent=False
            )
        if seed is not None:
            self._initialise(seed)

    @classmethod
    def empty(cls, config: ModelConfig) -> "GPT":
        """A model without weights, to fill from a file: nothing is drawn only to be written over."""
        with torch.device("meta"):
            model = cls(config, seed=None)
        model.to_empty(device="cpu")
        if config.positions == "rotary":
            model.rotation = _rotation(config.block_size, config.n_embd // config.n_head)
        return model

    def _initialise(self, seed: int) -> None:
        """Normal with deviation 0.02; on the way back into the residual stream divided by sqrt(2 n_layer), or zero."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() >= 2:
                into_residual = name.endswith("c_proj.weight")
                std = _INIT_STD / math.sqrt(2 * self.config.n_layer) if into_residual else _INIT_STD
                nn.init.normal_(parameter, std=std, generator=generator)
                if self.config.zero_init and (into_residual or name == "lm_head.weight"):
                    nn.init.zeros_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        with torch.no_grad():
            for weight in (self.wte.weight, self.head):
                weight[self.config.vocab_size :] = 0.0  # the padding

    @property
    def head(self) -> Tensor:
        """Weights from states to logits: (P, C)."""
        return self.wte.weight if self.config.tied_head else self.lm_head.weight

    def forward(
        self,
        ids: Tensor,
        targets: Tensor,
        *,
        mask: Mask | None = None,
        dropout: Dropout | None = None,
        each: bool = False,
    ) -> Tensor:
        """Cross-entropy, nats, of targets (B, T) after ids (B, T): the mean, a scalar, or with `each` all of them (B, T).

        The logits (B, T, V) are never held at once. `each` has no gradient.
        """
        states = self.states(ids, mask=mask, dropout=dropout).flatten(0, 1)  # (B T, C)
        if each:
            losses = token_cross_entropies(states, self.head, targets.flatten(), self.config.vocab_size)
            return losses.view_as(targets)
        return mean_cross_entropy(states, self.head, targets.flatten(), self.config.vocab_size)

    def states(
        self,
        ids: Tensor,
        *,
        mask: Mask | None = None,
        cache: KeyValueCache | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """Token ids (B, T) to the states before the head (B, T, C).

        A cache takes the whole prompt first, then one token at a time, block_size in all.
        """
        start = 0 if cache is None else cache.num_tokens
        end = start + ids.size(1)
        if start and ids.size(1) > 1:
            raise ValueError("a filled cache takes one token at a time")
        x, rotation = self.wte(ids), None  # (B, T, C)
        if self.config.positions == "learned":
            x = x + self.wpe.weight[start:end]
        else:
            rotation = self.rotation[:, start:end]  # (2, T, D / 2)
        if dropout is not None:
            x = dropout(x, salt=0)
        for block in self.h:
            if self.checkpoints_activations and torch.is_grad_enabled():
                x = checkpoint(
                    block, x, rotation, mask, cache, dropout, use_reentrant=False, preserve_rng_state=False
                )  # nothing in a block draws from a generator
            else:
                x = block(x, rotation, mask, cache, dropout)
        if cache is not None:
            cache.num_tokens = end
        return self.ln_f(x)

    def logits(self, states: Tensor) -> Tensor:
        """(..., C) -> (..., V): the vocabulary without its padding."""
        return F.linear(states, self.head)[..., : self.config.vocab_size]

    @torch.no_grad()
    def token_losses(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, nats, of each target: (B, T), (B, T) -> (B, T)."""
        losses: Tensor = self(ids, targets, each=True)
        return losses


def document_mask(ids: Tensor, eot_token: int, *, as_blocks: bool) -> Mask:
    """The causal mask of windows (B, T) in which a token sees its own document alone: up to and with its eot_token.

    `as_blocks` gives what FlexAttention skips whole blocks by, for a GPU.
    """
    ends = (ids == eot_token).int()
    documents = ends.cumsum(1) - ends  # (B, T): which one of its window each token is in
    if as_blocks:

        def sees(b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (query >= key) & (documents[b, query] == documents[b, key])

        return create_block_mask(sees, ids.size(0), None, ids.size(1), ids.size(1), device=str(ids.device))
    same = documents[:, :, None] == documents[:, None, :]  # (B, T, T)
    return same.tril()[:, None]


def _rotation(num_positions: int, width: int) -> Tensor:
    """Cosine and sine of each position's angles: (2, num_positions, width / 2)."""
    frequencies = _ROTARY_BASE ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float64), frequencies)
    return torch.stack([angles.cos(), angles.sin()]).float()
