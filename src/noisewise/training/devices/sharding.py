"""Sharding: split weights, gradients, optimiser and averages of a large net across processes.

torch's FSDP2 (`fully_shard`) does the work: it gathers the weights of a block only while that block
computes. Files always contain full tensors, so any number of processes can resume.
Paper: Zhao et al. 2023, "PyTorch FSDP: experiences on scaling fully sharded data parallel".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from noisewise.nets.layers import ResBlock, TransformerBlock


def shard(net: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Shard a net across the processes, in place: each block separately, then the rest.

    Args:
        net: the full net, with equal weights in every process; it may be on the CPU.
        device: device of the shards.
        dtype: precision inside the net; gradients are summed in float32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32, output_dtype=torch.float32
    )
    for module in net.modules():
        if isinstance(module, ResBlock | TransformerBlock):
            fully_shard(module, mesh=mesh, mp_policy=policy)
    # By default the rest stays gathered after a pass without gradients; averages then fail.
    fully_shard(net, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def gather(value: Any) -> Any:  # noqa: ANN401 (nested state)
    """Gather sharded tensors in nested dicts and lists; every process must call it.

    Example:
        >>> gather({"a": [torch.ones(2), 3]})
        {'a': [tensor([1., 1.]), 3]}
    """
    if _is_sharded(value):
        return value.full_tensor()
    if isinstance(value, dict):
        return {name: gather(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [gather(item) for item in value]
    return value


def sharded_like(value: Tensor, model: Tensor) -> Tensor:
    """Shard a full tensor like `model` is sharded; return it unchanged if there is nothing to do.

    Example:
        >>> sharded_like(torch.ones(2), torch.zeros(2))
        tensor([1., 1.])
    """
    if _is_sharded(model) and not _is_sharded(value):
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(model, DTensor)
        value = value.to(model.device, model.dtype).contiguous()
        return distribute_tensor(value, model.device_mesh, model.placements, src_data_rank=None)
    return value


@torch.no_grad()
def copy_tensors(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy tensors into others, sharded or not.

    Example:
        >>> target = [torch.zeros(2)]
        >>> copy_tensors(target, [torch.ones(2)])
        >>> target
        [tensor([1., 1.])]
    """
    if not any(_is_sharded(target) for target in targets):
        torch._foreach_copy_(list(targets), list(sources))
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(sharded_like(source, target))


def _is_sharded(value: object) -> bool:
    """Whether this is a DTensor; importing that class would take a second."""
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")
