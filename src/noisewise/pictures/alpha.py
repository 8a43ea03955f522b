"""Transparency of a set: whether it is kept, whether edges are hard, whether sprites are padded.

A set keeps its transparency if a tenth of the pictures really have some: then pictures are RGBA.
Otherwise they are laid flat on a background. Edges are hard if every opacity is near 0 or 1, as in
pixel art. Sprites of several sizes are not stretched: a transparent border is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

Alpha = Literal["none", "soft", "binary"]
"""Transparency of a set or a model: none (1 or 3 channels), soft edges, or only 0 and 1."""

CHANNELS = 4
SAMPLE = 256  # pictures that decide for all
_CLEAR = 0.005  # mean transparency of a picture that really has some
_KEPT = 0.1  # share of such pictures from which a set keeps its transparency
_FEW = 8  # of 255 levels: opacity this near to 0 or 255 counts as one of them
_BETWEEN = 0.05  # of the edge: pixels between, such as a shadow, that hard edges may have
_MOST_HARD = 0.95  # share of pictures with hard edges from which all of them get hard edges
_PIXELS = 2**18  # of a picture that are looked at
_COLOURS = 256  # more are no pixel art


@dataclass(frozen=True)
class Seen:
    """What is seen of the transparency of one picture.

    Attributes:
        clear: it really has some.
        hard: nearly all opacity is near 0 or 1.
        art: hard, and of few colours.
    """

    clear: bool
    hard: bool
    art: bool


OPAQUE = Seen(clear=False, hard=True, art=False)


@dataclass(frozen=True)
class Kept:
    """What becomes of the transparency of a set.

    Attributes:
        alpha: "none": it is laid flat.
        art: nearly all pictures are pixel art with hard edges.
        note: what was decided and why, for people; "" if the pictures are opaque.
    """

    alpha: Alpha = "none"
    art: bool = False
    note: str = ""


def colours(channels: int) -> str:
    """What pictures with so many channels are, in words.

    Example:
        >>> colours(1), colours(4)
        ('grey', 'RGBA')
    """
    named = {1: "grey", 3: "colour", CHANNELS: "RGBA"}
    return named.get(channels, f"{channels} channels")


def premultiplied(images: np.ndarray) -> np.ndarray:
    """Pixels as models see them: colour times opacity, uint8 [..., channels].

    ``round(rgb a / 255)``; pictures without opacity are returned as they are.

    Example:
        >>> premultiplied(np.array([[200, 100, 0, 128], [9, 9, 9, 0]], np.uint8)).tolist()
        [[100, 50, 0, 128], [0, 0, 0, 0]]
    """
    if images.shape[-1] != 4:
        return images
    product = images.astype(np.uint16) * images[..., 3:]  # at most 65,025
    found = ((product + 127) // 255).astype(np.uint8)
    found[..., 3] = images[..., 3]
    return found


def alpha_of(images: np.ndarray) -> Alpha:
    """Transparency of pictures uint8 [n, height, width, channels] as they are trained on.

    Example:
        >>> alpha_of(np.zeros((1, 8, 8, 3), np.uint8)), alpha_of(np.zeros((1, 8, 8, 4), np.uint8))
        ('none', 'binary')
    """
    if images.shape[-1] != 4:
        return "none"
    hard = all(bool(((o == 0) | (o == 255)).all()) for o in (image[..., 3] for image in images))
    return "binary" if hard else "soft"


def num_clear(images: np.ndarray) -> int:
    """Number of pictures uint8 [n, height, width, channels] with transparent pixels.

    Example:
        >>> num_clear(np.zeros((5, 8, 8, 3), np.uint8)), num_clear(np.zeros((5, 8, 8, 4), np.uint8))
        (0, 5)
    """
    if images.shape[-1] != 4:
        return 0
    return sum(bool((image[..., 3] < 255).any()) for image in images)


def seen(image: Image.Image) -> Seen:
    """Look at the transparency of one loaded picture; of a large one at some of its rows.

    Example:
        >>> sprite = Image.new("RGBA", (8, 8))
        >>> sprite.paste((255, 0, 0, 255), (2, 2, 6, 6))
        >>> seen(sprite)
        Seen(clear=True, hard=True, art=True)
    """
    if not image.has_transparency_data:
        return OPAQUE
    pixels = np.asarray(image.convert("RGBA"))
    opacity = pixels[:: max(1, pixels.shape[0] * pixels.shape[1] // _PIXELS), :, 3]
    solid = opacity >= 128
    edge = int((solid[:, 1:] != solid[:, :-1]).sum())
    if len(opacity) == len(pixels):
        edge += int((solid[1:] != solid[:-1]).sum())
    between = int(((opacity > _FEW) & (opacity < 255 - _FEW)).sum())
    hard = between <= _BETWEEN * edge
    art = hard and pixels[..., 0].size <= _PIXELS and _num_colours(pixels) <= _COLOURS
    return Seen(1 - float(opacity.mean()) / 255 >= _CLEAR, hard, art)


def choose(found: Sequence[Seen], background: str, channels: int | None) -> Kept:
    """Decide what becomes of the transparency of a set.

    Args:
        found: what is seen of some pictures.
        background: "auto", or a colour: then pictures are laid flat.
        channels: 4: transparency is kept; 1 or 3: it is not; None: as the pictures are.

    Example:
        >>> sprites = [Seen(True, True, True)] * 9 + [OPAQUE]
        >>> choose(sprites, "auto", None).alpha, choose(sprites, "white", None).alpha
        ('binary', 'none')
    """
    if channels in (1, 3) or (channels is None and background != "auto"):
        return Kept()
    clear = [one for one in found if one.clear]
    share = len(clear) / max(1, len(found))
    if channels is None and share < _KEPT:
        some = f"only {len(clear)} of {len(found)} pictures have it, and it is kept if a tenth have"
        note = f"transparency is laid flat: {some} (--channels 4 keeps it)"
        return Kept(note=note if clear else "")
    hard = sum(one.hard for one in clear) >= _MOST_HARD * len(clear)
    art = sum(one.art for one in clear) >= _MOST_HARD * max(1, len(clear))
    why = "set by hand" if channels == 4 else f"{share:.0%} of the pictures have it"
    edges = (
        "its edges are hard, so generated pixels are seen or not seen, and nothing between"
        if hard
        else "its edges are soft"
    )
    way = "" if channels == 4 else "; --background white lays it flat"
    return Kept("binary" if hard else "soft", art, f"transparency is kept ({why}); {edges}{way}")


def hardened(image: Image.Image) -> Image.Image:
    """A picture of mode RGBA whose opacity is 0 below 1/2, else 1.

    Example:
        >>> hardened(Image.new("RGBA", (1, 1), (9, 9, 9, 200))).getpixel((0, 0))
        (9, 9, 9, 255)
    """
    made = image.copy()
    made.putalpha(image.getchannel("A").point(lambda level: 255 if level >= 128 else 0))
    return made


def without_hidden(image: Image.Image) -> Image.Image:
    """A picture of mode RGBA in which what is transparent is black: equal to the eye, equal here.

    Example:
        >>> without_hidden(Image.new("RGBA", (1, 1), (9, 9, 9, 0))).getpixel((0, 0))
        (0, 0, 0, 0)
    """
    pixels = np.asarray(image)
    return Image.fromarray(pixels * (pixels[..., 3:] > 0))


def _num_colours(pixels: np.ndarray) -> int:
    """Number of colours of what can be seen, of pixels uint8 [h, w, 4]."""
    shown = pixels[pixels[..., 3] >= 128]
    return len(np.unique(np.ascontiguousarray(shown).view(np.uint32)))
