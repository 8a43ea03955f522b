"""Options for reading pictures."""

from __future__ import annotations

from typing import Final, Literal

Crop = Literal["auto", "centre", "random", "pad"]
"""How pictures get the shape; auto: "pad" for sprites with transparency, else "centre"."""

AUTO: Final = "auto"
"""A background that is not chosen: transparency is kept if the set has it, else laid on white."""


def check_channels(channels: int | None, background: str) -> None:
    """Refuse channels that pictures cannot have, and a background that would cover transparency.

    Example:
        >>> check_channels(2, "auto")
        Traceback (most recent call last):
        ...
        ValueError: 2 channels do not work; use 1 (grey), 3 (colour) or 4 (with transparency)
    """
    if channels not in (None, 1, 3, 4):
        raise ValueError(
            f"{channels} channels do not work; use 1 (grey), 3 (colour) or 4 (with transparency)"
        )
    if channels == 4 and background != AUTO:
        raise ValueError(
            f"the background {background} lays transparency flat, and 4 channels keep it; leave "
            "one of them out"
        )


def check_crops(crops: int, keep_whole: bool) -> None:
    """Refuse a negative number of crops, and whole pictures beside no crops.

    Example:
        >>> check_crops(-3, False)
        Traceback (most recent call last):
        ...
        ValueError: -3 crops do not work; use 0 for none, or 1 and more
    """
    if crops < 0:
        raise ValueError(f"{crops} crops do not work; use 0 for none, or 1 and more")
    if keep_whole and not crops:
        raise ValueError(
            "keep_whole goes with crops, as whole pictures are used anyway without them; set "
            "crops, or leave keep_whole out"
        )
