"""Indexed PNGs: each pixel is a number in a list of at most 256 colours, as sprites are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from noisewise.pictures.palette_files import Colours

_MOST = 256


def as_indexed(image: Image.Image, colours: Colours) -> Image.Image:
    """Return a picture with a list of its colours (mode P), equal in every pixel.

    The list begins with the palette in its order, so that all pictures share it; other colours
    that a picture has (a gap on a sheet, what is transparent) follow. Where this does not fit into
    256 entries, the list has the picture's own colours alone.

    Args:
        image: mode L, LA, RGB or RGBA.
        colours: the palette; empty: the picture is returned as it is.

    Returns:
        Mode P, with the opacity of each entry where any is not opaque; as it is if the picture has
        more than 256 colours.

    Example:
        >>> image = Image.new("RGB", (2, 1), (255, 0, 0))
        >>> found = as_indexed(image, ((0, 0, 0), (255, 0, 0)))
        >>> found.mode, found.getpalette()[:6], found.getpixel((0, 0))
        ('P', [0, 0, 0, 255, 0, 0], 1)
    """
    if not colours:
        return image
    pixels = np.asarray(image.convert("RGBA")).astype(np.int64)
    codes = (pixels << np.array([24, 16, 8, 0])).sum(2)
    own, where = np.unique(codes, return_inverse=True)
    if len(own) > _MOST:
        return image
    shared = [(red << 24) | (green << 16) | (blue << 8) | 255 for red, green, blue in colours]
    shared = list(dict.fromkeys(shared))
    others = [int(code) for code in own if int(code) not in set(shared)]
    entries = shared + others if len(shared) + len(others) <= _MOST else own.tolist()
    place = {code: at for at, code in enumerate(entries)}
    index = np.array([place[int(code)] for code in own], np.uint8)[where.reshape(codes.shape)]
    found = Image.fromarray(index).convert("L")
    found.putpalette([code >> shift & 255 for code in entries for shift in (24, 16, 8)])
    opacity = bytes(code & 255 for code in entries)
    if min(opacity) < 255:
        found.info["transparency"] = opacity
    return found


def larger(image: Image.Image, scale: int) -> Image.Image:
    """Return a picture whose pixels are squares with this side.

    Example:
        >>> larger(Image.new("P", (2, 1)), 3).size
        (6, 3)
    """
    if scale == 1:
        return image
    size = (image.width * scale, image.height * scale)
    return image.resize(size, Image.Resampling.NEAREST)
