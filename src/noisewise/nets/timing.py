"""Measure the fastest way to compute a net on this machine.

bfloat16 and channels-last memory each make a net faster on some processors and slower on others, so
`fastest` times them, in about two seconds. Compiling a U-Net takes a minute on two cores and made
training 12 to 20% faster there; a pyramid takes more than two, and its coarse scales are not
compiled. `compile_if_quicker` is for budgets long enough to regain that time: `long_enough`.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from noisewise.sizes import as_size, sides

_TRIAL = {"pyramid": 140.0}  # seconds of trying to compile on two cores: measured at 128 pixels
_USUAL_TRIAL = 60.0
_WORTH = 0.05  # of the seconds of training: what a trial may take
_GAIN = 1.05  # another way must be faster than the plain one by this factor
_CLEAR_GAIN = 2.0  # the same where only a few pictures were timed
_REPEATS = 10
_TRIED = 4  # pictures of the steps that show which ways are worth timing
_HOPELESS = 3.0  # times as slow as the quickest way: bfloat16 where the processor has none
_PATIENCE = 2.0  # times the seconds that the first rough steps may take, all together


@dataclass(frozen=True)
class Timed:
    """The fastest way to compute a net on this machine, and what was measured.

    Attributes:
        dtype: precision of the weights.
        channels_last: memory layout.
        images_per_second: for each way that was tried, its name and training pictures per second
            (of a hopeless way: on few pictures).
        left_out: what was not tried, and why, in words; "" if nothing was left out.
    """

    dtype: torch.dtype
    channels_last: bool
    images_per_second: tuple[tuple[str, float], ...]
    left_out: str = ""

    @property
    def reason(self) -> str:
        """The measurement as a text."""
        ways = sorted(self.images_per_second, key=lambda way: -way[1])
        # A slow net makes less than one picture a second.
        listed = ", ".join(
            f"{name} {speed:{'.0f' if speed >= 10 else '.2g'}}" for name, speed in ways
        )
        more = f"; {self.left_out}" if self.left_out else ""
        return f"measured training speed, images/s: {listed}{more}"


@dataclass(frozen=True)
class Compiled:
    """The net to call in training: compiled or not, and why.

    Attributes:
        net: the plain net or its compiled form; both have the same parameters.
        reason: what was measured, for the log.
        seconds: time that the trial took.
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
    """Time forward and backward pass in each precision and memory layout; return the fastest.

    The ways are timed in turn, so that changes in the load of the machine affect all of them; the
    best time of each counts. A precision in which a single convolution takes more than 3 times as
    long is left out: bfloat16 took 15 times as long on a processor without it, and a minute. A way
    that is so slow on 4 pictures is not timed with a whole batch. If one step with a whole batch
    takes longer than all the seconds, the 4 pictures decide; if their steps would take too long,
    one picture; and if even a step with one takes long, only the plain way is timed.

    Args:
        net: has a `config` with "channels", "size" and "num_classes"; it is copied, not changed.
        device: where to measure.
        batch: pictures per step.
        seconds: about how long to measure, in all.
        dtypes: precisions to try.

    Returns:
        The fastest way; float32 with channels last, unless another way is 5% faster.

    Example:
        >>> from noisewise.nets.unet import UNet
        >>> net = UNet(1, 8, (8,), (1,), patch=1)
        >>> fastest(net, torch.device("cpu"), batch=2, seconds=0.01).channels_last in (True, False)
        True
    """
    config: Any = net.config
    plain = (torch.float32, True)
    dtypes, left_out = _useful(dtypes, device)
    ways = [(dtype, last) for dtype in dtypes for last in (True, False)]
    first = _Step(_in_way(net, device, plain), config, device, 1)
    one = _quickest(first, 1)
    if one < seconds:  # else another one takes too long: the first one also sets up buffers
        one = min(one, _quickest(first, 1))
    most = _PATIENCE * seconds / (2 * len(ways) * one)  # pictures in each rough step
    if most < 0.5:
        left_out = "; ".join(filter(None, ("a step takes too long to time other ways", left_out)))
        return Timed(*plain, ((_name(*plain), 1 / one),), left_out)
    nets = {way: _in_way(net, device, way) for way in ways}
    few = max(1, min(batch, _TRIED, int(most)))
    tried = {way: _Step(nets[way], config, device, few, way[1]) for way in ways}
    roughly = {way: _quickest(step, 2) for way, step in tried.items()}
    best = {way: roughly[way] * batch / few for way in ways}
    limit, start = _HOPELESS * min(best.values()), time.perf_counter()
    hopeful = [way for way in ways if best[way] < limit and min(best.values()) < seconds]
    steps = {way: _Step(nets[way], config, device, batch, way[1]) for way in hopeful}
    first_steps = {way: _quickest(step, 1) for way, step in steps.items()}
    over = time.perf_counter() - start > seconds
    for way, taken in first_steps.items():  # first steps also set up buffers and kernels
        best[way] = taken if over else math.inf
    while steps and not over:
        for way, step in steps.items():
            before = time.perf_counter()
            step()
            best[way] = min(best[way], time.perf_counter() - before)
        if time.perf_counter() - start > seconds:
            break
    gain = _GAIN if steps else _CLEAR_GAIN
    quickest = min(best, key=lambda way: best[way] * (1 / gain if way == plain else 1.0))
    names = tuple((_name(*way), batch / best[way]) for way in ways)
    return Timed(quickest[0], quickest[1], names, left_out)


