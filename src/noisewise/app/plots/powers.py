"""Figures of powers: n^(n+m) beside (n+m)^n with ln x / x, and bars of several numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_STEP = 10  # the largest m of n^(n+m) that has a figure of its own
_MOST_DIGITS = 1e12  # beyond, the number of digits is not exact
PANELS = ("primary", "middle", "high")
_LEFT, _RIGHT, _GREY, _MARK = "#1f5fa8", "#d2691e", "#777777", "#2e7d32"


@dataclass(frozen=True)
class Bar:
    """A number above 0 by its name and its logarithm to base 10, or the logarithm of that."""

    name: str
    log10: float | None
    log10_log10: float | None = None


def draw_family(
    path: str, step: float, asked: float, crossing: float, levels: Sequence[str] = PANELS
) -> None:
    """Draw n^(n+m) and (n+m)^n, their quotient, and ln x / x with its maximum at e.

    Each panel is for one level of school, as the explanations are: a pupil who computes gets no
    proof to look at.

    Args:
        path: a .svg or .png file; missing folders are created.
        step: m, above 0 and at most 10.
        asked: the n of the question; it is marked where it fits.
        crossing: where both sides are equal.
        levels: which of the three panels to draw.
    """
    shown = [level for level in PANELS if level in levels]
    figure = _figure((4.4 * len(shown) + 0.6 * (len(shown) == 1), 4.6))
    for level, axes in zip(shown, figure.subplots(1, len(shown), squeeze=False)[0], strict=True):
        if level == "primary":
            _draw_sides(axes, step)
        elif level == "middle":
            _draw_quotient(axes, step, asked, crossing)
        else:
            _draw_slope(axes, step, asked)
    _save(figure, path)


def _figure(size: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _name(step: float) -> tuple[str, str]:
    m = f"{step:g}"
    return f"$n^{{n+{m}}}$", f"$(n+{m})^n$"


def _draw_sides(axes: Axes, step: float) -> None:
    """Both sides for small whole n, on a logarithmic axis, with their values."""
    numbers = range(1, 6)
    x = [1 + 4 * i / 200 for i in range(201)]
    sides = (
        (_LEFT, "o", [(n + step) * math.log10(n) for n in x], lambda n: n ** (n + step)),
        (_RIGHT, "s", [n * math.log10(n + step) for n in x], lambda n: (n + step) ** n),
    )
    values = [[side[3](n) for n in numbers] for side in sides]
    for (colour, marker, logs, _), name, heights in zip(sides, _name(step), values, strict=True):
        axes.plot(x, [10**v for v in logs], color=colour, linewidth=1.6)
        axes.plot(list(numbers), heights, marker, color=colour, markersize=6, label=name)
    for n, a, b in zip(numbers, *values, strict=True):
        for value, other, colour in ((a, b, _LEFT), (b, a, _RIGHT)):
            above = value > other or (value == other and colour == _LEFT)
            axes.annotate(
                f"{value:.6g}", (n, value), xytext=(-5 if above else 5, 4 if above else -4),
                textcoords="offset points", color=colour, fontsize=9,
                ha="right" if above else "left", va="bottom" if above else "top",
            )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlim(0.3, 5.9)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom / 2.5, top * 2)
    axes.set_xticks(list(numbers))
    _label(axes, "Compute: the two sides", "n", "value (equal steps multiply it)")
    axes.legend(frameon=False, fontsize=11, loc="upper left")


def _draw_quotient(axes: Axes, step: float, asked: float, crossing: float) -> None:
    """The quotient of the sides, which passes 1 at the crossing."""
    last = asked + 1 if 6 < asked <= 12 else 7
    x = [0.2 + (last - 0.2) * i / 400 for i in range(401)]
    y = [math.exp((n + step) * math.log(n) - n * math.log(n + step)) for n in x]
    axes.axhline(1, color=_GREY, linewidth=1)
    axes.plot(x, y, color=_MARK, linewidth=1.8)
    whole = list(range(1, int(last) + 1))
    heights = [math.exp((n + step) * math.log(n) - n * math.log(n + step)) for n in whole]
    axes.plot(whole, heights, "o", color=_MARK, markersize=5)
    axes.plot([crossing], [1], "o", color="black", markersize=5, zorder=5)
    axes.annotate(
        f"equal at n = {crossing:.4g}{'' if crossing == round(crossing, 3) else '...'}",
        (crossing, 1), xytext=(14, -16), textcoords="offset points", fontsize=10,
    )  # fmt: skip
    top = max(y) * 1.08
    axes.fill_between([0, crossing], 0, top, color=_RIGHT, alpha=0.08, linewidth=0)
    axes.fill_between([crossing, last], 0, top, color=_LEFT, alpha=0.08, linewidth=0)
    first, second = _name(step)
    axes.text(crossing / 2, top * 0.9, f"{second}\nis larger", color=_RIGHT, ha="center", va="top")
    axes.text(
        (crossing + last) / 2 - 0.1 * last, top * 0.9, f"{first}\nis larger", color=_LEFT,
        ha="center", va="top",
    )  # fmt: skip
    if float(asked) in map(float, whole) and asked > 2:
        axes.plot([asked], [heights[whole.index(int(asked))]], "o", ms=11, mfc="none", mec="black")
    axes.set_xlim(0, last)
    axes.set_ylim(0, top)
    axes.set_xticks(whole)
    _label(axes, "See the pattern: the quotient", "n", f"{first} / {second}")


def _draw_slope(axes: Axes, step: float, asked: float) -> None:
    """The curve ln x / x with its maximum at e and the two bases of the question."""
    last = max(9.0, asked + step + 1) if asked + step <= 40 else 9.0
    x = [1 + (last - 1) * i / 500 for i in range(501)]
    axes.plot(x, [math.log(v) / v for v in x], color="black", linewidth=1.8)
    axes.plot([math.e] * 2, [0, 1 / math.e], color=_GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot([math.e], [1 / math.e], "o", color=_MARK, markersize=6)
    axes.annotate(
        "maximum at x = e = 2.718...", (math.e, 1 / math.e), xytext=(-6, 14),
        textcoords="offset points", fontsize=10, color=_MARK, va="bottom",
    )  # fmt: skip
    level = math.log(2) / 2
    axes.plot([2, 4], [level, level], "o-", color=_GREY, markersize=4, linewidth=1)
    axes.annotate(
        "$2^4 = 4^2$", (4, level), xytext=(8, 0), textcoords="offset points", fontsize=10,
        color=_GREY, ha="left", va="bottom",
    )  # fmt: skip
    marks = [(math.e, "e", _GREY)]
    if 1 <= asked and asked + step <= 40:
        for v, colour in ((asked, _LEFT), (asked + step, _RIGHT)):
            marks.append((v, f"{v:g}", colour))
            axes.plot([v] * 2, [0, math.log(v) / v], color=colour, linewidth=1.4)
            axes.plot([v], [math.log(v) / v], "o", color=colour, markersize=7)
    for n, (v, name, colour) in enumerate(marks):
        axes.annotate(
            name, (v, 0.02), xytext=(-4 if n == 0 else 4, 0), textcoords="offset points",
            color=colour, fontsize=11, ha="right" if n == 0 else "left",
        )  # fmt: skip
    axes.set_xlim(1, last)
    axes.set_ylim(0, 0.45)
    _label(axes, "Prove: the larger ln x / x wins", "x", "ln x / x")


def draw_bars(path: str, bars: Sequence[Bar], in_digits: bool = False) -> None:
    """Draw several numbers as bars: how many digits they have, the largest on top.

    Args:
        path: a .svg or .png file; missing folders are created.
        bars: the smallest number first.
        in_digits: write how many digits a number has before the point, not its logarithm.

    Raises:
        ValueError: if a number is too large to have a bar.
    """
    plain = [bar.log10 for bar in bars if bar.log10 is not None]
    twice = [bar.log10_log10 for bar in bars if bar.log10_log10 is not None]
    if len(plain) < len(bars) and len(twice) < len(bars):
        raise ValueError(
            "a figure shows numbers above 0 whose number of digits has up to 300 digits; leave out "
            "--plot, or the largest and the smallest numbers"
        )
    spread = max(plain, default=0) > 1000 * max(1e-9, min(map(abs, plain), default=1))
    doubled = len(plain) < len(bars) or (spread and len(twice) == len(bars))
    widths = twice if doubled else plain
    figure = _figure((9.0, 1.2 + 0.55 * len(bars)))
    axes = figure.add_subplot()
    places = range(len(bars))
    colours = [_LEFT] * (len(bars) - 1) + [_RIGHT]
    axes.barh(list(places), widths, color=colours, alpha=0.85, height=0.6)
    for place, width in zip(places, widths, strict=True):
        shown = f"10^10^{width:.6g}" if doubled else f"10^{width:.6g}"
        if in_digits and not doubled and 0 <= width < _MOST_DIGITS:
            shown = f"{int(width) + 1:,} digit{'s' if int(width) else ''}"
        axes.annotate(
            shown, (width, place), xytext=(5 if width >= 0 else -5, 0),
            textcoords="offset points", va="center", ha="left" if width >= 0 else "right",
            fontsize=10,
        )  # fmt: skip
    axes.set_yticks(list(places), [_short(bar.name) for bar in bars], fontsize=11)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.margins(x=0.2)
    what = "logarithm of the number of digits" if doubled else "exponent of ten (digits)"
    what = "number of digits" if in_digits and not doubled else what
    _label(axes, "Which is larger?", what, "")
    axes.grid(axis="y", visible=False)
    _save(figure, path)


def _short(name: str) -> str:
    return name.replace("$", "") if len(name) <= 30 else f"{name[:18]}...{name[-9:]}"


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=12, loc="left", fontweight="bold")
    axes.set_xlabel(x, fontsize=11)
    axes.set_ylabel(y, fontsize=11)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _save(figure: Figure, path: str) -> None:
    """Write the file; the same numbers give the same bytes."""
    from matplotlib import rc_context

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "powers"}):
        metadata = {"Date": None} if path.endswith(".svg") else None
        figure.savefig(path, dpi=150, metadata=metadata)
