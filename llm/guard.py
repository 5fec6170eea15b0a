"""The guard before each update: not one that is not finite, nor one that lies far above those before it.

Everything stays on the device: whether an update is skipped is a tensor that the optimiser obeys, and the host learns of
it when it reads the measurements. Every process has the same loss and the same gradient norm, so all decide alike.
The window is part of a checkpoint: after a resume the guard is as watchful as before.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llm.config import TrainConfig

_LEAST_RELATIVE_DEVIATION = 0.01
"""Of the mean: a window that hardly varies makes no spike of the next small step up."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Loss and gradient norm of the last updates. Made by `Guard.of`."""

    seen: Tensor
    """(2, W): losses and gradient norms of the updates that were made, at step mod W; NaN where there is none."""
    skipped: Tensor
    """(W,): 1 where the update was skipped."""
    place: Tensor
    """(1,): where in the window the update belongs that is judged next."""
    sigmas: float | None

    @classmethod
    def of(cls, config: TrainConfig, device: torch.device) -> "Guard":
        """A guard that has seen nothing."""
        size = config.spike_window_steps
        seen = torch.full((2, size), torch.nan, device=device)
        place = torch.zeros(1, dtype=torch.int64, device=device)
        return cls(seen, torch.zeros(size, device=device), place, config.spike_sigmas)

    def set_place(self, step: int) -> None:
        """The update number `step`, counted from 0, is judged next."""
        self.place.fill_(step % self.seen.size(1))

    def judge(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Whether to skip the update: two scalars to one in fp32, 1 for skip. Takes note of it at its place."""
        now = torch.stack([loss.float(), norm.float()])  # (2,)
        skip = ~now.isfinite().all()
        if self.sigmas is not None:
            is_there = self.seen.isfinite()
            count = is_there.sum(dim=1)
            kept = torch.where(is_there, self.seen, 0.0)
            mean = kept.sum(dim=1) / count
            squares = torch.where(is_there, (self.seen - mean[:, None]).square(), 0.0).sum(dim=1)
            deviation = (squares / count).sqrt().maximum(_LEAST_RELATIVE_DEVIATION * mean.abs())
            is_high = now > mean + self.sigmas * deviation
            skip = skip | (is_high & (2 * count >= self.seen.size(1))).any()
        self.seen.index_copy_(1, self.place, now.masked_fill(skip, torch.nan)[:, None])
        skips = skip.float()
        self.skipped.index_copy_(0, self.place, skips[None])
        return skips

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, by name."""
        return {"guard.seen": self.seen, "guard.skipped": self.skipped}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take what a checkpoint kept."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
