"""The page of the judge, docs/judge.md: its tables from the results file, and its picture.

The tables stand between two comments, `<!-- panel: NAME -->` and `<!-- end -->`. Nobody types a
number there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from benchmarks.pictures import damages, panel_sets
from benchmarks.shared import harness, ours

PAGE = harness.ROOT / "docs" / "judge.md"
PICTURE = harness.FIGURES / "judge_damages.png"
_BLOCK = re.compile(r"(<!-- panel: ([a-z_ ]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_SHOWN = 5  # pictures of a set in a row
_SIDE = 64  # about how large, in pixels
_TEXT = 128  # width of the names
_GAP = 2


def fill(page: str, tables: Mapping[str, str]) -> str:
    """The page with every table put between its comments.

    Raises:
        ValueError: if the page asks for a table that there is not.
    """

    def filled(block: re.Match[str]) -> str:
        if block[2] not in tables:
            raise ValueError(f"the page asks for the table {block[2]}: use {', '.join(tables)}")
        return f"{block[1]}\n{tables[block[2]]}\n\n{block[4]}"

    return _BLOCK.sub(filled, page)


def write(tables: Mapping[str, str], path: Path = PAGE) -> None:
    """Fill the tables of the page."""
    harness.write_atomically(path, fill(path.read_text(encoding="utf-8"), tables))


def _row(pictures: torch.Tensor) -> np.ndarray:
    """Pictures side by side, enlarged by a whole number: uint8 [height, width, 3]."""
    pixels = ours.to_pixels(pictures)
    times = max(1, _SIDE // pixels.shape[1])
    pixels = pixels.repeat(times, 1).repeat(times, 2)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    pixels = np.pad(pixels, ((0, 0), (_GAP, _GAP), (_GAP, _GAP), (0, 0)), constant_values=255)
    return np.concatenate(list(pixels), axis=1)


def draw(data: str | None, path: Path = PICTURE) -> None:
    """Draw a few pictures of each damage that is not set aside, below the undamaged ones."""
    sets = [panel_sets.load(panel_sets.SETS[name], data).images for name in ("garments", "tiles")]
    generator = torch.Generator().manual_seed(4)
    chosen = [x[torch.randperm(len(x), generator=generator)[:_SHOWN]] for x in sets]
    shown = [d for d in damages.DAMAGES if d.name not in damages.SET_ASIDE and not d.needs_opacity]
    lines = [("undamaged", chosen)]
    for damage in shown:
        spoilt = [
            damage.of(x, damage.shown, torch.Generator().manual_seed(0))
            if damage.fits(x.shape[1])
            else x[:0]
            for x in chosen
        ]
        lines.append((f"{damage.name} {damage.shown:g}", spoilt))
    widths = [_row(x).shape[1] for x in chosen]
    height = max(_row(x).shape[0] for x in chosen)
    size = (_TEXT + sum(widths), height * len(lines))
    image = Image.new("RGB", size, (255, 255, 255))
    pen = ImageDraw.Draw(image)
    for line, (name, rows) in enumerate(lines):
        pen.text(
            (4, line * height + height // 2 - 8), name, fill=(0, 0, 0),
            font=ImageFont.load_default(14),
        )  # fmt: skip
        left = _TEXT
        for x, width in zip(rows, widths, strict=True):
            if len(x):
                row = _row(x)
                top = line * height + (height - row.shape[0]) // 2
                image.paste(Image.fromarray(row), (left, top))
            left += width
    path.parent.mkdir(parents=True, exist_ok=True)
    # A palette of 256 colours makes the file a third as large.
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
