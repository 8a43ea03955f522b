"""The quickest way to compute a net on the machine at hand: measured, never taken on faith.

bfloat16, channels-last memory and their like were each a gain on one processor and a loss on
another, so `fastest` times them in about two seconds. Compiling takes a minute on two cores and won
12 to 20% there by hand: `compile_if_quicker` is for budgets that can earn a minute back.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

LONG_ENOUGH = 1200.0  # seconds of training in which a minute of trying to compile is worth it
_GAIN = 1.05  # another way must be so much quicker than the plain one
_TURNS = 10


@dataclass(frozen=True)
class Timed:
    """The quickest way to compute a net on this machine, and what was measured.

    `images_per_second` holds one entry for each way tried: its name and images trained a second.
    """

    dtype: torch.dtype
    channels_last: bool
    images_per_second: tuple[tuple[str, float], ...]

    @property
    def reason(self) -> str:
        """The measurement in words."""
        ways = sorted(self.images_per_second, key=lambda way: -way[1])
        listed = ", ".join(f"{name} {speed:.0f}" for name, speed in ways)
        return f"measured, images trained a second: {listed}"


@dataclass(frozen=True)
class Compiled:
    """A net to be called in training, and how it came to be the one.

    Attributes:
        net: the plain net or its compiled form; both have the same parameters.
        reason: what was measured, for the log.
        seconds: what trying took.
    """

    net: nn.Module
    reason: str
    seconds: float


def fastest(
    net: nn.Module,
    device: torch.device,
    batch: int = 64,
    seconds: float = 2.0,
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16),
) -> Timed:
    """Time forward and backward of a net in each precision and memory layout; keep the quickest.

    The ways take turns, so that a drift of the machine treats them alike; each one's best counts.

    Args:
        net: has a `config` of "channels" and "size", and "num_classes"; it is copied, not changed.
        device: where.
        batch: images a step.
        seconds: about how long to measure in all.
        dtypes: precisions to try.

    Returns:
        The quickest way; float32 with channels last where nothing beats it by 5%.

    Example:
        >>> from noisewise.nets.unet import UNet
        >>> net = UNet(1, 8, (8,), (1,), patch=1)
        >>> fastest(net, torch.device("cpu"), batch=2, seconds=0.01).channels_last in (True, False)
        True
    """
    config: Any = net.config
    ways = [(dtype, last) for dtype in dtypes for last in (True, False)]
    best = dict.fromkeys(ways, math.inf)
    steps = {way: _Step(_in_way(net, device, way), config, device, batch, way[1]) for way in ways}
    for step in steps.values():
        step()  # the first one pays for buffers and kernels
    start = time.perf_counter()
    while True:
        for way, step in steps.items():
            before = time.perf_counter()
            step()
            best[way] = min(best[way], time.perf_counter() - before)
        if time.perf_counter() - start > seconds:
            break
    plain = (torch.float32, True)
    quickest = min(best, key=lambda way: best[way] * (1 / _GAIN if way == plain else 1.0))
    names = tuple((_name(*way), batch / best[way]) for way in ways)
    return Timed(quickest[0], quickest[1], names)


def _name(dtype: torch.dtype, channels_last: bool) -> str:
    return (
        f"{str(dtype).removeprefix('torch.')} {'channels last' if channels_last else 'contiguous'}"
    )


def compile_if_quicker(net: nn.Module, device: torch.device, batch: int) -> Compiled:
    """Compile a net's forward and backward pass, and keep it where it is 5% quicker.

    Parameters keep their values and names: the compiled form is another way to call the same net.
    A machine without a compiler keeps the plain net, and the reason says why.

    Args:
        net: has a `config` of "channels", "size" and "num_classes"; gradients are left as None.
        device: where it lives.
        batch: images a step; another number later would be compiled anew.

    Source: Ansel et al. 2024 (PyTorch 2).
    """
    start = time.perf_counter()
    plain = _milliseconds(_Step(net, net.config, device, batch))
    try:
        compiled: Any = torch.compile(net, dynamic=False)
        step = _Step(compiled, net.config, device, batch)
        step()  # the first call compiles
        quick = _milliseconds(step)
    except Exception as error:  # whatever a compiler on somebody's machine raises
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        net.zero_grad()
        return Compiled(net, f"not compiled: {first[:120]}", time.perf_counter() - start)
    seconds = time.perf_counter() - start
    measured = f"{quick:.0f} ms a step compiled, {plain:.0f} ms plain, {seconds:.0f} s to try"
    if plain < _GAIN * quick:
        return Compiled(net, f"not compiled: {measured}", seconds)
    return Compiled(compiled, f"compiled: {measured}", seconds)


class _Step:
    """One forward and backward pass, waited for; it leaves no gradients."""

    def __init__(
        self,
        net: nn.Module,
        config: Any,  # noqa: ANN401 (a net's own configuration)
        device: torch.device,
        batch: int,
        channels_last: bool = True,
    ) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        shape = (batch, config["channels"], config["size"], config["size"])
        self.net, self.device = net, device
        self.x = torch.zeros(shape, device=device).to(memory_format=layout)
        self.level = torch.zeros(batch, device=device)
        self.labels: torch.Tensor | None = None
        if config.get("num_classes"):
            self.labels = torch.zeros(batch, dtype=torch.int64, device=device)

    def __call__(self) -> None:
        self.net(self.x, self.level, self.labels).float().square().mean().backward()
        for parameter in self.net.parameters():
            parameter.grad = None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _in_way(net: nn.Module, device: torch.device, way: tuple[torch.dtype, bool]) -> nn.Module:
    """A copy of the net in a precision and memory layout, ready to train."""
    dtype, last = way
    layout = torch.channels_last if last else torch.contiguous_format
    copied = copy.deepcopy(net).to(device, dtype)
    for parameter in copied.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return copied.requires_grad_(True).train()


def _milliseconds(step: _Step) -> float:
    """Best time of some steps."""
    best = math.inf
    for _ in range(_TURNS):
        start = time.perf_counter()
        step()
        best = min(best, 1000 * (time.perf_counter() - start))
    return best
