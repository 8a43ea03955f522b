"""Make four textures from photographs: a leaf, a meadow, wood and sky, about a megapixel in all.

The photographs are MATE's backgrounds (Debian's package mate-backgrounds 1.26, under its own
licences). Nothing of them is kept in this repository. Each is cut to its texture and halved.

    apt-get download mate-backgrounds && dpkg -x mate-backgrounds_*.deb unpacked
    python -m benchmarks.pictures.photographs unpacked/usr/share/backgrounds/mate/nature textures
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from benchmarks.shared import harness

# Name of the texture: the file, and the part of it (left, upper, right, lower); None: all.
TEXTURES: dict[str, tuple[str, tuple[int, int, int, int] | None]] = {
    "leaf": ("Blinds.jpg", None),
    "meadow": ("GreenMeadow.jpg", None),
    "wood": ("Wood.jpg", (0, 500, 2560, 1920)),
    "sky": ("Storm.jpg", (0, 0, 1920, 780)),
}


def main() -> None:
    """Write the textures as PNG."""
    parser = argparse.ArgumentParser(description="Textures from photographs.")
    parser.add_argument("source", type=Path, help="folder of the photographs")
    parser.add_argument("out", type=Path, help="folder for the textures")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, (file, part) in TEXTURES.items():
        path = arguments.source / file
        if not path.exists():
            raise harness.UsageError(f"{path} is missing: give the folder 'nature' of the package.")
        with Image.open(path) as image:
            whole = image.convert("RGB").crop(part)
        half = whole.resize((whole.width // 2, whole.height // 2), Image.Resampling.LANCZOS)
        half.save(arguments.out / f"{name}.png")


if __name__ == "__main__":
    harness.run_program(main)
