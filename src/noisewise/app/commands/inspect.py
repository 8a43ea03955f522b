"""`noisewise inspect`: what a set of pictures holds, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from noisewise.app.command import Command
from noisewise.app.options import File, Folder, JsonOption
from noisewise.app.terminal.answer import show
from noisewise.pictures.palette_files import check_ending
from noisewise.training.settings.config import PictureSettings
from noisewise.training.settings.shown import Shown

if TYPE_CHECKING:
    from noisewise.training.inspect import Inspection


@dataclass(frozen=True, kw_only=True)
class InspectOptions(PictureSettings, JsonOption):
    """Look at a set of pictures: what it holds, what is left out and why, its measured noise."""

    folder: Folder
    """Pictures: a folder (subfolders may be classes), .zip, .npz or .npy."""
    size: Annotated[str | int | None, Shown("SIZE")] = None
    """Pixels of a side, or WIDTHxHEIGHT, that training would use. Default: a square, from the
    pictures."""
    out: File = None
    """Write a contact sheet to this file, a .png."""
    palette_out: File = None
    """Write the colours of the pictures to this file, a .gpl, .pal, .hex or .png. Of more than 256,
    the 256 that are nearest to all."""


def _inspect(options: InspectOptions, _: Sequence[str]) -> int:
    from noisewise.app.terminal.progress import Progress
    from noisewise.training.inspect import inspect

    _check_png(options.out)
    if options.palette_out is not None:
        check_ending(Path(options.palette_out))
    with Progress() as progress:
        found = inspect(
            options.folder,
            options.size,
            progress.count,
            options.crop,
            options.background,
            options.crops,
            options.keep_whole,
            options.palette_out is not None,
        )
    values = found.to_dict()
    lines = found.text().split("\n")
    if options.out is not None:
        from PIL import Image

        from noisewise.pictures.own_files import marked
        from noisewise.whole_files import replacing

        path = Path(options.out)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as new:
            Image.fromarray(found.contact_sheet).save(new, format="PNG", pnginfo=marked())
        values["contact_sheet"] = str(path)
        lines.append(f"Contact sheet: {path}")
    if options.palette_out is not None:
        lines.append(_write_palette(found, Path(options.palette_out)))
        values["palette_out"] = options.palette_out
    show(values, options.json, lines)
    return 0


def _write_palette(found: Inspection, path: Path) -> str:
    """Write the colours of the pictures; say how many, for people."""
    from noisewise.pictures.palette_files import write_palette

    colours = found.colours
    assert colours is not None
    write_palette(path, found.palette, colours.transparent)
    count = len(found.palette)
    which = "all colours" if count == colours.in_all else "the colours nearest to all"
    return f"Palette: {path} ({count}, {which})"


def _check_png(path: str | None) -> None:
    """Refuse another kind of picture before anything is read."""
    if path is not None and Path(path).suffix.lower() != ".png":
        raise ValueError(f"--out {path}: the contact sheet is a PNG; name a file that ends in .png")


COMMAND = Command(
    name="inspect",
    usage="FOLDER",
    summary="what it holds, what is left out and why, the measured noise",
    options=InspectOptions,
    action=_inspect,
    examples=("noisewise inspect my_pictures --out contact_sheet.png",),
    less_memory="use fewer pictures or a smaller --size",
)
