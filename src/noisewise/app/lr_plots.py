"""Pictures of learning rates against batch sizes: one file each, for a page or a slide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from noisewise.app.lr_curves import Panel
    from noisewise.scaling import Advice, Curve

# Told apart by people who see colours differently (Okabe and Ito 2008).
_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000",
)  # fmt: skip


def draw_advice(advice: Advice, path: Path) -> None:
    """Draw every law through the user's point, what was measured, and the advice.

    Args:
        advice: from `noisewise.scaling.advise`.
        path: .svg, .png or .pdf; the folder must be there.
    """
    figure, (axes,) = _figure(1)
    for i, curve in enumerate(c for c in advice.curves if c.kind == "rule"):
        _draw_rule(axes, curve, _COLOURS[i % len(_COLOURS)], curve.name in advice.rule)
    for curve in advice.curves:
        if curve.kind == "bound":
            axes.plot(curve.batches, curve.rates, color="black", linestyle=":", label=curve.name)
        elif curve.kind == "points":
            _draw_points(axes, curve)
    axes.plot(
        advice.batch0, advice.lr0, "*", color="black", markersize=13, label="your point", zorder=5
    )
    high = advice.high if math.isfinite(advice.high) else 3 * advice.lr
    axes.errorbar(
        advice.batch, advice.lr,
        yerr=[[max(0.0, advice.lr - advice.low)], [max(0.0, high - advice.lr)]],
        fmt="o", color="black", markersize=8, capsize=4, label=f"advice: {advice.lr:.3g}", zorder=5,
    )  # fmt: skip
    axes.set_ylabel("learning rate")
    axes.set_title(f"hold {advice.hold}: {advice.rule}", fontsize=10, loc="left")
    rates = [advice.lr0, advice.lr]
    axes.set_ylim(min(rates) / 8, max(rates) * 8)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    _save(figure, path)


def _draw_rule(axes: Axes, curve: Curve, colour: str, chosen: bool) -> None:
    width = 2.6 if chosen else 1.1
    axes.plot(curve.batches, curve.rates, color=colour, linewidth=width, label=curve.name)
    if chosen and curve.low:
        top = [min(h, 1e6 * r) if math.isfinite(h) else 1e6 * r
               for h, r in zip(curve.high, curve.rates, strict=True)]  # fmt: skip
        axes.fill_between(
            np.asarray(curve.batches), np.asarray(curve.low), np.asarray(top),
            color=colour, alpha=0.15, linewidth=0,
        )  # fmt: skip


def _draw_points(axes: Axes, curve: Curve) -> None:
    for batch, rate, low, high in zip(
        curve.batches, curve.rates, curve.low, curve.high, strict=True
    ):
        if math.isfinite(rate) and rate > 0:
            top = high if math.isfinite(high) else 3 * rate
            axes.plot([batch, batch], [max(low, rate / 100), top], color="black", linewidth=1)
    known = [(b, r) for b, r in zip(curve.batches, curve.rates, strict=True) if 0 < r < math.inf]
    axes.plot([b for b, _ in known], [r for _, r in known], "s", color="black", label=curve.name)


def draw_panels(panels: Sequence[Panel], path: Path) -> None:
    """Draw the theory's panels side by side, exact as lines and the mean field dashed.

    Args:
        panels: from `lr_curves.panels`.
        path: .svg, .png or .pdf; the folder must be there.
    """
    figure, all_axes = _figure(len(panels))
    for axes, panel in zip(all_axes, panels, strict=True):
        for colour, line in zip(_COLOURS, panel.lines, strict=False):
            axes.plot(
                panel.batches, line.rates, color=colour, linewidth=1.8,
                label=f"epsilon {line.epsilon:g}",
            )  # fmt: skip
            axes.plot(panel.batches, line.mean_field, color=colour, linewidth=1, linestyle="--")
        axes.set_title(panel.title, fontsize=10, loc="left")
        axes.set_ylim(3e-3, 3)
    all_axes[0].set_ylabel("best learning rate / its largest value")
    all_axes[0].legend(frameon=False, fontsize=8, loc="lower right")
    _save(figure, path)


def _figure(columns: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * columns + 1, 4.4), dpi=110, layout="constrained")
    found = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    for axes in found:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("batch, examples a step")
        axes.grid(True, color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, found


def _save(figure: Figure, path: Path) -> None:
    from matplotlib import rc_context

    # Text stays text, and the same numbers give the same bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "noisewise"}):
        stamp = {"Date": None} if path.suffix.lower() == ".svg" else None
        figure.savefig(path, metadata=stamp)
