"""Measure whether changed pictures (mirrored, turned, recoloured) still look like their set.

For some pictures x, compare the distances of x and of changed x to their five nearest other
pictures. If the change does not matter, both follow the same distribution, so each is nearer
equally often. If it does matter, the changed picture is farther away. Of copies and near-twins only
one picture counts: a picture is always near its own twins, and its changed image is not. Five
neighbours and a margin of a quarter keep weak differences, such as shading from one side, from
deciding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from noisewise.pictures.alpha import premultiplied

_NUM_PROBES = 400
_NUM_OTHERS = 4000
_SIDE = 16
_NUM_NEAREST = 5
_FARTHER = 1.25


@dataclass(frozen=True)
class Excess:
    """How many pictures a change moves away from their set, and how many towards it.

    Attributes:
        farther: pictures whose changed image is more than a quarter farther from the set.
        nearer: pictures that are more than a quarter farther from it than their changed image.
        probes: pictures that were tried.
    """

    farther: int
    nearer: int
    probes: int

    @property
    def share(self) -> float:
        """``(farther - nearer) / probes``: about 0 if the change does not matter.

        Example:
            >>> Excess(farther=30, nearer=10, probes=100).share
            0.2
        """
        return (self.farther - self.nearer) / self.probes


class Resemblance:
    """A set of pictures, ready to be compared with changed ones.

    At most 400 pictures (the probes) are compared with at most 4000 others, averaged down to about
    16 x 16 pixels.

    Args:
        images: uint8 [n, height, width, channels].
        seed: for the choice of the probes.
        one_of_each: indices of the pictures that count, without copies and near-twins; None: all.

    Example:
        >>> arrows = np.zeros((32, 8, 8, 1), np.uint8)
        >>> arrows[np.arange(32), np.arange(32) % 8, :3] = 255
        >>> Resemblance(arrows).excess(lambda small: small[:, :, ::-1]).share
        1.0
    """

    def __init__(
        self, images: np.ndarray, seed: int = 0, one_of_each: np.ndarray | None = None
    ) -> None:
        """Choose the pictures and measure their own distances."""
        generator = np.random.default_rng(seed)
        counted = np.arange(len(images)) if one_of_each is None else one_of_each
        if len(counted) <= _NUM_NEAREST:  # nothing but twins of a few pictures
            counted = np.arange(len(images))
        order = counted[generator.permutation(len(counted))][:_NUM_OTHERS]
        self._others = np.stack([_small(premultiplied(images[i])) for i in np.sort(order)])
        self._num_probes = min(_NUM_PROBES, len(self._others))
        self._at = np.sort(generator.permutation(len(self._others))[: self._num_probes])
        self._own = _nearest(self._others[self._at], self._others, self._at)

    @property
    def probes(self) -> np.ndarray:
        """The pictures that are tried, averaged down, float32 [n, h, w, channels]."""
        return self._others[self._at]

    def excess(self, change: Callable[[np.ndarray], np.ndarray]) -> Excess:
        """Measure a change.

        Args:
            change: of float32 pictures [n, h, w, channels]; it keeps their shape.
        """
        changed = _nearest(change(self.probes), self._others, self._at)
        return Excess(
            int((changed > _FARTHER * self._own).sum()),
            int((self._own > _FARTHER * changed).sum()),
            self._num_probes,
        )


def _small(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    down, right = _factor(height), _factor(width)
    # Means of blocks in two exact sums: many times as fast as `mean` over two axes.
    rows = image.reshape(height // down, down, -1).sum(axis=1, dtype=np.uint32)
    total = rows.reshape(height // down, width // right, right, -1).sum(axis=2, dtype=np.uint32)
    return np.divide(total, np.float32(down * right), dtype=np.float32)


def _factor(side: int) -> int:
    """It divides the side: cutting one border would make left and right differ."""
    return max(f for f in range(1, side + 1) if side % f == 0 and (f == 1 or side // f >= _SIDE))


def _nearest(probes: np.ndarray, others: np.ndarray, itself: np.ndarray) -> np.ndarray:
    """Mean distance of each probe to its nearest other pictures; `itself` is its own index."""
    a, b = probes.reshape(len(probes), -1), others.reshape(len(others), -1)
    squared = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2 * a @ b.T
    squared[np.arange(len(a)), itself] = np.inf
    count = min(_NUM_NEAREST, len(others) - 1)
    nearest = np.partition(squared, count - 1, axis=1)[:, :count]
    return np.sqrt(np.maximum(nearest, 0.0)).mean(axis=1)
