"""The types of sources that pictures are read from, in the order in which they are asked."""

from __future__ import annotations

from pathlib import Path

from noisewise.pictures.array_source import ARRAYS
from noisewise.pictures.folder_source import FOLDER
from noisewise.pictures.source_type import SourceType
from noisewise.pictures.zip_source import ZIP
from noisewise.plain_text import printable

SOURCE_TYPES: tuple[SourceType, ...] = (FOLDER, ZIP, ARRAYS)


def source_type(path: Path) -> SourceType:
    """The type of a path.

    Raises:
        ValueError: if it does not exist, or no type handles it.
    """
    shown = printable(str(path))
    if not path.exists():
        raise ValueError(f"{shown} does not exist: give a folder of pictures, or {_files()}.")
    for known in SOURCE_TYPES:
        if known.handles(path):
            return known
    if path.is_file():
        raise ValueError(f"{shown} is a single file: give its folder, or {_files()}.")
    raise ValueError(f"{shown} is neither a file nor a folder: give a folder of pictures.")


def _files() -> str:
    """The files that can be read, such as "a .zip, .npz or .npy file"."""
    *most, last = (suffix for known in SOURCE_TYPES for suffix in known.suffixes)
    return f"a {', '.join(most)} or {last} file"
