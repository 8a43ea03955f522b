"""The denoising loss, its weights, and its multi-scale form.

Papers: Karras et al. 2022 (EDM); Hoogeboom et al. 2023 and 2024 (simple and simpler diffusion);
Hang et al. 2023 (min-SNR).

Every weight is a factor on ``|x0 - x0_hat|^2``, so that a loss on eps, on v or on EDM's scaled
target is the same loss with another weight, whatever the net predicts. l is the log-SNR.
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
    """How badly each picture is denoised: ``w(sigma) mean |x0 - D(x0 + sigma noise, sigma)|^2``.

    Args:
        denoiser: what to train.
        x0: clean pictures in [-1, 1], float [n, ...]; [n, c, h, w] for multiscale.
        sigma: noise level of each, [n].
        noise: standard normal, the shape of x0.
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
    """Mean of each image, [n, ...] -> [n] (without a copy, for any memory layout).

    Example:
        >>> mean_pixels(torch.ones(2, 3, 4, 4))
        tensor([1., 1.])
    """
    return values.mean(tuple(range(1, values.ndim)))


def multiscale_error(error: Tensor) -> Tensor:
    """Squared error over scales: ``sum over s in {32, 64, ..., d} of (1/s) mean (D_s[error])^2``.

    D_s averages down to s x s pixels. Scale 32 carries most weight, so coarse structure is not
    drowned by the many fine pixels of a large image. An image that cannot be halved down to 32
    exactly stops at the last scale that it reaches; below 64 pixels one scale is left.

    Args:
        error: x0_hat - x0, float [n, c, h, w]; s counts along the shorter side.

    Returns:
        One value per image, [n].

    Raises:
        ValueError: if error is not [n, c, h, w].

    Source: Hoogeboom et al. 2023 (simple diffusion), "Multiscale training loss".

    Example:
        >>> multiscale_error(torch.ones(1, 1, 64, 64)) == 1 / 32 + 1 / 64
        tensor([True])
    """
    if error.ndim != 4:
        raise ValueError(f"multiscale needs images [n, c, h, w], not {error.ndim} dimensions")
    total = mean_pixels(error.square()) / min(error.shape[-2:])
    while min(error.shape[-2:]) >= 2 * COARSEST and not any(d % 2 for d in error.shape[-2:]):
        error = F.avg_pool2d(error, 2)
        total = total + mean_pixels(error.square()) / min(error.shape[-2:])
    return total


# ---------------------------------------------------------------------------------------------
# Weights: frozen values, called with sigma [n], answering [n].


@dataclass(frozen=True)
class EpsWeight:
    """Makes it a loss on eps (DDPM's): ``e^l = 1 / sigma^2``. Nearly blind at high noise.

    Example:
        >>> EpsWeight()(torch.tensor([2.0]))
        tensor([0.2500])
    """

    def __call__(self, sigma: Tensor) -> Tensor:
        """Return the factor at each sigma."""
        return sigma.square().reciprocal()


@dataclass(frozen=True)
class VWeight:
    """Makes it a loss on v: ``1 + e^l = (1 + sigma^2) / sigma^2``.

    Example:
        >>> VWeight()(torch.tensor([2.0]))
        tensor([1.2500])
    """

    def __call__(self, sigma: Tensor) -> Tensor:
        """Return the factor at each sigma."""
        return 1 + sigma.square().reciprocal()


@dataclass(frozen=True)
class FlowWeight:
    """Makes it a loss on the flow velocity u = eps - x0: ``((1 + sigma) / sigma)^2``.

    Example:
        >>> FlowWeight()(torch.tensor([1.0]))
        tensor([4.])
    """

    def __call__(self, sigma: Tensor) -> Tensor:
        """Return the factor at each sigma."""
        return (1 + sigma.reciprocal()).square()


@dataclass(frozen=True)
class EDMWeight:
    """EDM's weight ``(sigma^2 + sd^2) / (sigma sd)^2 = 1 / c_out^2``: unit loss at the start.

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
            raise ValueError(f"sigma_data is {self.sigma_data}; it must be positive")

    def __call__(self, sigma: Tensor) -> Tensor:
        """Return the factor at each sigma."""
        return sigma.square().reciprocal() + 1 / self.sigma_data**2


@dataclass(frozen=True)
class SigmoidWeight:
    """Simpler diffusion's weight: ``e^l sigmoid(b - l) = e^b sigmoid(l - b)``, below e^b.

    Args:
        bias: b; about -1 at 128 pixels to -3 at 512.

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
    """Min-SNR weight: ``min(e^l, gamma)``.

    Args:
        gamma: the ceiling, 5 in the paper.

    Source: Hang et al. 2023 (min-SNR).

    Example:
        >>> MinSNRWeight()(torch.tensor([0.1, 2.0]))
        tensor([5.0000, 0.2500])
    """

    gamma: float = 5.0

    def __call__(self, sigma: Tensor) -> Tensor:
        """Return the factor at each sigma."""
        return sigma.square().reciprocal().clamp(max=self.gamma)
