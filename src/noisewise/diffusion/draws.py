"""Draws: the distributions of the noise levels that training uses.

Papers: Karras et al. 2022 (EDM) for the log-normal; Esser et al. 2024 for the logit-normal;
Hoogeboom et al. 2023 (simple diffusion) for the cosines; Zhou et al. 2024 (SiD) for the draw of the
generator step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from noisewise.diffusion.noise import (
    check_range,
    cosine_logsnr,
    interpolated_logsnr,
    karras_ramp,
    sigma_from_logsnr,
)


class Draw(Protocol):
    """A distribution of noise levels: ``draw.sample(n, generator) -> sigma [n]``."""

    def sample(
        self, num_images: int, generator: torch.Generator, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw a noise level for each picture."""
        ...

    def quantile(self, p: Tensor) -> Tensor:
        """Return the noise levels below which shares p of all draws are."""
        ...


@dataclass(frozen=True)
class LogNormal:
    """The draw of EDM: ``ln sigma ~ N(mean, std^2)``.

    Source: Karras et al. 2022, table 1 (mean -1.2, std 1.2 there).

    Example:
        >>> LogNormal(mean=0.0, std=1.0).quantile(torch.tensor([0.5]))
        tensor([1.])
    """

    mean: float = -1.2
    std: float = 1.2

    def sample(
        self, num_images: int, generator: torch.Generator, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw num_images noise levels, float32 [num_images], on device (None: the generator's).

        The numbers are drawn on the device of the generator, so a seed gives the same numbers for
        every `device`.
        """
        normal = _drawn(torch.randn, num_images, generator, device)
        return torch.exp(self.mean + self.std * normal)

    def quantile(self, p: Tensor) -> Tensor:
        """Return sigma at shares p in (0, 1), with the shape of p."""
        return torch.exp(self.mean + self.std * torch.special.ndtri(p))


@dataclass(frozen=True)
class LogitNormal:
    """The draw of rectified flows: ``t = sigmoid(N(mean, std^2))``, ``sigma = scale t / (1 - t)``.

    t is the time of the straight line ``(1 - t) x0 + t eps``. Shifting t to
    ``scale t / (1 + (scale - 1) t)`` multiplies sigma by scale. So it is the log-normal draw with
    mean ``mean + ln scale``, in other letters.

    Source: Esser et al. 2024 (Stable Diffusion 3), sections 3.1 and 5.3.2 (mean 0, std 1 there).

    Raises:
        ValueError: if std or scale is not positive.

    Example:
        >>> LogitNormal(scale=3.0).quantile(torch.tensor([0.5]))
        tensor([3.])
    """

    mean: float = 0.0
    std: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check std and scale."""
        if not (0 < self.std < math.inf and 0 < self.scale < math.inf):
            raise ValueError(
                f"std is {self.std}, scale is {self.scale}: give positive numbers for both"
            )

    def sample(
        self, num_images: int, generator: torch.Generator, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw num_images noise levels, float32 [num_images], on device (None: the generator's)."""
        return self._levels(_drawn(torch.randn, num_images, generator, device))

    def quantile(self, p: Tensor) -> Tensor:
        """Return sigma at shares p in (0, 1), with the shape of p."""
        return self._levels(torch.special.ndtri(p))

    def _levels(self, normal: Tensor) -> Tensor:
        return self.scale * torch.exp(self.mean + self.std * normal)  # t / (1 - t) of a sigmoid


@dataclass(frozen=True)
class ShiftedCosine:
    """The draw of simple diffusion: t uniform on [0, 1] in `cosine_logsnr` at a picture size.

    A size that is not whole says how far the pictures themselves shift the noise.

    Example:
        >>> ShiftedCosine(size=256).quantile(torch.tensor([0.5]))  # 256 / 64
        tensor([4.])
    """

    size: float
    reference: float = 64

    def sample(
        self, num_images: int, generator: torch.Generator, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw num_images noise levels, float32 [num_images], on device (None: the generator's)."""
        return self.quantile(_drawn(torch.rand, num_images, generator, device))

    def quantile(self, p: Tensor) -> Tensor:
        """Return sigma at shares p in [0, 1], with the shape of p."""
        return sigma_from_logsnr(cosine_logsnr(p, self.size, self.reference))


@dataclass(frozen=True)
class InterpolatedCosine:
    """The draw of simple diffusion between two shifts: t uniform in `interpolated_logsnr`.

    Example:
        >>> InterpolatedCosine(size=512).quantile(torch.tensor([0.5]))  # between 512 / 32 and 2
        tensor([5.6569])

    Raises:
        ValueError: if the ends cross (low > high), or a shift is outside the limits.
    """

    size: float
    low: float = 32
    high: float = 256

    def __post_init__(self) -> None:
        """Refuse ends that cross before the first draw."""
        self.quantile(torch.tensor(0.5))

    def sample(
        self, num_images: int, generator: torch.Generator, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw num_images noise levels, float32 [num_images], on device (None: the generator's)."""
        return self.quantile(_drawn(torch.rand, num_images, generator, device))

    def quantile(self, p: Tensor) -> Tensor:
        """Return sigma at shares p in [0, 1], with the shape of p."""
        return sigma_from_logsnr(interpolated_logsnr(p, self.low, self.high, self.size))


@dataclass(frozen=True)
class KarrasUniform:
    """The draw of SiD for the generator step: t uniform on [t_min, t_max] in Karras' variable.

    t starts at the small end of sigma: ``sigma = (lo + t (hi - lo))^rho``, where lo and hi are the
    rho-th roots of sigma_min and sigma_max. t_max = 0.8 excludes sigma above 24.4.

    Source: Zhou et al. 2024 (SiD), with the grid of Karras et al. 2022, equation 5.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max and 0 <= t_min <= t_max <= 1.

    Example:
        >>> KarrasUniform().quantile(torch.tensor([0.0, 1.0]))
        tensor([2.0000e-03, 2.4408e+01])
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    t_min: float = 0.0
    t_max: float = 0.8

    def __post_init__(self) -> None:
        """Check the two ranges."""
        check_range(self.sigma_min, self.sigma_max)
        if not 0 <= self.t_min <= self.t_max <= 1:
            raise ValueError(
                f"t_min is {self.t_min}, t_max is {self.t_max}: give 0 <= t_min <= t_max <= 1"
            )

    def sample(
        self, num_images: int, generator: torch.Generator, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw num_images noise levels, float32 [num_images], on device (None: the generator's)."""
        return self.quantile(_drawn(torch.rand, num_images, generator, device))

    def quantile(self, p: Tensor) -> Tensor:
        """Return sigma at shares p in [0, 1], with the shape of p."""
        t = self.t_min + p * (self.t_max - self.t_min)
        return karras_ramp(t, self.sigma_min, self.sigma_max, self.rho)


@dataclass(frozen=True)
class Extended:
    """Another draw whose highest levels reach a given one, so that a sampler may start there.

    The highest share of the draws is spread evenly in ln sigma, from where the other draw has this
    share left up to sigma_max. All lower levels stay as they are.

    Args:
        draw: the other draw.
        sigma_max: the highest level.
        share: of the draws that are spread.

    Raises:
        ValueError: if the other draw reaches sigma_max with more than the share, or share is not in
            (0, 1).

    Example:
        >>> Extended(LogNormal(), 40.0).quantile(torch.tensor([0.5, 1.0]))
        tensor([ 0.3012, 40.0000])
    """

    draw: LogNormal | LogitNormal | ShiftedCosine | InterpolatedCosine
    sigma_max: float
    share: float = 0.01

    def __post_init__(self) -> None:
        """Check that there is room above the other draw."""
        if not 0 < self.share < 1:
            raise ValueError(f"share is {self.share}: give a number between 0 and 1")
        start = self._start(torch.float64).item()
        if not start < self.sigma_max < math.inf:
            raise ValueError(
                f"the draw has its highest levels from {start:.3g} on, above sigma_max "
                f"{self.sigma_max:.3g}: use the draw as it is"
            )

    def sample(
        self, num_images: int, generator: torch.Generator, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw num_images noise levels, float32 [num_images], on device (None: the generator's)."""
        p = _drawn(torch.rand, num_images, generator, device)
        return self.quantile(p.clamp(1e-6, 1 - 1e-6))

    def quantile(self, p: Tensor) -> Tensor:
        """Return sigma at shares p in (0, 1], with the shape of p."""
        start = self._start(p.dtype).to(p.device)
        above = (1 - (1 - p) / self.share).clamp(min=0)  # of the highest share, from 0 to 1
        lower = self.draw.quantile(p.clamp(max=1 - self.share))
        return lower * (self.sigma_max / start) ** above

    def _start(self, dtype: torch.dtype) -> Tensor:
        return self.draw.quantile(torch.tensor(1 - self.share, dtype=dtype))


def stratified(
    draw: Draw,
    num_images: int,
    generator: torch.Generator,
    device: torch.device | str | None = None,
) -> Tensor:
    """Spread levels evenly over a batch: ``sigma_i = quantile((i + u_i) / n), u_i ~ U(0, 1)``.

    With the pictures in random order, the level of each picture follows the draw's distribution.
    Each batch has one level from every n-th part of it, so a loss that depends on the level varies
    less from batch to batch.

    Args:
        draw: the distribution.
        num_images: n.
        generator: source of u.
        device: device of the result; None: that of the generator.

    Returns:
        Float32 [num_images], rising.

    Source: Kingma et al. 2021 (VDM), appendix I.1, with a draw for every image.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> levels = stratified(LogNormal(), 4, generator)
        >>> bounds = LogNormal().quantile(torch.tensor([0.25, 0.5, 0.75]))
        >>> torch.bucketize(levels, bounds)
        tensor([0, 1, 2, 3])
    """
    u = _drawn(torch.rand, num_images, generator, None)
    p = (torch.arange(num_images, device=u.device) + u) / num_images
    # In an unbounded distribution the shares 0 and 1 have no finite level.
    levels = draw.quantile(p.clamp(1e-6, 1 - 1e-6))
    return levels if device is None else levels.to(device)


def _drawn(
    draw_numbers: Callable[..., Tensor],
    num_images: int,
    generator: torch.Generator,
    device: torch.device | str | None,
) -> Tensor:
    drawn = draw_numbers(
        num_images, generator=generator, device=generator.device, dtype=torch.float32
    )
    return drawn if device is None else drawn.to(device)


AnyDraw = LogNormal | LogitNormal | ShiftedCosine | InterpolatedCosine | KarrasUniform | Extended
_DRAWS = (LogNormal, LogitNormal, ShiftedCosine, InterpolatedCosine, KarrasUniform, Extended)


def draw_to_dict(draw: AnyDraw) -> dict[str, Any]:
    """Return a draw as a dict, ready for json.dumps; inverse of `draw_from_dict`.

    Example:
        >>> draw_to_dict(LogNormal(-0.8, 1.4))
        {'name': 'LogNormal', 'mean': -0.8, 'std': 1.4}
    """
    values = asdict(draw)
    if isinstance(draw, Extended):
        values["draw"] = draw_to_dict(draw.draw)
    return {"name": type(draw).__name__, **values}


def draw_from_dict(values: dict[str, Any]) -> AnyDraw:
    """Make a draw from the result of `draw_to_dict`.

    Raises:
        ValueError: if the name or a field is unknown, missing or out of range.

    Example:
        >>> draw_from_dict({"name": "ShiftedCosine", "size": 128, "reference": 64})
        ShiftedCosine(size=128, reference=64)
    """
    fields = dict(values)
    name = fields.pop("name", None)
    for kind in _DRAWS:
        if kind.__name__ == name:
            if isinstance(fields.get("draw"), dict):
                fields["draw"] = draw_from_dict(fields["draw"])
            try:
                return kind(**fields)
            except (TypeError, AttributeError) as error:
                raise ValueError(
                    f"{name} cannot be made from {fields}: use the result of draw_to_dict"
                ) from error
    known = ", ".join(kind.__name__ for kind in _DRAWS)
    raise ValueError(f"noise draw {name!r} is unknown: use one of {known}")
