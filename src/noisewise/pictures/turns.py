"""Measure whether pictures have a right way up, to decide on turns by right angles.

Textures and tiles seen from above look the same from every side; things that stand do not. Two
tests must both find no difference. Turned pictures are not farther from the set, see `resemblance`;
this is weak where no two pictures are alike. And pairs of equal statistics of a picture, one along
the rows and one along the columns, are each the larger one equally often: left-right symmetry and
symmetry from top to bottom; and the centre of what differs from the border lies as often above as
below, left as right. Largest difference measured on our sets (2026-11): floors .02, monsters .58,
things .68, walls .48, food .57, faces .87.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from noisewise.pictures.resemblance import Resemblance

_TOLERATED = 0.1  # excess of pictures that a turn moves away
_EQUAL = 0.15  # largest difference of shares between two directions
_FEWEST = 24  # pictures; fewer tell nothing


def suggest_turns(alike: Resemblance) -> tuple[bool, str]:
    """Decide whether pictures may be turned by 90, 180 and 270 degrees.

    Args:
        alike: the pictures; those that are not square are turned by 180 degrees alone.

    Returns:
        Whether to turn, and the reason with its numbers.

    Example:
        >>> arrows = np.zeros((32, 16, 16, 1), np.uint8)
        >>> arrows[np.arange(32), np.arange(32) % 8, 4:12] = 255
        >>> suggest_turns(Resemblance(arrows))[0]
        False
    """
    probes = alike.probes
    num, height, width = probes.shape[:3]
    if num < _FEWEST:
        return False, f"{num} pictures do not show whether they have a right way up"
    quarters = (1, 2, 3) if height == width else (2,)
    found = [alike.excess(partial(np.rot90, k=k, axes=(1, 2))) for k in quarters]
    worst = max(found, key=lambda excess: excess.share)
    if worst.share > _TOLERATED:
        return False, (
            f"of {num} pictures, turning moves {worst.farther} away from the set and "
            f"{worst.nearer} towards it"
        )
    differences = _differences(probes)
    name = max(differences, key=lambda name: abs(differences[name]))
    most = max(_EQUAL, 2.5 / math.sqrt(num))  # chance alone
    if abs(differences[name]) > most:
        return False, f"the pictures have a right way up: {name} in {_most(differences[name])}"
    return True, f"the pictures look the same from every side ({num} compared)"


def _most(difference: float) -> str:
    """The share of the larger side in words."""
    return f"{(1 + abs(difference)) / 2:.0%} of them"


def _differences(probes: np.ndarray) -> dict[str, float]:
    """Share of the pictures in which one of two directions has more, less the share of the other.

    Example:
        >>> found = _differences(np.tile(np.arange(16.0)[:, None, None], (2, 1, 16, 1)))
        >>> found["they are more alike in one mirror than in the other"]
        1.0
    """
    mirrored = np.square(probes - probes[:, :, ::-1]).mean((1, 2, 3))
    upturned = np.square(probes - probes[:, ::-1]).mean((1, 2, 3))
    rows, columns = _centres(probes)
    return {
        "they are more alike in one mirror than in the other": _sign(upturned - mirrored),
        "their centre lies to one side": _sign(columns),
        "their centre lies above or below": _sign(rows),
    }


def _centres(probes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where what differs from the border lies, down and to the right of the middle, [n] each."""
    sides = [probes[:, 0], probes[:, -1], probes[:, :, 0], probes[:, :, -1]]
    ground = np.median(np.concatenate(sides, 1), axis=1)[:, None, None]
    there = np.abs(probes - ground).sum(3)
    height, width = there.shape[1:]
    down, right = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    return there.sum(2) @ down, there.sum(1) @ right


def _sign(values: np.ndarray) -> float:
    """Share of the values above 0 less the share below; those of rounding alone are neither."""
    least = 1e-6 * float(np.abs(values).max(initial=0.0))
    return float((values > least).mean() - (values < -least).mean())
