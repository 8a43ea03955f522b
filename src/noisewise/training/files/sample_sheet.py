"""Sample sheets: many pictures in one PNG file, drawn with the same seeds all through training."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from noisewise.pictures.checkerboard import on_checkerboard
from noisewise.pictures.gaps import gap_level
from noisewise.pictures.own_files import marked
from noisewise.plain_files import MOST_PIXELS_FILE, NotPlainError, read_plain
from noisewise.sizes import Size, sides
from noisewise.training.files.atomic import write_atomic

COLUMNS = 8
_GAP = 1  # pixel
_SHOWN = 64  # pixels of a small picture on a screen
_MOST_PIXELS = 2**26  # of a sheet that is read again
_SHEET = re.compile(r"(teacher|generator)-(\d+)\.png")


def sheet(images: Tensor, columns: int = COLUMNS) -> np.ndarray:
    """Join pictures into rows, left to right, with gaps that differ from the pictures' edges.

    Args:
        images: float [n, 1, 3 or 4, h, w] in [-1, 1]; RGBA is straight, and is laid on a
            checkerboard.
        columns: number of pictures in a row.

    Returns:
        uint8 [rows * (h + 1) - 1, columns * (w + 1) - 1] for grey, else [..., 3]. Gaps are
        one pixel wide; empty places at the end have their colour.

    Example:
        >>> import torch
        >>> sheet(torch.full((9, 1, 4, 4), -1.0)).shape
        (9, 39)
    """
    levels = images.clamp(-1, 1).add(1).mul(127.5).round().byte()
    pixels = on_checkerboard(levels.permute(0, 2, 3, 1).numpy())
    n, height, width, channels = pixels.shape
    rows = -(-n // columns)
    tall, wide = height + _GAP, width + _GAP
    laid = np.full((rows * columns, tall, wide, channels), gap_level(pixels), np.uint8)
    laid[:n, :height, :width] = pixels
    grid = laid.reshape(rows, columns, tall, wide, channels).transpose(0, 2, 1, 3, 4)
    flat = grid.reshape(rows * tall, columns * wide, channels)[:-_GAP, :-_GAP]
    return flat[:, :, 0] if channels == 1 else flat


def enlarged(pixels: np.ndarray, size: Size, scale: int | None = None) -> Image.Image:
    """A sheet as a picture for a screen: each pixel becomes a square.

    Args:
        pixels: from `sheet`.
        size: of one picture on it.
        scale: side of the squares; None: such that a picture has about 64 pixels, at least 1.

    Example:
        >>> enlarged(np.zeros((9, 39), np.uint8), 4).size
        (624, 144)
    """
    factor = scale or max(1, _SHOWN // max(sides(size)))
    image = Image.fromarray(pixels)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG file that says that noisewise made it."""
    file = io.BytesIO()
    image.save(file, format="PNG", pnginfo=marked())
    return file.getvalue()


def sheet_path(run: Path, stage: str, step: int) -> Path:
    """Path of a sheet in a run.

    Example:
        >>> sheet_path(Path("runs/x"), "teacher", 40).as_posix()
        'runs/x/samples/teacher-0000040.png'
    """
    return run / "samples" / f"{stage}-{step:07d}.png"


def sheets(run: Path) -> list[tuple[str, int, Path]]:
    """All sheets in a run: (stage, step, path), sorted by stage and step."""
    found = [(path, _SHEET.fullmatch(path.name)) for path in (run / "samples").glob("*.png")]
    return sorted((match[1], int(match[2]), path) for path, match in found if match)


def open_sheet(path: Path) -> Image.Image | None:
    """Read a sheet; None if it is not a picture that can be read.

    Raises:
        OSError: if the system cannot read it now.
    """
    try:
        data = io.BytesIO(read_plain(path, MOST_PIXELS_FILE))
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(data, formats=["PNG"])
            if image.width * image.height > _MOST_PIXELS:
                return None
            image.load()
    except (FileNotFoundError, NotPlainError):
        return None
    except PermissionError:
        raise
    except Exception:  # Pillow raises many types when a file is damaged
        return None
    return image


def save_sheet(path: Path, images: Tensor, columns: int = COLUMNS) -> None:
    """Write a sheet as PNG, atomically; make its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture, mark = Image.fromarray(sheet(images.cpu(), columns)), marked()
    write_atomic(path, lambda temporary: picture.save(temporary, format="PNG", pnginfo=mark))
