"""Ways to bring pictures onto a palette while they are drawn, beside snapping them at the end.

`softened` is a denoiser whose x0 leans towards the palette, the more the less noise is left.
`drawn_again` snaps a finished picture, adds a little noise and denoises it in a few calls, so that
what snapping tore apart can heal; the caller snaps it once more.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from noisewise.diffusion.denoiser import Denoiser

_AT_ONCE = 4_000_000  # distances
_LEAST = 0.5 / 255  # opacity: a pixel below it is not seen
AGAIN = (0.2, 0.1)  # noise levels of `drawn_again`, in units of sigma_data
SOFT = 0.35  # spread of a denoiser's error over that of the best one that knows a pixel alone


def softened(
    denoiser: Denoiser, colours: Tensor, sigma_data: float, soft: float = SOFT
) -> Denoiser:
    """Return a denoiser whose colours lean towards a palette, as far as it is sure of them.

    Each pixel becomes the mean of the palette with the weights exp(-|x0 - c|^2 / (2 s^2)), where
    ``s = soft * sigma * sigma_data / sqrt(sigma^2 + sigma_data^2)``: `soft` times the posterior
    spread of a normal pixel at this noise level. The mean counts by ``sigma_data^2 / (sigma^2 +
    sigma_data^2)``, so that much noise leaves x0 as it is: there s is wider than the palette, and
    its mean would be one colour for all.

    Args:
        denoiser: ``D(x, sigma, condition) -> x0``.
        colours: float [k, c] in [-1, 1], with as many channels as the pictures; of premultiplied
            RGBA [k, 3]: a pixel leans towards colours times its own opacity, which stays.
        sigma_data: standard deviation of the pictures.
        soft: a factor on s; a net that sees the whole picture is surer than one that sees a pixel.

    Example:
        >>> palette = torch.tensor([[-1.0], [1.0]])
        >>> leaning = softened(lambda x, sigma, c: x, palette, sigma_data=0.5)
        >>> x = torch.full((1, 1, 1, 1), 0.8)
        >>> [round(float(leaning(x, torch.tensor([s]), None)), 2) for s in (0.01, 0.3, 50.0)]
        [1.0, 0.95, 0.8]
    """

    def call(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        x0 = denoiser(x, sigma, condition)
        known = sigma_data**2 / (sigma**2 + sigma_data**2)
        spread = (soft * sigma * known.sqrt()).view(-1, 1, 1, 1)
        share = known.view(-1, 1, 1, 1).to(x0)
        if x0.shape[1] == colours.shape[1]:
            return torch.lerp(x0, _means(x0, spread, colours), share)
        # |p - a c| = a |p / a - c|: straight colours, and a spread that opacity divides.
        opacity = ((x0[:, 3:] + 1) / 2).clamp(_LEAST, 1)
        straight = (x0[:, :3] + 1) / opacity - 1
        means = (_means(straight, spread / opacity, colours) + 1) * opacity - 1
        return torch.cat([torch.lerp(x0[:, :3], means, share), x0[:, 3:]], 1)

    return call


def drawn_again(
    denoiser: Denoiser,
    pictures: Tensor,
    sigma_data: float,
    normal: Callable[[], Tensor],
    condition: Tensor | None = None,
) -> Tensor:
    """Return pictures after noise and one denoising at each of a few small noise levels.

    Args:
        denoiser: ``D(x, sigma, condition) -> x0``.
        pictures: on the palette, float [n, c, h, w] in [-1, 1].
        sigma_data: standard deviation of the pictures; the levels are 0.2 and 0.1 of it.
        normal: gives standard normal noise of the pictures' shape.
        condition: of each picture, or None.

    Example:
        >>> noise = torch.ones(1, 1, 1, 1)
        >>> drawn_again(lambda x, sigma, c: x, torch.zeros(1, 1, 1, 1), 0.5, lambda: noise).item()
        0.15000000596046448
    """
    for level in AGAIN:
        sigma = pictures.new_full((len(pictures),), level * sigma_data)
        pictures = denoiser(pictures + sigma[0] * normal(), sigma, condition).clamp(-1, 1)
    return pictures


def _means(images: Tensor, spread: Tensor, colours: Tensor) -> Tensor:
    """`_posterior_mean` of pictures [n, c, h, w]; the spread is [n, 1, h, w] or [n, 1, 1, 1]."""
    pixels = images.permute(0, 2, 3, 1)
    width = spread.permute(0, 2, 3, 1).expand(*pixels.shape[:3], 1).reshape(-1)
    mean = _posterior_mean(pixels.reshape(-1, pixels.shape[3]), width, colours.to(images))
    return mean.view(pixels.shape).permute(0, 3, 1, 2)


def _posterior_mean(pixels: Tensor, spread: Tensor, colours: Tensor) -> Tensor:
    """The mean colour of each pixel [n, c] over a palette [k, c], with normal weights."""
    found = []
    rows = max(1, _AT_ONCE // len(colours))
    for part, width in zip(pixels.split(rows), spread.split(rows), strict=True):
        square = torch.cdist(part.float(), colours.float()).square()
        weight = torch.softmax(-square / (2 * width.float().square()[:, None]), 1)
        found.append((weight @ colours.float()).to(part.dtype))
    return torch.cat(found)
