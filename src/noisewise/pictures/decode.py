"""Decode one picture from bytes to uint8 pixels: upright, on a plain background, resized once.

Cases that often go wrong without an error are handled here: EXIF rotation, 16-bit grey (Pillow
itself clips it to white), colours hidden under transparency, palettes, CMYK, colour profiles other
than sRGB, truncated files that pass `verify()`, and pixel art that resizing would blur.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from noisewise.pictures import bit_depth, sources
from noisewise.pictures.alpha import Seen, seen
from noisewise.pictures.bit_depth import Extent, NotFiniteError, Ranges
from noisewise.pictures.crops import Cut, Pieces, cut_picture
from noisewise.pictures.framing import (
    ANIMATED,
    MIN_SIDE,
    PROFILE,
    ROTATED,
    Frame,
    Framed,
    as_framed,
    block_factor,
    fit,
    on_background,
)
from noisewise.pictures.inner_sizes import has_large_tiles, is_large_icon
from noisewise.pictures.own_files import is_sheet
from noisewise.pictures.picture_names import (
    FORMATS,
    UNREADABLE_PICTURES,
    claims_text,
    picture_suffixes,
)
from noisewise.sizes import sides

MAX_PIXELS = 89_478_485
"""Pictures with more pixels are skipped: Pillow's own limit against decompression bombs."""

_MOST_PROFILE = 16 * 2**20  # bytes; the largest that a JPEG can hold
LOSSY = frozenset({"JPEG", "MPO"})


class UnusableError(Exception):
    """A file that cannot be used as a picture; `code` is one of the codes in `sources`."""

    def __init__(self, code: str) -> None:
        """Store the code; the text of the error is its reason."""
        super().__init__(sources.REASONS[code])
        self.code = code


@dataclass(frozen=True)
class Header:
    """The header of a picture, read without decoding it."""

    width: int
    height: int
    mode: str
    format: str


def read_header(file: BinaryIO, name: str) -> Header:
    """Read size, mode and format of a picture.

    Raises:
        UnusableError: if the file cannot be used as a picture.
    """
    try:
        with _open(file, name) as image:
            if is_sheet(image):
                raise UnusableError(sources.OWN)
            return Header(image.width, image.height, image.mode, image.format or "?")
    except UnusableError:
        raise
    except Exception as error:  # Pillow's plugins raise almost anything on damaged input
        # A text may begin as some pictures do: "BM" and "P3" are the first bytes of formats.
        code = sources.OTHER_FILE if claims_text(name) else skip_code(error, name)
        raise UnusableError(code) from error


def extent(file: BinaryIO, name: str) -> Extent:
    """Decode a picture with more than 8 bits and measure its darkest and brightest value.

    Raises:
        UnusableError: if the file cannot be decoded, or holds NaN or infinite values.
    """
    try:
        with _open(file, name) as image:
            return bit_depth.extent(image)
    except UnusableError:
        raise
    except Exception as error:  # as above: Pillow raises almost anything
        raise UnusableError(skip_code(error, name)) from error


def num_frames(file: BinaryIO, name: str) -> int:
    """Number of frames of an animation; 1 if it cannot be read, and for TIFF, which has pages."""
    try:
        with _open(file, name) as image:
            return 1 if image.format == "TIFF" else max(1, int(getattr(image, "n_frames", 1)))
    except Exception:  # as above; the file is left out with its reason when it is decoded
        return 1


