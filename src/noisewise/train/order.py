"""Which pictures each step sees."""

from __future__ import annotations

import numpy as np


class BatchOrder:
    """Which pictures the next batch holds: a new random order each time round.

    A function of the seed and the images seen, so that a resume needs no memory.

    Example:
        >>> order = BatchOrder(np.arange(3), seed=0)
        >>> sorted(order.batch(seen=0, count=3).tolist()), len(order.batch(seen=2, count=8))
        ([0, 1, 2], 8)
    """

    def __init__(self, indices: np.ndarray, seed: int) -> None:
        """Order the pictures with these indices."""
        self._indices = indices
        self._seed = seed
        self._round = -1
        self._order = indices

    def batch(self, seen: int, count: int) -> np.ndarray:
        """Indices of the next `count` pictures after `seen` ones, int64."""
        parts = []
        while count > 0:
            turn, start = divmod(seen, len(self._indices))
            part = self._shuffled(turn)[start : start + count]
            parts.append(part)
            seen, count = seen + len(part), count - len(part)
        return np.concatenate(parts)

    def _shuffled(self, turn: int) -> np.ndarray:
        if turn != self._round:
            self._order = np.random.default_rng((self._seed, turn)).permutation(self._indices)
            self._round = turn
        return self._order
