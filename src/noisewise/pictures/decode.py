"""One picture from bytes to a uint8 square: upright, on a plain background, resized once.

What goes wrong silently elsewhere is handled by name here: EXIF rotation, 16-bit grey (Pillow's
own conversion clips it to white), colours hidden under transparency, palettes, CMYK, profiles other
than sRGB, truncated files that `verify()` passes, and pixel art that smoothing would smear.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from noisewise.pictures import bit_depth, sources
from noisewise.pictures.bit_depth import Extent, NotFiniteError, Ranges
from noisewise.pictures.framing import (
    ANIMATED,
    MIN_SIDE,
    PROFILE,
    ROTATED,
    Frame,
    Square,
    as_square,
    block_factor,
    fit,
    on_ground,
)

MAX_PIXELS = 89_478_485
"""Pictures with more pixels are left out: Pillow's own limit against decompression bombs."""

# Formats that are read from bytes alone; EPS and PDF would start another program, TGA has no mark.
_FORMATS = (
    *("PNG", "JPEG", "MPO", "GIF", "WEBP", "BMP", "DIB", "TIFF"),
    *("PPM", "ICO", "JPEG2000", "AVIF", "QOI"),
)
LOSSY = frozenset({"JPEG", "MPO"})
_NOT_PICTURES = frozenset({".svg", ".svgz", ".eps", ".pdf", ".psd", ".heic", ".heif", ".exr"})


class UnusableError(Exception):
    """A file that gives no picture; `reason` is one of those in `sources`."""

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Header:
    """What a picture's header says, without decoding it."""

    width: int
    height: int
    mode: str
    format: str


def read_header(file: BinaryIO, name: str) -> Header:
    """Read size, mode and format; raises UnusableError for what is no picture we take."""
    try:
        with _open(file, name) as image:
            return Header(image.width, image.height, image.mode, image.format or "?")
    except UnusableError:
        raise
    except Exception as error:  # Pillow's plugins raise almost anything on damaged input
        raise UnusableError(reason_of(error, name)) from error


def extent(file: BinaryIO, name: str) -> Extent:
    """Measure the darkest and the brightest value of a picture with more than 8 bits; decodes it.

    Raises:
        UnusableError: with the reason; values that are not finite are one.
    """
    try:
        with _open(file, name) as image:
            return bit_depth.extent(image)
    except UnusableError:
        raise
    except Exception as error:  # as above: Pillow raises almost anything
        raise UnusableError(reason_of(error, name)) from error


def enlargement(file: BinaryIO, name: str) -> int:
    """Return how many times pixel art is stored enlarged (1: not); 0 for a single colour."""
    try:
        with _open(file, name) as image:
            image.load()
            flat = (
                on_ground(image, Frame(MIN_SIDE), set())
                if not bit_depth.is_deep(image.mode)
                else image
            )
            colours = flat.getcolors(256) if flat.mode in ("L", "RGB") else None
            if colours is None or len(colours) == 1:
                return 0 if colours else 1
            return block_factor(np.asarray(flat))
    except UnusableError:
        raise
    except Exception as error:  # as above: Pillow raises almost anything
        raise UnusableError(reason_of(error, name)) from error


def decode(file: BinaryIO, name: str, frame: Frame, ranges: Ranges | None = None) -> Square:
    """Decode one picture to a uint8 square.

    Args:
        file: the picture's bytes.
        name: its name, for the reason when it is no picture, and for the place of a random crop.
        frame: size, crop and background.
        ranges: what is black and white in pictures with more than 8 bits; None: the usual.

    Raises:
        UnusableError: with the reason.
    """
    try:
        with _open(file, name) as image:
            return _decode(image, name, frame, ranges or Ranges())
    except UnusableError:
        raise
    except Exception as error:  # as above: Pillow raises almost anything
        raise UnusableError(reason_of(error, name)) from error


def _decode(image: Image.Image, name: str, frame: Frame, ranges: Ranges) -> Square:
    lossless = image.format not in LOSSY
    done: set[str] = set()
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        done.add(ANIMATED)
    if not lossless:
        image.draft(None, (3 * frame.size, 3 * frame.size))
    image.load()
    profile = image.info.get("icc_profile")
    upright = _upright(image, done)
    if bit_depth.is_deep(upright.mode):
        done.add(bit_depth.kind_of(upright.mode))
        upright = bit_depth.to_eight_bits(upright, ranges.of(upright.mode))
    flat = on_ground(upright, frame, done)
    if (
        frame.crop == "pad"
    ):  # the background is a colour of the screen, not of the picture's profile
        return as_square(fit(_to_srgb(flat, profile, done), name, frame, done, lossless), done)
    return as_square(_to_srgb(fit(flat, name, frame, done, lossless), profile, done), done)


def _open(file: BinaryIO, name: str) -> Image.Image:
    """Open with the formats we take, refusing by size before anything is decoded."""
    suffix = PurePosixPath(name).suffix.lower()
    formats = (*_formats(), "TGA") if suffix == ".tga" else _formats()
    image = Image.open(file, formats=formats)
    if image.width * image.height > MAX_PIXELS:
        raise UnusableError(sources.TOO_LARGE)
    if min(image.size) < MIN_SIDE:
        raise UnusableError(sources.TOO_SMALL)
    return image


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@lru_cache(maxsize=1)
def _picture_suffixes() -> frozenset[str]:
    known = Image.registered_extensions()
    return frozenset(s for s, name in known.items() if name in (*_FORMATS, "TGA"))


def reason_of(error: Exception, name: str) -> str:
    """Return the skip reason for what reading or decoding raised."""
    if isinstance(error, NotFiniteError):
        return sources.NOT_FINITE
    text = str(error).lower()
    suffix = PurePosixPath(name).suffix.lower()
    if isinstance(error, UnidentifiedImageError):
        if suffix in _NOT_PICTURES:
            return sources.UNSUPPORTED
        return sources.NOT_IMAGE if suffix in _picture_suffixes() else sources.OTHER_FILE
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError)
    if isinstance(error, bombs):
        return sources.TOO_LARGE
    if "truncated" in text or isinstance(error, EOFError):
        return sources.TRUNCATED
    # Pillow has no type of its own for a format that it knows and cannot read: only these words.
    if isinstance(error, NotImplementedError) or "not available" in text or "unsupported" in text:
        return sources.UNSUPPORTED
    if isinstance(error, RuntimeError) and "password" in text:
        return sources.PASSWORD
    if isinstance(error, OSError) and error.errno is not None:
        return sources.UNREADABLE
    return sources.DAMAGED


def _upright(image: Image.Image, done: set[str]) -> Image.Image:
    try:
        turned = image.getexif().get(0x0112, 1) not in (0, 1)
        result = ImageOps.exif_transpose(image) if turned else image
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return image  # a damaged EXIF block says nothing; the pixels are good
    if turned:
        done.add(ROTATED)
    return result


def _to_srgb(image: Image.Image, profile: bytes | None, done: set[str]) -> Image.Image:
    """Convert to sRGB by the picture's own profile, on the small picture: cheap and as exact."""
    if profile and image.mode in ("RGB", "CMYK"):
        try:
            own = ImageCms.getOpenProfile(io.BytesIO(profile))
            if "srgb" not in ImageCms.getProfileDescription(own).lower():
                srgb = ImageCms.createProfile("sRGB")
                converted = ImageCms.profileToProfile(image, own, srgb, outputMode="RGB")
                assert converted is not None
                done.add(PROFILE)
                return converted
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass  # an unreadable profile: the numbers are taken as sRGB
    return image if image.mode in ("L", "RGB") else image.convert("RGB")
