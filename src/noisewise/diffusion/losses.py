"""The denoising loss, its weights, and its multi-scale form.

Papers: Karras et al. 2022 (EDM); Hoogeboom et al. 2023 and 2024 (simple and simpler diffusion);
Hang et al. 2023 (min-SNR).

Every weight is a factor on ``|x0 - x0_hat|^2``. A loss on eps, on v or on EDM's scaled target is
the same loss with another weight, and does not depend on what the net predicts. l is the log-SNR.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from noisewise.diffusion.denoiser import Denoiser
from noisewise.diffusion.noise import add_noise, logsnr_from_sigma

Weight = Callable[[Tensor], Tensor]

COARSEST = 32  # pixels: side of the coarsest scale of the multi-scale loss


def denoising_loss(
    denoiser: Denoiser,
    x0: Tensor,
    sigma: Tensor,
    noise: Tensor,
    weight: Weight,
    condition: Tensor | None = None,
    multiscale: bool = False,
) -> Tensor:
    """Return the denoising loss: ``w(sigma) mean |x0 - D(x0 + sigma noise, sigma)|^2``.

    Args:
        denoiser: the denoiser to train.
        x0: clean pictures in [-1, 1], float [n, ...]; [n, c, h, w] for multiscale.
        sigma: noise level of each, [n].
        noise: standard normal, with the shape of x0.
        weight: factor for each sigma; one of the weights below, or any function [n] -> [n].
        condition: class of each, int64 [n], or None.
        multiscale: use the sum over scales, see `multiscale_error`.

    Returns:
        One loss per picture, [n], a mean over its pixels.

    Source: Karras et al. 2022, equation 2, weighted as in equation 8.

    Example:
        >>> x0, noise = torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
        >>> denoising_loss(lambda x, sigma, c: x / 2, x0, torch.ones(2), noise, EpsWeight())
        tensor([0.2500, 0.2500])
    """
    error = denoiser(add_noise(x0, sigma, noise), sigma, condition) - x0
    squared = multiscale_error(error) if multiscale else mean_pixels(error.square())
    return weight(sigma) * squared


def mean_pixels(values: Tensor) -> Tensor:
    """Return the mean of each picture, [n, ...] -> [n] (without a copy, in any memory layout).

    Example:
        >>> mean_pixels(torch.ones(2, 3, 4, 4))
        tensor([1., 1.])
    """
    return values.mean(tuple(range(1, values.ndim)))


def multiscale_error(error: Tensor) -> Tensor:
    """Squared error over scales: ``sum over s in {32, 64, ..., d} of (1/s) mean (D_s[error])^2``.

    D_s averages down to s x s pixels. Scale 32 has the largest weight, so that the many fine pixels
    of a large picture do not dominate over coarse structure. If the size cannot be halved exactly
    down to 32, the sum stops at the last possible scale; below 64 pixels there is one scale.

    Args:
        error: x0_hat - x0, float [n, c, h, w]; s is the shorter side.

    Returns:
        One value per picture, [n].

    Raises:
        ValueError: if error is not [n, c, h, w].

    Source: Hoogeboom et al. 2023 (simple diffusion), "Multiscale training loss".

    Example:
        >>> multiscale_error(torch.ones(1, 1, 64, 64)) == 1 / 32 + 1 / 64
        tensor([True])
    """
    if error.ndim != 4:
        raise ValueError(
            f"the multiscale loss got {error.ndim} dimensions: give pictures [n, c, h, w]"
        )
    total = mean_pixels(error.square()) / min(error.shape[-2:])
    while min(error.shape[-2:]) >= 2 * COARSEST and not any(d % 2 for d in error.shape[-2:]):
        error = F.avg_pool2d(error, 2)
        total = total + mean_pixels(error.square()) / min(error.shape[-2:])
    return total


# ---------------------------------------------------------------------------------------------
# Weights: functions from sigma [n] to the factor [n].


@dataclass(frozen=True)
class EpsWeight:
    """Turns the loss into DDPM's loss on eps: ``e^l = 1 / sigma^2``. High noise hardly counts.

    Example:
        >>> EpsWeight()(torch.tensor([2.0]))
        tensor([0.2500])
    """

    def __call__(self, sigma: Tensor) -> Tensor:
        """Return the factor at each sigma."""
        return sigma.square().reciprocal()


@dataclass(frozen=True)
class VWeight:
    """Turns the loss into a loss on v: ``1 + e^l = (1 + sigma^2) / sigma^2``.

    Example:
        >>> VWeight()(torch.tensor([2.0]))
        tensor([1.2500])
    """

    def __call__(self, sigma: Tensor) -> Tensor:
        """Return the factor at each sigma."""
        return 1 + sigma.square().reciprocal()


@dataclass(frozen=True)
class FlowWeight:
    """Turns the loss into a loss on the flow velocity u = eps - x0: ``((1 + sigma) / sigma)^2``.

    Example:
        >>> FlowWeight()(torch.tensor([1.0]))
        tensor([4.])
    """

    def __call__(self, sigma: Tensor) -> Tensor:
        """Return the factor at each sigma."""
        return (1 + sigma.reciprocal()).square()


@dataclass(frozen=True)
class EDMWeight:
    """EDM's weight ``(sigma^2 + sd^2) / (sigma sd)^2 = 1 / c_out^2``: the loss starts at 1.

    Args:
        sigma_data: standard deviation sd of the pictures.

    Raises:
        ValueError: if sigma_data is not positive.

    Source: Karras et al. 2022, section 5. With sd = 1 it is `VWeight`.

    Example:
        >>> EDMWeight(sigma_data=0.5)(torch.tensor([0.5]))
        tensor([8.])
    """

    sigma_data: float

    def __post_init__(self) -> None:
        """Check sigma_data."""
        if not self.sigma_data > 0:
            raise ValueError(f"sigma_data is {self.sigma_data}: give a positive number")

    def __call__(self, sigma: Tensor) -> Tensor:
        """Return the factor at each sigma."""
        return sigma.square().reciprocal() + 1 / self.sigma_data**2


@dataclass(frozen=True)
class SigmoidWeight:
    """The weight of simpler diffusion: ``e^l sigmoid(b - l) = e^b sigmoid(l - b)``, below e^b.

    Args:
        bias: b, from about -1 at 128 pixels to -3 at 512.

    Source: Hoogeboom et al. 2024 (simpler diffusion): sigmoid(b - l) on the eps loss.

    Example:
        >>> SigmoidWeight(bias=0.0)(torch.tensor([1.0]))
        tensor([0.5000])
    """

    bias: float

    def __call__(self, sigma: Tensor) -> Tensor:
        """Return the factor at each sigma."""
        return math.exp(self.bias) * torch.sigmoid(logsnr_from_sigma(sigma) - self.bias)


@dataclass(frozen=True)
class MinSNRWeight:
    """The min-SNR weight: ``min(e^l, gamma)``.

    Args:
        gamma: the largest weight, 5 in the paper.

    Source: Hang et al. 2023 (min-SNR).

    Example:
        >>> MinSNRWeight()(torch.tensor([0.1, 2.0]))
        tensor([5.0000, 0.2500])
    """

    gamma: float = 5.0

    def __call__(self, sigma: Tensor) -> Tensor:
        """Return the factor at each sigma."""
        return sigma.square().reciprocal().clamp(max=self.gamma)
