"""What a type of source is: a folder, a zip, an array file, or one of your own.

A new type is one file with one `SourceType` value, and one line in `source_types`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from noisewise.pictures.framing import Frame
from noisewise.pictures.gather import Gathered, Progress
from noisewise.pictures.request import Crop
from noisewise.sizes import Size


@dataclass(frozen=True)
class Request:
    """How pictures are wanted; see `read.gather` for the values."""

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

    @property
    def key(self) -> list[object]:
        """The part of the cache key that depends on the request, not on the files."""
        plain = self.crop == "centre" and self.background == "white"
        framing = [] if plain else [self.crop, self.background]
        cutting = ["crops", self.crops, self.keep_whole] if self.crops else []
        return [self.size, self.channels, *framing, *cutting]

    @property
    def measured(self) -> Crop:
        """The way of framing by which a size is chosen: crops fit into the short side."""
        return "centre" if self.crops else self.crop

    def frame(self, size: Size) -> Frame:
        """How pictures come to this size."""
        return Frame(size, self.crop, self.background)


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


def has_suffix(*suffixes: str) -> Callable[[Path], bool]:
    """Return a test for files with one of these endings.

    Example:
        >>> has_suffix(".zip")(Path("no/such.zip"))
        False
    """
    return lambda path: path.suffix.lower() in suffixes and path.is_file()
