"""Device, precision, memory layout and threads; no other file handles them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import Tensor, nn

from noisewise.nets.timing import fastest
from noisewise.training.devices.processes import Ranks

if TYPE_CHECKING:
    from noisewise.training.settings.budget import Budget
    from noisewise.training.settings.config import Precision

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Engine:
    """Where and how nets are computed.

    Args:
        device: device of the nets.
        dtype: precision inside the nets: float32, or bfloat16 with float32 `MasterWeights`.
        check_every: the loss is read every `check_every` steps. Reading from a GPU has to wait, so
            there it is more than 1; trouble is then found a few steps late, and training goes back.
        why: why this precision was chosen.
        speed: images/s of a training step as measured for this precision; 0: not measured.
        channels_last: whether convolution weights are channels-last during training.
        ranks: the processes that train together.

    Example:
        >>> Engine.choose("cpu").describe()
        'cpu, float32'
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    check_every: int = 1
    why: str = ""
    speed: float = 0.0
    channels_last: bool = True
    ranks: Ranks = field(default_factory=Ranks)

    @classmethod
    def choose(
        cls,
        device: str = "auto",
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        threads: int | None = None,
    ) -> Engine:
        """Choose device and precision on this machine.

        Raises:
            ValueError: if the device is missing, or the environment of a launcher is incomplete.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        where = _device(device)
        ranks = Ranks.join(where)
        on_gpu = where.type == "cuda"
        wide = precision == "float32" or (precision == "auto" and not _has_bfloat16(where))
        dtype = torch.float32 if wide else torch.bfloat16
        return cls(where, dtype, 10 if on_gpu else 1, ranks=ranks)

    def with_clock(self, clock: Callable[[], float]) -> Engine:
        """The same engine; its processes measure time by this clock.

        Example:
            >>> Engine.choose("cpu").with_clock(lambda: 3.0).ranks.clock()
            3.0
        """
        return replace(self, ranks=replace(self.ranks, own_clock=clock))

    def prepare(self, module: Module) -> Module:
        """Move a module to the device, its convolution weights in the chosen layout."""
        module = module.to(self.device)
        return channels_last(module) if self.channels_last else contiguous(module)

    def tensor(self, values: Tensor) -> Tensor:
        """Move a tensor to the device; pictures become channels-last."""
        layout = torch.channels_last if values.ndim == 4 else torch.preserve_format
        return values.to(self.device, memory_format=layout, non_blocking=True)

    def fastest_for(self, net: nn.Module, batch: int, seconds: float = 2.0) -> Engine:
        """Time a step of a net in float32 and bfloat16 on this machine; return the faster engine.

        Args:
            net: result of `nets.derive.build`.
            batch: images per step.
            seconds: approximate duration of the measurement.
        """
        part = len(range(batch)[self.ranks.part(batch)])
        timed = fastest(net, self.device, part, seconds)
        dtype = str(timed.dtype).removeprefix("torch.")
        speed = max(speed for _, speed in timed.images_per_second) * batch / part
        name, why, last, speed = self.ranks.agree([dtype, timed.reason, timed.channels_last, speed])
        dtype = getattr(torch, name)
        return replace(self, dtype=dtype, why=why, channels_last=last, speed=float(speed))

    def images_per_second(self, net: nn.Module, batch: int, seconds: float = 1.0) -> float:
        """Measure pictures per second, forward and backward, of all processes together.

        Args:
            net: result of `nets.derive.build`.
            batch: images per step.
            seconds: approximate duration of the measurement.
        """
        part = len(range(batch)[self.ranks.part(batch)])
        timed = fastest(net, self.device, part, seconds)
        speed = max(speed for _, speed in timed.images_per_second)
        return float(self.ranks.agree(speed * batch / part))

    def with_measured_precision(
        self, denoiser: nn.Module, batch: int, precision: Precision, budget: Budget
    ) -> Engine:
        """Return the engine with the fastest precision for a denoiser's net, if none was set.

        Nothing is measured with a budget of images, so that results are reproducible, nor for a
        user's own net, because it may need other arguments.

        Args:
            denoiser: the denoiser to train.
            batch: images per step.
            precision: the user's setting.
            budget: budget of the training.
        """
        net = getattr(denoiser, "net", None)
        ours = isinstance(net, nn.Module) and isinstance(getattr(net, "config", None), dict)
        if precision != "auto" or budget.seconds is None or not ours:
            return self
        assert isinstance(net, nn.Module)
        return self.fastest_for(net, batch)

    def generator(self, seed: int) -> torch.Generator:
        """Random generator on the device."""
        return torch.Generator(self.device).manual_seed(seed)

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Context in which torch's global generator (dropout, initial weights) starts from seed.

        Its state is restored afterwards, so the dropout of a step depends only on its seed.
        """
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield

    def synchronize(self) -> None:
        """Wait until the device is done, for timings."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def describe(self) -> str:
        """Device, precision and number of processes in words."""
        named = f"{self.device}, {str(self.dtype).removeprefix('torch.')}"
        named = f"{named} ({self.why})" if self.why else named
        return f"{named}, {self.ranks.world} processes" if self.ranks.world > 1 else named


def channels_last(module: Module) -> Module:
    """Make convolution weights channels-last, in place."""
    return module.to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]


def contiguous(module: Module) -> Module:
    """Make all weights contiguous (torch's default layout), in place."""
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()
    return module


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            local = os.environ.get("LOCAL_RANK")
            return torch.device("cuda" if local is None else f"cuda:{local}")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name!r} is unknown; use auto, cpu, cuda or mps") from None
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        raise ValueError(f"device {name} is not available on this machine; use cpu")
    return device


def _has_bfloat16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
