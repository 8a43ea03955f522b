"""How long to train: a length of time, or a number of images."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Self

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smh])+")
_IMAGES = re.compile(r"(\d+(?:\.\d+)?)(k|M)?images")


def parse_duration(text: str) -> float:
    """Length of time in seconds from ``90s``, ``30m``, ``2h`` or ``1h30m``.

    Raises:
        ValueError: if text is not a positive length of time.

    Example:
        >>> parse_duration("90s"), parse_duration("2h"), parse_duration("1h30m")
        (90.0, 7200.0, 5400.0)
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a length of time; write 90s, 30m or 2h")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not seconds > 0:
        raise ValueError(f"{text!r} is no time at all; write for example 90s, 30m or 2h")
    return seconds


@dataclass(frozen=True)
class Budget:
    """How much training: a length of time, or a number of images seen; exactly one of the two.

    Args:
        seconds: wall-clock time of the stage, evaluations and checkpoints included.
        images: images seen, each repetition counted.

    Raises:
        ValueError: if not exactly one is given, or it is not positive.

    Example:
        >>> Budget.parse("200000images")
        Budget(seconds=None, images=200000)
        >>> Budget.parse("5m").progress(seconds=75, images=9999)
        0.25
    """

    seconds: float | None = None
    images: int | None = None

    def __post_init__(self) -> None:
        """Check that there is one positive amount."""
        given = [value for value in (self.seconds, self.images) if value is not None]
        if len(given) != 1:
            raise ValueError("a budget is either a length of time or a number of images")
        if not 0 < given[0] < math.inf:
            raise ValueError(f"a budget of {given[0]:g} trains nothing; write 5m or 200000images")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``90s``, ``30m``, ``2h``, ``200000images`` or ``200kimages``.

        Raises:
            ValueError: if text is none of these, or zero.
        """
        text = text.strip().replace("_", "")
        match = _IMAGES.fullmatch(text)
        if match:
            scale = {"": 1, "k": 1000, "M": 1_000_000}[match[2] or ""]
            return cls(images=round(float(match[1]) * scale))
        if _DURATION.fullmatch(text):
            return cls(seconds=parse_duration(text))
        raise ValueError(f"{text!r} is no budget; write 90s, 30m, 2h or 200000images")

    def progress(self, seconds: float, images: int) -> float:
        """Share of the budget used, from 0; above 1 when it is overspent."""
        if self.seconds is not None:
            return seconds / self.seconds
        assert self.images is not None
        return images / self.images

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        if self.images is not None:
            return f"{self.images}images"
        assert self.seconds is not None
        for unit, length in (("h", 3600.0), ("m", 60.0)):
            if self.seconds >= length and self.seconds % length == 0:
                return f"{self.seconds / length:g}{unit}"
        return f"{self.seconds:g}s"
