"""One measured shift of all noise levels: draws, loss, sampler and generator.

The recipes fit pictures of up to 32 pixels. A larger picture hides less under the same noise, by
the signal-to-noise ratio that averaging it down to 32 pixels gains. `noise_scale`, the root of this
gain, is measured on the pictures, and every noise level that is about whole pictures is multiplied
by it. Only the sampler's first level has a condition of its own, see `sampler_start`. Where sides
differ, their geometric mean counts in place of the side, see `noisewise.sizes.mean_side`.

Papers: Hoogeboom et al. 2023 and 2024 (simple and simpler diffusion) for the shift by size; Esser
et al. 2024 for the logit-normal. Measuring the shift, and starting the sampler where the mean
colours need it, are our own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from noisewise.diffusion import (
    AnyDraw,
    EDMWeight,
    EpsWeight,
    Extended,
    FlowWeight,
    InterpolatedCosine,
    KarrasUniform,
    LogitNormal,
    LogNormal,
    MeasuredShift,
    MinSNRWeight,
    ShiftedCosine,
    SigmoidWeight,
    VWeight,
    Weight,
    karras_sigmas,
)
from noisewise.pictures.noise_curve import mean_colour_sd, noise_curve
from noisewise.sizes import Size, mean_side, num_pixels, sides
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.settings.config import Loss, Schedule, TrainConfig

SMALL = 32  # pixels: mean side up to which nothing is shifted
_COSINE = 64  # pixels: side for which the plain cosine schedule is right
_MEASURED = 256  # pictures that the shift is measured on
_BYTES = 2**28  # and at most so many bytes of them, but not less than a quarter of the pictures
_START = 3.0  # first level of the sampler, in deviations of the mean colour of a picture
_RARELY = 1 / 4000  # draws of training above the first level of the sampler, at least


@dataclass(frozen=True)
class NoisePlan:
    """Every value of a teacher's training that is about noise levels.

    Attributes:
        noise_scale: factor on noise levels, see `measured_scale`.
        noise: draw of the noise levels.
        sigma_max: where the sampler starts.
        reasons: of each of these and of the loss, by the names in the plan.
    """

    noise_scale: float
    noise: AnyDraw
    sigma_max: float
    reasons: Mapping[str, str]


def plan_noise(
    config: TrainConfig, pictures: Pictures, sigma_data: float, finest: float | None = None
) -> NoisePlan:
    """Derive everything about noise levels from the pictures.

    Args:
        config: schedule, loss and recipe.
        pictures: training pictures.
        sigma_data: standard deviation of their pixels.
        finest: standard deviation of the weakest band, for a net that scales bands; None: no bands.

    Raises:
        ValueError: if the schedule cannot be shifted as far as these pictures need.
    """
    recipe, size = config.recipe, pictures.size
    large = mean_side(size) > SMALL
    images = _some(pictures) if large else None
    scale, why_scale = measured_scale(images, size)
    sigma_max, why_max = sampler_start(recipe.sigma_max, images, size)
    draw, why_draw = training_draw(config.schedule, recipe, sigma_data, scale, finest)
    if config.schedule != "lognormal" or large:
        bands = config.schedule == "lognormal" and finest is not None
        draw, why_more = reaching(draw, sigma_max, (recipe.high_noise or None) if bands else None)
        why_draw += why_more
    return NoisePlan(
        scale,
        draw,
        sigma_max,
        {
            "noise_scale": why_scale,
            "noise": why_draw,
            "sigma_max": why_max,
            "loss": _why_loss(config.loss, loss_weight(config.loss, sigma_data, scale)),
            "multiscale": _why_multiscale(config.multiscale, size),
        },
    )


# ---------------------------------------------------------------------------------------------
# What is measured


def shift_from_curve(size: Size, curve: Mapping[int, float]) -> MeasuredShift:
    """The shift from 32 pixels of pictures with this `noise_curve`.

    Example:
        >>> flat = {1: 1.0, 2: 1.0, 4: 1.0}  # averaging takes nothing from them
        >>> shift_from_curve(128, flat).noise_scale, shift_from_curve(28, flat).noise_scale
        (4.0, 1.0)
    """
    return MeasuredShift(mean_side(size), SMALL, tuple(curve), tuple(curve.values()))


def measured_scale(images: np.ndarray | None, size: Size) -> tuple[float, str]:
    """The factor on noise levels for these pictures, and its reason.

    ``noise_scale = s sqrt(v(s) / v(1))`` with s = side / 32; v(s) is the variance of the pictures
    after averaging s x s pixels.

    Args:
        images: uint8 [n, height, width, channels]; not needed up to 32 pixels.
        size: of the pictures; the geometric mean of its sides counts.

    Source: Hoogeboom et al. 2023 (simple diffusion), who take s; measured here.
    """
    side = mean_side(size)
    if images is None or side <= SMALL:
        return 1.0, f"no shift: the recipe's noise levels fit pictures of up to {SMALL} pixels"
    scale = shift_from_curve(size, noise_curve(images)).noise_scale
    return scale, (
        f"averaging these pictures down to {SMALL} pixels multiplies their signal-to-noise ratio "
        f"by {scale**2:.3g} (flat pictures: {(side / SMALL) ** 2:.3g}); its root multiplies the "
        "noise levels"
    )


def sampler_start(usual: float, images: np.ndarray | None, size: Size) -> tuple[float, str]:
    """Where the sampler starts: so high that mean colours vary as in real pictures.

    A Gaussian coefficient of standard deviation s comes out of an exact sampler with the share
    ``sigma_max / sqrt(sigma_max^2 + s^2)`` of its deviation. The mean colour of a picture of side d
    is such a coefficient, with s = d times the deviation of the mean colour; of h x w pixels, d is
    ``sqrt(h w)``. At 3 s it is 95 %.

    Args:
        usual: the lowest start.
        images: uint8 [n, height, width, channels]; not needed up to 32 pixels.
        size: of the pictures.

    Source: derived; it is the exact solution of the flow of a Gaussian.
    """
    if images is None or mean_side(size) <= SMALL:
        return usual, f"the recipe's, which fits pictures of up to {SMALL} pixels"
    deviation = mean_side(size) * mean_colour_sd(images)
    start = start_for(usual, deviation)
    why = f"{start / math.hypot(start, deviation):.0%} of the real spread of mean colours"
    if start == usual:
        return start, f"the recipe's: with it an exact sampler reaches {why}"
    old = usual / math.hypot(usual, deviation)
    return start, (
        f"{_START:g} times {deviation:.3g}, the deviation of a picture's mean colour times its "
        f"side: an exact sampler then reaches {why}, from {usual:g} only {old:.0%}"
    )


def start_for(usual: float, deviation: float) -> float:
    """The first level of a sampler, for a mean colour of this deviation as a coefficient.

    Example:
        >>> start_for(40.0, 10.0), start_for(40.0, 21.5)
        (40.0, 65.0)
    """
    return max(usual, float(math.ceil(_START * deviation)))


def reaching(draw: AnyDraw, sigma_max: float, share: float | None = None) -> tuple[AnyDraw, str]:
    """The draw, extended where training would hardly ever see the sampler's first level.

    Args:
        draw: of a schedule.
        sigma_max: the sampler's first level.
        share: of the draws that is spread up to there; None: a small one, and only if needed.

    Example:
        >>> reaching(LogNormal(0.0, 1.4), 40.0)[0] == LogNormal(0.0, 1.4)
        True
        >>> reaching(LogNormal(0.0, 0.8), 40.0)[0].sigma_max
        40.0
    """
    if isinstance(draw, KarrasUniform | Extended):
        return draw, ""
    rarely = _RARELY if share is None else share
    highest = draw.quantile(torch.tensor(1 - rarely, dtype=torch.float64)).item()
    if highest >= sigma_max:
        return draw, ""
    extended = Extended(draw, sigma_max) if share is None else Extended(draw, sigma_max, share)
    return extended, (
        f"; the highest {extended.share:.0%} of the draws is spread up to {sigma_max:g}, where the "
        "sampler starts"
    )


# ---------------------------------------------------------------------------------------------
# What follows from the factor


def training_draw(
    schedule: Schedule,
    recipe: TeacherRecipe,
    sigma_data: float,
    scale: float,
    finest: float | None = None,
) -> tuple[AnyDraw, str]:
    """The draw of a schedule, shifted by the measured factor, and its reason.

    Args:
        schedule: its name.
        recipe: mean and deviation of the log-normal draw, and the ends of the interpolated one.
        sigma_data: standard deviation of the pixels.
        scale: factor on noise levels.
        finest: standard deviation of the weakest band of a net that scales bands. The log-normal
            draw then reaches from this band to the whole: its centre is half way between the two,
            and its variance is larger by the square of half their distance in ln sigma.

    Raises:
        ValueError: if the shift passes the limits of a cosine schedule.
    """
    if schedule == "lognormal":
        mean = recipe.noise_mean + math.log(sigma_data)
        shift = math.log(scale)
        why = f"mean of ln sigma is ln sigma_data {recipe.noise_mean:+g}"
        more = f", plus {shift:.2f}, the logarithm of noise_scale" if scale > 1 else ""
        if finest is not None:
            half = (mean + shift - recipe.noise_mean - math.log(finest)) / 2
            why += f"{more}; minus {half:.2f}, half way to the finest band, and as much wider"
            return LogNormal(mean + shift - half, math.hypot(recipe.noise_std, half)), why
        return LogNormal(mean + shift, recipe.noise_std), why + more
    if schedule == "logit-normal":
        return LogitNormal(scale=sigma_data * scale), (
            "t = sigmoid(N(0, 1)) as in Esser et al. 2024, for pictures divided by sigma_data; "
            "noise_scale shifts it"
        )
    side = SMALL * scale  # a flat picture of this side has the measured shift
    if schedule == "cosine":
        return ShiftedCosine(side, _COSINE), (
            f"cosine for {_COSINE} pixels, shifted to {side:.4g}, the side of flat pictures with "
            "this noise_scale"
        )
    low, high = recipe.interpolated
    return InterpolatedCosine(side, low, high), (
        f"between the cosines for {low} pixels (noisy end) and {high} (clean end), both shifted to "
        f"{side:.4g}, the side of flat pictures with this noise_scale"
    )


def loss_weight(loss: Loss, sigma_data: float, scale: float) -> Weight:
    """The weight of a loss, as a factor on the squared error of x0.

    The sigmoid's bias is ``2 ln 2 - 2 ln(scale) - 2 ln(sigma_data / 0.5)``: 0 for flat pictures of
    64 pixels and deviation 0.5, -1.4 at 128 and -4.2 at 512. The paper has -1 and -3 there; real
    pictures, which are not flat, come near to that.

    Args:
        loss: its name.
        sigma_data: standard deviation of the pixels.
        scale: factor on noise levels.

    Example:
        >>> round(loss_weight("sigmoid", 0.5, 4.0).bias, 2)  # flat pictures of 128 pixels
        -1.39
    """
    if loss == "edm":
        return EDMWeight(sigma_data)
    if loss == "sigmoid":
        return SigmoidWeight(-2 * math.log(scale * sigma_data))
    return {"eps": EpsWeight, "v": VWeight, "flow": FlowWeight, "min-snr": MinSNRWeight}[loss]()


def generator_noise(recipe: StudentRecipe, progress: float, scale: float = 1.0) -> KarrasUniform:
    """Distribution of noise levels in the generator's loss.

    Args:
        recipe: the range and how its lower end falls.
        progress: share of the budget used, 0 to 1.
        scale: factor on the highest level; the lowest one is about single pixels and stays.
    """
    begin, end = recipe.t_falls
    left = min(1.0, max(0.0, (end - progress) / (end - begin))) if end > begin else 0.0
    return KarrasUniform(
        recipe.sigma_min, recipe.sigma_max * scale, t_min=recipe.t_min * left, t_max=recipe.t_max
    )


def fake_noise(recipe: StudentRecipe, teachers: AnyDraw) -> AnyDraw:
    """Distribution of noise levels in the fake score's loss: the teacher's, with more high noise.

    The normal draws are shifted. The cosines have a heavy tail of high noise and stay.
    """
    if isinstance(teachers, LogNormal | LogitNormal):
        return replace(teachers, mean=teachers.mean + recipe.fake_noise_shift)
    if isinstance(teachers, Extended):
        shifted: Any = fake_noise(recipe, teachers.draw)
        high = None if teachers.share == Extended.share else teachers.share
        return reaching(shifted, teachers.sigma_max, high)[0]
    return teachers


def generator_input(
    recipe: StudentRecipe,
    sigma_data: float,
    scale: float,
    sigma_range: tuple[float, float] | None,
) -> tuple[float, str]:
    """Noise level of the generator's input, and its reason.

    Args:
        recipe: the level in units of sigma_data.
        sigma_data: standard deviation of the teacher's training pixels.
        scale: the teacher's factor on noise levels.
        sigma_range: lowest and highest noise level that the teacher was trained on; None: any.
    """
    level = recipe.sigma_init_scale * sigma_data * scale
    if sigma_range is not None and level > sigma_range[1]:
        return sigma_range[1], "the highest noise level that the teacher was trained on"
    times = f" and the teacher's noise_scale {scale:.3g}" if scale != 1 else ""
    return level, (
        f"{recipe.sigma_init_scale:g} times sigma_data{times}; SiD uses 2.5 at sigma_data 0.5"
        + (" and 32 pixels" if times else "")
    )


def later_levels(
    recipe: StudentRecipe,
    sigma_init: float,
    sigma_data: float,
    scale: float,
    sigma_range: tuple[float, float] | None,
    calls: int,
) -> tuple[tuple[float, ...], str]:
    """Noise levels of a generator's calls after the first, and their reason.

    Karras' levels from sigma_init to ``last_call_scale sigma_data noise_scale``.

    Args:
        recipe: the last level in units of sigma_data.
        sigma_init: noise level of the first call.
        sigma_data: standard deviation of the teacher's training pixels.
        scale: the teacher's factor on noise levels.
        sigma_range: lowest and highest noise level that the teacher was trained on; None: any.
        calls: number of calls.

    Raises:
        ValueError: if the teacher knows no level below sigma_init.
    """
    if calls == 1:
        return (), "none in one call"
    last = recipe.last_call_scale * sigma_data * scale
    if sigma_range is not None:
        last = max(last, sigma_range[0])
    if last >= sigma_init:
        raise ValueError(
            f"this teacher knows no noise level between {last:.3g} and {sigma_init:.3g} for a "
            "second call; use --calls 1"
        )
    levels = karras_sigmas(calls, last, sigma_init).double().tolist()
    return tuple(levels[1:]), (
        f"Karras' levels down to {recipe.last_call_scale:g} times sigma_data; noise is added anew "
        "before each call (Zhou et al. 2025; Yin et al. 2024)"
    )


# ---------------------------------------------------------------------------------------------


def _some(pictures: Pictures) -> np.ndarray:
    """Some of the pictures, drawn at random, uint8 [n, height, width, channels]."""
    each = num_pixels(pictures.size) * pictures.channels
    count = min(_MEASURED, max(_MEASURED // 4, _BYTES // each))
    chosen = np.random.default_rng(0).permutation(len(pictures))[:count]
    return pictures.images[np.sort(chosen)]


def _why_loss(loss: Loss, weight: Weight) -> str:
    about = {
        "edm": "at the start the loss is 1 at every noise level",
        "eps": "the loss of DDPM: high noise hardly counts",
        "v": "the loss on v",
        "flow": "the loss on the velocity of a flow",
        "min-snr": "the signal-to-noise ratio, 5 at most",
    }
    if isinstance(weight, SigmoidWeight):
        return (
            f"bias {weight.bias:.2f}: minus the logarithm of (sigma_data times noise_scale) "
            "squared; noise far below sigma_data times noise_scale counts evenly"
        )
    return about[loss]


def _why_multiscale(multiscale: bool, size: Size) -> str:
    if not multiscale:
        return "one scale: the pixels"
    if min(sides(size)) < 2 * SMALL:
        return f"set by hand; below {2 * SMALL} pixels there is one scale: the pixels"
    return f"set by hand: the pixels and their averages, down to {SMALL} pixels"
