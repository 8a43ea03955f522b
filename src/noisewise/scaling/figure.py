"""The picture of an advice: learning rates against batches, every law with it.

The one file of this room that knows matplotlib, and it does so only when it is called.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "Curve", "Drawable", "blank", "draw"]

# Told apart by people who see colours differently (Okabe and Ito 2008); black is the advice's.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
_DASHES = ("-", "--", "-.")  # a second and third round of the colours


@dataclass(frozen=True)
class Curve:
    """One line of the picture: learning rates at batches, for whoever draws it.

    Attributes:
        name: of the law.
        batches: examples.
        rates: learning rates in the user's units.
        low: lower ends, or empty.
        high: upper ends, or empty.
        kind: "advice" (what would be advised at every batch), "rule" (a law, anchored at the user's
            point), "bound" (absolute), "points" (measured directly, absolute).
    """

    name: str
    batches: tuple[float, ...]
    rates: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    kind: Literal["advice", "rule", "bound", "points"] = "rule"


class Drawable(Protocol):
    """The parts of an advice that its picture shows; see `Advice` for what they mean."""

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
        """Upper end of the band; inf for none."""
        ...

    @property
    def hold(self) -> str:
        """What is held fixed."""
        ...

    @property
    def rule(self) -> str:
        """The law that decided."""
        ...

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The lines to draw."""
        ...


def blank(columns: int, width: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Return a figure with axes for batches side by side, both scales logarithmic.

    Args:
        columns: number of axes.
        width: inches more than they need, for a legend beside them.

    Raises:
        ValueError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("A picture needs matplotlib: install it with pip.") from error
    figure = Figure(figsize=(4.6 * columns + 1 + width, 4.4), dpi=110, layout="constrained")
    found = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    for axes in found:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("batch, examples a step")
        axes.grid(True, color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, found


def draw(advice: Drawable) -> Figure:
    """Return every law through the user's point, what was measured, and the advice.

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
    figure.legend(frameon=False, fontsize=8, loc="outside right upper")
    return figure


def _draw_band(axes: Axes, curve: Curve) -> None:
    """What would be advised at every batch."""
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
