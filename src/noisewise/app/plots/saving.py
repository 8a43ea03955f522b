"""Writes a figure to a file: text stays text, and the same numbers give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from noisewise.whole_files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".svg", ".png", ".pdf")


def checked_picture(path: str, flag: str) -> Path:
    """Refuse another kind of file, or a folder that does not exist, before any work.

    Raises:
        ValueError: with the way out.
    """
    target = Path(path)
    if target.suffix.lower() not in PICTURES:
        raise ValueError(f"{flag} {path}: name a file that ends in {', '.join(PICTURES)}")
    if not target.parent.is_dir():
        raise ValueError(f"{flag} {path}: there is no folder {target.parent}")
    return target


def save_figure(figure: Figure, path: Path, dpi: int | None = None) -> None:
    """Write a figure.

    Args:
        figure: of matplotlib.
        path: .svg, .png or .pdf; its folder must exist. On a full disk the earlier file stays.
        dpi: pixels of an inch; None: those of the figure.

    Raises:
        OSError: if it cannot be written.
    """
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "noisewise"}):
        stamp = {"Date": None} if path.suffix.lower() == ".svg" else None
        with replacing(path) as new:
            kind = path.suffix[1:].lower()
            figure.savefig(new, metadata=stamp, format=kind, dpi=dpi or "figure")
