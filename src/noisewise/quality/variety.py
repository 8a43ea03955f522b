"""Whether pictures differ from each other as much as they should, within each class.

A generator that collapses draws the same few pictures for every noise. A distance between sets
sees it late, and a loss never. The nearest other picture shows it at once: it is a near copy.

Small pictures are compared (means over at most 16 x 16 cells): fine noise cannot hide a collapse,
and a thousand pictures take less than a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from noisewise.quality.premultiplied import premultiplied

CELLS = 16  # cells per side in which pictures are compared
_ENOUGH = 16  # pictures of a class that give it a number of its own
_ROWS = 1024  # of one block of distances


@dataclass(frozen=True)
class Variety:
    """How much pictures differ from their nearest other, over the same of a reference.

    Attributes:
        value: the lowest of `overall` and the classes' own: 1 is as varied as the reference,
            0 one picture for everything.
        overall: of all pictures; the nearest other is looked for within the class.
        classes: of each class with at least 16 pictures in both sets, by its number.
        lowest: number of the least varied class; None if no class has enough pictures.
    """

    value: float
    overall: float
    classes: dict[int, float]
    lowest: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"value": self.value, "overall": self.overall, "lowest": self.lowest}


def variety(
    generated: Tensor,
    reference: Tensor,
    labels: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> Variety:
    """Return how varied pictures are, against reference pictures.

    ``median_i min_{j != i} |g_i - g_j| / median_i min_{j != i} |r_i - r_j|``, j in the class of i.
    Both sets are cut to the same number of pictures of each class, since more pictures have nearer
    neighbours. Pictures are compared by the means of at most 16 x 16 cells.

    Args:
        generated: float [n, c, h, w], n >= 2.
        reference: float [m, c, h, w] of the same shape, m >= 2.
        labels: classes of the generated pictures, int64 [n]; None: all are of one class.
        reference_labels: classes of the reference, int64 [m]; None: all are of one class.

    Raises:
        ValueError: if a set has fewer than 2 pictures, shapes differ, or only one set has labels.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> a, b = torch.rand(2, 64, 1, 16, 16, generator=g)
        >>> two = a[:2].repeat(32, 1, 1, 1)
        >>> 0.9 < variety(a, b).value < 1.1, variety(two, b).value
        (True, 0.0)
    """
    _check(generated, reference, labels, reference_labels)
    ours, theirs = _cells(generated), _cells(reference)
    groups = _groups(labels, reference_labels, len(ours), len(theirs))
    found = {c: (_nearest(ours[a]), _nearest(theirs[b])) for c, (a, b) in groups.items()}
    if not found:
        return Variety(1.0, 1.0, {}, None)
    overall = _ratio(*(torch.cat(part) for part in zip(*found.values(), strict=True)))
    enough = {c: pair for c, pair in found.items() if len(pair[0]) >= _ENOUGH}
    classes = {} if labels is None else {c: _ratio(*pair) for c, pair in enough.items()}
    lowest = min(classes, key=classes.__getitem__) if classes else None
    value = min([overall, *classes.values()])
    return Variety(value, overall, classes, lowest)


def _check(
    generated: Tensor, reference: Tensor, labels: Tensor | None, others: Tensor | None
) -> None:
    if min(len(generated), len(reference)) < 2:
        raise ValueError(
            f"There are {len(generated)} and {len(reference)} pictures: give at least 2 of each."
        )
    if generated.shape[1:] != reference.shape[1:]:
        raise ValueError(
            f"The pictures have shape {list(generated.shape[1:])}, those of the reference "
            f"{list(reference.shape[1:])}: give both the same size and number of channels."
        )
    if (labels is None) != (others is None):
        raise ValueError("Only one of the sets has labels: give both their labels, or neither.")
    for pictures, given in ((generated, labels), (reference, others)):
        if given is not None and len(given) != len(pictures):
            raise ValueError(f"There are {len(given)} labels for {len(pictures)} pictures.")


def _groups(
    labels: Tensor | None, others: Tensor | None, n: int, m: int
) -> dict[int, tuple[Tensor, Tensor]]:
    """For each class the indices of equally many pictures of both sets, at least 2."""
    labels = torch.zeros(n, dtype=torch.int64) if labels is None else labels.cpu()
    others = torch.zeros(m, dtype=torch.int64) if others is None else others.cpu()
    groups = {}
    for c in labels.unique().tolist():
        a, b = (labels == c).nonzero()[:, 0], (others == c).nonzero()[:, 0]
        count = min(len(a), len(b))
        if count >= 2:
            groups[c] = a[:count], b[:count]
    return groups


def _cells(pictures: Tensor) -> Tensor:
    height, width = pictures.shape[-2:]
    seen = premultiplied(pictures.float())
    cells = F.adaptive_avg_pool2d(seen, (min(CELLS, height), min(CELLS, width)))
    return cells.flatten(1).cpu()


def _nearest(points: Tensor) -> Tensor:
    """Distance of each point to the nearest other one."""
    found = []
    for start in range(0, len(points), _ROWS):
        # exact differences: by products, equal pictures would not have a distance of exactly 0
        apart = torch.cdist(
            points[start : start + _ROWS], points, compute_mode="donot_use_mm_for_euclid_dist"
        )
        own = torch.arange(len(apart))
        apart[own, own + start] = torch.inf
        found.append(apart.amin(1))
    return torch.cat(found)


def _ratio(ours: Tensor, theirs: Tensor) -> float:
    """Ratio of the medians; 1 where the reference itself is one picture."""
    usual = float(theirs.median())
    return float(ours.median()) / usual if usual > 0 else 1.0
