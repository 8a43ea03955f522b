"""Which files claim to be pictures by their name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import PurePosixPath

# Formats that Pillow decodes itself. EPS and PDF would start another program. TGA is not listed
# because it has no signature: it is tried only for files named .tga.
FORMATS = (
    *("PNG", "JPEG", "MPO", "GIF", "WEBP", "BMP", "DIB", "TIFF"),
    *("PPM", "ICO", "JPEG2000", "AVIF", "QOI"),
)
UNREADABLE_PICTURES = frozenset({".svg", ".svgz", ".eps", ".pdf", ".psd", ".heic", ".heif", ".exr"})
_TEXTS = frozenset(
    {".txt", ".json", ".jsonl", ".xml", ".md", ".csv", ".tsv", ".yaml", ".yml", ".names"}
)


def claims_picture(name: str) -> bool:
    """Whether a file has an ending of pictures, so that it counts as broken if it is not one.

    Example:
        >>> [claims_picture(name) for name in ("a.PNG", "a.heic", "a.txt", "LICENSE")]
        [True, True, False, False]
    """
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in UNREADABLE_PICTURES or suffix in picture_suffixes()


def claims_text(name: str) -> bool:
    """Whether a file has an ending of texts that lie beside pictures: labels, captions, notes.

    Example:
        >>> claims_text("train/a.txt"), claims_text("train/a.png"), claims_text("train/a")
        (True, False, False)
    """
    return PurePosixPath(name).suffix.lower() in _TEXTS


@lru_cache(maxsize=1)
def picture_suffixes() -> frozenset[str]:
    """The endings of all formats that are read, with the dot."""
    from PIL import Image  # here, so that `noisewise --help` starts quickly

    known = Image.registered_extensions()
    return frozenset(s for s, name in known.items() if name in (*FORMATS, "TGA"))
