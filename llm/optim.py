"""AdamW (Loshchilov and Hutter, arXiv:1711.05101) and the learning rate: linear warm-up, then cosine decay."""

import math

import torch
from torch import nn

from llm.config import TrainConfig


def adamw(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """The optimiser: weight decay on matrices (embeddings too), none on biases and norms.

    The groups hold the parameters in the model's order; `learning_rate` is set at each step.
    """
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)


def learning_rate(step: int, config: TrainConfig, *, num_steps: int) -> float:
    """Learning rate of the update number `step`, counted from 0.

    Rises to config.learning_rate over warmup_steps, falls along half a cosine to its
    min_learning_rate_ratio at the last step.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    decay_steps = num_steps - 1 - config.warmup_steps
    progress = min(1.0, (step - config.warmup_steps) / decay_steps) if decay_steps > 0 else 1.0
    ratio = config.min_learning_rate_ratio
    return config.learning_rate * (ratio + (1 - ratio) * (1 + math.cos(math.pi * progress)) / 2)
