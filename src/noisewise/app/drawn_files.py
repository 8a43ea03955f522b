"""Where `noisewise sample` writes pictures: one sheet, or a folder of single files.

A folder takes the pictures of several seeds, as `seed-SEED-NUMBER.png`, with what is known about
them in `seed-SEED.json`. What is there stays until all of the new pictures are written beside it,
so that a full disk cuts and deletes nothing.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisewise.pictures.own_files import DRAWN_PICTURE, is_drawn, marked
from noisewise.pictures.sources import is_hidden

if TYPE_CHECKING:
    import numpy as np

_OLDER_PICTURE, _OLDER_NOTE = re.compile(r"\d{5,}\.png"), "samples.json"  # of older versions


def check_place(out: Path, seed: int, overwrite: bool) -> None:
    """Refuse to write over other files, or over pictures that an earlier call drew.

    Args:
        out: a .png for a sheet, which may exist, or a folder.
        seed: of the pictures.
        overwrite: whether pictures of this seed may be replaced.

    Raises:
        ValueError: if the place cannot be used.

    Example:
        >>> check_place(Path("sheet.jpg"), 0, False)
        Traceback (most recent call last):
        ...
        ValueError: --out sheet.jpg: pictures are written as PNG; use .png, or name a folder
    """
    if out.suffix.lower() == ".png":
        if out.is_dir():
            raise ValueError(f"--out {out} is a folder; name a file, or a folder without .png")
        return
    if out.suffix:
        raise ValueError(f"--out {out}: pictures are written as PNG; use .png, or name a folder")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a new folder, or a file ending in .png")
    there = _names(out)
    others = sorted(name for name in there if not _is_ours(name, there))
    if others:
        raise ValueError(f"--out {out} holds something else ({others[0]}); name a new folder")
    if not overwrite and (earlier := sorted(_of_seed(there, seed))):
        raise ValueError(
            f"--out {out} already holds pictures of seed {seed} ({earlier[0]}); use another "
            "--seed, name a new folder, or replace them with --overwrite"
        )


def write_sheet(pictures: np.ndarray, out: Path, scale: int) -> None:
    """Write uint8 pictures [n, height, width, channels] as one PNG, atomically."""
    from noisewise.app.plots.svg import grid
    from noisewise.training.files.atomic import write_atomic

    out.parent.mkdir(parents=True, exist_ok=True)
    sheet = grid(pictures, scale=scale)
    write_atomic(out, lambda temporary: sheet.save(temporary, format="PNG", pnginfo=marked()))


def write_folder(
    pictures: np.ndarray,
    out: Path,
    scale: int,
    seed: int,
    values: dict[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Write each picture as a PNG, and what is known about them as JSON.

    Args:
        pictures: uint8 [n, height, width, channels].
        out: the folder; `check_place` must have accepted it.
        scale: side of the square that each pixel becomes.
        seed: of the pictures; earlier ones of this seed are replaced.
        values: what is known about them, as JSON values.
        overwrite: whether pictures of this seed may be replaced.

    Raises:
        ValueError: if another process has drawn this seed since `check_place`.
    """
    from noisewise.training.files.atomic import sync_folder, write_json

    with _alone(out):
        check_place(out, seed, overwrite)
        part = out / f".new-seed-{seed}"
        shutil.rmtree(part, ignore_errors=True)  # of a killed call
        try:
            part.mkdir()
            names = _write_pictures(pictures, part, scale, seed)
            write_json(out / f"seed-{seed}.json", values)
            for name in names:
                (part / name).replace(out / name)
            for name in _of_seed(_names(out), seed) - set(names):  # of an earlier, larger number
                (out / name).unlink()
        finally:
            shutil.rmtree(part, ignore_errors=True)
        sync_folder(out)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Make the folder and wait until no other process writes there; remove it if it stays empty."""
    is_new = not out.exists()
    try:
        with _locked(out):
            yield
    finally:
        if is_new:
            with suppress(OSError):  # it holds what was drawn
                out.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make a folder and hold its own lock; where folders have no locks, go on without."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _lock(folder)
        if handle is None:
            yield
            return
        try:
            if _is_open(folder, handle):  # else the one who held it has removed the folder
                yield
                return
        finally:
            os.close(handle)


def _lock(folder: Path) -> int | None:
    """Wait for the lock of a folder; None if there is no such thing (Windows)."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    with suppress(OSError):  # some network file systems lock no folders
        fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def _is_open(folder: Path, handle: int) -> bool:
    """Whether an open folder is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except FileNotFoundError:
        return False


def _write_pictures(pictures: np.ndarray, folder: Path, scale: int, seed: int) -> list[str]:
    """Write the single files; return their names."""
    from PIL import Image

    names = []
    for i, picture in enumerate(pictures):
        image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
        if scale > 1:
            size = (image.width * scale, image.height * scale)
            image = image.resize(size, Image.Resampling.NEAREST)
        names.append(f"seed-{seed}-{i:05d}.png")
        image.save(folder / names[-1])
    return names


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def _of_seed(names: Collection[str], seed: int) -> set[str]:
    """The names of pictures of one seed."""
    found = {name: DRAWN_PICTURE.fullmatch(name) for name in names}
    return {name for name, match in found.items() if match and int(match[1]) == seed}


def _is_ours(name: str, there: Collection[str]) -> bool:
    """Whether a file was drawn here, also by an older version."""
    if is_hidden(name) or is_drawn(name, there):
        return True
    older = name == _OLDER_NOTE or _OLDER_PICTURE.fullmatch(name) is not None
    return older and _OLDER_NOTE in there
