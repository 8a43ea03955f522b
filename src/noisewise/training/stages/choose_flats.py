"""Which exact values generated pictures take, and from how near: measured for each trained model.

A net comes near an exact black or white ground and rarely meets it. The values that fill areas are
measured in the folder. Pixels that come within a level of one take it: as many levels as bring the
share of exact areas nearest to the real one, as long as the judge does not call the pictures worse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from noisewise.quality.flats import FlatValue, exact_flat_share, flat_values, snapped
from noisewise.quality.judge import Judge
from noisewise.training.models.model_config import Flats
from noisewise.training.models.palette import NO_PALETTE, Palette

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures

_LEVELS = (2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0)
_MOST, _PIXELS = 400, 20_000_000  # pictures, and pixels, in which the values are looked for
_PIXELS_A_SECOND = 2e6
_TRIES = 4  # levels that the judge is asked about, at most
_FEW = 64  # pictures whose share is counted at each level, where there is a palette
_CLEAR = 0.01  # share of pixels that a level must bring nearer


def seconds_of(pixels: int, drawn: int, real: int) -> float:
    """About how long the choice takes on a core: for real pictures, and for each level.

    Args:
        pixels: of a picture.
        drawn: pictures of the model.
        real: pictures that there are.

    Example:
        >>> [round(seconds_of(side**2, 64, 1000), 1) for side in (28, 64, 256)]
        [0.4, 2.3, 33.1]
    """
    measured = min(real, _MOST, max(1, _PIXELS // pixels))
    return pixels * (measured + (len(_LEVELS) + 1) * drawn) / _PIXELS_A_SECOND


def flats_of(pictures: Pictures, chosen: np.ndarray) -> Flats:
    """Measure the values that fill areas of real pictures, and their share; level 0 for now.

    Args:
        pictures: all pictures.
        chosen: indices of the training pictures.
    """
    size = pictures.images.shape[1] * pictures.images.shape[2]
    most = max(1, min(_MOST, _PIXELS // size))
    images = torch.from_numpy(np.asarray(pictures.images[chosen[:most]]))
    values = flat_values(images)
    share = exact_flat_share(images, values) if values else 0.0
    return Flats(tuple(found.value for found in values), share)


def choose_level(
    pictures: Tensor,
    flats: Flats,
    judge: Judge,
    palette: Palette = NO_PALETTE,
) -> Flats:
    """Choose from how near pixels take the flat values.

    Args:
        pictures: drawn by the model without flats, float [n, c, h, w] in [-1, 1].
        flats: the values and their share in real pictures.
        judge: real pictures, or the teacher's.
        palette: that pictures with flats are brought onto before people and the judge see them.

    Returns:
        The same values with the chosen level and the reason; level 0 leaves pictures as they are.
    """
    if not flats.values:
        return flats
    values = [FlatValue(value, 0.0, 0.0) for value in flats.values]
    then = palette.applied
    some = pictures[:_FEW] if palette else pictures  # a palette takes milliseconds a picture
    plain = exact_flat_share(then(some), values)
    shares = {at: exact_flat_share(then(snapped(some, values, at)), values) for at in _LEVELS}
    miss = {at: abs(share - flats.share) for at, share in shares.items()}
    before = judge.measure(then(pictures))
    asked = sorted(shares, key=lambda at: (miss[at], at))[:_TRIES]
    for level in asked:
        if miss[level] > abs(plain - flats.share) - _CLEAR:
            break
        taken = then(snapped(pictures, values, level))
        if not judge.measure(taken).minus(before).surely_more:
            reason = (
                f"{_named(flats.values)} filled {100 * flats.share:.0f} % of the real pixels, "
                f"{100 * plain:.0f} % of the generated ones; {100 * shares[level]:.0f} % now that "
                f"pixels within {level:g} of 255 levels take the exact value"
            )
            return Flats(flats.values, flats.share, level, reason)
    reason = f"{_named(flats.values)} fill areas; pictures that take them exactly are not better"
    return Flats(flats.values, flats.share, 0.0, reason)


def _named(values: tuple[tuple[int, ...], ...]) -> str:
    """The values as colours.

    Example:
        >>> _named(((0, 0, 0), (255, 255, 255)))
        '#000000 and #ffffff'
        >>> _named(((9, 9, 9, 255), (0, 0, 0, 0)))
        '#090909ff and transparency'
    """
    texts = [
        "transparency"
        if len(value) == 4 and not value[3]
        else "#" + "".join(f"{v:02x}" for v in (value if len(value) > 1 else value * 3))
        for value in values
    ]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