def _useful(
    dtypes: tuple[torch.dtype, ...], device: torch.device
) -> tuple[tuple[torch.dtype, ...], str]:
    """The precisions that are not hopeless on this device, and the others in words."""
    if len(dtypes) < 2:
        return dtypes, ""
    taken = {dtype: _one_convolution(dtype, device) for dtype in dtypes}
    times = {dtype: taken[dtype] / min(taken.values()) for dtype in dtypes}
    slow = [dtype for dtype in dtypes if times[dtype] > _HOPELESS]
    said = [f"a convolution in {_called(d)} takes {times[d]:.0f} times as long" for d in slow]
    return tuple(dtype for dtype in dtypes if dtype not in slow), "; ".join(said)


def _one_convolution(dtype: torch.dtype, device: torch.device) -> float:
    """Seconds of one small convolution, forward and backward."""
    net = nn.Conv2d(32, 32, 3, padding=1)
    config = {"channels": 32, "size": 32}
    step = _Step(_Alone(_in_way(net, device, (dtype, True)), dtype), config, device, _TRIED)
    step()  # not timed: the first step also sets up kernels
    return _quickest(step, 3)


class _Alone(nn.Module):
    """A layer in the place of a net."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer, self.dtype = layer, dtype

    def forward(self, x: torch.Tensor, level: torch.Tensor, labels: None) -> torch.Tensor:
        return self.layer(x.to(self.dtype))


def rough_speed(net: nn.Module, device: torch.device, batch: int) -> float:
    """Training pictures per second in the plain way (float32, channels last), from three steps.

    Args:
        net: as for `fastest`.
        device: where to measure.
        batch: pictures per step.
    """
    plain = (torch.float32, True)
    step = _Step(_in_way(net, device, plain), net.config, device, batch)
    step()  # not timed: the first step also sets up buffers and kernels
    return batch / _quickest(step, 2)


def _name(dtype: torch.dtype, channels_last: bool) -> str:
    return f"{_called(dtype)} {'channels last' if channels_last else 'contiguous'}"


def _called(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def long_enough(config: Mapping[str, Any], device: torch.device, seconds: float) -> bool:
    """Whether seconds of training can regain the time of trying to compile a net.

    Args:
        config: of the net.
        device: a GPU compiles small kernels quickly.
        seconds: of training.

    Example:
        >>> long_enough({"name": "unet"}, torch.device("cpu"), 1800)
        True
        >>> long_enough({"name": "pyramid"}, torch.device("cpu"), 1800)
        False
    """
    trial = (
        _TRIAL.get(str(config.get("name")), _USUAL_TRIAL) if device.type == "cpu" else _USUAL_TRIAL
    )
    return trial <= _WORTH * seconds


def compile_if_quicker(net: nn.Module, device: torch.device, batch: int, told: int = 0) -> Compiled:
    """Compile the forward and backward pass of a net, and use this if it is 5% faster.

    Parameters keep their values and names: the compiled form is another way to call the same net.
    Without a working compiler the plain net is used, and the reason says why.

    Args:
        net: has a `config` with "channels", "size" and "num_classes"; its gradients are set to
            None.
        device: the device of the net.
        batch: pictures per step; another batch size is compiled again.
        told: width of what training tells the net beside labels; 0: nothing.

    Source: Ansel et al. 2024 (PyTorch 2).
    """
    start = time.perf_counter()
    plain = _milliseconds(_Step(net, net.config, device, batch, told=told))
    try:
        compiled: Any = torch.compile(net, dynamic=False)
        step = _Step(compiled, net.config, device, batch, told=told)
        step()  # the first call compiles
        quick = _milliseconds(step)
    except Exception as error:  # a compiler can raise anything
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        net.zero_grad()
        return Compiled(net, f"not compiled: {first[:120]}", time.perf_counter() - start)
    seconds = time.perf_counter() - start
    measured = (
        f"{quick:.0f} ms per step compiled, {plain:.0f} ms not compiled, tried for {seconds:.0f} s"
    )
    if plain < _GAIN * quick:
        return Compiled(net, f"not compiled: {measured}", seconds)
    return Compiled(compiled, f"compiled: {measured}", seconds)


class _Step:
    """One forward and backward pass; waits for the device, and leaves no gradients."""

    def __init__(
        self,
        net: nn.Module,
        config: Any,  # noqa: ANN401 (a net's own configuration)
        device: torch.device,
        batch: int,
        channels_last: bool = True,
        told: int = 0,
    ) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        shape = (batch, config["channels"], *sides(as_size(config["size"])))
        self.net, self.device = net, device
        self.x = torch.zeros(shape, device=device).to(memory_format=layout)
        self.level = torch.zeros(batch, device=device)
        self.labels: torch.Tensor | None = None
        if config.get("num_classes"):
            self.labels = torch.zeros(batch, dtype=torch.int64, device=device)
        self.told: tuple[torch.Tensor, ...] = ()
        if told:
            self.told = (torch.zeros(batch, told, device=device, requires_grad=True),)

    def __call__(self) -> None:
        out = self.net(self.x, self.level, self.labels, *self.told)
        out.float().square().mean().backward()
        for parameter in self.net.parameters():
            parameter.grad = None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _in_way(net: nn.Module, device: torch.device, way: tuple[torch.dtype, bool]) -> nn.Module:
    """Copy the net to a precision and memory layout, ready to train."""
    dtype, last = way
    layout = torch.channels_last if last else torch.contiguous_format
    copied = copy.deepcopy(net).to(device, dtype)
    for parameter in copied.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return copied.requires_grad_(True).train()


def _milliseconds(step: _Step) -> float:
    """Time of the fastest of some steps."""
    return 1000 * _quickest(step, _REPEATS)


def _quickest(step: _Step, times: int) -> float:
    """Seconds of the fastest of some steps."""
    best = math.inf
    for _ in range(times):
        start = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - start)
    return best
