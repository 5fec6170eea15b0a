"""Losses and gradients of a step: micro-batches one after the other, processes side by side.

Three ways to put gradients together, one interface: summed in an order that no number of processes changes (`exact`,
the default on CPUs); by DDP, which exchanges them while the backward pass goes on; by FSDP2, where each process holds a
part of every weight. Micro-batches before the last exchange nothing.
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from llm.batches import Batch
from llm.clock import Clock
from llm.config import RunConfig, TrainConfig
from llm.devices import can_compile, choose_precision, keep_compiled
from llm.distributed import PairwiseSum, World, sum_exactly
from llm.dropout import Dropout
from llm.memory import keep_freed_memory
from llm.model import GPT, Mask, document_mask
from llm.sharding import exchange, is_part, shard, whole

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """A model as this process computes it. Made by `Engine.of`."""

    model: GPT
    forward: Callable[..., Tensor]
    """Of the model, compiled and wrapped: (ids, targets, mask=, dropout=, each=) to losses."""
    world: World
    config: TrainConfig
    precision: str
    eot_token: int
    is_exact: bool
    _inputs: dict[str, Tensor] = field(default_factory=dict)
    """What `take` fills, by the names of a batch's tensors."""

    @classmethod
    def of(cls, model: GPT, config: TrainConfig, run_config: RunConfig, world: World, *, eot_token: int) -> "Engine":
        """Put a model on the device of this process, whole or its part, and wrap it. Sharding changes it in place."""
        precision = choose_precision(run_config, world.device)
        is_gpu = world.device.type == "cuda"
        if not is_gpu:
            keep_freed_memory()
        compiles = is_gpu if run_config.compile is None else run_config.compile
        if compiles and not can_compile(world.device):
            _logger.warning(
                "got no C compiler, which torch.compile needs on a GPU; wanted gcc or clang, or $CC: the model is not "
                "compiled and trains more slowly, install one."
            )
            compiles = False
        if compiles:
            keep_compiled()
        is_sharded = run_config.parallelism == "sharded" and world.size > 1
        exact = run_config.exact_reduction if run_config.exact_reduction is not None else not is_gpu
        model.checkpoints_activations = run_config.activation_checkpointing
        model.to(world.device)
        forward: nn.Module | Callable[..., Tensor] = model
        if is_sharded:
            shard(model, world.mesh(), precision=precision, compiles=compiles)
        elif compiles:
            forward = torch.compile(model)
        if world.size > 1 and not is_sharded and not exact:
            forward = DistributedDataParallel(forward, device_ids=[world.device] if is_gpu else None)
        return cls(
            model=model,
            forward=forward,
            world=world,
            config=config,
            precision=precision,
            eot_token=eot_token,
            is_exact=exact and not is_sharded,
        )

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a part of the model."""
        return any(is_part(parameter) for parameter in self.model.parameters())

    def take(self, batch: Batch) -> None:
        """Put a step's batch where `accumulate` reads it: on the device, at every step in the same memory."""
        for name, values in (("tokens", batch.tokens), ("keys", batch.keys)):
            if name not in self._inputs or self._inputs[name].shape != values.shape:
                self._inputs[name] = torch.empty_like(values, device=self.world.device)
            self._inputs[name].copy_(values, non_blocking=True)

    def accumulate(self, clock: Clock) -> Tensor:
        """Leave the taken batch's mean gradient in every parameter; gives the losses of all micro-batches, in order: (n,)."""
        self.model.train()
        size, tokens, keys = self.config.micro_batch_size, self._inputs["tokens"], self._inputs["keys"]
        starts = range(0, len(tokens), size)
        total, losses = PairwiseSum(), []
        for start in starts:
            ids, targets = _shifted(tokens[start : start + size])
            options = self._options(ids, keys[start : start + size])
            with self._exchange(is_last=start == starts[-1]), self.autocast():
                loss = self.forward(ids, targets, **options)
                losses.append(loss.detach())
                clock.lap("forward")
                (loss if self.is_exact else loss / len(starts)).backward()  # type: ignore[no-untyped-call]
            clock.lap("backward")
            if self.is_exact and len(starts) > 1:
                total.add(self._taken_gradients())
        every = self.world.gather_losses(torch.stack(losses).float())
        if self.is_exact:
            self._put_mean(total if len(starts) > 1 else None, num_terms=every.numel())
        return every

    def attempt(self, batch: Batch, num_sequences: int) -> None:
        """A step's passes in micro-batches of so many sequences, for their memory alone."""
        self.model.zero_grad(set_to_none=True)
        total, parameters = PairwiseSum(), list(self.model.parameters())
        for start in range(0, len(batch.tokens), num_sequences):
            part = slice(start, start + num_sequences)
            ids, targets = self.on_device(batch.tokens[part])
            options = self._options(ids, batch.keys[part].to(self.world.device))
            with self.autocast():
                loss = self.model(ids, targets, **options)
                if self.is_sharded:
                    loss.backward()
                    continue
                found = list(torch.autograd.grad(loss, parameters))  # no hook of DDP is told, which waits for a step
            if self.is_exact:
                total.add(found)
        self.model.zero_grad(set_to_none=True)

    def clip(self) -> Tensor:
        """Scale the gradient down to grad_clip where its norm is larger; gives the norm before, a scalar."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        if self.config.grad_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), self.config.grad_clip, norm)
        return whole(norm)

    @torch.no_grad()
    def losses(self, tokens: Tensor) -> Tensor:
        """Cross-entropy, nats, of every token but the first of windows (B, T + 1), without dropout: (B, T)."""
        self.model.eval()
        ids, targets = self.on_device(tokens)
        with self.autocast():
            found: Tensor = self.model(ids, targets, mask=self._mask(ids), each=True)
        return found

    def on_device(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T + 1) -> (B, T), (B, T): each token and the one after it."""
        return _shifted(tokens.to(self.world.device, non_blocking=True))

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Matrix products in the engine's precision. A sharded model casts by itself."""
        if self.precision == "bf16" and not self.is_sharded:
            return torch.autocast(self.world.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _options(self, ids: Tensor, keys: Tensor) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.config.document_masks:
            options["mask"] = self._mask(ids)
        probability = self.model.config.dropout
        if probability > 0:
            options["dropout"] = Dropout(probability, keys)
        return options

    def _mask(self, ids: Tensor) -> Mask | None:
        if not self.config.document_masks:
            return None
        as_blocks = ids.is_cuda and self.model.config.dropout == 0
        return document_mask(ids, self.eot_token, as_blocks=as_blocks)

    def _exchange(self, *, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        """Exchange gradients after the last micro-batch alone."""
        if self.is_sharded:
            exchange(self.model, is_due=is_last)
        elif isinstance(self.forward, DistributedDataParallel) and not is_last:
            return self.forward.no_sync()
        return contextlib.nullcontext()

    def _taken_gradients(self) -> list[Tensor]:
        gradients = []
        for parameter in self.model.parameters():
            gradients.append(parameter.grad if parameter.grad is not None else torch.zeros_like(parameter))
            parameter.grad = None
        return gradients

    def _put_mean(self, total: PairwiseSum | None, *, num_terms: int) -> None:
        if num_terms == 1:
            return
        gradients = total.result() if total is not None else self._taken_gradients()
        sum_exactly(gradients, self.world)
        torch._foreach_mul_(gradients, 1 / num_terms)
        for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
            parameter.grad = gradient


def _shifted(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T + 1) -> (B, T), (B, T): each token and the one after it."""
    return tokens[:, :-1], tokens[:, 1:]
