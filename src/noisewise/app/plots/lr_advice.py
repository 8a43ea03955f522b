"""Figures of learning rate against batch size, each written to one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from noisewise.app.plots.figure_file import save_figure
from noisewise.scaling.figure import COLOURS, blank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from noisewise.app.plots.lr_theory import Panel
    from noisewise.scaling import Advice


def draw_advice(advice: Advice, path: Path) -> None:
    """Write the figure of an advice: every law, the measurement and the user's learning rate.

    Args:
        advice: from `noisewise.scaling.advise`.
        path: .svg, .png or .pdf; its folder must exist.
    """
    _save(advice.figure(), path)


def draw_panels(panels: Sequence[Panel], path: Path) -> None:
    """Draw panels of the theory side by side: exact laws as lines, the mean field dashed.

    Args:
        panels: from `lr_theory.panels`.
        path: .svg, .png or .pdf; its folder must exist.
    """
    figure, all_axes = blank(len(panels))
    for axes, panel in zip(all_axes, panels, strict=True):
        for colour, line in zip((*COLOURS, "#000000"), panel.lines, strict=False):
            axes.plot(
                panel.batches, line.rates, color=colour, linewidth=1.8,
                label=f"epsilon {line.epsilon:g}",
            )  # fmt: skip
            axes.plot(panel.batches, line.mean_field, color=colour, linewidth=1, linestyle="--")
        axes.set_title(panel.title, fontsize=10, loc="left")
        axes.set_ylim(3e-3, 3)
    all_axes[0].set_ylabel("best learning rate / its maximum")
    all_axes[0].legend(frameon=False, fontsize=8, loc="lower right")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    from matplotlib import rc_context

    # Keep text as text, and give the same bytes for the same numbers.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "noisewise"}):
        stamp = {"Date": None} if path.suffix.lower() == ".svg" else None
        save_figure(figure, path, metadata=stamp)
