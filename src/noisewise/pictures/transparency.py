"""Pictures that vanish on their background, such as white icons on white."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image, ImageColor

_CHOICES = ("black", "white", "gray")
_SPREAD = 24  # a picture whose values differ by less is of one colour to the eye
_ALPHA = 64  # alpha that varies by less shows no shape
_SIDE = 256  # a larger picture is judged by some of its pixels
_VANISHED, _ON = "vanished", "vanished on "


def vanishing(rgba: Image.Image, colour: tuple[int, int, int]) -> set[str]:
    """Marks that say on which backgrounds a picture vanishes: the chosen one, and others.

    A picture vanishes if it has nearly one colour on the background, while its alpha varies.

    Args:
        rgba: mode RGBA.
        colour: of the chosen background.

    Example:
        >>> icon = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
        >>> icon.paste((255, 255, 255, 255), (2, 2, 6, 6))
        >>> sorted(vanishing(icon, (255, 255, 255)))
        ['vanished', 'vanished on white']
    """
    alpha = rgba.getchannel("A").getextrema()
    if _difference(alpha) < _ALPHA:
        return set()
    if max(rgba.size) > _SIDE:
        sides = (min(rgba.width, _SIDE), min(rgba.height, _SIDE))
        rgba = rgba.resize(sides, Image.Resampling.NEAREST)
    marks = {_ON + name for name in _CHOICES if _is_even(rgba, ImageColor.getrgb(name)[:3])}
    return marks | ({_VANISHED} if _is_even(rgba, colour) else set())


def about_vanished(done: Mapping[str, int], background: str) -> list[str]:
    """A note on the pictures that vanish, with the background on which the fewest do.

    Args:
        done: number of pictures for each mark of `vanishing`.
        background: the chosen one, as the user wrote it.

    Example:
        >>> about_vanished({"vanished": 9, "vanished on white": 9}, "white")
        ['9 pictures vanish on a white background, as they have its colour: try --background black']
        >>> about_vanished({"vanished on black": 9}, "white")
        []
    """
    count = done.get(_VANISHED, 0)
    if not count:
        return []
    best = min(_CHOICES, key=lambda name: done.get(_ON + name, 0))
    if done.get(_ON + best, 0) >= count:
        return []
    what, have = ("picture vanishes", "it has") if count == 1 else ("pictures vanish", "they have")
    return [
        f"{count} {what} on a {background} background, as {have} its colour: "
        f"try --background {best}"
    ]


def _is_even(rgba: Image.Image, colour: tuple[int, ...]) -> bool:
    """Whether a picture has nearly one colour on a background."""
    flat = Image.alpha_composite(Image.new("RGBA", rgba.size, (*colour, 255)), rgba).convert("RGB")
    return all(_difference(band) < _SPREAD for band in flat.getextrema())


def _difference(extrema: object) -> float:
    """Highest minus lowest value of a band."""
    assert isinstance(extrema, tuple)
    low, high = extrema
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    return high - low
