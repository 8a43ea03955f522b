"""Draws: the distributions of the noise levels that training uses.

Papers: Karras et al. 2022 (EDM) for the log-normal; Hoogeboom et al. 2023 (simple diffusion) for
the shifted cosine; Zhou et al. 2024 (SiD) for the draw of the generator step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from noisewise.diffusion.noise import check_range, cosine_logsnr, karras_ramp, sigma_from_logsnr


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
class ShiftedCosine:
    """The draw of simple diffusion: t uniform on [0, 1] in `cosine_logsnr` at a picture size.

    Example:
        >>> ShiftedCosine(size=256).quantile(torch.tensor([0.5]))  # 256 / 64
        tensor([4.])
    """

    size: int
    reference: int = 64

    def sample(
        self, num_images: int, generator: torch.Generator, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw num_images noise levels, float32 [num_images], on device (None: the generator's)."""
        return self.quantile(_drawn(torch.rand, num_images, generator, device))

    def quantile(self, p: Tensor) -> Tensor:
        """Return sigma at shares p in [0, 1], with the shape of p."""
        return sigma_from_logsnr(cosine_logsnr(p, self.size, self.reference))


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


_DRAWS = (LogNormal, ShiftedCosine, KarrasUniform)


def draw_to_dict(draw: LogNormal | ShiftedCosine | KarrasUniform) -> dict[str, Any]:
    """Return a draw as a dict, ready for json.dumps; inverse of `draw_from_dict`.

    Example:
        >>> draw_to_dict(LogNormal(-0.8, 1.4))
        {'name': 'LogNormal', 'mean': -0.8, 'std': 1.4}
    """
    return {"name": type(draw).__name__, **asdict(draw)}


def draw_from_dict(values: dict[str, Any]) -> LogNormal | ShiftedCosine | KarrasUniform:
    """Make a draw from the result of `draw_to_dict`.

    Raises:
        ValueError: if the name or a field is unknown or missing.

    Example:
        >>> draw_from_dict({"name": "ShiftedCosine", "size": 128, "reference": 64})
        ShiftedCosine(size=128, reference=64)
    """
    fields = dict(values)
    name = fields.pop("name", None)
    for kind in _DRAWS:
        if kind.__name__ == name:
            try:
                return kind(**fields)
            except TypeError as error:
                raise ValueError(
                    f"{name} cannot be made from {fields}: use the result of draw_to_dict"
                ) from error
    known = ", ".join(kind.__name__ for kind in _DRAWS)
    raise ValueError(f"noise draw {name!r} is unknown: use one of {known}")
