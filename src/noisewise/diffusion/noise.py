"""Noise levels: sigma, log-SNR, schedules, and their shift for a picture size.

Papers: Karras et al. 2022, "Elucidating the design space of diffusion-based generative models"
(EDM); Hoogeboom, Heek, Salimans 2023, "simple diffusion".

One convention everywhere: ``x = x0 + sigma * noise``. Dividing the variance-preserving form
``x_t = alpha x0 + s eps`` (alpha^2 + s^2 = 1) by alpha gives the same, with
``sigma = s / alpha = exp(-logsnr / 2)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from noisewise.sizes import mean_side, sides, size_of

# ---------------------------------------------------------------------------------------------
# sigma and log-SNR


def per_image(values: Tensor, x: Tensor) -> Tensor:
    """Return one value per picture, shaped so that it broadcasts over the pixels of x.

    Args:
        values: one number per picture, shape [n].
        x: the pictures, shape [n, ...].

    Returns:
        A view of values of shape [n, 1, ..., 1].

    Example:
        >>> per_image(torch.ones(2), torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 1, 1, 1])
    """
    return values.reshape(-1, *(1,) * (x.ndim - 1))


def add_noise(x0: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Add noise to pictures: ``x = x0 + sigma * noise``.

    Args:
        x0: clean pictures in [-1, 1], shape [n, ...].
        sigma: noise level of each picture, shape [n].
        noise: standard normal, with the shape of x0.

    Returns:
        The noised pictures, with the shape of x0.

    Example:
        >>> add_noise(torch.zeros(1, 2), torch.tensor([3.0]), torch.ones(1, 2))
        tensor([[3., 3.]])
    """
    return torch.addcmul(x0, per_image(sigma, x0), noise)


def logsnr_from_sigma(sigma: Tensor) -> Tensor:
    """Return the log signal-to-noise ratio ``logsnr = -2 ln sigma`` (natural logarithm).

    Args:
        sigma: positive noise levels, any shape.

    Returns:
        The log-SNR, with the shape of sigma.

    Example:
        >>> logsnr_from_sigma(torch.tensor([1.0]))
        tensor([-0.])
    """
    return -2 * sigma.log()


def sigma_from_logsnr(logsnr: Tensor) -> Tensor:
    """Return the noise level ``sigma = exp(-logsnr / 2)``; inverse of `logsnr_from_sigma`.

    Args:
        logsnr: log signal-to-noise ratios, any shape.

    Returns:
        The noise levels, with the shape of logsnr.

    Example:
        >>> sigma_from_logsnr(torch.tensor([0.0]))
        tensor([1.])
    """
    return torch.exp(-0.5 * logsnr)


# ---------------------------------------------------------------------------------------------
# Schedules


def cosine_logsnr(
    t: Tensor | float,
    size: float = 64,
    reference: float = 64,
    logsnr_min: float = -15.0,
    logsnr_max: float = 15.0,
) -> Tensor:
    """Cosine schedule shifted to a picture size: ``-2 ln tan(pi t / 2) + 2 ln(reference / size)``.

    Averaging s x s pixels divides the noise variance by s^2, so a larger picture needs more noise
    for the same effect at its coarse scale. Pictures smaller than the reference are not shifted:
    that would remove noise. The limits hold for the shifted schedule. To meet them, the two ends of
    t are moved separately, so that t = 1/2 stays exactly at the shift; nothing is clamped.

    Args:
        t: time in [0, 1], 0 is clean; any shape.
        size: side of the pictures, in pixels (need not be whole).
        reference: side for which the plain cosine schedule is right, in pixels.
        logsnr_min: log-SNR at t = 1.
        logsnr_max: log-SNR at t = 0.

    Returns:
        The log-SNR at t, falling in t, with the shape of t.

    Raises:
        ValueError: if the shift is outside the limits.

    Source: Hoogeboom et al. 2023 (simple diffusion), "Adjusting noise schedules".

    Example:
        >>> cosine_logsnr(torch.tensor([0.0, 0.5, 1.0]), size=256)
        tensor([ 15.0000,  -2.7726, -15.0000])
    """
    t = _as_float(t)
    shift = min(0.0, 2 * math.log(reference / size))
    if not logsnr_min < shift < logsnr_max:
        raise ValueError(
            f"the noise schedule for size {size:g} has its middle at log-SNR {shift:.2f}, outside "
            f"the limits {logsnr_min} to {logsnr_max}: widen the limits"
        )
    # tan(pi/2 - a) = 1 / tan(a): the noisy half mirrors the clean half. The angle is measured from
    # the nearer end of t, where float32 is exact enough.
    clean = t < 0.5
    clean_end = math.atan(math.exp((shift - logsnr_max) / 2))
    noisy_end = math.atan(math.exp((logsnr_min - shift) / 2))
    end = torch.where(clean, torch.full_like(t, clean_end), torch.full_like(t, noisy_end))
    angle = end + 2 * torch.minimum(t, 1 - t) * (math.pi / 4 - end)
    distance = -2 * torch.tan(angle).log()
    return shift + torch.where(clean, distance, -distance)


