"""Kinds: groups of similar pictures, found by k-means and used like classes.

A net that knows the kind of a picture has less to guess. A generator that draws each kind as often
as it occurs cannot drift to bright or dark pictures: the share of each kind is given and need not
be learnt. Adaloglou et al. 2024, "Rethinking cluster-conditioned diffusion models" (arXiv
2403.00570), use clusters in place of classes; they cluster the features of a trained network. Here
the pictures themselves are clustered, reduced to 8 x 8 cells. This needs no download, and it
separates what is still visible at high noise: shape and brightness.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from noisewise.quality.premultiplied import premultiplied
from noisewise.training.settings.config import TrainConfig

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.models.models import Teacher

CELLS = 8  # pictures are compared by the means of 8 x 8 cells
_ROUNDS = 30  # most rounds of Lloyd's algorithm
_SAMPLE = 20_000  # most pictures used to find the centres
_CHUNK = 4096  # pictures handled at once
_PICTURES_A_KIND = 200  # least average number of pictures per kind
_MOST_KINDS = 32
_DRAWN = 8  # pictures that a teacher draws of each kind, to find its centre


def num_kinds(config: TrainConfig, num_images: int) -> tuple[int, str]:
    """The number of kinds for a set, with the reason; 0: the set is not sorted.

    Args:
        config: `kinds` is used if set; with `classes` the set is not sorted.
        num_images: number of pictures in the set.

    Raises:
        ValueError: if there are fewer pictures than kinds.

    Example:
        >>> num_kinds(TrainConfig(), 6000)
        (30, 'one for each 200 pictures, at most 32')
    """
    if config.classes:
        return 0, "no kinds, because the classes are used"
    if config.kinds is not None:
        if config.kinds > num_images:
            raise ValueError(
                f"{num_images} pictures are too few for {config.kinds} kinds; set fewer kinds"
            )
        return (config.kinds, "set by hand") if config.kinds > 1 else (0, "no kinds, set by hand")
    found = min(_MOST_KINDS, num_images // _PICTURES_A_KIND)
    if found < 2:
        return 0, f"no kinds, because they need at least {2 * _PICTURES_A_KIND} pictures"
    return found, f"one for each {_PICTURES_A_KIND} pictures, at most {_MOST_KINDS}"


def sorted_into_kinds(pictures: Pictures, config: TrainConfig) -> Pictures:
    """Replace the labels of pictures by kinds, unless the settings say no kinds.

    The same pictures, seed and number of threads give the same kinds. Kinds are numbered by size,
    the largest first; empty ones are left out.

    Args:
        pictures: any set; its own labels are not used.
        config: `classes`, `kinds` and `seed` are used.
    """
    wanted, why = num_kinds(config, pictures.total or len(pictures))
    if not wanted:
        return pictures
    if pictures.total:  # a plan needs their number alone, and the others were not read
        return replace(pictures, labels=None, classes=_names(wanted), kinds=why)
    generator = torch.Generator().manual_seed(config.seed)
    points = _points(pictures)
    centres = find_centres(points[_some(len(points), generator)], wanted, generator)
    labels = nearest_centre(points, centres)
    sizes = torch.bincount(labels, minlength=wanted)
    order = sizes.argsort(descending=True, stable=True)
    order = order[sizes[order] > 0]
    rank = torch.zeros(wanted, dtype=torch.int64)
    rank[order] = torch.arange(len(order))
    labels = rank[labels].numpy()
    return replace(pictures, labels=labels, classes=_names(len(order)), kinds=why)


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"kind {number + 1}" for number in range(count))


def sorted_like(teacher: Teacher, pictures: Pictures) -> Pictures:
    """Sort other pictures into the kinds that a teacher was trained with.

    The centre of a kind is the mean of the pictures that the teacher draws of it, so only the
    teacher is needed.

    Args:
        teacher: trained with kinds; if it was not, the pictures are returned unchanged.
        pictures: pictures with the teacher's size and channels; their own labels are not used.
    """
    described = teacher.config
    why = str(described.stats.get("kinds", ""))
    if not why:
        return pictures
    drawn = [teacher.sample(_DRAWN, seed=0, label=k) for k in range(len(described.classes))]
    centres = torch.stack([_cells(premultiplied(images.float().cpu())).mean(0) for images in drawn])
    labels = nearest_centre(_points(pictures), centres)
    return replace(pictures, labels=labels.numpy(), classes=described.classes, kinds=why)


def find_centres(points: Tensor, num_centres: int, generator: torch.Generator) -> Tensor:
    """k-means: centres [k, d] of points float [n, d], n >= k.

    Lloyd's algorithm, started by k-means++ (Arthur and Vassilvitskii 2007), until no point changes
    its centre, at most 30 rounds. A centre without points stays where it is.

    Example:
        >>> points = torch.tensor([[0.0], [0.1], [9.0], [9.1]])
        >>> find_centres(points, 2, torch.Generator().manual_seed(0)).sort(dim=0).values.flatten()
        tensor([0.0500, 9.0500])
    """
    centres = _far_apart(points, num_centres, generator)
    before = None
    for _ in range(_ROUNDS):
        labels = nearest_centre(points, centres)
        if before is not None and torch.equal(labels, before):
            break
        sizes = torch.bincount(labels, minlength=num_centres)
        sums = torch.zeros_like(centres).index_add_(0, labels, points)
        means = sums / sizes.clamp_min(1).unsqueeze(1)
        centres = torch.where(sizes.unsqueeze(1) > 0, means, centres)
        before = labels
    return centres


def nearest_centre(points: Tensor, centres: Tensor) -> Tensor:
    """Index of the nearest centre of each point, int64 [n]."""
    return torch.cat([torch.cdist(part, centres).argmin(1) for part in points.split(_CHUNK)])


def _far_apart(points: Tensor, num_centres: int, generator: torch.Generator) -> Tensor:
    """k-means++: each centre is a point, drawn with weight (distance to the earlier centres)^2."""
    first = int(torch.randint(len(points), (1,), generator=generator))
    chosen = [first]
    square = (points - points[first]).square().sum(1)
    for _ in range(num_centres - 1):
        # If every point equals a centre, all squares are 0: then draw any point.
        weight = square if float(square.sum()) > 0 else torch.ones_like(square)
        chosen.append(int(torch.multinomial(weight, 1, generator=generator)))
        square = torch.minimum(square, (points - points[chosen[-1]]).square().sum(1))
    return points[chosen].clone()


def _points(pictures: Pictures) -> Tensor:
    """Means of 8 x 8 cells of each picture, float32 [n, 64 channels]."""
    parts = []
    for start in range(0, len(pictures), _CHUNK):
        images = pictures.tensor(np.arange(start, min(start + _CHUNK, len(pictures))))
        parts.append(_cells(images))
    return torch.cat(parts)


def _cells(images: Tensor) -> Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(images, CELLS).flatten(1)


def _some(count: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(count, generator=generator)[:_SAMPLE]
