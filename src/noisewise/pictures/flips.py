"""Measure whether mirrored pictures look like the set, to decide on horizontal flips.

If left and right matter (letters, shoes that all point left), mirrored pictures are farther from
the set than the pictures themselves, see `resemblance`. Excess measured on our sets (2026-11):
sneakers .92, sandals .46, shirts .07, bags .02, emoji .03, emoji symbols .11.
"""

from __future__ import annotations

import numpy as np

from noisewise.pictures.resemblance import Resemblance

_TOLERATED = 0.1


def suggest_flip(
    images: np.ndarray, seed: int = 0, one_of_each: np.ndarray | None = None
) -> tuple[bool, str]:
    """Decide whether to use horizontal flips.

    Flips are used if the excess of mirrored pictures that are farther from the set is at most a
    tenth of those that were tried, see `Resemblance`.

    Args:
        images: uint8 [n, height, width, channels].
        seed: for the choice of the probes.
        one_of_each: indices of the pictures that count, without copies and near-twins; None: all.

    Returns:
        Whether to flip, and a sentence with the numbers.

    Example:
        >>> arrows = np.zeros((32, 8, 8, 1), np.uint8)
        >>> arrows[np.arange(32), np.arange(32) % 8, :3] = 255
        >>> suggest_flip(arrows)[0]
        False
    """
    found = Resemblance(images, seed, one_of_each).excess(lambda small: small[:, :, ::-1])
    flip = found.share <= _TOLERATED
    verdict = "flips on" if flip else "flips off"
    return flip, (
        f"{verdict}: of {found.probes} pictures, mirroring moves {found.farther} away from the set "
        f"and {found.nearer} towards it (excess {found.share:.0%}; flips are used up to "
        f"{_TOLERATED:.0%})"
    )
