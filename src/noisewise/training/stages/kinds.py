"""Kinds: pictures without classes are sorted by likeness, and the sort is learnt like a class.

A net that is told of what kind a picture is has less to guess, and a generator that is asked for
each kind as often as there are pictures of it cannot drift to the bright or the dark ones: what is
right on the whole is then given and need not be learnt. Clusters in the place of classes are
Adaloglou et al. 2024, "Rethinking cluster-conditioned diffusion models" (arXiv 2403.00570), who
take them from a trained network's features. Here they are those of the pictures themselves at 8 x 8
cells, which need no download and tell apart what high noise leaves of a picture: its shape and
brightness.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from noisewise.training.settings.config import TrainConfig

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.models.models import Teacher

CELLS = 8  # a picture is compared as means of 8 x 8 cells
_ROUNDS = 30  # of Lloyd's algorithm, at most
_SAMPLE = 20_000  # pictures that the centres are found from
_CHUNK = 4096  # pictures at a time
_PICTURES_A_KIND = 200  # at least, on average
_MOST_KINDS = 32
_DRAWN = 8  # pictures of each kind, where a teacher shows what its kinds are


def num_kinds(config: TrainConfig, num_images: int) -> tuple[int, str]:
    """How many kinds a set is sorted into, with the reason; 0 where it is not sorted.

    Args:
        config: its `kinds` where it is set by hand; nothing is sorted where classes are asked for.
        num_images: pictures in the set.

    Raises:
        ValueError: if there are fewer pictures than kinds.

    Example:
        >>> num_kinds(TrainConfig(), 6000)
        (30, 'one for each 200 pictures, at most 32')
    """
    if config.classes:
        return 0, "the classes are learnt"
    if config.kinds is not None:
        if config.kinds > num_images:
            raise ValueError(
                f"{num_images} pictures cannot be sorted into {config.kinds} kinds; ask for fewer"
            )
        return (config.kinds, "set by hand") if config.kinds > 1 else (0, "no kinds, by hand")
    found = min(_MOST_KINDS, num_images // _PICTURES_A_KIND)
    if found < 2:
        return 0, f"not sorted into kinds, which takes {2 * _PICTURES_A_KIND} pictures"
    return found, f"one for each {_PICTURES_A_KIND} pictures, at most {_MOST_KINDS}"


def sorted_into_kinds(pictures: Pictures, config: TrainConfig) -> Pictures:
    """The same pictures with kinds in the place of labels, where the configuration asks for kinds.

    The same pictures, seed and number of threads give the same kinds. Kinds are numbered by size,
    the largest first; where some would be empty there are fewer.

    Args:
        pictures: any set; its own labels are put aside.
        config: `classes`, `kinds` and `seed` are used.
    """
    wanted, why = num_kinds(config, len(pictures))
    if not wanted:
        return pictures
    generator = torch.Generator().manual_seed(config.seed)
    points = _points(pictures)
    centres = find_centres(points[_some(len(points), generator)], wanted, generator)
    labels = nearest_centre(points, centres)
    sizes = torch.bincount(labels, minlength=wanted)
    order = sizes.argsort(descending=True, stable=True)
    order = order[sizes[order] > 0]
    rank = torch.zeros(wanted, dtype=torch.int64)
    rank[order] = torch.arange(len(order))
    names = tuple(f"kind {number + 1}" for number in range(len(order)))
    return replace(pictures, labels=rank[labels].numpy(), classes=names, kinds=why)


def sorted_like(teacher: Teacher, pictures: Pictures) -> Pictures:
    """Other pictures sorted into the kinds that a teacher was trained with, if it was with kinds.

    A kind's centre is the mean of what the teacher draws when it is asked for that kind, so that
    nothing but the teacher is needed.

    Args:
        teacher: trained on kinds, or not: then the pictures are given back as they are.
        pictures: of the teacher's size and channels; their own labels are put aside.
    """
    described = teacher.config
    why = str(described.stats.get("kinds", ""))
    if not why:
        return pictures
    drawn = [teacher.sample(_DRAWN, seed=0, label=k) for k in range(len(described.classes))]
    centres = torch.stack([_cells(images.float().cpu()).mean(0) for images in drawn])
    labels = nearest_centre(_points(pictures), centres)
    return replace(pictures, labels=labels.numpy(), classes=described.classes, kinds=why)


def find_centres(points: Tensor, num_centres: int, generator: torch.Generator) -> Tensor:
    """k-means: centres [k, d] of points float [n, d], n >= k.

    Lloyd's algorithm from k-means++ (Arthur and Vassilvitskii 2007), until no point moves or for 30
    rounds. A centre that loses all its points stays where it is.

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
    """k-means++: each next centre is a point, drawn by its squared distance from those before."""
    first = int(torch.randint(len(points), (1,), generator=generator))
    chosen = [first]
    square = (points - points[first]).square().sum(1)
    for _ in range(num_centres - 1):
        # Where all points are centres already, the squares are 0: then any point will do.
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
