"""The device's part of a step, from the first micro-batch to the optimisers' end, could be captured in a CUDA graph.

Captured once, it is replayed with the arguments that it had: so every step must ask the same of the device, of the same
memory, and no step may ask anything back.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import llm.loss
from llm.batches import Batch
from llm.clock import Clock
from llm.config import ModelConfig, RunConfig, TrainConfig
from llm.distributed import World
from llm.gradients import Engine
from llm.guard import Guard
from llm.model import GPT
from llm.optim import Optimizers, optimizers

CPU = torch.device("cpu")
MODEL = ModelConfig(vocab_size=50, block_size=8, n_layer=1, n_head=2, n_embd=16, dropout=0.1)


class Recorder(TorchDispatchMode):
    """Takes down every operation: its name, and its arguments; of a tensor, its memory and how it lies in it.

    Memory that the step itself takes is named by the operation that took it, other memory by where it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self._memory: dict[int, str] = {}
        self._kept: list[Any] = []  # memory that is given back could be taken again

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in ("prim", "profiler"):  # which device a tensor is on, and marks in the host's profile
            return func(*args, **(kwargs or {}))
        arguments = tree_map_only(Tensor, self._described, (args, kwargs))
        self.asked.append(f"{func} {arguments}")
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._kept.append(tensor)
                self._memory.setdefault(_place(tensor), f"of operation {len(self.asked)}")
        return result

    def _described(self, tensor: Tensor) -> str:
        memory = self._memory.get(_place(tensor), f"at {_place(tensor):x}")
        lies = tuple(tensor.shape), tensor.stride(), tensor.storage_offset()
        return f"<{tensor.dtype} {tensor.device} {lies} {memory}>"


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class Step:
    """As the loop does it, on tensors that have a shape and no values: whatever asks for one fails."""

    def __init__(self, config: TrainConfig, *, model: ModelConfig = MODEL, **run: Any) -> None:
        self.config, self.model = config, GPT(model)
        run_config = RunConfig(**{"device": "cpu", "precision": "fp32", **run})
        self.engine = Engine.of(self.model, config, run_config, World(0, 1, CPU), eot_token=0)
        self.optimizers: Optimizers = optimizers(self.model, config)
        self.guard = Guard.of(config, CPU)

    def __call__(self, step: int) -> list[str]:
        num_sequences = self.config.tokens_per_step // MODEL.block_size
        tokens = torch.zeros(num_sequences, MODEL.block_size + 1, dtype=torch.int64)
        self.engine.take(Batch(tokens, torch.zeros(num_sequences, dtype=torch.int32), ""))
        self.optimizers.set_rates(step, num_steps=9)
        self.guard.set_place(step)
        with Recorder() as recorder:
            losses = self.engine.accumulate(Clock(CPU))
            norm = self.engine.clip()
            self.optimizers.step(self.guard.judge(losses.mean(), norm))
        return recorder.asked


@pytest.fixture
def without_values(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(
        GPT, "to", lambda model, _device: model
    )  # torch moves no such model, and it is where it should be
    with FakeTensorMode():
        yield


@pytest.fixture
def loss_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU in fp32 the loss asks whether a probability is too small, since there it need not wait for the answer."""
    monkeypatch.setattr(llm.loss, "_softmax_in_place", llm.loss._softmax)


def config(optimizer: Any = "adamw") -> TrainConfig:
    return TrainConfig(
        max_steps=9,
        warmup_steps=5,
        micro_batch_size=4,
        tokens_per_step=64,
        optimizer=optimizer,
        grad_clip=1.0,
        document_masks=True,
        spike_sigmas=6.0,
    )


@pytest.mark.usefixtures("without_values", "loss_of_a_gpu")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(
    "run",
    [
        {"exact_reduction": True},
        {"exact_reduction": False, "precision": "bf16", "activation_checkpointing": True},
    ],
    ids=["as on CPUs", "as on GPUs"],
)
def test_every_step_asks_the_same_and_nothing_back(optimizer: str, run: dict[str, Any]) -> None:
    step = Step(config(optimizer), **run)
    step(0)  # the optimisers' state is made
    first, second = step(1), step(2)
    assert len(first) > 400
    differing = [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]]
    assert differing == []


@pytest.mark.usefixtures("without_values")
def test_a_question_would_be_seen() -> None:
    """The one that the loss asks on CPUs alone."""
    with pytest.raises(DataDependentOutputException, match="_local_scalar_dense"):
        Step(config())(0)


@pytest.mark.usefixtures("without_values", "loss_of_a_gpu")
@pytest.mark.parametrize("changed", ["rate", "place", "batch"])
def test_a_difference_would_be_seen(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate or place that is a number of the host, or a batch that lies elsewhere."""
    step = Step(config("muon"))
    step(0)
    first = step(1)
    if changed == "rate":
        groups = step.optimizers.muon.param_groups
        monkeypatch.setattr(Optimizers, "set_rates", lambda *_, **__: [group.update(lr=0.5) for group in groups])
    elif changed == "place":
        monkeypatch.setattr(Guard, "judge", lambda guard, loss, norm: guard.skipped[2].fill_(0.0))
    else:
        step.engine._inputs.clear()
    assert step(2) != first
