"""What a type of source is: a folder, a zip, an array file, or one of your own.

A new type is one file with one `SourceType` value, and one line in `source_types`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from noisewise.pictures.alpha import CHANNELS, Alpha, Kept
from noisewise.pictures.framing import Frame
from noisewise.pictures.gather import Gathered, Progress
from noisewise.pictures.headers import choose_size, size_for_all
from noisewise.pictures.request import AUTO, Crop
from noisewise.sizes import SIZE_STEP, Size, sides


@dataclass(frozen=True)
class Request:
    """How pictures are wanted; see `read.gather` for the values, and `Frame` for the last two."""

    size: Size | None
    channels: int | None
    crop: Crop
    background: str
    folder: Path | None
    progress: Progress | None
    crops: int = 0
    keep_whole: bool = False
    enlarging: bool = True
    sampled: bool = False
    alpha: Alpha = "none"
    own_scale: int = 0

    @property
    def key(self) -> list[object]:
        """The part of the cache key that depends on the request, not on the files."""
        plain = self.crop == "centre" and self.background == "white"
        framing = [] if plain else [self.crop, self.background]
        cutting = ["crops", self.crops, self.keep_whole] if self.crops else []
        return [self.size, self.channels, *framing, *cutting]

    @property
    def may_keep(self) -> bool:
        """Whether transparency is kept if the pictures have it."""
        return self.channels == CHANNELS or (self.channels is None and self.background == AUTO)

    @property
    def measured(self) -> Crop:
        """The way of framing by which a size is chosen: crops fit into the short side."""
        return "centre" if self.crops or self.crop == AUTO else self.crop

    def frame(self, size: Size) -> Frame:
        """How pictures come to this size; what is not chosen yet is as it is for most sets."""
        crop = "centre" if self.crop == AUTO else self.crop
        background = "white" if self.background == AUTO else self.background
        return Frame(size, crop, background, self.alpha, self.own_scale)

    def keeping(
        self, kept: Kept, sizes: Counter[tuple[int, int]], block: int
    ) -> tuple[Request, str]:
        """Choose what was left open, and say why if sprites get a border; else "".

        Args:
            kept: what becomes of the transparency.
            sizes: number of pictures of each (width, height).
            block: how many times pixel art is enlarged.
        """
        own = {(width // block, height // block) for width, height in sizes}
        differs = len(own) > 1 or not all(self._suits(w, h) for w, h in own)
        borders = kept.art and differs and not self.crops and self.crop in (AUTO, "pad")
        crop = self.crop if self.crop != AUTO else "pad" if borders else "centre"
        chosen = replace(self, crop=crop, alpha=kept.alpha, own_scale=block if borders else 0)
        what = f"sprites have {len(own)} sizes" if len(own) > 1 else "sprites have another size"
        why = f"{what}: each keeps its own pixels and gets a transparent border (crop pad)"
        return chosen, why if borders else ""

    def _suits(self, width: int, height: int) -> bool:
        """Whether pixel art comes to the size without a change, or by repeating whole pixels."""
        if self.size is None:
            return width == height and width % SIZE_STEP == 0
        high, wide = sides(self.size)
        return wide % width == high % height == 0 and wide // width == high // height


@dataclass(frozen=True)
class SourceType:
    """A way to find pictures at a path.

    Attributes:
        name: for people and for the cache, such as "folder".
        suffixes: endings of such files, with the dot; empty for a folder.
        handles: whether a path is of this type.
        read: reads the pictures; raises ValueError for what cannot be used.
    """

    name: str
    suffixes: tuple[str, ...]
    handles: Callable[[Path], bool]
    read: Callable[[Path, Request], Gathered]


def chosen_size(sizes: Counter[tuple[int, int]], block: int, request: Request) -> tuple[int, str]:
    """The side of the square, chosen from the pictures, and why.

    Args:
        sizes: number of pictures of each (width, height).
        block: how many times pixel art is enlarged.
        request: from `Request.keeping`.
    """
    for_all = size_for_all(sizes, block) if request.own_scale else None
    return for_all or choose_size(sizes, block, request.measured, bool(request.crops))


def has_suffix(*suffixes: str) -> Callable[[Path], bool]:
    """Return a test for files with one of these endings.

    Example:
        >>> has_suffix(".zip")(Path("no/such.zip"))
        False
    """
    return lambda path: path.suffix.lower() in suffixes and path.is_file()
