"""What a training step of a net costs: parameters, arithmetic and memory; computed without data.

The net is built and run on torch's "meta" device, where tensors have shapes but no numbers, so this
takes the same second for 32 and for 1024 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from noisewise.nets.derive import build
from noisewise.sizes import as_size, sides

_COPIES = 8  # of the weights: themselves, gradient, momentum, averages, best, evaluation, working
_PASSING = 1.5  # gradients of features on their way back, and buffers of convolutions


@dataclass(frozen=True)
class Costs:
    """The costs of training with float32.

    Attributes:
        parameters: number of weights.
        flops: floating-point operations for one picture, forward and backward.
        picture_bytes: memory for each picture of a step, about.
        fixed_bytes: memory that does not depend on the number of pictures, about.
    """

    parameters: int
    flops: int
    picture_bytes: int
    fixed_bytes: int

    def step_bytes(self, pictures: int) -> int:
        """Memory of a step with so many pictures at once, about."""
        return self.fixed_bytes + pictures * self.picture_bytes

    def fitting(self, memory: int) -> int:
        """Number of pictures at once that fit into this many bytes; 0: not even one."""
        return max(0, (memory - self.fixed_bytes) // self.picture_bytes)


def costs_of(config: Mapping[str, Any]) -> Costs:
    """Compute what a training step of a net costs.

    Args:
        config: of a net, as `noisewise.nets.derive.build` takes it.

    Example:
        >>> config = {"name": "unet", "channels": 1, "size": 8, "widths": [8], "blocks": [1]}
        >>> costs = costs_of(config)
        >>> costs.parameters, costs.flops > 0
        (8884, True)
    """
    with torch.device("meta"):
        net = build(dict(config))
        x = torch.zeros(1, config["channels"], *sides(as_size(config["size"])))
        level = torch.zeros(1)
        labels = torch.zeros(1, dtype=torch.int64) if config.get("num_classes") else None
        saved = _Saved(net)
        with FlopCounterMode(display=False) as counter, saved_tensors_hooks(saved.keep, _same):
            out = net(x, level, labels)
            loss = out.square().mean()
        forward = counter.get_total_flops()
    del loss
    parameters = sum(p.numel() for p in net.parameters())
    own = 4 * 3 * x.numel()  # the picture, its noise and the noised picture
    return Costs(
        parameters, 3 * forward, int(_PASSING * saved.bytes) + own, 4 * _COPIES * parameters
    )


class _Saved:
    """Counts the bytes that the backward pass needs, each storage once, without the weights."""

    def __init__(self, net: nn.Module) -> None:
        self._seen = {_storage(p) for p in net.parameters()}
        self._alive: list[Tensor] = []
        self.bytes = 0

    def keep(self, tensor: Tensor) -> Tensor:
        """Count a saved tensor."""
        if _storage(tensor) not in self._seen:
            self._seen.add(_storage(tensor))
            self._alive.append(tensor)  # a freed storage could come back with the same address
            self.bytes += tensor.untyped_storage().nbytes()
        return tensor


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _same(tensor: Tensor) -> Tensor:
    return tensor
