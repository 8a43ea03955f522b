"""The size of pictures that are drawn larger than the model was trained on."""

from __future__ import annotations

from noisewise.sizes import as_size, sides

MOST_PIXELS = 2**24
"""Of all larger pictures that are drawn at once: they stay in memory, some 300 bytes a pixel."""


def parse_larger(text: str) -> tuple[int, int]:
    """Height and width in pixels from WIDTHxHEIGHT, or from one side.

    Raises:
        ValueError: if the text is no size.

    Example:
        >>> parse_larger("768x512"), parse_larger("512")
        ((512, 768), (512, 512))
    """
    try:
        size = sides(as_size(text))
    except ValueError:
        size = (0, 0)
    if min(size) < 1:
        raise ValueError(
            f"{text!r} is no size; write a side in pixels or WIDTHxHEIGHT, such as 768x512"
        )
    return size


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
