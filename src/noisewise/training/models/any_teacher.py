"""`as_teacher` makes a teacher of any denoiser, also of one that noisewise did not train."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from noisewise.diffusion import LogNormal, draw_to_dict, measured_shift
from noisewise.pictures.alpha import Alpha
from noisewise.quality.premultiplied import premultiplied
from noisewise.sizes import AnySize, as_size, mean_side, num_pixels
from noisewise.training.models.model_config import ModelConfig, SamplerSettings, guided_interval
from noisewise.training.models.models import Teacher
from noisewise.training.out_of_memory import is_out_of_memory
from noisewise.training.settings.recipes import TeacherRecipe

_USUAL = 0.5  # sigma_data of most pictures, until it is measured
_CALLS = 12  # of each picture that sigma_data is measured on
_FEWEST, _MOST, _PIXELS = 8, 64, 2**15  # how many pictures, by their pixels
_SMALL = 32  # pixels: larger pictures have a noise_scale


def as_teacher(
    denoiser: nn.Module,
    *,
    size: AnySize,
    channels: int,
    sigma_data: float | None = None,
    sigma_range: tuple[float, float] | None = None,
    noise_scale: float | None = None,
    classes: Sequence[str] = (),
    label_histogram: Sequence[int] = (),
    sampler: SamplerSettings | None = None,
    net: Mapping[str, Any] | None = None,
    alpha: Alpha = "none",
) -> Teacher:
    """Describe a denoiser, so that it can be sampled and distilled like a teacher of noisewise.

    Args:
        denoiser: module ``D(x, sigma, condition) -> x0`` with ``x = x0 + sigma * noise``: float
            [n, channels, height, width], sigma [n], condition int64 [n] or None. `from_edm`,
            `from_diffusers` and the conversions in `noisewise.diffusion` convert other models.
        size: side of the pictures in pixels, (height, width), or a text such as "48x32", which is
            WIDTHxHEIGHT.
        channels: number of channels of the pictures.
        sigma_data: standard deviation of the training pixels in [-1, 1]; None: measured on some
            pictures that the teacher draws, which takes 12 calls each.
        sigma_range: lowest and highest noise level that it was trained on; None: any noise level.
        noise_scale: factor on the noise levels of a distillation; None: 1, which fits pictures of
            up to 32 pixels; for larger ones measured on the same pictures, if sigma_data is.
        classes: names of the classes that it is conditioned on; empty for none.
        label_histogram: number of training pictures of each class; empty: equally many.
        sampler: how to draw from it; None: 18 Heun steps over its range, as in EDM.
        alpha: of four channels: "soft" or "binary" if they are premultiplied RGBA (see
            `noisewise.quality.premultiplied`); "none": they are something else.
        net: configuration from which `noisewise.load` can build it again; None: only `build=` can.

    Returns:
        A teacher for `noisewise.distill(run, teacher=...)`, `sample` and `evaluate`.

    Raises:
        ValueError: if a value is out of range, a test call of the denoiser fails, or what it
            returns has another shape or is not finite.

    Source: Karras et al. 2022 (EDM), table 1, for the default sampler.

    Example:
        >>> from noisewise.diffusion import from_edm
        >>> class Shrink(nn.Module):  # the best denoiser of normal pixels, std 0.5
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.spread = nn.Parameter(torch.tensor(0.5))
        ...     def forward(self, x, sigma):
        ...         return x / (1 + (sigma / self.spread) ** 2)[:, None, None, None]
        >>> teacher = as_teacher(from_edm(Shrink()), size=8, channels=1, sigma_data=0.5)
        >>> teacher.sample(4).shape
        torch.Size([4, 1, 8, 8])
    """
    low, high = _checked_range(sigma_range)
    histogram = tuple(label_histogram) or (1,) * len(classes)
    for name, value in (("sigma_data", sigma_data), ("noise_scale", noise_scale)):
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}; it must be above 0")
    if len(histogram) != len(classes) or any(count < 0 for count in histogram):
        raise ValueError(
            f"label_histogram needs one count, 0 or more, for each of the {len(classes)} classes"
        )
    usual = _USUAL if sigma_data is None else float(sigma_data)
    config = ModelConfig(
        kind="teacher",
        net=dict(net or {"name": type(denoiser).__name__}),
        sigma_data=usual,
        size=as_size(size),
        channels=channels,
        noise=_noise(usual, noise_scale or 1.0),
        prediction="denoiser",
        classes=tuple(classes),
        label_histogram=histogram,
        sampler=sampler or _of_edm(low, high, usual),
        sigma_range=None if sigma_range is None else (low, high),
        noise_scale=float(noise_scale or 1.0),
        alpha=alpha,
    )
    teacher = Teacher(denoiser, config).eval()
    try_out(teacher, (low, (low * high) ** 0.5, high))
    if sigma_data is None:
        _measure(teacher, noise_scale, None if sampler else (low, high))
    return teacher


def _noise(sigma_data: float, noise_scale: float) -> dict[str, Any]:
    """The draw of noise levels for the fake score, as a dict."""
    recipe = TeacherRecipe()
    mean = recipe.noise_mean + math.log(sigma_data * noise_scale)
    return draw_to_dict(LogNormal(mean, recipe.noise_std))


@torch.no_grad()
def _measure(teacher: Teacher, noise_scale: float | None, span: tuple[float, float] | None) -> None:
    """Measure sigma_data and noise_scale on pictures of few calls; span: of EDM's sampler."""
    count = max(_FEWEST, min(_MOST, _PIXELS // num_pixels(teacher.size)))
    pictures = teacher.sample(count, seed=0, calls=_CALLS, sampler="dpmpp_2m", guidance=1.0).cpu()
    if teacher.config.alpha != "none":
        pictures = premultiplied(pictures)
    spread = float(pictures.std())
    if not math.isfinite(spread):
        raise ValueError(
            "the denoiser draws pictures that are not finite; its weights or its range of noise "
            "levels are wrong"
        )
    if not spread > 0:
        raise ValueError(
            "the denoiser draws pictures without any difference; check its noise levels"
        )
    if noise_scale is None:
        large = mean_side(teacher.size) > _SMALL
        noise_scale = measured_shift(pictures, _SMALL).noise_scale if large else 1.0
    sampler = teacher.config.sampler if span is None else _of_edm(*span, spread)
    teacher.config = replace(
        teacher.config,
        sigma_data=spread,
        noise=_noise(spread, noise_scale),
        noise_scale=noise_scale,
        sampler=sampler,
    )


def _of_edm(low: float, high: float, sigma_data: float) -> SamplerSettings:
    """EDM's sampler over a range of noise levels."""
    guided = guided_interval(sigma_data)
    reason = "EDM's, table 1"
    return SamplerSettings("heun", high, low, 18, guidance_interval=guided, reason=reason)


def _checked_range(sigma_range: tuple[float, float] | None) -> tuple[float, float]:
    """Check the range; None becomes that of EDM."""
    if sigma_range is None:
        return 0.002, 80.0
    low, high = (float(sigma) for sigma in sigma_range)
    if not 0 < low < high < float("inf"):
        raise ValueError(
            f"sigma_range is ({low:g}, {high:g}); give the lowest and the highest noise level, "
            "both above 0"
        )
    return low, high


def try_out(teacher: Teacher, sigmas: Sequence[float] = ()) -> None:
    """Call a teacher at some noise levels, so that what is wrong is found before training.

    Args:
        teacher: any.
        sigmas: noise levels; none: the ends of its sampler, and between.

    Raises:
        ValueError: if a call fails, or gives another shape or values that are not finite.
    """
    low, high = teacher.sampler.sigma_min, teacher.sampler.sigma_max
    for sigma in sigmas or (low, (low * high) ** 0.5, high):
        _try(teacher, sigma)


@torch.no_grad()
def _try(teacher: Teacher, sigma: float) -> None:
    """Call the denoiser once."""
    if not any(True for _ in teacher.denoiser.parameters()):
        raise ValueError("the denoiser has no parameters; pass the torch.nn.Module that has them")
    x = teacher.noise(0, 0, 2) * sigma
    labels = teacher.labels(0, 0, 2, None)
    try:
        x0 = teacher(x, x.new_full((2,), sigma), labels)
    except (TypeError, RuntimeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"calling the denoiser with pictures of shape {tuple(x.shape)} and sigma of shape (2,) "
            f"failed: {error}"
        ) from error
    if not isinstance(x0, torch.Tensor) or x0.shape != x.shape:
        got = tuple(x0.shape) if isinstance(x0, torch.Tensor) else type(x0).__name__
        raise ValueError(
            f"the denoiser returned {got} for pictures of shape {tuple(x.shape)}; it must return a "
            "tensor of that shape"
        )
    if not x0.isfinite().all():
        raise ValueError(
            f"the denoiser returned values that are not finite for sigma {sigma:.3g}; its weights "
            "or its range of noise levels are wrong"
        )
