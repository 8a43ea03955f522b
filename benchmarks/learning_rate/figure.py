"""The many-step sweeps of `laws.py` as a figure: best rate against batch, and three rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.learning_rate.nets import BATCH, KINDS
from benchmarks.learning_rate.tables import law_at, many_cells, observed_many
from benchmarks.shared import harness

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NETS = ("mlp", "transformer")
EPSILON = {"sgd": "SGD", "adam": "Adam, epsilon 1e-8", "adam large": "Adam, epsilon 3e-2"}
COLOURS = ("#0072b2", "#d55e00", "#009e73")


def draw(results: harness.Results, path: Path) -> bool:
    """Draw one panel for each net and optimiser as an SVG; False if no sweep is finished."""
    if not any(many_cells(results, net, kind) for net in NETS for kind in KINDS):
        return False
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "lr_laws"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 3, figsize=(10.5, 6.4), layout="constrained", sharex=True)
    for row, net in zip(panels, NETS, strict=True):
        for axes, kind in zip(row, KINDS, strict=True):
            cells = many_cells(results, net, kind)
            steps = sorted({int(cell.asked("checkpoint")) for cell in cells})
            for colour, at in zip(COLOURS, steps, strict=False):
                _checkpoint(axes, results, net, kind, at, colour)
            axes.set(xscale="log", yscale="log", title=f"{net}, {EPSILON[kind]}")
            _limit(axes, results, net, kind)
            axes.title.set_fontsize(9)
            axes.set_xticks([16, 64, 256, 1024], ["16", "64", "256", "1024"])
            axes.minorticks_off()
            axes.grid(True, color="0.92", linewidth=0.6)
    for axes in panels[1]:
        axes.set_xlabel("batch (examples per step)")
    for axes in panels[:, 0]:
        axes.set_ylabel("learning rate")
    styles = {"advised from 64": "-", "law of one step": ":", "square root": "--"}
    lines = [
        panels[0, 0].plot([], [], style, color="0.3", label=n)[0] for n, style in styles.items()
    ]
    dots = [
        panels[0, 0].plot([], [], "o", color=colour, label=f"best, after {at} steps")[0]
        for colour, at in zip(COLOURS, (100, 400, 1600), strict=True)
    ]
    figure.legend(
        handles=[*dots, *lines], loc="outside lower center", ncols=6, fontsize=8, frameon=False
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True


def _limit(axes: Axes, results: harness.Results, net: str, kind: str) -> None:
    """Limit the axis to the observed rates and a little more; rules may leave it."""
    rates = []
    for steps in {int(cell.asked("checkpoint")) for cell in many_cells(results, net, kind)}:
        where = {"part": "many", "net": net, "kind": kind, "checkpoint": steps}
        rates += [f for f, _, _ in observed_many(results.cells(where)).values() if math.isfinite(f)]
    if rates:
        axes.set_ylim(min(rates) / 2.5, 2.5 * max(rates))


def _checkpoint(
    axes: Axes, results: harness.Results, net: str, kind: str, steps: int, colour: str
) -> None:
    """Draw the observed optima with their intervals, and three rules through the one at BATCH."""
    where: dict[str, object] = {"net": net, "kind": kind, "checkpoint": steps}
    observed = observed_many(results.cells({"part": "many", **where}))
    feet = {b: f for b, f in observed.items() if math.isfinite(f[0])}
    for batch, (foot, low, high) in feet.items():
        axes.plot(batch, foot, "o", color=colour, markersize=4)
        if math.isfinite(low + high):
            axes.plot([batch, batch], [low, high], color=colour, linewidth=1)
    if BATCH not in feet:
        return
    anchor = feet[BATCH][0]
    grid = [16 * 2.0 ** (i / 4) for i in range(25)]
    rules: dict[str, Callable[[float], float | None]] = {
        "-": lambda b: law_at(results, where, b, anchor, edge=True),
        ":": lambda b: law_at(results, where, b, anchor, edge=False),
        "--": lambda b: anchor * math.sqrt(b / BATCH),
    }
    for style, rule in rules.items():
        known = [(b, r) for b in grid if (r := rule(b)) is not None]
        width = 1.6 if style == "-" else 0.9
        axes.plot(
            [b for b, _ in known], [r for _, r in known], style, color=colour, linewidth=width
        )
