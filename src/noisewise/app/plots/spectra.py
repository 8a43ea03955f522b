"""Draws the singular values of many matrices in one chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from noisewise.app.plots.saving import save_figure
from noisewise.plain_text import printable

MOST_NAMED = 10  # with more lines than this, the chart has no legend


@dataclass(frozen=True)
class Spectrum:
    """The singular values of a matrix relative to the first one, and the chosen rank."""

    name: str
    values: Sequence[float]
    rank: int


def draw(spectra: Sequence[Spectrum], path: str, title: str) -> None:
    """Draw s_i / s_1 over i on logarithmic axes, with a dot at each chosen rank.

    Args:
        spectra: at least one with a positive first value.
        path: a .svg or .png file; missing folders are created.
        title: the title above the chart.

    Raises:
        ValueError: if no matrix has a positive singular value.
    """
    from matplotlib.figure import Figure

    shown = [s for s in spectra if any(value > 0 for value in s.values)]
    if not shown:
        raise ValueError("nothing to draw: every matrix is zero or empty")
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    many = len(shown) > MOST_NAMED
    for i, spectrum in enumerate(shown):
        y = [value if value > 0 else float("nan") for value in spectrum.values]
        colour = f"C{i % 10}"
        axes.plot(
            range(1, len(y) + 1),
            y,
            color=colour,
            linewidth=0.8 if many else 1.4,
            alpha=0.6 if many else 1.0,
            # matplotlib leaves a name out that begins with "_".
            label=f" {printable(spectrum.name)}",
        )
        if 0 < spectrum.rank <= len(y):
            axes.plot([spectrum.rank], [y[spectrum.rank - 1]], "o", color=colour, markersize=4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("i")
    axes.set_ylabel("singular value, relative to the first")
    axes.set_title(printable(title), fontsize=10, loc="left", parse_math=False)
    axes.grid(alpha=0.25, linewidth=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if not many:
        legend = axes.legend(fontsize=8, frameon=False, loc="lower left")
        for text in legend.get_texts():
            text.set_parse_math(False)  # a name may have dollars
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, Path(path), dpi=150)
