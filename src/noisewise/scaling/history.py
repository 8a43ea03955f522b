"""The noise scale over a whole training, in few numbers: blocks of steps that merge as they grow.

The advice follows the last measured steps. How far the noise scale moved before them says how far
it may move again, so the band is at least as wide (`band`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["History"]

_MOST = 48  # blocks; then neighbours merge
_THIRDS = 3


class History:
    """Sums of |g|^2 and tr Sigma over blocks of measured steps.

    Example:
        >>> history = History()
        >>> for step in range(300):
        ...     history.add(step, 1.0, 10.0 + step)
        >>> [round(scale) for scale in history.scales()]
        [58, 158, 260]
        >>> history.first, history.last
        (0, 299)
    """

    def __init__(self) -> None:
        """Nothing is seen yet."""
        self.first = self.last = 0
        self._each = 1  # measured steps in a full block
        self._blocks: list[list[float]] = []  # count, |g|^2, tr Sigma

    def add(self, step: int, g2: float, trace: float) -> None:
        """Record one measured step."""
        if not self._blocks:
            self.first = step
        self.last = step
        if not self._blocks or self._blocks[-1][0] >= self._each:
            if len(self._blocks) == _MOST:
                pairs = zip(self._blocks[::2], self._blocks[1::2], strict=True)
                self._blocks = [[a + b for a, b in zip(*pair, strict=True)] for pair in pairs]
                self._each *= 2
            self._blocks.append([0.0, 0.0, 0.0])
        block = self._blocks[-1]
        block[0], block[1], block[2] = block[0] + 1, block[1] + g2, block[2] + trace

    def scales(self) -> list[float]:
        """Return B_simple in the first, second and last third; empty before a dozen steps.

        A third whose |g|^2 is not above zero is left out.
        """
        if sum(block[0] for block in self._blocks) < 4 * _THIRDS:
            return []
        found, n = [], len(self._blocks)
        for i in range(_THIRDS):
            part = self._blocks[i * n // _THIRDS : (i + 1) * n // _THIRDS]
            g2, trace = sum(b[1] for b in part), sum(b[2] for b in part)
            if g2 > 0 and trace > 0:
                found.append(trace / g2)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as JSON values."""
        return {"first": self.first, "last": self.last, "each": self._each, "blocks": self._blocks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.first, self.last, self._each = (int(state[k]) for k in ("first", "last", "each"))
        self._blocks = [[float(x) for x in block] for block in state["blocks"]]
