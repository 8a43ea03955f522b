"""How many pictures the judge needs to tell anything about a set, measured before training."""

from __future__ import annotations

import numpy as np

from noisewise.pictures.pictures import Pictures
from noisewise.quality.enough import MEASURED_FROM, pictures_needed
from noisewise.sizes import num_pixels

_MOST = 400  # pictures
_PIXELS = 400 * 64 * 64  # and about as many pixels: a second or two
ENOUGH = 256  # held-out pictures; with fewer, training pictures are judged against


def judge_needs(pictures: Pictures) -> int | None:
    """Measure how many generated (and as many real) pictures show damage that anybody sees.

    Args:
        pictures: some of them are measured, fewer if they are large.

    Returns:
        A number of pictures; None if there are too few to measure it on.
    """
    count = min(len(pictures), _MOST, max(MEASURED_FROM, _PIXELS // num_pixels(pictures.size)))
    chosen = np.sort(np.random.default_rng(0).permutation(len(pictures))[:count])
    return pictures_needed(pictures.shown(chosen))


def num_judged_against(num_training: int, num_held_out: int) -> int:
    """The number of real pictures that generated ones are measured against.

    Example:
        >>> num_judged_against(5700, 300), num_judged_against(950, 50)
        (300, 950)
    """
    return num_held_out if num_held_out >= ENOUGH else num_training


def judge_in_words(needed: int | None, num_real: int) -> str:
    """Whether the judge can tell anything about pictures like these, for people.

    Args:
        needed: what `judge_needs` returned.
        num_real: real pictures that generated ones are measured against.

    Example:
        >>> judge_in_words(64, 300)
        'tells clear damage from 64 generated and 64 real pictures on; it will have 300 real ones'
        >>> judge_in_words(500, 300)
        'cannot tell: it needs 500 real pictures to see clear damage, and there are 300'
        >>> judge_in_words(None, 80)
        'cannot tell: 80 real pictures are too few to say how many it needs'
    """
    if needed is None and num_real >= MEASURED_FROM:
        return "cannot tell: it does not see clear damage to pictures like these"
    if needed is None:
        return f"cannot tell: {num_real} real pictures are too few to say how many it needs"
    if num_real < needed:
        return (
            f"cannot tell: it needs {needed} real pictures to see clear damage, and there are "
            f"{num_real}"
        )
    return (
        f"tells clear damage from {needed} generated and {needed} real pictures on; it will have "
        f"{num_real} real ones"
    )
