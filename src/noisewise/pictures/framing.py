"""Bring an upright picture to a size: crop or pad it to the shape, and resize it once.

Enlarged pixel art is reduced to its original pixels exactly, without smoothing. Everything else is
resized once, with antialiasing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageColor

from noisewise.pictures.alpha import Alpha, hardened, without_hidden
from noisewise.pictures.request import Crop
from noisewise.pictures.transparency import vanishing
from noisewise.sizes import Size, num_pixels, sides

MIN_SIDE = 4
_GREY_TOLERANCE = 8
_FEW_COLOURS = 64
_EXACT = frozenset({"L", "RGB", "RGBA"})  # modes in which pixel art is compared
_LARGEST_PADDED = 8192  # side of a padded picture, in pixels

ALPHA, ROTATED, ANIMATED = "alpha", "rotated", "animated"
CROPPED, ENLARGED, BLOCKS, PROFILE = "cropped", "enlarged", "blocks", "profile"
BORDERED = "bordered"

_CROPS = ("centre", "random", "pad")


@dataclass(frozen=True)
class Frame:
    """The size that every picture comes to, and how.

    Args:
        size: side in pixels, or (height, width).
        crop: for pictures of another shape: "centre" takes the middle, "random" takes a random
            place (fixed by the file name, the same in every run), "pad" adds background.
        background: colour under transparency and around padded pictures: a name or #rrggbb.
        alpha: "none" lays pictures on the background; otherwise they are RGBA, and padding is
            transparent; "binary": their opacity is only 0 or 1.
        own_scale: above 0, pixel art that is enlarged so many times is reduced to its original
            pixels, and gets a transparent border where it is smaller than the frame.

    Raises:
        ValueError: if the crop or the background is unknown.

    Example:
        >>> Frame(32, background="#0000ff").colour
        (0, 0, 255)
        >>> Frame(32, crop="corner")
        Traceback (most recent call last):
        ...
        ValueError: crop 'corner' is unknown: use centre, random or pad.
    """

    size: Size
    crop: Crop = "centre"
    background: str = "white"
    alpha: Alpha = "none"
    own_scale: int = 0
    colour: tuple[int, int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the crop, and read the colour."""
        if self.crop not in _CROPS:
            raise ValueError(f"crop {self.crop!r} is unknown: use {', '.join(_CROPS[:2])} or pad.")
        object.__setattr__(self, "colour", read_colour(self.background))

    @property
    def on_grey(self) -> bool:
        """Whether the background is grey, so that grey pictures stay grey on it."""
        return len(set(self.colour)) == 1


@dataclass(frozen=True)
class Framed:
    """A decoded picture, uint8 [height, width, 1, 3 or 4]; if it is grey; what was changed."""

    pixels: np.ndarray
    grey: bool
    done: frozenset[str]


def read_colour(text: str) -> tuple[int, int, int]:
    """Read a colour from a name or #rrggbb.

    Raises:
        ValueError: if the text is not a colour.

    Example:
        >>> read_colour("black"), read_colour("#ff8000")
        ((0, 0, 0), (255, 128, 0))
    """
    try:
        found = ImageColor.getrgb(text)
    except (ValueError, AttributeError, TypeError):
        found = ()
    if len(found) != 3:
        raise ValueError(
            f"background {text!r} is not a colour: use white, black, gray or a code like #ff8000."
        )
    return found[0], found[1], found[2]


def fit(
    image: Image.Image, name: str, frame: Frame, done: set[str], lossless: bool = True
) -> Image.Image:
    """Crop or pad the picture to the frame's shape and resize it once to the frame's size.

    Enlarged pixel art is first reduced to its original pixels. A picture with few colours that
    grows by a whole factor gets its pixels repeated; everything else is resized with Pillow's
    Lanczos filter, which is antialiased. `done` collects what was changed.
    """
    if frame.own_scale and (bordered := _bordered(image, frame, done)):
        return bordered
    found = _fitted(image, name, frame, done, lossless)
    return hardened(found) if frame.alpha == "binary" and found.mode == "RGBA" else found


def _fitted(
    image: Image.Image, name: str, frame: Frame, done: set[str], lossless: bool
) -> Image.Image:
    height, width = sides(frame.size)
    if lossless and inside(image.size, frame) != (width, height) and image.mode in _EXACT:
        image = undo_enlargement(image, done)
    part = inside(image.size, frame)
    if part != image.size:
        done.add(CROPPED)
        if frame.crop == "pad":
            image = _padded(image, frame)
            part = image.size
    share = _place(name) if frame.crop == "random" else 0.5
    left, top = int((image.width - part[0]) * share), int((image.height - part[1]) * share)
    box = (left, top, left + part[0], top + part[1])
    if part == (width, height):
        return image.crop(box) if part != image.size else image
    if part[0] * part[1] < num_pixels(frame.size):
        done.add(ENLARGED)
        whole = part[0] * height == part[1] * width and width % part[0] == height % part[1] == 0
        if whole and image.getcolors(_FEW_COLOURS):
            return image.resize((width, height), Image.Resampling.NEAREST, box)
    return image.resize((width, height), Image.Resampling.LANCZOS, box, reducing_gap=3.0)


def as_framed(image: Image.Image, done: set[str]) -> Framed:
    """Keep a picture of mode L, RGB or RGBA that has its frame."""
    pixels = np.asarray(without_hidden(image) if image.mode == "RGBA" else image)
    if image.mode == "RGBA":
        return Framed(pixels, False, frozenset(done))
    if image.mode == "L":
        return Framed(pixels[:, :, None], True, frozenset(done))
    red, green, blue = (pixels[..., c] for c in range(3))  # numpy is slow along an axis of 3
    highest = np.maximum(np.maximum(red, green), blue)
    spread = highest - np.minimum(np.minimum(red, green), blue)
    return Framed(pixels, bool(spread.max() <= _GREY_TOLERANCE), frozenset(done))