def enlargement(file: BinaryIO, name: str) -> int:
    """Return how many times pixel art is enlarged (1: not enlarged); 0 if it has one colour."""
    try:
        with _open(file, name) as image:
            image.load()
            flat = (
                on_background(image, Frame(MIN_SIDE), set())
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
        raise UnusableError(skip_code(error, name)) from error


def transparency(file: BinaryIO, name: str) -> Seen:
    """Look at the transparency of a picture.

    Raises:
        UnusableError: if it cannot be decoded.
    """
    try:
        with _open(file, name) as image:
            if image.has_transparency_data:
                image.load()
            return seen(image)
    except UnusableError:
        raise
    except Exception as error:  # as above: Pillow raises almost anything
        raise UnusableError(skip_code(error, name)) from error


def decode(file: BinaryIO, name: str, frame: Frame, ranges: Ranges | None = None) -> Framed:
    """Decode one picture to uint8 pixels in its frame.

    Args:
        file: the picture's bytes.
        name: its name, used for the error and for the place of a random crop.
        frame: size, crop and background.
        ranges: black and white of pictures with more than 8 bits; None: the usual ranges.

    Raises:
        UnusableError: if the file cannot be used as a picture.
    """
    try:
        with _open(file, name) as image:
            return _decode(image, name, frame, ranges or Ranges())
    except UnusableError:
        raise
    except Exception as error:  # as above: Pillow raises almost anything
        raise UnusableError(skip_code(error, name)) from error


def cut(
    file: BinaryIO, name: str, frame: Frame, wanted: Cut, ranges: Ranges | None = None
) -> Pieces:
    """Decode one picture at its own scale and cut it.

    Args:
        file: the picture's bytes.
        name: its name, used for the error and for the places of the crops.
        frame: size of the crops, and how the whole picture comes to it.
        wanted: what to cut.
        ranges: black and white of pictures with more than 8 bits; None: the usual ranges.

    Raises:
        UnusableError: if the file cannot be used as a picture.
    """
    try:
        with _open(file, name) as image:
            done: set[str] = set()
            flat, profile = _flattened(image, frame, ranges or Ranges(), done)
            lossless = image.format not in LOSSY
            convert = partial(_to_srgb, profile=profile, done=done, frame=frame)
            return cut_picture(flat, name, frame, wanted, done, lossless, convert)
    except UnusableError:
        raise
    except Exception as error:  # as above: Pillow raises almost anything
        raise UnusableError(skip_code(error, name)) from error


def _decode(image: Image.Image, name: str, frame: Frame, ranges: Ranges) -> Framed:
    lossless = image.format not in LOSSY
    done: set[str] = set()
    if not lossless:
        height, width = sides(frame.size)
        image.draft(None, (3 * width, 3 * height))
    flat, profile = _flattened(image, frame, ranges, done)
    if frame.crop == "pad":  # the background is an sRGB colour: add it after the conversion
        made = fit(_to_srgb(flat, profile, done, frame), name, frame, done, lossless)
    else:
        made = _to_srgb(fit(flat, name, frame, done, lossless), profile, done, frame)
    if made.mode == "RGBA" and made.getchannel("A").getextrema()[1] == 0:
        raise UnusableError(sources.INVISIBLE)
    return as_framed(made, done)


def _flattened(
    image: Image.Image, frame: Frame, ranges: Ranges, done: set[str]
) -> tuple[Image.Image, bytes | None]:
    """The picture upright, with 8 bits, on its background; and its colour profile."""
    # The pages of a TIFF are pictures of their own, and Pillow counts them by reading them all.
    if image.format not in ("MPO", "TIFF") and getattr(image, "n_frames", 1) > 1:
        done.add(ANIMATED)
    image.load()
    profile = image.info.get("icc_profile")
    upright = _upright(image, done)
    if bit_depth.is_deep(upright.mode):
        done.add(bit_depth.kind_of(upright.mode))
        upright = bit_depth.to_eight_bits(upright, ranges.of(upright.mode))
    return on_background(upright, frame, done), profile


def _open(file: BinaryIO, name: str) -> Image.Image:
    """Open a picture of a supported format; refuse wrong sizes before anything is decoded."""
    suffix = PurePosixPath(name).suffix.lower()
    formats = (*_formats(), "TGA") if suffix == ".tga" else _formats()
    if is_large_icon(file):
        raise UnusableError(sources.TOO_LARGE)
    image = Image.open(file, formats=formats)
    if image.width * image.height > MAX_PIXELS or has_large_tiles(image):
        raise UnusableError(sources.TOO_LARGE)
    if min(image.size) < MIN_SIDE:
        raise UnusableError(sources.TOO_SMALL)
    return image


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def skip_code(error: Exception, name: str) -> str:
    """Return the code for a file that cannot be read or decoded, given the error."""
    if isinstance(error, NotFiniteError):
        return sources.NOT_FINITE
    text = str(error).lower()
    suffix = PurePosixPath(name).suffix.lower()
    if isinstance(error, UnidentifiedImageError):
        if suffix in UNREADABLE_PICTURES:
            return sources.UNSUPPORTED
        return sources.NOT_PICTURE if suffix in picture_suffixes() else sources.OTHER_FILE
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError)
    if isinstance(error, bombs):
        return sources.TOO_LARGE
    if "truncated" in text or isinstance(error, EOFError):
        return sources.TRUNCATED
    # Pillow has no exception type for a format that it knows but cannot read: look at the words.
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
        return image  # only the EXIF block is damaged; the pixels are good
    if turned:
        done.add(ROTATED)
    return result


def _to_srgb(
    image: Image.Image, profile: bytes | None, done: set[str], frame: Frame
) -> Image.Image:
    """Convert to sRGB with the picture's own profile; on the small picture this is fast."""
    if image.mode == "RGBA":
        if not profile:
            return image
        colour = _colour_to_srgb(image.convert("RGB"), profile, done)
        colour.putalpha(image.getchannel("A"))
        return colour
    found = _colour_to_srgb(image, profile, done)
    return found if frame.alpha == "none" else found.convert("RGBA")


def _colour_to_srgb(image: Image.Image, profile: bytes | None, done: set[str]) -> Image.Image:
    """Mode L or RGB, in sRGB."""
    if profile and len(profile) <= _MOST_PROFILE and image.mode in ("RGB", "CMYK"):
        try:
            own = ImageCms.getOpenProfile(io.BytesIO(profile))
            if "srgb" not in ImageCms.getProfileDescription(own).lower():
                srgb = ImageCms.createProfile("sRGB")
                converted = ImageCms.profileToProfile(image, own, srgb, outputMode="RGB")
                assert converted is not None
                done.add(PROFILE)
                return converted
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass  # an unreadable profile: read the pixels as sRGB
    return image if image.mode in ("L", "RGB") else image.convert("RGB")
