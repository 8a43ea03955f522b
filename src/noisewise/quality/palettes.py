"""The palette of a set of pictures: all its colours, or the few that are nearest to all of them.

Many colours become few by median cut and some rounds of k-means, in Oklab, each colour with its
number of pixels. Each group is then named by its most frequent colour, so that exact black stays
black and every colour of the palette is one that somebody drew with.

Papers: Heckbert 1982 for median cut; Lloyd 1982 for k-means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from noisewise.quality.colours import check_pictures, codes, colours_of_codes
from noisewise.quality.oklab import oklab

_PIXELS = 8_000_000  # whose colours are counted
_MOST_DIFFERENT = 2**15  # colours that k-means sees; more are joined where they are nearly equal
_ROUNDS = 6
_NEAR = 4_000_000  # distances at once


@dataclass(frozen=True, eq=False)
class CountedColours:
    """Colours with their number of pixels, the most frequent first.

    Attributes:
        colours: uint8 [k, 3].
        counts: int64 [k].
    """

    colours: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        """Number of colours."""
        return len(self.colours)


def counted_colours(images: np.ndarray) -> CountedColours:
    """Count the pixels of each colour; of many pictures, in evenly spaced ones.

    Args:
        images: uint8 [n, height, width, channels] with 1, 3 or 4 channels. Transparent pixels
            have no colour.

    Raises:
        ValueError: if shape or type do not fit.

    Example:
        >>> pixels = np.array([0, 0, 0, 255], np.uint8).reshape(1, 2, 2, 1)
        >>> found = counted_colours(pixels)
        >>> found.colours.tolist(), found.counts.tolist()
        ([[0, 0, 0], [255, 255, 255]], [3, 1])
    """
    check_pictures(images)
    pixels = images.shape[1] * images.shape[2]
    step = max(1, -(-len(images) * pixels // _PIXELS))
    found, counts = np.unique(codes(np.ascontiguousarray(images[::step])), return_counts=True)
    opaque = found < 1 << 24
    found, counts = found[opaque], counts[opaque]
    order = np.argsort(-counts, kind="stable")
    return CountedColours(colours_of_codes(found[order]), counts[order])


def all_colours(used: np.ndarray) -> np.ndarray:
    """The colours of `used_colours`, uint8 [k, 3], dark ones first.

    Example:
        >>> used = np.zeros((1 << 24) + 1, bool)
        >>> used[[0xFFFFFF, 0x102030, 1 << 24]] = True
        >>> all_colours(used).tolist()
        [[16, 32, 48], [255, 255, 255]]
    """
    colours = colours_of_codes(np.flatnonzero(used[:-1]))
    return by_lightness(colours)


def by_lightness(colours: np.ndarray) -> np.ndarray:
    """The same colours, uint8 [k, 3], dark ones first."""
    if not len(colours):
        return colours
    order = torch.argsort(oklab(torch.from_numpy(colours))[:, 0], stable=True)
    return colours[order.numpy()]


def few_colours(found: CountedColours, number: int) -> np.ndarray:
    """The colours that are nearest to all pixels, each of them one that occurs.

    Args:
        found: colours with their number of pixels.
        number: how many at most.

    Returns:
        uint8 [at most number, 3], dark ones first.

    Example:
        >>> shades = np.array([[0, 0, 0], [2, 2, 2], [250, 0, 0], [252, 0, 0]], np.uint8)
        >>> few_colours(CountedColours(shades, np.array([9, 1, 1, 9])), 2).tolist()
        [[0, 0, 0], [252, 0, 0]]
    """
    if len(found) <= number:
        return by_lightness(found.colours)
    joined = _joined(found)
    points = oklab(torch.from_numpy(joined.colours))
    weight = torch.from_numpy(joined.counts).float()
    group = _median_cut(points, weight, number)
    for _ in range(_ROUNDS):
        size = torch.zeros(number).index_add_(0, group, weight)
        sums = torch.zeros(number, 3).index_add_(0, group, points * weight[:, None])
        centres = (sums / size.clamp_min(1e-9)[:, None])[size > 0]
        group = nearest_rows(points, centres)[0]
    _, named = np.unique(group.numpy(), return_index=True)  # the first one is the most frequent
    return by_lightness(joined.colours[named])


def colour_error(found: CountedColours, colours: np.ndarray) -> float:
    """Root mean square distance in Oklab of all pixels from the nearest of some colours.

    Example:
        >>> found = CountedColours(np.array([[0, 0, 0], [255, 255, 255]], np.uint8), np.ones(2))
        >>> round(colour_error(found, found.colours[:1]), 3)
        0.707
    """
    joined = _joined(found)
    points = oklab(torch.from_numpy(joined.colours))
    square = nearest_rows(points, oklab(torch.from_numpy(colours)))[1]
    weight = torch.from_numpy(joined.counts).float()
    return float(((square * weight).sum() / weight.sum()).sqrt())


def nearest_rows(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return which row is nearest to each point, and the squared distance to it.

    Args:
        points: float [n, d].
        rows: float [k, d].

    Returns:
        int64 [n], and float [n]; the distance is exactly 0 where a point equals a row.

    Example:
        >>> nearest_rows(torch.tensor([[0.0], [0.9]]), torch.tensor([[0.0], [1.0]]))[0].tolist()
        [0, 1]
    """
    which, square = [], []
    for part in points.split(max(1, _NEAR // len(rows))):
        apart = (part[:, None, 0] - rows[None, :, 0]).square_()
        for at in range(1, points.shape[1]):
            apart += (part[:, None, at] - rows[None, :, at]).square_()
        least, index = apart.min(1)
        which.append(index)
        square.append(least)
    return torch.cat(which), torch.cat(square)


def _joined(found: CountedColours) -> CountedColours:
    """At most so many colours that k-means is quick: nearly equal ones become the first of them."""
    shift = 0
    colours, counts = found.colours, found.counts
    while len(colours) > _MOST_DIFFERENT:
        shift += 1
        coarse = found.colours.astype(np.int64) >> shift
        code = (coarse[:, 0] << 16) | (coarse[:, 1] << 8) | coarse[:, 2]
        _, first, group = np.unique(code, return_index=True, return_inverse=True)
        order = np.argsort(first)
        colours = found.colours[first[order]]
        counts = np.bincount(group, weights=found.counts).astype(np.int64)[order]
    order = np.argsort(-counts, kind="stable")
    return CountedColours(colours[order], counts[order])


def _median_cut(points: Tensor, weight: Tensor, number: int) -> Tensor:
    """A group for each point, int64 [n]: the box with the largest error is cut, again and again."""
    group = torch.zeros(len(points), dtype=torch.int64)
    boxes = [_box(points, weight, torch.arange(len(points)))]
    while len(boxes) < number:
        at = max(range(len(boxes)), key=lambda i: boxes[i][0])
        error, members, axis = boxes[at]
        if error <= 0:
            break
        members = members[points[members, axis].argsort(stable=True)]
        share = weight[members].cumsum(0)
        cut = int((share < share[-1] / 2).sum())
        cut = min(max(cut, 1), len(members) - 1)
        boxes[at] = _box(points, weight, members[:cut])
        boxes.append(_box(points, weight, members[cut:]))
        group[members[cut:]] = len(boxes) - 1
    return group


def _box(points: Tensor, weight: Tensor, members: Tensor) -> tuple[float, Tensor, int]:
    """The error of a box, its members, and the axis along which it is longest."""
    inside, w = points[members], weight[members][:, None]
    mean = (inside * w).sum(0) / w.sum()
    along = ((inside - mean).square() * w).sum(0)
    error = float(along.sum()) if len(members) > 1 else 0.0
    return error, members, int(along.argmax())
