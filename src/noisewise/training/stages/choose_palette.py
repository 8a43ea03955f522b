"""Which palette generated pictures have: that of the folder, one that a person gave, or none.

How far a picture's colours may move to become few is measured on pictures of the model: so far
that they have about as many colours as real ones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from noisewise.pictures.cache import in_blocks, release_pages
from noisewise.pictures.palette_files import Colours
from noisewise.quality.colours import ColourCounts, count_colours, used_colours
from noisewise.quality.palettes import all_colours, colour_error, counted_colours, few_colours
from noisewise.quality.snap_colours import colours_a_picture
from noisewise.training.models.palette import NO_PALETTE, TOLERANCE, Palette

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.settings.config import AdaptConfig, TrainConfig

_NUMBERS = (256, 512, 1024)  # colours that stand for those of a folder with many
_NEAR = 0.012  # root mean square distance from all colours, in Oklab, that is near enough
_MOST_A_PICTURE = 256
_COUNTED = 2**22  # values that are counted at once
_TOLERANCES = (0.0, 0.01, 0.02, 0.03, 0.045, 0.06, 0.08, 0.11)
_MEASURED = 64  # pictures for each tolerance


def plan_palette(
    config: TrainConfig | AdaptConfig, pictures: Pictures, before: Palette = NO_PALETTE
) -> Palette:
    """The palette that a teacher of these pictures gets, with its reason.

    Args:
        config: `palette` is "auto", "none", or colours.
        pictures: all of them.
        before: of the teacher that is adapted; with "auto" it stays, if a person gave it.

    Raises:
        ValueError: if coloured colours were given for grey pictures.
    """
    if config.palette == "auto" and before.by_hand:
        return replace(before, reason="as in the teacher, where it was set by hand")
    if config.palette == "none":
        return Palette(reason="set by hand")
    images = pictures.images
    found = colours_of(images)
    few = Palette(way=config.recipe.palette_way)
    if found.has_palette:
        most, typical = min(max(found.high, 2), _MOST_A_PICTURE), max(found.median, 1)
        few = replace(few, most=most, typical=typical, tolerance=TOLERANCE)
    if config.palette != "auto":
        return few.chosen(config.palette, pictures.channels)
    if not found.has_palette:
        return Palette(reason=f"none in these pictures: colours {found.text()}")
    return replace(few, colours=folder_palette(images, found), reason=f"colours {found.text()}")


def colours_of(images: np.ndarray) -> ColourCounts:
    """`count_colours` of pictures that may be a memory map, which then does not fill the memory.

    Args:
        images: uint8 [n, height, width, channels].

    Example:
        >>> colours_of(np.zeros((9, 16, 16, 3), np.uint8)).in_all
        1
    """
    rows = max(1, _COUNTED // images[0].size)
    found = count_colours(images, in_blocks(images, rows))
    release_pages(images)
    return found


def folder_palette(images: np.ndarray, found: ColourCounts, most: int = _NUMBERS[-1]) -> Colours:
    """The colours of a folder: all of them if it has one palette, else those nearest to all.

    Args:
        images: uint8 [n, height, width, channels].
        found: `count_colours` of them.
        most: how many colours, at most.

    Example:
        >>> images = np.zeros((9, 16, 16, 3), np.uint8)
        >>> images[:, :8] = 255
        >>> folder_palette(images, count_colours(images))
        ((0, 0, 0), (255, 255, 255))
    """
    if found.verdict == "one palette" and found.in_all <= most:
        rows = max(1, _COUNTED // images[0].size)
        return _as_colours(all_colours(used_colours(in_blocks(images, rows))))
    counted, colours = counted_colours(images), np.zeros((0, 3), np.uint8)
    for number in sorted({min(number, most) for number in _NUMBERS}):
        colours = few_colours(counted, number)
        if colour_error(counted, colours) <= _NEAR:
            break
    return _as_colours(colours)


def choose_tolerance(pictures: Tensor, palette: Palette) -> Palette:
    """The same palette, with the tolerance that gives pictures as many colours as real ones have.

    Args:
        pictures: drawn by the model, without a palette, float [n, c, h, w] in [-1, 1].
        palette: with or without colours.
    """
    if not palette or not palette.typical:
        return palette
    some = pictures[:: max(1, len(pictures) // _MEASURED)][:_MEASURED]
    wanted, best = palette.typical, palette
    least = float("inf")
    for tolerance in _TOLERANCES:
        tried = replace(palette, tolerance=tolerance)
        count = float(np.median(colours_a_picture(tried.applied(some))))
        miss = abs(float(np.log(max(count, 1.0) / wanted)))
        if miss < least:
            least, best = miss, tried
        if count <= wanted:
            break
    return best


def _as_colours(colours: np.ndarray) -> Colours:
    return tuple((int(red), int(green), int(blue)) for red, green, blue in colours)
