"""Pictures larger than a denoiser was trained on: overlapping windows, blended at every call.

The large noisy picture is cut into windows of the trained size. Each is denoised, and the denoised
windows are added with smooth weights that sum to 1 everywhere. The grid of windows moves at random
from call to call, so no place stays at the border of a window and no seam can grow. It suits
pictures without one centre, such as textures: all that a window does not see is independent of it.

Only answers x0 are blended, never noisy pictures: averaging would take some of their noise away.

Papers: Bar-Tal et al. 2023, "MultiDiffusion" (the mean of overlapping windows is the answer nearest
to all of them); Jimenez 2023, "Mixture of diffusers" (smooth weights); Frolov et al. 2024,
"SpotDiffusion" (windows that move from step to step).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from noisewise.diffusion.denoiser import Denoiser


def windowed(
    denoiser: Denoiser,
    window: tuple[int, int],
    generator: torch.Generator,
    most: int = 64,
) -> Denoiser:
    """Return ``D_L(x) = sum_k w_k D(x_k)``: a denoiser for pictures of any larger size.

    x_k is the k-th window of x. Windows begin half a window apart, where the grid happens to lie in
    this call; the first and the last one are moved inwards to the border. w_k is
    ``sin^2(pi (i + 1/2) / height) sin^2(pi (j + 1/2) / width)``, divided by the sum of all windows
    at each pixel. A denoiser that looks at each pixel alone gives what it gives for the whole.

    Args:
        denoiser: D(x, sigma, condition) for pictures of the window's size, guided or not.
        window: its height and width, in pixels.
        generator: source of the grid's place: two whole numbers a call, whatever x is.
        most: windows in one call of `denoiser`, which bounds its memory; at least one a picture.

    Returns:
        ``D_L(x, sigma, condition)``; all windows of a picture have its sigma and its condition. It
        raises ValueError if x is smaller than a window.

    Source: Bar-Tal et al. 2023, with smooth weights and a grid that moves.

    Example:
        >>> half = windowed(lambda x, sigma, c: x / 2, (8, 8), torch.Generator().manual_seed(0))
        >>> x0 = half(torch.ones(2, 1, 13, 21), torch.ones(2))
        >>> x0.shape, bool((x0 - 0.5).abs().max() < 1e-6)
        (torch.Size([2, 1, 13, 21]), True)
    """

    def blended(x: Tensor, sigma: Tensor, condition: Tensor | None = None, /) -> Tensor:
        height, width = window
        check_larger((x.shape[-2], x.shape[-1]), window)
        shifts = torch.rand(2, generator=generator).tolist()
        rows, columns = (
            _axis(length, side, shift)
            for length, side, shift in zip(x.shape[-2:], window, shifts, strict=True)
        )
        places = [
            (top, left, (row[:, None] * column).to(x))
            for top, row in rows
            for left, column in columns
        ]
        x0, group = torch.zeros_like(x), max(1, most // len(x))
        for at in range(0, len(places), group):
            some = places[at : at + group]
            cut = [x[..., top : top + height, left : left + width] for top, left, _ in some]
            labels = None if condition is None else torch.cat([condition] * len(some))
            parts = denoiser(torch.cat(cut), sigma.repeat(len(some)), labels)
            for (top, left, weight), part in zip(some, parts.split(len(x)), strict=True):
                x0[..., top : top + height, left : left + width] += weight * part
        return x0

    return blended


def check_larger(size: tuple[int, int], window: tuple[int, int]) -> None:
    """Refuse a picture that is smaller than a window.

    Raises:
        ValueError: with the smallest size that works.

    Example:
        >>> check_larger((32, 100), (64, 64))
        Traceback (most recent call last):
        ...
        ValueError: 100 x 32 pixels are fewer than the model draws: use at least 64 x 64
    """
    if any(length < side for length, side in zip(size, window, strict=True)):
        height, width = size
        raise ValueError(
            f"{width} x {height} pixels are fewer than the model draws: use at least "
            f"{window[1]} x {window[0]}"
        )


def _axis(length: int, side: int, shift: float) -> list[tuple[int, Tensor]]:
    """Where the windows begin along one axis, each with its weights, float64 [side].

    The weights of all windows at a pixel sum to 1.
    """
    stride = max(1, side // 2)
    first = -int(shift * stride)
    last = length - side
    begins = sorted({min(max(at, 0), last) for at in range(first, last + stride, stride)})
    bump = (math.pi / side * (torch.arange(side, dtype=torch.float64) + 0.5)).sin().square()
    total = torch.zeros(length, dtype=torch.float64)
    for begin in begins:
        total[begin : begin + side] += bump
    return [(begin, bump / total[begin : begin + side]) for begin in begins]
