"""Read a path into one uint8 array, whatever type of source it is."""

from __future__ import annotations

import errno
from pathlib import Path

from noisewise.pictures import framing
from noisewise.pictures.changed import blamed_on_change
from noisewise.pictures.gather import Gathered, Progress
from noisewise.pictures.request import AUTO, Crop, check_channels, check_crops
from noisewise.pictures.source_type import Request
from noisewise.pictures.source_types import source_type
from noisewise.plain_text import printable
from noisewise.sizes import AnySize, as_size, check_size


class CannotReadError(ValueError):
    """The system cannot read the pictures, or cannot write their cache."""


def gather(
    path: str | Path,
    size: AnySize | None = None,
    channels: int | None = None,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    crop: Crop = "auto",
    background: str = "auto",
    crops: int = 0,
    keep_whole: bool = False,
    enlarging: bool = True,
    sampled: bool = False,
) -> Gathered:
    """Read pictures from a folder, zip, npz or npy; see `load_pictures`."""
    path = Path(path).expanduser()
    folder = None if cache_dir is None else Path(cache_dir).expanduser()
    kind = source_type(path)
    wanted = None if size is None else as_size(size)
    if wanted is not None:
        check_size(wanted)
    if background == AUTO and channels in (1, 3):
        background = "white"  # as it was before transparency could be kept
    check_channels(channels, background)
    check_crops(crops, keep_whole)
    request = Request(
        wanted,
        channels,
        crop,
        background,
        folder,
        progress,
        crops,
        keep_whole,
        enlarging,
        sampled,
    )
    request.frame(wanted or framing.MIN_SIDE)  # refuse a bad crop or colour before reading
    try:
        with blamed_on_change(path):
            return kind.read(path, request)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise
        cache_error = f", or the cache {printable(str(folder))} cannot be written" if folder else ""
        raise CannotReadError(
            f"{printable(str(path))} cannot be read{cache_error}: {error.strerror or error}; "
            "check permissions and free disk space."
        ) from error
