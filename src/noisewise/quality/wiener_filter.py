"""The Wiener filter of a set of pictures: the best linear denoiser that knows their spectrum.

It is a yardstick for trained denoisers. It knows nothing of things in pictures, only how much every
frequency varies, so a net that is worse than it at some noise level has not learnt that level.

Paper: Wiener 1949; here in the cosine basis, with the covariance of the colours at each frequency.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CHUNK = 64


class WienerFilter:
    """``D(x, sigma) = m + S (S + sigma^2)^-1 (x - m)`` at each frequency of the cosine transform.

    m and S are mean and covariance of the colours at the frequency. The filter is a denoiser: it
    can stand wherever ``denoiser(x, sigma)`` can.

    Args:
        images: pictures that it is fitted to, float [n, c, h, w] in [-1, 1], n >= 2.

    Raises:
        ValueError: if images has another shape or fewer than 2 pictures.

    Source: Wiener 1949; Ahmed et al. 1974 for the cosine transform.

    Example:
        >>> images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> x, sigma = torch.ones(1, 1, 8, 8), torch.tensor([1e-3])
        >>> bool((WienerFilter(images)(x, sigma) - x).abs().max() < 1e-4)
        True
    """

    def __init__(self, images: Tensor) -> None:
        """Fit it; see the class."""
        if images.ndim != 4 or len(images) < 2:
            raise ValueError(
                f"images is {tuple(images.shape)}: give at least 2 pictures [n, c, h, w]"
            )
        height, width = images.shape[-2:]
        self._rows, self._columns = cosines(height), cosines(width)
        total = images.new_zeros(images.shape[1:], dtype=torch.float32)
        for part in images.split(_CHUNK):
            total += self._transformed(part.float()).sum(0)
        self._mean = total / len(images)
        channels = images.shape[1]
        second = torch.zeros(height, width, channels, channels)
        for part in images.split(_CHUNK):
            spectrum = self._transformed(part.float()) - self._mean
            second += torch.einsum("nchw,ndhw->hwcd", spectrum, spectrum)
        variances, self._axes = torch.linalg.eigh(second / (len(images) - 1))
        self._variances = variances.clamp_min(0)

    def __call__(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Denoise x, float [n, c, h, w], at sigma [n]; a condition changes nothing."""
        spectrum = self._transformed(x.float()) - self._mean
        turned = torch.einsum("hwcd,nchw->nhwd", self._axes, spectrum)
        kept = self._variances / (self._variances + sigma.float().square().view(-1, 1, 1, 1))
        spectrum = torch.einsum("hwcd,nhwd->nchw", self._axes, kept * turned)
        return self._back(spectrum + self._mean).to(x.dtype)

    def _transformed(self, x: Tensor) -> Tensor:
        return self._rows @ x @ self._columns.mT

    def _back(self, spectrum: Tensor) -> Tensor:
        return self._rows.mT @ spectrum @ self._columns


def cosines(size: int) -> Tensor:
    """Return the orthonormal cosine transform (DCT-II) as a matrix, float32 [size, size].

    Example:
        >>> matrix = cosines(4)
        >>> bool((matrix @ matrix.mT - torch.eye(4)).abs().max() < 1e-6)
        True
    """
    place = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * (place + 0.5) * place[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.float()
