"""How unlike two pictures are, place by place, whatever small moves and changes of colour did.

Papers: Simard, LeCun and Denker 1992, "Efficient pattern recognition using a new transformation
distance" (a distance that small moves do not change). Here moves are tried one by one: of the whole
picture by a pixel, and then of each of 4 x 4 places by another one. Longer moves and half pixels
were tried: they find no more copies, since different pictures then look alike too.

Pixels are compared at a side of at most 32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from noisewise.quality.premultiplied import premultiplied

PLACES = 4  # per side
_SIDE = 32  # pixels of the longer side; larger pictures are reduced
_WHOLE, _PLACE = 1, 1  # pixels a picture may move, and a place beyond it
_COLOUR = 0.05  # how much the mean colour of a place counts, against 1 for its pattern
_DARK = 1e-3  # squared units: patterns fainter than this are not told apart
_THUMB = 8  # cells per side for finding candidates


def reduced(images: Tensor) -> Tensor:
    """Pictures as they are compared: float32 on the CPU, sides of at most 32, colour by opacity.

    Args:
        images: float [n, c, h, w] in [-1, 1]; of four channels the last is the opacity.

    Returns:
        float32 [n, c, h', w'], h' and w' multiples of 4 from 8 to 32.

    Example:
        >>> reduced(torch.zeros(2, 3, 64, 50)).shape
        torch.Size([2, 3, 32, 24])
    """
    scale = min(1.0, _SIDE / max(images.shape[2:]))
    sides = [max(8, PLACES * round(side * scale / PLACES)) for side in images.shape[2:]]
    return torch.cat([_reduced(part.detach().float().cpu(), sides) for part in images.split(256)])


def _reduced(x: Tensor, sides: list[int]) -> Tensor:
    x = premultiplied(x)
    if list(x.shape[2:]) == sides:
        return x
    return F.interpolate(x, size=sides, mode="bilinear", antialias=True, align_corners=False)


def thumbnails(x: Tensor) -> list[Tensor]:
    """Two cheap views of reduced pictures to find candidates in, each float32 [n, d].

    The colours of 8 x 8 cells; and the brightness of these cells without its mean, at length 1,
    for copies in other colours.
    """
    cells = F.adaptive_avg_pool2d(x, _THUMB)
    light = cells.mean(1).flatten(1)
    light = light - light.mean(1, keepdim=True)
    return [cells.flatten(1), light / light.norm(dim=1, keepdim=True).clamp_min(0.05)]


@dataclass(frozen=True)
class Described:
    """Reduced pictures, cut into places.

    Attributes:
        patterns: float32 [n, places, d], the softened pixels of a place without their mean colour,
            and the mean colour with a small weight.
        contrast: mean square of each place against the mean of the picture, float32 [n, places].
    """

    patterns: Tensor
    contrast: Tensor


def described(x: Tensor) -> Described:
    """Cut reduced pictures into places."""
    soft = _softened(x)
    away = (soft - soft.mean((2, 3), keepdim=True)).square().sum(1, keepdim=True)
    return Described(_patterns(soft), F.adaptive_avg_pool2d(away, PLACES).flatten(1))


def moved_patterns(x: Tensor) -> Tensor:
    """Patterns of reduced pictures after every small move, float32 [n, places, moves, d]."""
    soft = _softened(x)
    return torch.stack([_patterns(moved(soft, dy, dx)) for dy, dx in _moves()], 2)


def residuals(moved: Tensor, patterns: Tensor) -> Tensor:
    """Mean square difference of each place at the best move.

    The whole picture moves first, to where the sum over the places is least.

    Args:
        moved: float32 [n, places, moves, d], from `moved_patterns`.
        patterns: float32 [n, k, places, d], of k candidates for each picture.

    Returns:
        float32 [n, k, places].
    """
    mine = moved.square().sum(3)[..., None]
    theirs = patterns.square().sum(3).mT[:, :, None]
    every = mine + theirs - 2 * moved @ patterns.permute(0, 2, 3, 1)  # [n, places, moves, k]
    ways = torch.stack([every[:, :, chosen].amin(2) for chosen in _ways()], 1)
    way = ways.sum(2, keepdim=True).argmin(1, keepdim=True)
    found = ways.gather(1, way.expand(-1, 1, ways.shape[2], -1))[:, 0]
    return found.clamp_min(0).mT


def unlikeness(residual: Tensor, contrast: Tensor, others: Tensor) -> Tensor:
    """Two numbers for each pair: over the whole picture, and in its most different place.

    ``sqrt(sum_p r_p / sum_p (a_p + b_p))`` and ``sqrt(max_p r_p / (a_p + b_p + mean(a + b)))``,
    where r is the residual of a place, a and b its contrast in the two pictures: 0 for the same
    picture, about 1 for two that have nothing in common.

    Args:
        residual: float32 [n, k, places].
        contrast: of the pictures, float32 [n, places].
        others: of the candidates, float32 [n, k, places].

    Returns:
        float32 [n, k, 2].
    """
    both = contrast[:, None] + others
    whole = residual.sum(2) / (both.sum(2) + _DARK)
    worst = (residual / (both + both.mean(2, keepdim=True) + _DARK)).amax(2)
    return torch.stack([whole, worst], 2).sqrt()


def _moves() -> list[tuple[int, int]]:
    reach = range(-_WHOLE - _PLACE, _WHOLE + _PLACE + 1)
    return [(dy, dx) for dy in reach for dx in reach]


def _ways() -> list[list[int]]:
    """For each move of the whole picture, the moves that its places may make."""
    moves, whole = _moves(), range(-_WHOLE, _WHOLE + 1)
    return [
        [i for i, (y, x) in enumerate(moves) if abs(y - dy) + abs(x - dx) <= _PLACE]
        for dy in whole
        for dx in whole
    ]


def _softened(x: Tensor) -> Tensor:
    """Half a pixel of blur, so that edges need not fall on the same pixels."""
    channels = x.shape[1]
    line = x.new_tensor([0.25, 0.5, 0.25])
    kernel = (line[:, None] * line).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)


def moved(x: Tensor, dy: int, dx: int) -> Tensor:
    """Pictures moved by whole pixels; edges are repeated."""
    margin = max(abs(dy), abs(dx))
    height, width = x.shape[2:]
    padded = F.pad(x, (margin,) * 4, mode="replicate")
    return padded[:, :, margin + dy : margin + dy + height, margin + dx : margin + dx + width]


def _patterns(x: Tensor) -> Tensor:
    """Places [n, places, d]; squared distances between them are means over the pixels."""
    n, channels, height, width = x.shape
    rows, columns = height // PLACES, width // PLACES
    cut = x.reshape(n, channels, PLACES, rows, PLACES, columns).permute(0, 2, 4, 1, 3, 5)
    cut = cut.reshape(n, PLACES * PLACES, channels, rows * columns)
    mean = cut.mean(3, keepdim=True)
    pattern = (cut - mean) / math.sqrt(rows * columns)
    return torch.cat([pattern.flatten(2), math.sqrt(_COLOUR) * mean.flatten(2)], 2)
