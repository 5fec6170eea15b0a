"""Models of which each process holds a part (FSDP2): the only module that knows torch's sharded tensors.

torch's modules for it take most of a second to import, so they are imported where a model is sharded; until then no tensor is.
"""

import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from llm.model import GPT


def shard(model: "GPT", mesh: "DeviceMesh", *, precision: str, compiles: bool) -> None:
    """Shard a model in place, block by block, so that one is whole at a time; gradients are summed in fp32."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    if compiles and model.config.dropout > 0:  # each layer draws otherwise, and needs code of its own, twice: see below
        limit = torch._dynamo.config.recompile_limit  # noqa: SLF001 - it has no other name
        torch._dynamo.config.recompile_limit = max(limit, 2 * model.config.n_layer)  # noqa: SLF001
    bf16 = torch.bfloat16 if precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=bf16, reduce_dtype=torch.float32)
    for block in model.h:
        if compiles:
            block.compile()  # one code for all blocks, and one for evaluation, which has no gradients
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def exchange(model: Any, *, is_due: bool) -> None:
    """Whether the next backward pass of a sharded model exchanges gradients."""
    model.set_requires_gradient_sync(is_due)


def is_part(tensor: Tensor) -> bool:
    """Whether a tensor is one process's part of a larger one."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def whole(tensor: Any) -> Tensor:
    """The whole of a tensor, gathered where it is a part: then all processes call it."""
    found: Tensor = tensor.full_tensor() if is_part(tensor) else tensor
    return found


def local(tensor: Any) -> Tensor:
    """What this process holds of a tensor."""
    found: Tensor = tensor.to_local() if is_part(tensor) else tensor
    return found


def part_like(tensor: Tensor, other: Any) -> Tensor:
    """This process's part of a whole tensor that every process has, sharded as another is."""
    if not is_part(other):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = other.device_mesh, other.placements
    return distribute_tensor(tensor.to(other.device), mesh, placements, src_data_rank=None)
