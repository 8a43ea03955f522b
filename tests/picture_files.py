"""Pictures written for the tests: small, different from each other, seeded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def colour(seed: int, width: int = 32, height: int = 32) -> Image.Image:
    """Return a smooth colour picture of its own."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write_pictures(folder: Path, count: int = 20, width: int = 32, height: int = 32) -> Path:
    """Write `count` colour PNGs named p000.png, ... and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        colour(i, width, height).save(folder / f"p{i:03}.png")
    return folder