def on_background(image: Image.Image, frame: Frame, done: set[str]) -> Image.Image:
    """Place a picture with transparency on the background; return mode L, RGB or CMYK.

    Where transparency is kept, the mode is RGBA, or CMYK of opaque pictures of this mode.
    """
    if frame.alpha != "none":
        return _kept(image, frame, done)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        lowest = rgba.getchannel("A").getextrema()[0]
        is_clear = isinstance(lowest, (int, float)) and lowest < 255
        if is_clear:
            done.add(ALPHA)
            done.update(vanishing(rgba, frame.colour))
            rgba = Image.alpha_composite(Image.new("RGBA", rgba.size, (*frame.colour, 255)), rgba)
        grey = image.mode in ("L", "LA", "La", "1") and (frame.on_grey or not is_clear)
        return rgba.convert("L" if grey else "RGB")
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")


def _kept(image: Image.Image, frame: Frame, done: set[str]) -> Image.Image:
    """A picture with its transparency."""
    if image.mode == "CMYK":  # it has a profile of its own, and no transparency
        return image
    rgba = image.convert("RGBA")
    lowest = rgba.getchannel("A").getextrema()[0]
    if isinstance(lowest, (int, float)) and lowest < 255:
        done.add(ALPHA)
    return without_hidden(hardened(rgba) if frame.alpha == "binary" else rgba)


def _bordered(image: Image.Image, frame: Frame, done: set[str]) -> Image.Image | None:
    """Pixel art in its original pixels, with a transparent border; None if it is too large."""
    pixels = np.asarray(image.convert("RGBA"))
    factor = frame.own_scale
    if factor > 1 and block_factor(pixels) % factor == 0:
        pixels = np.ascontiguousarray(pixels[::factor, ::factor])
        done.add(BLOCKS)
    height, width = sides(frame.size)
    if pixels.shape[0] > height or pixels.shape[1] > width:
        return None
    if pixels.shape[:2] == (height, width):
        return Image.fromarray(pixels)
    done.add(BORDERED)
    made = Image.new("RGBA", (width, height))
    made.paste(
        Image.fromarray(pixels),
        ((width - pixels.shape[1]) // 2, (height - pixels.shape[0]) // 2),
    )
    return made


def block_factor(pixels: np.ndarray) -> int:
    """Return the largest k such that the picture consists of k x k blocks of one colour.

    Args:
        pixels: [height, width, ...]; the result is 1 if all pixels are equal.

    Example:
        >>> art = np.kron(np.arange(4).reshape(2, 2), np.ones((3, 3)))
        >>> block_factor(art)
        3
    """
    height, width = pixels.shape[:2]
    flat = pixels.reshape(height, width, -1)
    rows = np.flatnonzero((flat[1:] != flat[:-1]).any(axis=(1, 2))) + 1
    columns = np.flatnonzero((flat[:, 1:] != flat[:, :-1]).any(axis=(0, 2))) + 1
    if not rows.size and not columns.size:
        return 1
    return int(np.gcd.reduce(np.concatenate([rows, columns, [height, width]])))


def undo_enlargement(image: Image.Image, done: set[str]) -> Image.Image:
    """Return enlarged pixel art, L, RGB or RGBA, in its original pixels; others as they are."""
    if image.getcolors(256) is None:
        return image
    pixels = np.asarray(image)
    factor = block_factor(pixels)
    if factor == 1 or min(image.size) // factor < MIN_SIDE:
        return image
    done.add(BLOCKS)
    return Image.fromarray(np.ascontiguousarray(pixels[::factor, ::factor]))


def inside(size: tuple[int, int], frame: Frame) -> tuple[int, int]:
    """Width and height of the largest part of a picture that has the frame's shape.

    Args:
        size: width and height of the picture.
        frame: its size has the shape.

    Example:
        >>> inside((100, 60), Frame(32)), inside((100, 60), Frame((32, 64)))
        ((60, 60), (100, 50))
    """
    height, width = sides(frame.size)
    if size[0] * height >= size[1] * width:  # it is wider
        return max(1, round(size[1] * width / height)), size[1]
    return size[0], max(1, round(size[0] * height / width))


def _around(image: Image.Image, frame: Frame) -> tuple[int, int]:
    """Width and height of the smallest place of the frame's shape that a picture fits into."""
    height, width = sides(frame.size)
    if image.width * height >= image.height * width:
        return image.width, max(image.height, round(image.width * height / width))
    return max(image.width, round(image.height * width / height)), image.height


def _padded(image: Image.Image, frame: Frame) -> Image.Image:
    place = _around(image, frame)
    if max(place) > _LARGEST_PADDED:  # a strip of 20 million x 4 pixels must not fill the memory
        share = _LARGEST_PADDED / max(place)
        smaller = (max(1, round(image.width * share)), max(1, round(image.height * share)))
        image = image.resize(smaller, Image.Resampling.BOX)
        place = _around(image, frame)
    if image.mode == "L" and not frame.on_grey:
        image = image.convert("RGB")
    colour = frame.colour[0] if image.mode == "L" else frame.colour
    if image.mode == "RGBA":
        colour = (0, 0, 0, 0)
    padded = Image.new(image.mode, place, colour)
    padded.paste(image, ((place[0] - image.width) // 2, (place[1] - image.height) // 2))
    return padded


def _place(name: str) -> float:
    """The place of a random crop, 0 to 1: computed from the name, the same in every run."""
    mark = hashlib.blake2b(name.encode("utf-8", "backslashreplace"), digest_size=4).digest()
    return int.from_bytes(mark, "little") / (2**32 - 1)
