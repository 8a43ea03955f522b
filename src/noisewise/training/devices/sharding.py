"""Nets that outgrow one device: weights, gradients, optimiser and averages in parts, one a process.

torch's FSDP2 (`fully_shard`) does the work: a block's weights are brought together for the moment
in which it computes. Files always hold whole tensors, so that any number of processes goes on.
Paper: Zhao et al. 2023, "PyTorch FSDP: experiences on scaling fully sharded data parallel".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from noisewise.nets.layers import ResBlock, TransformerBlock


def shard(net: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Part a net among the processes, in place: each block by itself, then what is left.

    Args:
        net: whole, with equal weights on every process; it may still lie on the CPU.
        device: where the parts go.
        dtype: arithmetic inside the net; gradients are added up in float32.
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
    # By default what is left stays whole after a pass without gradients, and could not be averaged.
    fully_shard(net, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def whole(value: Any) -> Any:  # noqa: ANN401 (nested state)
    """Bring parted tensors in nested dicts and lists together; every process has to call it.

    Example:
        >>> whole({"a": [torch.ones(2), 3]})
        {'a': [tensor([1., 1.]), 3]}
    """
    if _is_parted(value):
        return value.full_tensor()
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [whole(item) for item in value]
    return value


def like(value: Tensor, model: Tensor) -> Tensor:
    """Part a whole tensor as another of its shape is; one that is parted, or is not to be, stays.

    Example:
        >>> like(torch.ones(2), torch.zeros(2))
        tensor([1., 1.])
    """
    if _is_parted(model) and not _is_parted(value):
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(model, DTensor)
        value = value.to(model.device, model.dtype).contiguous()
        return distribute_tensor(value, model.device_mesh, model.placements, src_data_rank=None)
    return value


@torch.no_grad()
def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy tensors over others, each parted as its target is.

    Example:
        >>> target = [torch.zeros(2)]
        >>> copy_all(target, [torch.ones(2)])
        >>> target
        [tensor([1., 1.])]
    """
    if not any(_is_parted(target) for target in targets):
        torch._foreach_copy_(list(targets), list(sources))
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(like(source, target))


def _is_parted(value: object) -> bool:
    """Whether this is a DTensor; to import its class takes a second that one process can save."""
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")
