"""What is learned from real text in so many updates: ours beside transformers' GPT-2, and Muon beside AdamW.

All see the same windows in the same order, in fp32, on one thread. The validation loss is over the first 65,536 held-out
tokens at most.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from peer_gpt2 import published_model, usual_update

from llm.batches import Batch, read_batch
from llm.clock import Clock
from llm.config import ModelConfig, RunConfig, TrainConfig, modern, nano
from llm.data import TokenData
from llm.distributed import World
from llm.gradients import Engine
from llm.guard import Guard
from llm.model import GPT
from llm.optim import optimizers, rate_part
from llm.order import Segment
from llm.validation import validation_loss

SHAPES = {
    "nano": nano(),
    "5m": ModelConfig(vocab_size=8192, block_size=256, n_layer=4, n_head=4, n_embd=256),
}
_TOKENS_PER_STEP = 2_048
_EVAL_TOKENS = 65_536
_WORLD = World(0, 1, torch.device("cpu"))
_CALM_RATE = 1e-3
"""At three times that, Chinese training grows a difference of rounding by 1e5 in twenty steps, whoever trains: nothing shows then."""
_MUON_STEPS_PARTS = (0.65, 0.4)
"""Of AdamW's steps, that Muon gets; the bar is the first."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """One training."""

    val_loss: float
    """Nats a token."""
    cpu_seconds: float
    num_skipped: int = 0


def configured(model: ModelConfig, *, steps: int, **changes: Any) -> TrainConfig:
    """The default configuration for so many updates of 2,048 tokens, a tenth of them the warm-up."""
    size = _TOKENS_PER_STEP // model.block_size
    return TrainConfig(
        **{
            "max_steps": steps,
            "warmup_steps": steps // 10,
            "tokens_per_step": _TOKENS_PER_STEP,
            "micro_batch_size": size,
            **changes,
        }
    )


def learn(model: ModelConfig, config: TrainConfig, data: tuple[TokenData, TokenData]) -> Learned:
    """Ours, step by step as the loop does it."""
    train, validation = data
    began, num_skipped = time.process_time(), 0
    own = GPT(model, seed=config.seed)
    engine = Engine.of(own, config, RunConfig(device="cpu", precision="fp32"), _WORLD, eot_token=train.eot_token)
    updater, guard = optimizers(own, config), Guard.of(config, _WORLD.device)
    for step, batch in enumerate(batches(model, config, train)):
        engine.take(batch)
        updater.set_rates(step, num_steps=config.max_steps)
        guard.set_place(step)
        losses = engine.accumulate(Clock(_WORLD.device))
        skips = guard.judge(losses.mean(), engine.clip())
        updater.step(skips)
        num_skipped += int(skips)
    loss = validation_loss(engine, validation, block_size=model.block_size, max_tokens=_EVAL_TOKENS)
    return Learned(val_loss=loss, cpu_seconds=time.process_time() - began, num_skipped=num_skipped)


def learn_with_transformers(model: ModelConfig, config: TrainConfig, data: tuple[TokenData, TokenData]) -> Learned:
    """Transformers' GPT-2 and torch's AdamW, from the same weights, on the same batches, at the same rates."""
    train, validation = data
    began = time.process_time()
    theirs = published_model(GPT(model, seed=config.seed))
    rates = (config.learning_rate * rate_part(step, config, num_steps=config.max_steps) for step in _steps(config))
    update = usual_update(
        theirs,
        lambda tokens: theirs(tokens[:, :-1], labels=tokens[:, :-1], shift_labels=tokens[:, 1:].contiguous()).loss,
        _WORLD.device,
        rates=rates,
        weight_decay=config.weight_decay,
        betas=(config.beta1, config.beta2),
    )
    for batch in batches(model, config, train):
        update(batch.tokens)
    loss = _loss_of_transformers(theirs.eval(), validation, model.block_size, config.micro_batch_size)
    return Learned(val_loss=loss, cpu_seconds=time.process_time() - began)


def batches(model: ModelConfig, config: TrainConfig, train: TokenData) -> Iterator[Batch]:
    """The windows of every update, as the loop reads them."""
    plan = [Segment(first_step=0, first_sample=0, num_sequences=config.tokens_per_step // model.block_size)]
    for step in _steps(config):
        yield read_batch(train, plan, step, seed=config.seed, block_size=model.block_size, world=_WORLD)


def compare_losses(model: ModelConfig, data: tuple[TokenData, TokenData], *, steps: int, seeds: int) -> dict[str, Any]:
    """Ours and transformers' over seeds: the mean difference of a seed, beside the deviation over seeds."""
    configs = [configured(model, steps=steps, learning_rate=_CALM_RATE, seed=seed) for seed in range(seeds)]
    ours = [learn(model, config, data) for config in configs]
    theirs = [learn_with_transformers(model, config, data) for config in configs]
    mine, other = [one.val_loss for one in ours], [one.val_loss for one in theirs]
    differences = [a - b for a, b in zip(mine, other, strict=True)]
    return {
        "ours": mine,
        "transformers": other,
        "mean_difference": statistics.mean(differences),
        "largest_difference": max(map(abs, differences)),
        "seed_deviation": min(statistics.stdev(mine), statistics.stdev(other)),
        "num_skipped": sum(one.num_skipped for one in ours),
    }


def compare_optimizers(
    model: ModelConfig, data: tuple[TokenData, TokenData], *, steps: int, rates: list[float]
) -> dict[str, Any]:
    """AdamW at each rate in all steps; Muon, its own settings as by default and AdamW's part at the rate best for AdamW, in fewer."""
    sweep = {rate: learn(model, configured(model, steps=steps, learning_rate=rate), data) for rate in rates}
    best = min(sweep, key=lambda rate: sweep[rate].val_loss)
    muon, modern_muon = {}, {}
    for part in _MUON_STEPS_PARTS:
        config = configured(model, steps=round(part * steps), learning_rate=best, optimizer="muon")
        muon[part] = learn(model, config, data)
        modern_muon[part] = learn(modern(model), config, data) if part == min(_MUON_STEPS_PARTS) else None
    return {
        "steps": steps,
        "adamw_by_rate": {rate: one.val_loss for rate, one in sweep.items()},
        "adamw_rate": best,
        "is_inside_sweep": best not in (min(rates), max(rates)),
        "adamw": sweep[best].val_loss,
        "adamw_cpu_seconds": sweep[best].cpu_seconds,
        "muon_by_part_of_steps": {part: one.val_loss for part, one in muon.items()},
        "muon_cpu_seconds": {part: one.cpu_seconds for part, one in muon.items()},
        "modern_muon_by_part_of_steps": {part: one.val_loss for part, one in modern_muon.items() if one is not None},
    }


def _steps(config: TrainConfig) -> range:
    return range(config.max_steps or 0)


@torch.no_grad()
def _loss_of_transformers(theirs: Any, validation: TokenData, block_size: int, micro_batch_size: int) -> float:
    """Over the windows of `validation_loss`."""
    num_windows = min(validation.num_windows(block_size), -(-_EVAL_TOKENS // block_size))
    total = 0.0
    for indices in torch.arange(num_windows).split(micro_batch_size):
        tokens = torch.from_numpy(validation.windows(indices.numpy(), block_size))
        logits = theirs(tokens[:, :-1]).logits
        total += F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum").item()
    return total / (num_windows * block_size)
