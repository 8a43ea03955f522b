"""Sets of pictures with one palette, with palettes of their own, with flat areas, with neither."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

INKS = np.random.default_rng(5).integers(0, 256, (24, 3)).astype(np.uint8)


def sprites(count: int, inks: np.ndarray = INKS, size: int = 16, seed: int = 0) -> np.ndarray:
    """Pixel art: 6 of the inks in a picture, in blocks of 2 x 2."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        few = rng.choice(len(inks), 6, replace=False)
        small = inks[few[rng.integers(0, 6, (size // 2, size // 2))]]
        found.append(small.repeat(2, 0).repeat(2, 1))
    return np.stack(found)


def icons(count: int, size: int = 48) -> np.ndarray:
    """Discs with soft edges on a shaded ground, each in colours of its own."""
    rng, found = np.random.default_rng(1), []
    for _ in range(count):
        image = Image.new("RGB", (8 * size, 8 * size), tuple(rng.integers(0, 256, 3).tolist()))
        draw = ImageDraw.Draw(image)
        for _ in range(9):
            x, y, r = rng.uniform(0, 8 * size, 3)
            fill = tuple(rng.integers(0, 256, 3).tolist())
            draw.ellipse((x - r / 3, y - r / 3, x + r / 3, y + r / 3), fill=fill)
        found.append(np.asarray(image.resize((size, size), Image.Resampling.LANCZOS)))
    return np.stack(found)


def photographs(count: int, channels: int = 3) -> np.ndarray:
    """Smooth shades with the noise of a sensor, half of each exactly black."""
    rng = np.random.default_rng(2)
    shade = np.linspace(40, 200, 32)[None, :, None, None] + 20 * rng.random((count, 1, 32, 1))
    noisy = shade + rng.normal(0, 4, (count, 32, 32, channels))
    noisy[:, 16:] = 0
    return noisy.clip(0, 255).astype(np.uint8)


def own_palettes(count: int) -> np.ndarray:
    """Pixel art in which each picture has colours of its own."""
    rng = np.random.default_rng(3)
    return np.concatenate([
        sprites(1, rng.integers(0, 256, (8, 3)).astype(np.uint8), seed=i) for i in range(count)
    ])  # fmt: skip
