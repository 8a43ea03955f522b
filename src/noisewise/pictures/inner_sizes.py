"""Sizes inside of picture files for which Pillow takes memory, beside width and height."""

from __future__ import annotations

from typing import BinaryIO

from PIL import BmpImagePlugin, Image, PngImagePlugin, TiffImagePlugin

_ICON = b"\0\0\1\0"
_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_ICON_PIXELS = 2**20  # icons have 256 pixels a side; some have up to 1024
_MOST_TILE_PIXELS = 2**22  # or as many as the picture has
_TILE_WIDTH, _TILE_LENGTH = 322, 323


def is_large_icon(file: BinaryIO) -> bool:
    """Whether an .ico holds a picture of more than 2^20 pixels; False for other files.

    Its table may say 32 x 32 of a PNG of 10,000 x 10,000, which Pillow decodes as it opens the
    file. The position in the file is kept.
    """
    start = file.tell()
    try:
        if file.read(4) != _ICON:
            return False
        count = int.from_bytes(file.read(2), "little")
        table = file.read(16 * count)
        offsets = {
            int.from_bytes(table[i + 12 : i + 16], "little") for i in range(0, len(table), 16)
        }
        return any(_pixels_at(file, offset) > _MOST_ICON_PIXELS for offset in offsets)
    finally:
        file.seek(start)


def _pixels_at(file: BinaryIO, offset: int) -> int:
    """Pixels of one picture of an .ico; 0 if it has no header that Pillow can read."""
    file.seek(offset)
    is_png = file.read(len(_PNG)) == _PNG
    file.seek(offset)
    try:
        kind = PngImagePlugin.PngImageFile if is_png else BmpImagePlugin.DibImageFile
        found = kind(file)
    except Exception:  # Pillow's plugins raise almost anything; such a picture is not decoded
        return 0
    return found.width * found.height // (1 if is_png else 2)  # a bitmap and its mask


def has_large_tiles(image: Image.Image) -> bool:
    """Whether a TIFF has tiles of more than 2^22 pixels that are larger than the picture."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    width, height = (image.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    if not (isinstance(width, int) and isinstance(height, int)):
        return True
    return width * height > max(_MOST_TILE_PIXELS, image.width * image.height)
