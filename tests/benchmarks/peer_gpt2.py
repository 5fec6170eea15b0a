"""The trainers that ours is measured against: transformers' GPT-2, and a plain loop as nanoGPT's readers write it.

Each is a function that makes one update from (B, T + 1) tokens and gives its loss. Both do what the usual loop does:
the mean cross-entropy of whole logits, a backward pass, the gradient clipped, torch's AdamW with decay on matrices alone.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from llm.config import ModelConfig
from llm.model import GPT
from llm.published import published_fields, published_weights

Update = Callable[[Tensor], Tensor]
"""(B, T + 1) token ids -> the loss before the update, a scalar."""


class PlainBlock(nn.Module):
    """A pre-norm block: attention by torch's kernel, a GELU MLP."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.n_embd
        self.num_heads = config.n_head
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        q, k, v = (y.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for y in self.qkv(self.norm_1(x)).chunk(3, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm_2(x)), approximate="tanh"))


class PlainGPT(nn.Module):
    """GPT-2 with a tied head, in the fewest words; weights as published."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.padded_vocab_size, config.n_embd)
        self.positions = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.Sequential(*(PlainBlock(config) for _ in range(config.n_layer)))
        self.norm = nn.LayerNorm(config.n_embd)
        self.head = nn.Linear(config.n_embd, config.padded_vocab_size, bias=False)
        self.head.weight = self.tokens.weight
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """(B, T), (B, T) -> the mean loss, by way of all logits."""
        x = self.tokens(ids) + self.positions.weight[: ids.size(1)]
        logits = self.head(self.norm(self.blocks(x)))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def published_model(model: GPT) -> GPT2LMHeadModel:
    """Transformers' GPT-2 with the weights of ours, by the way that exports go; dropout as ours."""
    config = GPT2Config(
        **{k: v for k, v in published_fields(model.config, eot_token=0).items() if k != "architectures"}
    )
    theirs = GPT2LMHeadModel(config)
    missing, unexpected = theirs.load_state_dict(dict(published_weights(model)), strict=False)
    if unexpected or set(missing) != {"lm_head.weight"}:
        raise RuntimeError(f"got {missing} missing and {unexpected} left over, wanted the weights of one model.")
    return theirs.train()


def transformers_update(
    model: GPT, device: torch.device, *, rates: Iterable[float], weight_decay: float = 0.1, betas: Any = (0.9, 0.95)
) -> Update:
    """Training of transformers' GPT-2 from the weights of ours, at a learning rate for each update."""
    theirs = published_model(model).to(device)

    def loss_of(tokens: Tensor) -> Tensor:
        # the shifted labels are given, so that every position has a target, as with the others
        return theirs(tokens[:, :-1], labels=tokens[:, :-1], shift_labels=tokens[:, 1:].contiguous()).loss

    return usual_update(theirs, loss_of, device, rates=rates, weight_decay=weight_decay, betas=betas)


def plain_update(config: ModelConfig, device: torch.device, *, rates: Iterable[float]) -> Update:
    """The plain loop: compiled and in bf16 on a GPU, with what torch has fused there."""
    model = PlainGPT(config).to(device)
    compute = torch.compile(model) if device.type == "cuda" else model
    return usual_update(model, lambda tokens: compute(tokens[:, :-1], tokens[:, 1:]), device, rates=rates)


def usual_update(
    model: nn.Module,
    loss_of: Callable[[Tensor], Tensor],
    device: torch.device,
    *,
    rates: Iterable[float],
    weight_decay: float = 0.1,
    betas: Any = (0.9, 0.95),
) -> Update:
    """The usual loop around a model; AdamW is fused on a GPU alone, and the loss is read after each update."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    is_gpu = device.type == "cuda"
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=betas, fused=is_gpu or None)
    rates = iter(rates)

    def update(tokens: Tensor) -> Tensor:
        rate = next(rates)
        for group in optimizer.param_groups:
            group["lr"] = rate
        tokens = tokens.to(device, non_blocking=True)
        with torch.autocast("cuda", dtype=torch.bfloat16) if is_gpu else contextlib.nullcontext():
            loss = loss_of(tokens)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        return loss.detach()

    return update
