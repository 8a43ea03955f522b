"""What a training step of a net costs: parameters, arithmetic and memory; computed without data.

One picture passes through the net, and what the backward pass would need is counted. A pyramid for
large pictures is measured at three small sizes, as its costs are a polynomial in the number of
pixels: of degree 2, for its attention. Other nets for large pictures are passed on torch's "meta"
device, where tensors have shapes but no numbers; for that, torch first loads its compiler, which
takes two seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from noisewise.nets.derive import build
from noisewise.nets.recomputing import Recomputed
from noisewise.sizes import Size, as_size, divisible, num_pixels, sides, written

_COPIES = 8  # of the weights: themselves, gradient, momentum, averages, best, evaluation, working
_COMPUTED = 256 * 256  # pixels: larger pictures do not pass through the net
_PASSING = 1.5  # gradients of features on their way back, and buffers of convolutions


@dataclass(frozen=True)
class Costs:
    """The costs of training with float32.

    Attributes:
        parameters: number of weights.
        flops: floating-point operations for one picture, forward and backward.
        picture_bytes: memory for each picture of a step, about.
        fixed_bytes: memory that does not depend on the number of pictures, about.
        recomputed_bytes: memory for each picture if blocks forget their features, about.
    """

    parameters: int
    flops: int
    picture_bytes: int
    fixed_bytes: int
    recomputed_bytes: int

    def step_bytes(self, pictures: int) -> int:
        """Memory of a step with so many pictures at once, about."""
        return self.fixed_bytes + pictures * self.picture_bytes

    def fitting(self, memory: int) -> int:
        """Number of pictures at once that fit into this many bytes; 0: not even one."""
        return max(0, (memory - self.fixed_bytes) // self.picture_bytes)

    def recomputed(self) -> Costs:
        """The costs if blocks forget their features, see `noisewise.nets.recomputing`."""
        return replace(self, picture_bytes=self.recomputed_bytes, flops=self.flops * 4 // 3)


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
    size = as_size(config["size"])
    if (step := _step(config)) is None:
        parameters, flops, saved, outside = _passed(config, size)
    else:
        small = [_passed(config, times * step) for times in (1, 2, 3)]
        parameters, times = small[0][0], num_pixels(size) // step**2
        flops, saved, outside = (
            _continued([found[at] for found in small], times) for at in (1, 2, 3)
        )
    own = 4 * 3 * config["channels"] * num_pixels(size)  # the picture, noise, the noised picture
    passing = int((_PASSING - 1) * saved) + own
    fixed = 4 * _COPIES * parameters
    return Costs(parameters, 3 * flops, saved + passing, fixed, outside + passing)


def _step(config: Mapping[str, Any]) -> int | None:
    """The side at which the coarsest features of a large pyramid have one pixel; None: no need."""
    size = as_size(config["size"])
    if num_pixels(size) <= _COMPUTED or config.get("name") != "pyramid":
        return None
    step = 2 ** (len(config["widths"]) - 1)
    return step if divisible(size, step) else None


def _continued(values: list[int], n: int) -> int:
    """The value at n of the polynomial of degree 2 with these values at 1, 4, 9.

    Example:
        >>> _continued([7 + n + 2 * n * n for n in (1, 4, 9)], 16)
        535
    """
    total = Fraction()
    for at, value in zip((1, 4, 9), values, strict=True):
        others = [m for m in (1, 4, 9) if m != at]
        total += value * math.prod(Fraction(n - m, at - m) for m in others)
    return int(total)


def _passed(config: Mapping[str, Any], size: Size) -> tuple[int, int, int, int]:
    """Weights, operations, bytes for the backward pass, and those if blocks forget theirs."""
    device = "cpu" if num_pixels(size) <= _COMPUTED or _step(config) else "meta"
    net = build({**config, "size": written(size)}).to(device)
    shape = (1, config["channels"], *sides(size))
    x, level = torch.zeros(shape, device=device), torch.zeros(1, device=device)
    labels = None
    if config.get("num_classes"):
        labels = torch.zeros(1, dtype=torch.int64, device=device)
    saved = _Saved(net)
    with _Flops() as flops, saved_tensors_hooks(saved.keep, _same):
        out = net(x, level, labels)
        loss = out.square().mean()
    del loss
    return sum(p.numel() for p in net.parameters()), flops.total, saved.bytes, saved.outside


class _Flops(TorchDispatchMode):
    """Counts floating-point operations; torch's own counter loads its compiler, for two seconds."""

    total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip the compiler, newer versions of torch load it

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 (an operator of torch)
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            self.total += int(flop_registry[packet](*args, **(kwargs or {}), out_val=out))
        elif "_scaled_dot_product" in str(packet):  # that of processors is not in the registry
            self.total += int(sdpa_flop_count(*(x.shape for x in args[:3])))
        return out


class _Saved:
    """Counts the bytes that the backward pass needs, each storage once, without the weights.

    Attributes:
        bytes: all of them.
        outside: if every block of the net keeps its input alone.
    """

    def __init__(self, net: nn.Module) -> None:
        self._weights = {_storage(p) for p in net.parameters()}
        self._all: dict[int, Tensor] = {}  # alive: a freed storage could come back as another
        self._outside: dict[int, Tensor] = {}
        self._inside = False
        for module in net.modules():
            if isinstance(module, Recomputed):
                module.register_forward_pre_hook(self._enter)
                module.register_forward_hook(self._leave)

    @property
    def bytes(self) -> int:
        return _bytes(self._all)

    @property
    def outside(self) -> int:
        return _bytes(self._outside)

    def keep(self, tensor: Tensor) -> Tensor:
        """Count a saved tensor."""
        if _storage(tensor) not in self._weights:
            self._all[_storage(tensor)] = tensor
            if not self._inside:
                self._outside[_storage(tensor)] = tensor
        return tensor

    def _enter(self, block: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._outside |= {_storage(tensor): tensor for tensor in given}
        self._inside = True

    def _leave(self, block: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        self._inside = False


def _bytes(kept: dict[int, Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _same(tensor: Tensor) -> Tensor:
    return tensor
