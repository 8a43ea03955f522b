"""In what a model is wrapped: recognised in any order of wrappers, or refused with the way out.

`torch.compile(DDP(m))`, `DDP(torch.compile(m))`, accelerate's and PEFT's models all hold the same
parameters. What differs is where the gradient of one rank can be seen: with
DistributedDataParallel in its communication hook, with `fully_shard` on the unsharded parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["Wrapping", "check_whole", "hides_its_calls", "inner_of", "is_compiled", "wrapping_of"]

_RANK = (
    "hides the gradient of a single process: use DistributedDataParallel or fully_shard, or "
    "measure with calibrate() on one device."
)
_REFUSED = {  # by class name, because most of these packages are not installed
    "FullyShardedDataParallel": f"FullyShardedDataParallel (FSDP's first version) {_RANK}",
    "XlaFullyShardedDataParallel": f"XlaFullyShardedDataParallel {_RANK}",
    "ShardedDataParallel": f"ShardedDataParallel {_RANK}",
    "DeepSpeedEngine": f"DeepSpeed {_RANK}",
    "DeepSpeedHybridEngine": f"DeepSpeed {_RANK}",
    "PipelineEngine": f"DeepSpeed's pipeline {_RANK}",
}


@dataclass(frozen=True)
class Wrapping:
    """Where the gradients of a training can be seen.

    Attributes:
        kind: "plain" (one process), "ranks" (DistributedDataParallel) or "shards" (fully_shard).
        parallel: the DistributedDataParallel module, for "ranks".
    """

    kind: Literal["plain", "ranks", "shards"]
    parallel: nn.parallel.DistributedDataParallel | None = None


def wrapping_of(model: nn.Module, parameters: Iterable[Tensor]) -> Wrapping:
    """Return how a model is wrapped, whatever the order of its wrappers.

    Args:
        model: the model as the loop calls it.
        parameters: the parameters that are measured.

    Raises:
        ValueError: for a wrapper that hides the gradients of its processes or devices, for
            parameters outside the DistributedDataParallel, and for several processes without any
            wrapper that is known.

    Example:
        >>> wrapping_of(nn.Linear(1, 1), []).kind
        'plain'
    """
    measured = list(parameters)
    for module in model.modules():
        _refuse(module)
    if any(hasattr(p, "ds_id") for p in measured):
        raise ValueError(_REFUSED["DeepSpeedEngine"])
    if any(_is_sharded(p) for p in measured):
        _check_shards(model, measured)
        return Wrapping("shards")
    parallel = [m for m in model.modules() if isinstance(m, nn.parallel.DistributedDataParallel)]
    if parallel:
        held = {id(p) for p in parallel[0].parameters()}
        if len(parallel) > 1 or any(id(p) not in held for p in measured):
            raise ValueError(
                "Only a part of the trained parameters is in this DistributedDataParallel: call "
                "watch() for each DistributedDataParallel, with its own optimiser."
            )
        return Wrapping("ranks", parallel[0])
    if _processes() > 1:
        raise ValueError(
            f"{_processes()} processes train, but this model is in no wrapper that watch() knows: "
            "pass the DistributedDataParallel or fully_shard model itself, or measure with "
            "calibrate() on one device."
        )
    return Wrapping("plain")


def _refuse(module: nn.Module) -> None:
    kind = type(module).__name__
    names = {base.__name__ for base in type(module).__mro__}
    for name in names & set(_REFUSED):
        raise ValueError(_REFUSED[name])
    if "DistributedDataParallel" in names and not isinstance(
        module, nn.parallel.DistributedDataParallel
    ):
        raise ValueError(f"The {kind} of {type(module).__module__.split('.')[0]} {_RANK}")
    if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
        raise ValueError(
            f"DataParallel spreads each micro-batch over {len(module.device_ids)} devices and "
            "hides their gradients: use DistributedDataParallel, or one device."
        )


def _is_sharded(parameter: Tensor) -> bool:
    return type(parameter).__name__ == "DTensor" or hasattr(parameter, "device_mesh")


def _check_shards(model: nn.Module, measured: list[Tensor]) -> None:
    from torch.distributed.fsdp import FSDPModule

    inside: set[int] = set()
    for module in model.modules():
        if isinstance(module, FSDPModule):
            inside |= {id(p) for p in module.parameters()}
    meshes = {getattr(p, "device_mesh", None) for p in measured}
    flat = all(mesh is not None and mesh.ndim == 1 for mesh in meshes)
    if len(meshes) > 1 or not flat or any(id(p) not in inside for p in measured):
        raise ValueError(
            "These parameters are sharded in a way that watch() cannot add up (tensor parallelism, "
            "or a mesh of more than one dimension): use fully_shard over one dimension, or "
            "calibrate() on one device."
        )


def _processes() -> int:
    dist = torch.distributed
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def inner_of(model: nn.Module) -> nn.Module:
    """Return the model inside torch.compile, DistributedDataParallel and DataParallel.

    Example:
        >>> inner = nn.Linear(1, 1)
        >>> inner_of(torch.compile(nn.DataParallel(inner), backend="eager")) is inner
        True
    """
    while True:
        compiled = model.__dict__.get("_modules", {}).get("_orig_mod")
        if isinstance(compiled, nn.Module):
            model = compiled
        elif isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            model = model.module
        else:
            return model


def hides_its_calls(model: nn.Module) -> bool:
    """Whether hooks of this module are inside a compiled graph, which does not run them.

    This is so after `model.compile()`, but not for the module that `torch.compile(model)` returns.
    """
    return getattr(model, "_compiled_call_impl", None) is not None


def is_compiled(model: nn.Module) -> bool:
    """Whether any part is compiled: hooks of layers inside do not run, or compile it again.

    Example:
        >>> is_compiled(nn.Sequential(torch.compile(nn.Linear(1, 1), backend="eager")))
        True
    """
    return any(hides_its_calls(m) or "_orig_mod" in m._modules for m in model.modules())


def check_whole(model: nn.Module) -> None:
    """Refuse parameters of which this process holds only a part.

    Raises:
        ValueError: for FSDP, DeepSpeed's third stage and tensor parallelism.
    """
    if any(_is_sharded(p) or hasattr(p, "ds_id") for p in model.parameters()):
        raise ValueError(
            "This process holds only a part of each parameter: load the weights into a whole copy "
            "of the model on one device and calibrate there, or use watch() (for fully_shard)."
        )