def interpolated_logsnr(
    t: Tensor | float,
    low: float,
    high: float,
    size: float,
    logsnr_min: float = -15.0,
    logsnr_max: float = 15.0,
) -> Tensor:
    """Interpolate two shifted schedules: ``t logsnr_low(t) + (1 - t) logsnr_high(t)``.

    The schedule with the low reference has more noise and counts at the noisy end (t = 1); the one
    with the high reference counts at the clean end, where details are made.

    Args:
        t: time in [0, 1], 0 is clean; any shape.
        low: reference side of the schedule at the noisy end, in pixels.
        high: reference side of the schedule at the clean end, in pixels.
        size: side of the pictures, in pixels.
        logsnr_min: log-SNR at t = 1.
        logsnr_max: log-SNR at t = 0.

    Returns:
        The log-SNR at t, with the shape of t.

    Raises:
        ValueError: if low > high, or a shift is outside the limits.

    Source: Hoogeboom et al. 2023 (simple diffusion), "Adjusting noise schedules".

    Example:
        >>> interpolated_logsnr(0.5, low=32, high=256, size=512)  # -ln 16 - ln 2
        tensor(-3.4657)
    """
    if low > high:
        raise ValueError(f"low ({low:g}) is larger than high ({high:g}): swap them")
    t = _as_float(t)
    noisy = cosine_logsnr(t, size, low, logsnr_min, logsnr_max)
    clean = cosine_logsnr(t, size, high, logsnr_min, logsnr_max)
    return t * noisy + (1 - t) * clean


def karras_sigmas(
    num_steps: int,
    sigma_min: float,
    sigma_max: float,
    rho: float = 7.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Noise levels of a sampler: equally spaced in ``sigma^(1/rho)``, from sigma_max to sigma_min.

    Args:
        num_steps: number of levels; 1 gives only sigma_max (one call).
        sigma_min: the last level, positive.
        sigma_max: the first level.
        rho: 7 puts most levels at low noise, 1 spaces them equally.
        dtype: of the result.

    Returns:
        num_steps falling levels. The last one is not zero: samplers end with one denoising call.

    Raises:
        ValueError: if num_steps < 1 or not 0 < sigma_min < sigma_max.

    Source: Karras et al. 2022, equation 5.

    Example:
        >>> karras_sigmas(3, 0.5, 32.0, rho=1)
        tensor([32.0000, 16.2500,  0.5000])
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}: give at least 1")
    check_range(sigma_min, sigma_max)
    ramp = torch.linspace(1, 0, num_steps, dtype=torch.float64)
    sigmas = karras_ramp(ramp, sigma_min, sigma_max, rho)
    sigmas[0] = sigma_max
    if num_steps > 1:
        sigmas[-1] = sigma_min
    return sigmas.to(dtype)


def karras_ramp(t: Tensor, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """Return sigma at t in [0, 1], starting at the small end: ``(lo + t (hi - lo))^rho``.

    lo and hi are the rho-th roots of sigma_min and sigma_max, so t = 0 gives sigma_min.

    Source: Karras et al. 2022, equation 5, where t has the opposite direction.

    Example:
        >>> karras_ramp(torch.tensor([0.0, 0.5]), 1.0, 9.0, rho=2.0)
        tensor([1., 4.])
    """
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return (low + t * (high - low)) ** rho


def _as_float(t: Tensor | float) -> Tensor:
    t = torch.as_tensor(t)
    return t if t.is_floating_point() else t.to(torch.get_default_dtype())


def check_range(sigma_min: float, sigma_max: float) -> None:
    """Raise ValueError unless 0 < sigma_min < sigma_max.

    Example:
        >>> check_range(0.002, 80.0)
    """
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            f"sigma_min is {sigma_min}, sigma_max is {sigma_max}: give 0 < sigma_min < sigma_max"
        )


