"""Where `noisewise sample` writes pictures: one sheet, or a folder of single files.

A folder takes the pictures of several seeds, as `seed-SEED-NUMBER.png`, with what is known about
them in `seed-SEED.json`. What is there stays until all of the new pictures are written beside it,
so that a full disk cuts and deletes nothing.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from noisewise.pictures.own_files import DRAWN_PICTURE, is_drawn, marked
from noisewise.pictures.sources import is_hidden
from noisewise.whole_files import sync_folder, take_lock

if TYPE_CHECKING:
    import numpy as np

    from noisewise.pictures.palette_files import Colours

_PART = ".new-seed-"  # pictures that are not whole yet
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


def write_sheet(pictures: np.ndarray, out: Path, scale: int, colours: Colours = ()) -> None:
    """Write uint8 pictures [n, height, width, channels] as one PNG, atomically.

    With a palette, the PNG is an indexed one, if at most 256 colours are on the sheet.
    """
    from noisewise.app.indexed_png import as_indexed, larger
    from noisewise.app.plots.svg import grid
    from noisewise.training.files.atomic import write_atomic

    out.parent.mkdir(parents=True, exist_ok=True)
    sheet = larger(as_indexed(grid(pictures), colours), scale)
    write_atomic(out, lambda temporary: sheet.save(temporary, format="PNG", pnginfo=marked()))


def write_folder(
    pictures: np.ndarray,
    out: Path,
    scale: int,
    seed: int,
    values: dict[str, Any],
    overwrite: bool = False,
    colours: Colours = (),
) -> None:
    """Write each picture as a PNG, and what is known about them as JSON.

    Several calls may write into one folder at once: each writes beside what is there, and one after
    the other puts its pictures into their places.

    Args:
        pictures: uint8 [n, height, width, channels].
        out: the folder; `check_place` must have accepted it.
        scale: side of the square that each pixel becomes.
        seed: of the pictures.
        values: what is known about them, as JSON values.
        overwrite: whether pictures of this seed may be replaced.
        colours: the palette of the pictures; the PNGs are indexed ones then.

    Raises:
        ValueError: if another call has drawn pictures of this seed since, without `overwrite`.
    """
    from noisewise.training.files.atomic import write_json

    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with _part(out, seed) as part:
            names = _write_pictures(pictures, part, scale, seed, colours)
            with _held(out):
                check_place(out, seed, overwrite)
                write_json(out / f"seed-{seed}.json", values)
                for name in names:
                    (part / name).replace(out / name)
                for name in _of_seed(_names(out), seed) - set(
                    names
                ):  # of an earlier, larger number
                    (out / name).unlink()
    finally:
        if is_new:
            with suppress(OSError):  # it holds what was drawn
                out.rmdir()
    sync_folder(out)


@contextmanager
def _part(out: Path, seed: int) -> Generator[Path]:
    """A new folder for pictures that are not whole yet; those of killed calls are removed."""
    for left in out.glob(f"{_PART}*"):
        with suppress(OSError), _opened(left) as handle:
            if take_lock(handle):
                shutil.rmtree(left, ignore_errors=True)
    with ExitStack() as held:
        while True:
            part = Path(mkdtemp(prefix=f"{_PART}{seed}-", dir=out))
            with suppress(FileNotFoundError):  # swept before it was opened
                take_lock(held.enter_context(_opened(part)), wait=True)
            if part.exists():  # it was not swept before it was locked
                break
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _held(out: Path) -> Generator[None]:
    """Wait until no other call puts pictures into their places."""
    with _opened(out) as handle:
        take_lock(handle, wait=True)
        yield


@contextmanager
def _opened(folder: Path) -> Generator[int]:
    """A folder, open for a lock; Windows opens none."""
    if os.name == "nt":
        yield -1
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield handle
    finally:
        os.close(handle)


def _write_pictures(
    pictures: np.ndarray, folder: Path, scale: int, seed: int, colours: Colours
) -> list[str]:
    """Write the single files; return their names."""
    from PIL import Image

    from noisewise.app.indexed_png import as_indexed, larger

    names = []
    for i, picture in enumerate(pictures):
        image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
        image = larger(as_indexed(image, colours), scale)
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
