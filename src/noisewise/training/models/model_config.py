"""What a model folder's config.json says: the net, the pictures, and how to sample."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any, Literal, get_args

from torch import Tensor

from noisewise.diffusion import (
    HEUN,
    Prediction,
    Sampler,
    check_guidance,
    guided_calls,
    karras_sigmas,
    sampler_named,
)
from noisewise.pictures.alpha import Alpha
from noisewise.quality.flats import FlatValue, snapped
from noisewise.quality.premultiplied import premultiplied, straight
from noisewise.sizes import Size, as_size, written
from noisewise.training.models.limits import check_values
from noisewise.training.models.palette import NO_PALETTE, Palette
from noisewise.training.settings.config import Loss

FORMAT = 2
READABLE = (1, FORMAT)
_MOST_FLATS = 16
_GUIDED = (0.4, 6.0)  # times sigma_data: noise levels that are guided, the middle of a walk


@dataclass(frozen=True)
class SamplerSettings:
    """How a teacher draws: walk down Karras' noise levels to sigma_min, then denoise once.

    Attributes:
        name: one of `noisewise.diffusion.SAMPLERS`.
        sigma_max: first noise level.
        sigma_min: last noise level; the final denoise removes this noise.
        num_steps: number of noise levels.
        rho: spacing of the levels; 7 is EDM's.
        guidance: how far a picture is moved on towards its class; 1: not at all.
        guidance_interval: (low, high): noise levels above low, up to high, are guided.
        reason: why these values.

    Raises:
        ValueError: if the name is unknown or a number is out of range.

    Example:
        >>> SamplerSettings(name="ddim", num_steps=8).calls
        8
    """

    name: str = HEUN.name
    sigma_max: float = 40.0
    sigma_min: float = 0.3
    num_steps: int = 5
    rho: float = 7.0
    guidance: float = 1.0
    guidance_interval: tuple[float, float] = (0.2, 3.0)
    reason: str = "default: best of sigma_min 0.002, 0.1, 0.3, 0.6 on Fashion-MNIST"

    def __post_init__(self) -> None:
        """Refuse a sampler that cannot draw."""
        sampler_named(self.name)
        for name in ("sigma_max", "sigma_min", "rho"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"the sampler's {name} is {value}; use a finite number above 0")
        if self.sigma_min >= self.sigma_max:
            raise ValueError(
                f"the sampler's sigma_min is {self.sigma_min:g}; "
                f"it must be below its sigma_max, {self.sigma_max:g}"
            )
        if not isinstance(self.num_steps, int) or self.num_steps < 1:
            raise ValueError(
                f"the sampler's num_steps is {self.num_steps}; use a whole number, 1 or more"
            )
        low, high = self.guidance_interval
        object.__setattr__(self, "guidance_interval", (float(low), float(high)))  # JSON has lists
        check_guidance(self.guidance, self.guidance_interval)

    @property
    def sampler(self) -> Sampler:
        """The sampler of this name."""
        return sampler_named(self.name)

    @property
    def calls(self) -> int:
        """Network calls a picture, those of guidance among them.

        Example:
            >>> SamplerSettings(num_steps=5).calls, SamplerSettings(guidance=1.5).calls
            (9, 13)
        """
        return self.calls_for(self.num_steps)

    @property
    def described(self) -> str:
        """The sampler in words.

        Example:
            >>> SamplerSettings().described
            'heun, 9 calls: 5 noise levels from 40 to 0.3, rho 7'
        """
        guidance = ""
        if self.guidance != 1:
            low, high = self.guidance_interval
            guidance = f", guidance {self.guidance:g} from {high:.3g} to {low:.3g}"
        if self.num_steps == 1:
            calls = "1 call" if self.calls == 1 else f"{self.calls} calls"
            return f"{self.name}, {calls}: noise level {self.sigma_max:.3g}{guidance}"
        return (
            f"{self.name}, {self.calls} calls: {self.num_steps} noise levels "
            f"from {self.sigma_max:.3g} to {self.sigma_min:.3g}, rho {self.rho:g}{guidance}"
        )

    def chosen(self, sampler: str | Sampler | None) -> Sampler:
        """Return a sampler by name or value; None: the one of these settings.

        Raises:
            ValueError: if the name is unknown.
        """
        return self.sampler if sampler is None else sampler_named(sampler)

    def calls_for(
        self, num_steps: int, sampler: str | Sampler | None = None, guidance: float | None = None
    ) -> int:
        """Return the network calls that num_steps noise levels take, those of guidance among them.

        Args:
            num_steps: number of noise levels.
            sampler: another sampler, by name or value; None: this one.
            guidance: another strength, in the same interval; 1: none; None: that of the settings.

        Raises:
            ValueError: if num_steps is below 1, the sampler is unknown, or guidance is below 1.

        Example:
            >>> settings = SamplerSettings()  # 2 of 5 levels lie in the guided interval
            >>> settings.calls_for(5, "ddim"), settings.calls_for(5, "ddim", 1.5)
            (5, 7)
        """
        weight = self.guidance if guidance is None else guidance
        check_guidance(weight)
        if weight == 1:
            return self.chosen(sampler).num_calls(num_steps)
        levels = self.levels(num_steps)
        return guided_calls(self.chosen(sampler), levels, self.guidance_interval)

    def steps_for(self, calls: int | None = None, sampler: str | Sampler | None = None) -> int:
        """Return the number of noise levels for `calls` network calls, those of guidance left out.

        Args:
            calls: network calls a picture before guidance adds its own; None: as many as these
                settings take, or the nearest smaller number that the other sampler can take.
            sampler: another sampler, by name or value; None: this one.

        Raises:
            ValueError: if the sampler is unknown or cannot take exactly `calls`.

        Example:
            >>> SamplerSettings().steps_for(7), SamplerSettings().steps_for(sampler="ddpm")
            (4, 9)
        """
        if calls is not None:
            return self.chosen(sampler).steps_for(calls)
        return self.chosen(sampler).most_steps(self.sampler.num_calls(self.num_steps))

    def levels(self, num_steps: int | None = None) -> Tensor:
        """Return the noise levels, float32 [num_steps], falling; None: the settings' own number.

        Raises:
            ValueError: if num_steps is below 1.

        Example:
            >>> SamplerSettings(rho=1.0).levels(2)
            tensor([40.0000,  0.3000])
        """
        steps = self.num_steps if num_steps is None else num_steps
        return karras_sigmas(steps, self.sigma_min, self.sigma_max, self.rho)


def guided_interval(sigma_data: float) -> tuple[float, float]:
    """The noise levels that are guided where nobody chose others: the middle of a walk.

    Source: Kynkaanniemi et al. 2024 found (0.19, 1.61] and (0.28, 2.9] best for two nets with
    sigma_data 0.5; ours is as low and a little higher, as our walks have few levels.

    Example:
        >>> guided_interval(0.5)
        (0.2, 3.0)
    """
    low, high = _GUIDED
    return low * sigma_data, high * sigma_data


@dataclass(frozen=True)
class Flats:
    """Exact values that fill areas of the training pictures, such as a black ground.

    Attributes:
        values: 0 to 255 for each channel.
        share: of the real pixels that have one of them, in areas.
        level: drawn pixels within so many of 255 levels of a value take it; 0: they do not.
        reason: why this level.

    Raises:
        ValueError: if a number is out of range.
    """

    values: tuple[tuple[int, ...], ...] = ()
    share: float = 0.0
    level: float = 0.0
    reason: str = ""

    def __post_init__(self) -> None:
        """Refuse values that no picture can have."""
        parts = [part for value in self.values for part in value]
        if len(self.values) > _MOST_FLATS or not all(
            isinstance(part, int) and 0 <= part <= 255 for part in parts
        ):
            raise ValueError(
                f"the flats have the values {list(self.values)[:3]}; they need at most "
                f"{_MOST_FLATS} colours of whole numbers from 0 to 255"
            )
        if not (0 <= self.level <= 255 and 0 <= self.share <= 1):
            raise ValueError(
                f"the flats have level {self.level} and share {self.share}; the level is from 0 to "
                "255, the share from 0 to 1"
            )

    def applied(self, images: Tensor) -> Tensor:
        """Return drawn pictures, float [n, c, h, w] in [-1, 1], with the exact values."""
        if not (self.values and self.level):
            return images
        values = [FlatValue(value, 0.0, 0.0) for value in self.values]
        return snapped(images, values, self.level)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Flats:
        """Read what `asdict` wrote."""
        colours = tuple(tuple(value) for value in values.get("values", ()))
        return cls(
            colours,
            float(values.get("share", 0.0)),
            float(values.get("level", 0.0)),
            str(values.get("reason", "")),
        )


def finished(images: Tensor, flats: Flats, alpha: Alpha, palette: Palette = NO_PALETTE) -> Tensor:
    """Return what a net has drawn as files hold it: exact values, a palette, straight RGBA.

    Args:
        images: float [n, c, h, w] in [-1, 1].
        flats: exact values that fill areas.
        alpha: of the model.
        palette: of the model.

    Example:
        >>> import torch
        >>> clear = torch.tensor([-0.9, -1.0, -1.0, -0.9]).view(1, 4, 1, 1)
        >>> finished(clear, Flats(), "binary").flatten()
        tensor([-1., -1., -1., -1.])
    """
    if alpha == "none":
        return palette.applied(flats.applied(images))
    shown = straight(images, alpha == "binary")
    exact = palette.applied(flats.applied(shown))
    if exact is shown:
        return shown
    return straight(premultiplied(exact), alpha == "binary")  # neither leaves a hidden colour


@dataclass(frozen=True)
class ModelConfig:
    """What config.json of a model folder says.

    Older versions wrote no `noise_scale`, `loss`, `multiscale`, `alpha` and `later_sigmas`: their
    models have the defaults. With `alpha` "soft" or "binary", the net draws premultiplied RGBA.

    Attributes:
        sigma_init: noise level of a generator's first call.
        later_sigmas: of its later calls, falling; empty: it was trained for one call.
        two_call_sigma: of a second call, by the teacher; only of a generator of one call.

    Raises:
        ValueError: if the noise_scale, the loss, the alpha or the levels of the calls cannot be.
    """

    kind: Literal["teacher", "generator"]
    net: dict[str, Any]
    sigma_data: float
    size: Size
    channels: int
    noise: dict[str, Any]
    prediction: Prediction | Literal["denoiser"] = "edm"
    classes: tuple[str, ...] = ()
    label_histogram: tuple[int, ...] = ()
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    sigma_init: float | None = None
    two_call_sigma: float | None = None
    later_sigmas: tuple[float, ...] = ()
    sigma_range: tuple[float, float] | None = None
    noise_scale: float = 1.0
    loss: Loss = "edm"
    multiscale: bool = False
    flats: Flats = field(default_factory=Flats)
    alpha: Alpha = "none"
    palette: Palette = field(default_factory=Palette)
    stats: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a factor that is no factor, and an unknown loss."""
        if not (math.isfinite(self.noise_scale) and self.noise_scale > 0):
            raise ValueError(f"noise_scale is {self.noise_scale}; use a finite number above 0")
        if self.alpha not in get_args(Alpha) or (self.alpha != "none" and self.channels != 4):
            raise ValueError(
                f"the alpha is {self.alpha!r} with {self.channels} channels; it is none, or with 4 "
                "channels soft or binary"
            )
        if self.loss not in get_args(Loss):
            raise ValueError(
                f"the loss {self.loss!r} is unknown; use one of {', '.join(get_args(Loss))}"
            )
        self._check_calls()

    @property
    def call_sigmas(self) -> tuple[float, ...]:
        """The noise level of each of a generator's calls, falling; empty for a teacher."""
        return () if self.sigma_init is None else (self.sigma_init, *self.later_sigmas)

    def _check_calls(self) -> None:
        levels = self.call_sigmas
        falling = all(high > low for high, low in pairwise((*levels, 0.0)))
        if self.later_sigmas and not (levels and falling):
            raise ValueError(
                f"the noise levels of the calls are {list(levels)}; each must be lower than the "
                "one before, and above 0"
            )
        if self.later_sigmas and self.two_call_sigma is not None:
            raise ValueError("a generator of several calls has no two_call_sigma; leave it out")

    def as_shown(self, images: Tensor) -> Tensor:
        """Return what the net has drawn as files hold it: straight RGBA, if it is RGBA.

        Args:
            images: float [n, c, h, w] in [-1, 1].
        """
        return images if self.alpha == "none" else straight(images, self.alpha == "binary")

    def finished(self, images: Tensor) -> Tensor:
        """Return what the net has drawn, float [n, c, h, w] in [-1, 1], as people get it.

        This is the one place where exact flats and the palette come into pictures. Values that are
        not finite have no nearest colour: whoever draws refuses them.
        """
        if not images.isfinite().all():
            return images
        return finished(images, self.flats, self.alpha, self.palette)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        written_otherwise = {"size": written(self.size), "palette": self.palette.to_dict()}
        return {"format": FORMAT, **asdict(self), **written_otherwise}

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: object = "config.json") -> ModelConfig:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: if it has another format, or a value is missing or wrong.
        """
        if not isinstance(values, dict) or values.get("format") not in READABLE:
            raise ValueError(
                f"{where} is not a model of this version of noisewise (format {FORMAT})"
            )
        known = {f.name for f in fields(cls)}
        given = {name: value for name, value in values.items() if name in known}
        try:
            check_values(given)
            given["sampler"] = SamplerSettings(**given.get("sampler", {}))
            given["size"] = as_size(given.get("size"))
            given["flats"] = Flats.from_dict(given.get("flats", {}))
            given["palette"] = Palette.from_dict(given.get("palette", {}))
            for name in ("classes", "label_histogram", "later_sigmas"):
                given[name] = tuple(given.get(name, ()))
            if given.get("sigma_range") is not None:
                low, high = given["sigma_range"]
                given["sigma_range"] = (float(low), float(high))
            return cls(**given)
        except (TypeError, KeyError, ValueError, OverflowError, AttributeError) as error:
            raise ValueError(f"{where} does not describe a model: {error}") from error
