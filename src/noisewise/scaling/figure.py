"""The figure of an advice: learning rate against batch, with every law.

Only this file of the package uses matplotlib, and it imports it only when it draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "Curve", "Drawable", "blank", "draw"]

# Distinct for colour-blind people too (Okabe and Ito 2008); black is reserved for the advice.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
_DASHES = ("-", "--", "-.")  # for a second and third round of the colours


@dataclass(frozen=True)
class Curve:
    """One curve of the figure: learning rates at batches.

    Attributes:
        name: name of the law.
        batches: examples per step.
        rates: learning rates in the user's units.
        low: lower ends of the bands, or empty.
        high: upper ends of the bands, or empty.
        kind: "advice" (the advice at every batch), "rule" (a law through the user's learning rate),
            "bound" (absolute rates), "points" (absolute rates, measured directly).
    """

    name: str
    batches: tuple[float, ...]
    rates: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    kind: Literal["advice", "rule", "bound", "points"] = "rule"


class Drawable(Protocol):
    """The parts of an advice that its figure shows; `Advice` explains them."""

    @property
    def batch(self) -> float:
        """The new batch."""
        ...

    @property
    def batch0(self) -> float:
        """The batch that lr0 was tuned at."""
        ...

    @property
    def lr(self) -> float:
        """The advised learning rate."""
        ...

    @property
    def lr0(self) -> float:
        """The user's learning rate at batch0."""
        ...

    @property
    def low(self) -> float:
        """Lower end of the band."""
        ...

    @property
    def high(self) -> float:
        """Upper end of the band; inf if there is none."""
        ...

    @property
    def hold(self) -> str:
        """What stays the same."""
        ...

    @property
    def rule(self) -> str:
        """The law that was used."""
        ...

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The curves to draw."""
        ...


def blank(columns: int, width: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Return a figure with axes side by side, learning rate against batch, both logarithmic.

    Args:
        columns: number of axes.
        width: additional inches, for a legend beside the axes.

    Raises:
        ValueError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("A figure needs matplotlib: pip install matplotlib.") from error
    figure = Figure(figsize=(4.6 * columns + 1 + width, 4.4), dpi=110, layout="constrained")
    found = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    for axes in found:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("batch (examples per step)")
        axes.grid(True, color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, found


def draw(advice: Drawable) -> Figure:
    """Return a figure with every law through the user's rate, the measurement and the advice.

    Args:
        advice: from `advise`.

    Raises:
        ValueError: if matplotlib is not installed.
    """
    figure, (axes,) = blank(1, 2.6)
    for i, curve in enumerate(c for c in advice.curves if c.kind == "rule"):
        colour, dash = COLOURS[i % len(COLOURS)], _DASHES[i // len(COLOURS) % len(_DASHES)]
        axes.plot(curve.batches, curve.rates, dash, color=colour, linewidth=1.1, label=curve.name)
    bounds = [curve for curve in advice.curves if curve.kind == "bound"]
    for curve, dash in zip(bounds, (":", (0, (8, 4))), strict=False):
        axes.plot(
            curve.batches, curve.rates, color="black", linestyle=dash, linewidth=1.1,
            label=curve.name,
        )  # fmt: skip
    for curve in advice.curves:
        if curve.kind == "advice":
            _draw_band(axes, curve)
        elif curve.kind == "points":
            _draw_points(axes, curve)
    axes.plot(
        advice.batch0, advice.lr0, "*", color="black", markersize=13, label="your rate", zorder=5
    )
    high = advice.high if math.isfinite(advice.high) else 3 * advice.lr
    axes.errorbar(
        advice.batch, advice.lr,
        yerr=[[max(0.0, advice.lr - advice.low)], [max(0.0, high - advice.lr)]],
        fmt="o", color="black", markersize=8, capsize=4, label=f"advice: {advice.lr:.3g}", zorder=5,
    )  # fmt: skip
    axes.set_ylabel("learning rate")
    axes.set_title(f"{advice.rule} (hold {advice.hold})", fontsize=10, loc="left")
    rates = [advice.lr0, advice.lr]
    axes.set_ylim(min(rates) / 8, max(rates) * 8)
    figure.legend(frameon=False, fontsize=8, loc="outside right upper")
    return figure


def _draw_band(axes: Axes, curve: Curve) -> None:
    """The advice at every batch, with its band."""
    top = [h if math.isfinite(h) else 1e6 * r for h, r in zip(curve.high, curve.rates, strict=True)]
    axes.plot(curve.batches, curve.rates, color="black", linewidth=2.2, label=curve.name)
    axes.fill_between(
        list(curve.batches), list(curve.low), top, color="black", alpha=0.1, linewidth=0
    )


def _draw_points(axes: Axes, curve: Curve) -> None:
    """Absolute points with their intervals."""
    for batch, rate, low, high in zip(
        curve.batches, curve.rates, curve.low, curve.high, strict=True
    ):
        if math.isfinite(rate) and rate > 0:
            top = high if math.isfinite(high) else 3 * rate
            axes.plot([batch, batch], [max(low, rate / 100), top], color="black", linewidth=1)
    known = [(b, r) for b, r in zip(curve.batches, curve.rates, strict=True) if 0 < r < math.inf]
    axes.plot([b for b, _ in known], [r for _, r in known], "s", color="black", label=curve.name)
