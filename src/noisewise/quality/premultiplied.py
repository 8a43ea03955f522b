"""Pictures with transparency: colour times opacity inside a model, straight colour outside.

A PNG holds straight colour: a pixel of any opacity has its full colour, and what cannot be seen has
one too. A net that draws straight colour learns those hidden colours, and where it errs at an edge
a fringe shows. So models see premultiplied pictures, in which what is transparent is black:
``p = rgb a``. Both are float [n, 4, h, w] in [-1, 1]: ``2 p - 1`` and ``2 a - 1``.

Papers: Porter and Duff 1984, "Compositing digital images", section 3 (premultiplied colour).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = 4
_LEAST = 0.5 / 255  # opacity below this is 0 in a file
_RINGS = 2  # pixels around what is visible that take the colour of their very neighbours
_NEIGHBOURS = ((0, 1), (2, 1), (1, 0), (1, 2), (0, 0), (0, 2), (2, 0), (2, 2))  # rows, columns


def premultiplied(images: Tensor) -> Tensor:
    """Return pictures as models see them: colour times opacity; other channels as they are.

    ``(rgb + 1) (a + 1) / 2 - 1``: what is transparent is black, whatever its hidden colour.

    Args:
        images: straight, float [n, c, h, w] in [-1, 1]; only with c = 4 there is opacity.

    Example:
        >>> hidden = torch.tensor([1.0, 0.2, -0.5, -1.0]).view(1, 4, 1, 1)
        >>> premultiplied(hidden).flatten()
        tensor([-1., -1., -1., -1.])
    """
    if images.shape[1] != CHANNELS:
        return images
    opacity = images[:, 3:]
    return torch.cat([(images[:, :3] + 1) * (opacity + 1) / 2 - 1, opacity], 1)


def without_hidden(images: Tensor) -> Tensor:
    """Return straight pictures in which what is transparent is black: noise then shows no colour.

    Args:
        images: float [n, c, h, w] in [-1, 1]; only with c = 4 there is opacity.

    Example:
        >>> without_hidden(torch.tensor([1.0, 0.2, -0.5, -1.0]).view(1, 4, 1, 1)).flatten()
        tensor([-1., -1., -1., -1.])
    """
    if images.shape[1] != CHANNELS:
        return images
    return torch.where(images[:, 3:] > -1, images, -1.0)


def straight(images: Tensor, binary: bool = False) -> Tensor:
    """Return the pictures of a model as a file holds them: the inverse of `premultiplied`.

    ``rgb = p / a``, at most 1. What is transparent takes the nearest visible colour, the most
    opaque one of several, so that filters (a game engine's, or of a page) make no fringe. It is
    always a colour of the picture, so a palette stays as it is. There are no ifs on values, so that
    the function can be a part of an exported graph.

    Args:
        images: premultiplied, float [n, 4, h, w] in [-1, 1]; values outside are clamped.
        binary: opacity becomes 0 below 1/2, else 1; False: it stays as it is, and what a file of
            8 bits would round to 0 becomes 0.

    Returns:
        float [n, 4, h, w] in [-1, 1].

    Example:
        >>> pixels = torch.tensor([[0.0, -0.5, -1.0, 0.0], [-0.9, -0.9, -1.0, -0.9]]).T
        >>> straight(pixels[None, :, None, :])[0, :, 0].T  # the second pixel has opacity 0.05
        tensor([[ 1.0000,  0.0000, -1.0000,  0.0000],
                [ 1.0000,  1.0000, -1.0000, -0.9000]])
        >>> straight(pixels[None, :, None, :], binary=True)[0, :, 0].T
        tensor([[ 1.,  0., -1.,  1.],
                [ 1.,  0., -1., -1.]])
    """
    share = ((images + 1) / 2).clamp(0, 1)
    colour, opacity = share[:, :3], share[:, 3:]
    least = 0.5 if binary else _LEAST
    seen = opacity >= least
    colour = torch.where(seen, (colour / opacity.clamp_min(least)).clamp_max(1), 0.0)
    opacity = torch.where(seen, torch.ones_like(opacity) if binary else opacity, 0.0)
    return torch.cat([_filled(colour, opacity), opacity], 1) * 2 - 1


def _filled(colour: Tensor, strength: Tensor) -> Tensor:
    """Colours [n, 3, h, w] with those where strength [n, 1, h, w] is 0 taken from near ones."""
    for _ in range(_RINGS):
        colour, strength = _ring(colour, strength)
    return _from_blocks(colour, strength)


def _ring(colour: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels without colour take that of their strongest neighbour."""
    height, width = colour.shape[2:]
    both = F.pad(torch.cat([colour, strength], 1), (1, 1, 1, 1))
    found = torch.zeros_like(both[:, :, 1:-1, 1:-1])
    for row, column in _NEIGHBOURS:
        beside = both[:, :, row : row + height, column : column + width]
        found = torch.where(beside[:, 3:] > found[:, 3:], beside, found)
    missing = strength <= 0
    return torch.where(missing, found[:, :3], colour), torch.where(missing, found[:, 3:], strength)


def _from_blocks(colour: Tensor, strength: Tensor) -> Tensor:
    """Pixels without colour take the strongest one of the smallest block that has any."""
    height, width = colour.shape[2:]
    if height == width == 1:
        return colour
    both = F.pad(torch.cat([colour, strength], 1), (0, width % 2, 0, height % 2))
    found = both[:, :, 0::2, 0::2]
    for row, column in ((0, 1), (1, 0), (1, 1)):
        beside = both[:, :, row::2, column::2]
        found = torch.where(beside[:, 3:] > found[:, 3:], beside, found)
    coarse = _from_blocks(found[:, :3], found[:, 3:])
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :height, :width]
    return torch.where(strength > 0, colour, fine)
