"""The size of pictures that are drawn larger than the model was trained on."""

from __future__ import annotations

import re

MOST_PIXELS = 2**24
"""Of all larger pictures that are drawn at once: they stay in memory, some 300 bytes a pixel."""


def parse_larger(text: str) -> tuple[int, int]:
    """Height and width in pixels from WIDTHxHEIGHT, as image tools write it.

    Raises:
        ValueError: if the text is no size.

    Example:
        >>> parse_larger("768x512")
        (512, 768)
    """
    found = re.fullmatch(r"\s*(\d{1,6})\s*[xX×]\s*(\d{1,6})\s*", text, re.ASCII)
    if not found:
        raise ValueError(f"{text!r} is no size; write WIDTHxHEIGHT in pixels, such as 768x512")
    return int(found[2]), int(found[1])


def check_pixels(size: tuple[int, int], num_images: int) -> None:
    """Refuse more pixels than memory is meant for.

    Raises:
        ValueError: with what would fit.

    Example:
        >>> check_pixels((2048, 2048), 8)
        Traceback (most recent call last):
        ...
        ValueError: 8 pictures of 2048 x 2048 pixels are too much at once; draw 4 at most
    """
    height, width = size
    fitting = MOST_PIXELS // max(1, height * width)
    if num_images <= fitting:
        return
    way = f"draw {fitting} at most" if fitting else "use at most 4096 x 4096"
    word = "picture" if num_images == 1 else "pictures"
    raise ValueError(
        f"{num_images} {word} of {width} x {height} pixels are too much at once; {way}"
    )