# ---------------------------------------------------------------------------------------------
# The shift measured on the pictures themselves


@dataclass(frozen=True)
class MeasuredShift:
    """The share of the pictures' variance that remains after averaging; see `measured_shift`.

    Attributes:
        size: side of the pictures, in pixels; of sides that differ, the geometric mean.
        reference: side for which the schedule without shift is right, in pixels.
        scales: block sides s = 1, 2, 4, ..., in pixels.
        survival: v(s) / v(1) at each scale, in [0, 1].
    """

    size: float
    reference: int
    scales: tuple[int, ...]
    survival: tuple[float, ...]

    @property
    def snr_gain(self) -> tuple[float, ...]:
        """The factor by which averaging raises the SNR: ``s^2 v(s) / v(1)`` (flat blocks: s^2)."""
        return tuple(s * s * v for s, v in zip(self.scales, self.survival, strict=True))

    @property
    def log_shift(self) -> float:
        """Shift of the log-SNR by the measured gain, ``-ln(s^2 v(s)/v(1))``, s = size / reference.

        Between two scales the gain is interpolated on log axes. It is never above 0 (no noise is
        removed), and 0 for pictures that are not larger than the reference.
        """
        s = self.size / self.reference
        if s <= 1 or len(self.scales) < 2:
            return 0.0
        octave = min(int(math.log2(s)), len(self.scales) - 2)
        low, high = (math.log(max(g, 1e-12)) for g in self.snr_gain[octave : octave + 2])
        return min(0.0, -(low + (math.log2(s) - octave) * (high - low)))

    @property
    def noise_scale(self) -> float:
        """The shift as a factor on sigma, ``exp(-log_shift / 2)``: at least 1."""
        return math.exp(-self.log_shift / 2)

    @property
    def formula_shift(self) -> float:
        """The shift by the formula, without measurement: ``2 ln(reference / size)``, at most 0."""
        return min(0.0, 2 * math.log(self.reference / self.size))


def measured_shift(images: Tensor, reference: int = 64) -> MeasuredShift:
    """Measure v(s) / v(1), the variance that remains after s x s averaging, for s = 1, 2, 4, ...

    simple diffusion assumes v(s) = v(1): every block is flat, and the SNR gain is s^2. Real
    pictures have texture, so averaging also removes signal and the right shift is smaller.

    Args:
        images: pictures, float [n, c, height, width], n >= 1, on any scale.
        reference: side for which the schedule without shift is right, in pixels.

    Returns:
        The curve, with `log_shift` and `formula_shift` derived from it. The variance is over
        pictures and pixels, about the mean of each channel, averaged over channels. The largest
        scale leaves at least two blocks per side.

    Raises:
        ValueError: if the shape is wrong, or all pixels are equal.

    Example:
        >>> flat = torch.randn(64, 1, 2, 2).repeat_interleave(4, 2).repeat_interleave(4, 3)
        >>> [round(v, 4) for v in measured_shift(flat).survival]
        [1.0, 1.0, 1.0]
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"images has type {images.dtype} and {images.ndim} dimensions: "
            "give a float tensor [n, channels, height, width]"
        )
    size = size_of(*images.shape[-2:])
    scales, variances = [1], [_variance(images)]
    if not variances[0] > 0:
        raise ValueError("all pixels have the same value: give pictures with different pixels")
    while min(sides(size)) // (2 * scales[-1]) >= 2:
        images = F.avg_pool2d(images, 2)  # averages of averages are exact for powers of two
        scales.append(2 * scales[-1])
        variances.append(_variance(images))
    survival = tuple(v / variances[0] for v in variances)
    return MeasuredShift(mean_side(size), reference, tuple(scales), survival)


def _variance(images: Tensor) -> float:
    return images.var(dim=(0, 2, 3), correction=0).mean().item()
