"""How many pictures a net draws or judges at once: large ones go in smaller groups.

A group bounds two things: the memory of an evaluation, and how far it can run over its time, as the
clock is read between groups. What is measured does not depend on it.
"""

from __future__ import annotations

_MOST = 64
_PIXELS = 2**18


def at_once(pixels: int) -> int:
    """Pictures in a group.

    Args:
        pixels: of one picture.

    Example:
        >>> [at_once(side**2) for side in (28, 64, 128, 256, 1024)]
        [64, 64, 16, 4, 1]
    """
    return max(1, min(_MOST, _PIXELS // pixels))
