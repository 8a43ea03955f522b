"""Features of pictures in a trained denoiser: what it has learnt about a set is what matters in it.

Papers: Baranchuk et al. 2022, "Label-efficient semantic segmentation with diffusion models" (arXiv
2112.03126): the activations of a denoiser describe what a picture shows; Yang and Wang 2023 (arXiv
2303.09769) for their use as features of whole pictures.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noisewise.quality.denoiser_maps import DenoiserMaps

_SIGMA = 0.1
_GRID = 2  # cells per side


class DenoiserFeatures:
    """Activations of a denoiser on pictures with a little noise.

    The noise is the same for every picture. Of every block (a child of a ModuleList, or else every
    convolution and linear layer) ``mean(h)`` and ``sqrt(mean(h^2))`` over 2 x 2 cells are taken;
    tokens are laid out as the picture is, or taken as a whole. Where the net knows classes, every
    embedding gives its mean: the features must not depend on a class that nobody knows.

    Attributes:
        name: "denoiser-", the start of the SHA-256 of the weights, and the noise level: distances
            in the features of two nets cannot be compared.

    Example:
        >>> net = nn.Conv2d(1, 4, 3, padding=1)
        >>> features = DenoiserFeatures(net, call=lambda x, sigma, condition: net(x))
        >>> features(torch.zeros(5, 1, 16, 16)).shape
        torch.Size([5, 32])
    """

    def __init__(
        self,
        denoiser: nn.Module,
        sigma: float = _SIGMA,
        conditioned: bool = False,
        call: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None = None,
    ) -> None:
        """Find the blocks.

        Args:
            denoiser: ``D(x, sigma, condition) -> x0``.
            sigma: noise level, above 0, in the units of pictures in [-1, 1].
            conditioned: the denoiser needs a class for each picture.
            call: replaces the call of the denoiser.

        Raises:
            ValueError: if the denoiser has no layer that could be read.
        """
        self._maps = DenoiserMaps(denoiser, sigma, conditioned, call)
        self.name = f"denoiser-{self._maps.name}"

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of pictures, without gradient.

        Args:
            images: float [n, c, h, w] in [-1, 1], of four channels straight: the denoiser gets them
                premultiplied.

        Returns:
            float32 [n, d] on the device of the pictures.
        """
        return self._maps.pooled(images, _pooled)


def _pooled(h: Tensor) -> Tensor:
    means = F.adaptive_avg_pool2d(h, _GRID)
    energies = F.adaptive_avg_pool2d(h * h, _GRID).clamp_min(0).sqrt()
    return torch.cat([means.flatten(1), energies.flatten(1)], 1)
