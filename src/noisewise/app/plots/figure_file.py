"""Writes a chart of matplotlib to its file, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from noisewise.pictures.cache import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(
    figure: Figure,
    path: Path,
    dpi: int | None = None,
    metadata: dict[str, str | None] | None = None,
) -> None:
    """Write a chart in the format that the name ends in; on a full disk the earlier file stays.

    Args:
        figure: the chart.
        path: of the file; its folder must exist.
        dpi: pixels of an inch; None: those of the chart.
        metadata: written into the file; None for a name: left out.

    Raises:
        OSError: if it cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    with replacing(path) as file:
        figure.savefig(file, format=kind, dpi=dpi or "figure", metadata=metadata)
