"""The optimisers, and the learning rate as a function of the step.

AdamW (Loshchilov and Hutter, arXiv:1711.05101) for everything, or Muon (Jordan et al. 2024) for the matrices of the
blocks and AdamW for embeddings, head, biases and norms. A training has an `Optimizers`, which steps them together,
makes an update that must not be made undone without asking the device, and names its state for checkpoints. Rates are
tensors on the device, filled before each step: one that is a number would be the first step's for ever in a CUDA graph.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llm.config import TrainConfig
from llm.model import GPT
from llm.sharding import is_part, part_like, whole

_NEWTON_SCHULZ_STEPS = 5
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic that drives singular values towards one, fast rather than far (Jordan et al. 2024)."""


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal: every direction of a matrix moves equally far.

    A step is the nearest semi-orthogonal matrix to the Nesterov momentum, times sqrt(max(1, rows / columns)). The rows
    of queries, keys and values (`num_parts` of a group: 3) are matrices of their own. Products run in bf16 on GPUs,
    whose rounding the iteration bears, and in fp32 elsewhere. Sharded parameters (FSDP2) are gathered for it.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: Tensor, momentum: float, weight_decay: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "num_parts": 1})
        self.found_inf: Tensor | None = None
        """Where it is above zero, `step` changes nothing; the name and meaning are those of torch's fused optimisers."""

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Make one update of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = parameter.grad
        assert gradient is not None  # noqa: S101 - its caller looked
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"]
        moved = torch.lerp(gradient, momentum, group["momentum"])
        direction = torch.lerp(gradient, moved, group["momentum"])  # Nesterov
        update = _orthogonal(direction, group["num_parts"])
        updated = parameter * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * update
        if self.found_inf is not None:  # chosen, not multiplied: zero times NaN is NaN
            updated = torch.where(self.found_inf > 0, parameter, updated)
            moved = torch.where(self.found_inf > 0, momentum, moved)
        momentum.copy_(moved)
        parameter.copy_(updated)


def _orthogonal(matrix: Tensor, num_parts: int) -> Tensor:
    """The nearest semi-orthogonal matrix to each of num_parts blocks of rows, scaled: (R, C) -> (R, C)."""
    if is_part(matrix):
        return part_like(_orthogonal(whole(matrix), num_parts), matrix)
    parts = matrix.view(num_parts, -1, matrix.size(1))  # (parts, R / parts, C)
    rows, columns = parts.shape[1:]
    x = parts.mT if rows > columns else parts  # the short side first: its square is what is iterated
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.bfloat16() if x.is_cuda else x
    a, b, c = _NEWTON_SCHULZ
    for _ in range(_NEWTON_SCHULZ_STEPS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    x = x.mT if rows > columns else x
    return x.to(matrix.dtype).reshape(matrix.shape) * math.sqrt(max(1.0, rows / columns))


@dataclass(frozen=True, slots=True)
class Optimizers:
    """What updates a model, and the names of its parameters."""

    adamw: torch.optim.AdamW
    muon: Muon | None
    names: dict[Tensor, str]
    config: TrainConfig

    def set_rates(self, step: int, *, num_steps: int) -> float:
        """Set the learning rates of the update number `step`, counted from 0; gives AdamW's."""
        part = rate_part(step, self.config, num_steps=num_steps)
        for optimizer, rate in ((self.adamw, self.config.learning_rate), (self.muon, self.config.muon_learning_rate)):
            for group in optimizer.param_groups if optimizer is not None else ():
                group["lr"].fill_(rate * part)
        return self.config.learning_rate * part

    def step(self, skips: Tensor) -> None:
        """Update every parameter from its gradient, or where `skips` (a scalar on the device) is above zero, nothing.

        Moments and step counts stay as they were, too. The host does not learn which it was.
        """
        for optimizer in self._all():
            optimizer.found_inf = skips
            optimizer.step()
            optimizer.found_inf = None
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor that a resume needs, by the parameter's name and what it is."""
        for optimizer in self._all():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    for kind, value in optimizer.state[parameter].items():
                        yield f"{self.names[parameter]}.{kind}", value

    @property
    def is_prepared(self) -> bool:
        """Whether there is state for every parameter."""
        return all(optimizer.state for optimizer in self._all())

    def prepare(self) -> None:
        """Make the state that a checkpoint is loaded into, as that of no update; what is there stays as it is."""
        for parameter in self.names:
            parameter.grad = torch.zeros_like(parameter)
        skips = torch.ones((), device=next(iter(self.names)).device)
        self.step(skips)

    def _all(self) -> tuple[Any, ...]:
        return (self.adamw,) if self.muon is None else (self.adamw, self.muon)


def optimizers(model: GPT, config: TrainConfig) -> Optimizers:
    """The optimisers of a model: weight decay on matrices (embeddings too), none on biases and norms."""
    named = dict(model.named_parameters())
    with_muon = [
        name for name, p in named.items() if config.optimizer == "muon" and p.dim() == 2 and name.startswith("h.")
    ]
    rest = [p for name, p in named.items() if name not in with_muon]
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    device = next(iter(named.values())).device
    betas = (config.beta1, config.beta2)
    adamw = torch.optim.AdamW(groups, lr=torch.tensor(config.learning_rate, device=device), betas=betas, fused=True)
    muon = None
    if with_muon:
        is_joint = {name: name.endswith("c_attn.weight") for name in with_muon}
        groups = [
            {"params": [named[name] for name in with_muon if is_joint[name]], "num_parts": 3},
            {"params": [named[name] for name in with_muon if not is_joint[name]], "num_parts": 1},
        ]
        rate = torch.tensor(config.muon_learning_rate, device=device)
        muon = Muon(groups, lr=rate, momentum=config.muon_momentum, weight_decay=config.weight_decay)
    return Optimizers(adamw, muon, {parameter: name for name, parameter in named.items()}, config)


def rate_part(step: int, config: TrainConfig, *, num_steps: int) -> float:
    """The part of the learning rate that the update number `step`, counted from 0, has.

    Rises to 1 over warmup_steps and falls to min_learning_rate_ratio at the last step: along half a cosine
    (arXiv:1608.03983), in a line, or, for WSD (arXiv:2404.06395), only over the last decay_ratio of the steps.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    first = config.warmup_steps
    if config.decay == "wsd":
        first = max(first, num_steps - math.ceil(config.decay_ratio * num_steps))
    decay_steps = num_steps - 1 - first
    done = min(1.0, max(0, step - first) / decay_steps) if decay_steps > 0 else float(step >= first)
    left = (1 + math.cos(math.pi * done)) / 2 if config.decay == "cosine" else 1 - done
    return config.min_learning_rate_ratio + (1 - config.min_learning_rate_ratio) * left
