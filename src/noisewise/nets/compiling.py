"""Compile a net where that pays: tried on the machine at hand, timed against the plain net.

Compiling takes a minute on two cores and won 12 to 20% there by hand, so it is only tried where a
long budget can earn it back, and kept only where it is measured to be quicker.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

LONG_ENOUGH = 1200.0  # seconds of training that a minute of compiling is worth trying in
_GAIN = 1.05  # a compiled net must be so much quicker to be kept
_TURNS = 10


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
    arguments = _arguments(net, device, batch)
    plain = _milliseconds(net, arguments)
    try:
        compiled: Any = torch.compile(net, dynamic=False)
        _milliseconds(compiled, arguments, turns=1)  # the first call compiles
        quick = _milliseconds(compiled, arguments)
    except Exception as error:  # whatever a compiler on somebody's machine raises
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return Compiled(net, f"not compiled: {first[:120]}", time.perf_counter() - start)
    seconds = time.perf_counter() - start
    measured = f"{quick:.0f} ms a step compiled, {plain:.0f} ms plain, {seconds:.0f} s to try"
    if plain < _GAIN * quick:
        return Compiled(net, f"not compiled: {measured}", seconds)
    return Compiled(compiled, f"compiled: {measured}", seconds)


def _arguments(net: nn.Module, device: torch.device, batch: int) -> tuple[torch.Tensor | None, ...]:
    config: Any = net.config
    shape = (batch, config["channels"], config["size"], config["size"])
    x = torch.randn(shape, device=device).to(memory_format=torch.channels_last)
    labels = None
    if config.get("num_classes"):
        labels = torch.zeros(batch, dtype=torch.int64, device=device)
    return x, torch.zeros(batch, device=device), labels


def _milliseconds(
    net: nn.Module, arguments: tuple[torch.Tensor | None, ...], turns: int = _TURNS
) -> float:
    """Best time of a forward and backward pass, waiting for the device."""
    best = math.inf
    for _ in range(turns):
        start = time.perf_counter()
        net(*arguments).float().square().mean().backward()
        for parameter in net.parameters():
            parameter.grad = None
        if arguments[0] is not None and arguments[0].is_cuda:
            torch.cuda.synchronize(arguments[0].device)
        best = min(best, 1000 * (time.perf_counter() - start))
    return best
