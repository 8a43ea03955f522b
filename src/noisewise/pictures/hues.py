"""Measure whether a set has colours of all hues, to decide whether hues may be changed.

Two tests must both hold. Pictures with their hues turned by a third of the circle are not farther
from the set, see `resemblance`; this is weak where no two pictures are alike. And the mean colours
of the pictures point in all directions of hue: the length of their mean is at most half of their
mean length (Fisher 1993, "Statistical analysis of circular data", the mean resultant length, here
weighted by how strong a colour is). This length on our sets (2026-11): monsters .29, symbols .33,
animals .74, people .79, food .85, faces .88.
"""

from __future__ import annotations

import math

import numpy as np

from noisewise.pictures.resemblance import Resemblance

_TOLERATED = 0.1  # excess of pictures that another hue moves away
_ONE_SIDED = 0.5
_GREY = 2.0  # of 255: mean strength of the colours in a set of greys


def suggest_hue(alike: Resemblance) -> tuple[bool, str]:
    """Decide whether hues may be changed.

    Args:
        alike: the pictures; red, green and blue are the first three channels.

    Returns:
        Whether to change hues, and the reason with its numbers.

    Example:
        >>> suggest_hue(Resemblance(np.zeros((32, 16, 16, 1), np.uint8)))
        (False, 'the pictures are grey')
    """
    probes = alike.probes
    strengths, length = _hues(probes)
    if probes.shape[3] < 3 or strengths < _GREY:
        return False, "the pictures are grey"
    if length > _ONE_SIDED:
        return False, f"most colours have one hue (one-sidedness {length:.2f} of 1)"
    found = [alike.excess(lambda small, by=by: _rolled(small, by)) for by in (1, 2)]
    worst = max(found, key=lambda excess: excess.share)
    if worst.share > _TOLERATED:
        return False, (
            f"of {len(probes)} pictures, other hues move {worst.farther} away from the set and "
            f"{worst.nearer} towards it"
        )
    return True, f"colours have all hues (one-sidedness {length:.2f} of 1)"


def _rolled(small: np.ndarray, by: int) -> np.ndarray:
    """Hues turned by a third of the circle, or two."""
    return np.concatenate([np.roll(small[..., :3], by, axis=3), small[..., 3:]], axis=3)


def _hues(probes: np.ndarray) -> tuple[float, float]:
    """Mean strength of the pictures' mean colours, and the length of their mean over it."""
    if probes.shape[3] < 3:
        return 0.0, 0.0
    red, green, blue = probes[..., :3].mean((1, 2)).T
    colours = np.stack([red - (green + blue) / 2, (green - blue) * math.sqrt(3) / 2], 1)
    strength = float(np.linalg.norm(colours, axis=1).mean())
    return strength, float(np.linalg.norm(colours.mean(0))) / max(strength, 1e-9)
