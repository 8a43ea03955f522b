"""Which pictures are held out: equal and nearly equal ones stay on one side.

A held-out picture with a near-twin among the training pictures tests what was seen. So near-twins
are held out together or trained on together. The groups stay small, so that the held-out pictures
keep the law of the set: in a set that consists of similar pictures (frames of a film), a group may
hold a third of them, and such a group is divided.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Groups:
    """Pictures that stay together.

    Attributes:
        group: number of the group of each picture, int64 [n]; groups count from 0.
        num_twins: groups that hold near-twins.
        num_divided: groups of near-twins that are too large and are divided.
    """

    group: np.ndarray
    num_twins: int
    num_divided: int

    def about(self) -> str:
        """What the split does with near-twins, in one sentence; "" without any."""
        parts = []
        if self.num_twins:
            noun = "groups" if self.num_twins > 1 else "group"
            parts.append(
                f"{self.num_twins:,} {noun} of near-twins: each is wholly in training or wholly "
                "held out"
            )
        if self.num_divided:
            noun, verb = ("groups", "are") if self.num_divided > 1 else ("group", "is")
            parts.append(
                f"{self.num_divided:,} {noun} of near-twins {verb} too large to be held out whole "
                f"and {verb} divided: the held-out loss may look better than it is"
            )
        return "; ".join(parts)


def groups_of(marks: np.ndarray, twins: Iterable[tuple[int, int]], largest: int) -> Groups:
    """Put equal pictures into one group, and near-twins, unless that group becomes too large.

    Args:
        marks: one number per picture, equal for equal pictures, [n].
        twins: pairs of pictures that are nearly equal, by index.
        largest: most pictures of a group of near-twins.

    Example:
        >>> found = groups_of(np.array([5, 5, 7, 8, 9]), [(0, 2), (3, 4)], largest=3)
        >>> found.group.tolist(), found.num_twins
        ([0, 0, 0, 1, 1], 2)
        >>> groups_of(np.array([5, 5, 7, 8, 9]), [(0, 2), (3, 4)], largest=2).group.tolist()
        [0, 0, 1, 2, 2]
    """
    _, equal, counts = np.unique(marks, return_inverse=True, return_counts=True)
    joined = _joined(len(counts), ((int(equal[a]), int(equal[b])) for a, b in twins))
    sizes = np.bincount(joined, weights=counts, minlength=len(counts))
    members = np.bincount(joined, minlength=len(counts))
    large = (members > 1) & (sizes > largest)
    kept = np.where(large[joined], np.arange(len(counts)), joined)
    _, group = np.unique(kept, return_inverse=True)
    return Groups(group[equal], int((members > 1).sum() - large.sum()), int(large.sum()))


def choose_groups(group: np.ndarray, wanted: int, generator: np.random.Generator) -> np.ndarray:
    """Choose about `wanted` pictures at random in whole groups; bool [n].

    Args:
        group: number of the group of each picture, from 0.
        wanted: how many to choose.
        generator: source of randomness.
    """
    counts = np.bincount(group)
    order = generator.permutation(len(counts))
    order = order[counts[order] <= wanted]
    chosen = order[np.cumsum(counts[order]) <= wanted]
    if not chosen.size:
        chosen = np.array([np.argmin(counts)])
    return np.isin(group, chosen)


def _joined(count: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """The smallest number that each of 0 ... count - 1 is connected with."""
    smaller = list(range(count))

    def first(at: int) -> int:
        while smaller[at] != at:
            smaller[at] = smaller[smaller[at]]
            at = smaller[at]
        return at

    for pair in pairs:
        low, high = sorted(map(first, pair))
        smaller[high] = low
    return np.array([first(at) for at in range(count)], dtype=np.int64)
