"""The error of the spectrum: is there as much coarse and fine detail as in real pictures?

Papers: Durall et al. 2020, "Watch your up-convolution: CNN based generative deep neural networks
are failing to reproduce spectral distributions" (arXiv 2003.01826): the radially averaged power
spectrum of generated pictures; Harris 1978, "On the use of windows for harmonic analysis".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noisewise.quality.eight_bits import rounded
from noisewise.quality.features import check_alike, check_images

_PIXELS = 2**23  # of one batch
# power of rounding to 8 bits: spectra are not compared below it, so a constant picture has one too
_ROUNDING = (2 / 255) ** 2 / 12


@dataclass(frozen=True)
class SpectrumError:
    """How far the spectrum of generated pictures is from that of real ones.

    Attributes:
        error: root mean square over frequencies, in dB; two sets of 500 real garments: 0.1-0.3.
        frequency: in cycles per pixel, above 0 and up to 0.5, float64 [r].
        generated: power of generated pictures at each frequency, in dB, float64 [r].
        real: that of real pictures, float64 [r].
    """

    error: float
    frequency: Tensor
    generated: Tensor
    real: Tensor

    @property
    def difference(self) -> Tensor:
        """Generated minus real in dB: below 0, generated pictures lack detail there."""
        return self.generated - self.real


def spectrum_error(generated: Tensor, real: Tensor) -> SpectrumError:
    """Return the error of the radially averaged power spectrum.

    ``sqrt(mean_f (10 log10(P_generated(f) / P_real(f)))^2)`` with the powers of `power_spectrum`.

    Args:
        generated: float [n, c, h, w] in [-1, 1].
        real: float [m, c, h, w].

    Raises:
        ValueError: if the sizes of the pictures differ, or shape or type do not fit.

    Source: Durall et al. 2020, section 3.1 (the radial average).

    Example:
        >>> real = torch.randn(50, 1, 16, 16, generator=torch.Generator().manual_seed(0)) / 5
        >>> round(spectrum_error(real / 2, real).error, 1)
        6.0
    """
    check_alike(generated, "generated", real, "real")
    frequency, made = power_spectrum(generated)
    _, true = power_spectrum(real)
    made, true = 10 * made.log10(), 10 * true.log10()
    return SpectrumError(float((made - true).square().mean().sqrt()), frequency, made, true)


def power_spectrum(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the radially averaged power spectrum of pictures, the mean over all.

    Grey is the mean of the colours; colour counts by its opacity, and opacity is a second picture
    whose power is added. The picture's mean is subtracted, and a Hann window is applied. Without
    it, the jump from one edge of a picture to the opposite one leaks into all frequencies: noise
    under a slope of brightness is then seen too late. Pictures are rounded to 8 bits.

    Args:
        images: float [n, c, h, w] in [-1, 1], c 1, 3 or 4.

    Returns:
        Frequencies in cycles per pixel, float64 [r], r = min(h, w) // 2, and the mean power in the
        ring of each, float64 [r]: white noise has its variance at every frequency.

    Raises:
        ValueError: if shape or type do not fit.

    Source: Harris 1978, equation 23 (the window).

    Example:
        >>> noise = torch.randn(100, 1, 16, 16, generator=torch.Generator().manual_seed(0)) / 5
        >>> frequency, power = power_spectrum(noise)
        >>> frequency[-1].item(), power.shape, round(power.mean().item(), 2)
        (0.5, torch.Size([8]), 0.04)
    """
    check_images(images, "images")
    if images.shape[1] not in (1, 3, 4):
        raise ValueError(
            f"Pictures have {images.shape[1]} channels: give 1 (grey), 3 (RGB) or 4 (RGBA)."
        )
    height, width = images.shape[2:]
    window = (_hann(height)[:, None] * _hann(width)).to(images.device)
    total = torch.zeros(height, width, dtype=torch.float64)
    for part in images.split(max(1, _PIXELS // (height * width))):
        x = _planes(rounded(part))
        x = (x - (x * window).sum((2, 3), keepdim=True) / window.sum()) * window
        total += torch.fft.fft2(x).abs().square().sum((0, 1), dtype=torch.float64).cpu()
    power = total / len(images) / float(window.square().sum()) + _ROUNDING
    return _rings(power)


def _hann(side: int) -> Tensor:
    return torch.sin((torch.arange(side) + 0.5) * torch.pi / side).square()


def _planes(images: Tensor) -> Tensor:
    """Grey, and opacity where there is any: float [n, 1 or 2, h, w]."""
    grey = images[:, :3].mean(1, keepdim=True)
    if images.shape[1] != 4:
        return grey
    opacity = images[:, 3:]
    return torch.cat([(grey + 1) * (opacity + 1) / 2 - 1, opacity], 1)


def _rings(power: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of [h, w] over rings as wide as one cycle over the shorter side; none is empty."""
    height, width = power.shape
    shorter = min(height, width)
    down, right = (torch.fft.fftfreq(n, dtype=torch.float64) for n in (height, width))
    ring = ((down[:, None].square() + right.square()).sqrt() * shorter).round().long().flatten()
    count = torch.bincount(ring)[1 : shorter // 2 + 1]
    total = torch.bincount(ring, weights=power.flatten())[1 : shorter // 2 + 1]
    return torch.arange(1, shorter // 2 + 1, dtype=torch.float64) / shorter, total / count
