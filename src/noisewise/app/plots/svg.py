"""Sheets of pictures, drawn by Pillow, and curves, drawn by matplotlib as SVG.

Nothing here knows a run or a model: arrays and numbers in, an image or a string of SVG out. Every
plot has its own `Figure`, so pyplot's global state is not touched.

Colours are written as CSS variables (`var(--series-1)`, `currentColor`): the page sets them, and
the same SVG can be read on a light and on a dark screen. Text stays text (`svg.fonttype: none`).
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from noisewise.app.html_text import escape
from noisewise.pictures.gaps import gap_level

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from torch import Tensor

# matplotlib only writes hexadecimal colours. Plots are drawn in colours that no theme uses; each
# one is then replaced by the CSS value on its right.
_INK = "#010101"
_FAINT = "#020202"
_SERIES = ("#030303", "#040404", "#050505", "#060606")
_CSS = {
    _INK: "currentColor",
    _FAINT: "var(--line)",
    **{colour: f"var(--series-{i + 1})" for i, colour in enumerate(_SERIES)},
}
_DPI = 72  # one display unit is then one SVG unit: the hover points need this


@dataclass(frozen=True)
class Series:
    """One line of a plot: x and y of equal length, and how it is drawn; low and high: a band."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: Literal["line", "points", "faint"] = "line"
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def grid(
    images: np.ndarray, columns: int | None = None, scale: int = 1, gap: int = 1
) -> Image.Image:
    """Lay out pictures on one sheet, each pixel repeated `scale` times (nearest neighbour).

    Args:
        images: uint8 [n, height, width, channels] with 1, 3 or 4 channels.
        columns: pictures in a row; None: the sheet is nearly square.
        scale: an integer, at least 1; each pixel becomes a sharp square of this side.
        gap: pixels between pictures, before scaling, in a grey that their edges do not have, or
            transparent where pictures are RGBA; empty places are transparent.

    Raises:
        ValueError: for no pictures, a wrong shape or type, or fewer than one column.

    Example:
        >>> import numpy as np
        >>> grid(np.zeros((6, 8, 8, 1), np.uint8), columns=3, scale=2, gap=0).size
        (48, 32)
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or images.dtype != np.uint8:
        raise ValueError(
            f"A sheet needs uint8 pictures [n, height, width, 1|3|4], got {images.dtype} "
            f"{tuple(images.shape)}."
        )
    if len(images) == 0:
        raise ValueError("A sheet needs at least one picture.")
    if columns is None:
        columns = math.ceil(math.sqrt(len(images)))
    if columns < 1 or scale < 1 or gap < 0:
        raise ValueError("A sheet needs columns >= 1, scale >= 1 and gap >= 0.")
    n, height, width, channels = images.shape
    rows = math.ceil(n / columns)
    sheet = np.zeros(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, 4), dtype=np.uint8
    )
    level = gap_level(images)
    between = (0, 0, 0, 0) if channels == 4 else (level, level, level, 255)
    for i in range(n):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        around = sheet[max(0, top - gap) : top + height + gap]
        around[:, max(0, left - gap) : left + width + gap] = between
    for i, picture in enumerate(images):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        cell = sheet[top : top + height, left : left + width]
        cell[..., 3] = 255
        if channels == 1:
            cell[..., :3] = picture
        else:
            cell[..., :channels] = picture
    return _smallest_mode(Image.fromarray(sheet), channels).resize(
        (sheet.shape[1] * scale, sheet.shape[0] * scale), Image.Resampling.NEAREST
    )


def _smallest_mode(sheet: Image.Image, channels: int) -> Image.Image:
    """Drop the channels that a sheet does not use: alpha if it is opaque, colour if it is grey."""
    alpha = np.asarray(sheet.getchannel("A"))
    if alpha.min() < 255:
        return sheet.convert("LA") if channels == 1 else sheet
    return sheet.convert("L" if channels == 1 else "RGB")


def data_uri(image: Image.Image) -> str:
    """The picture as an address `data:image/png;base64,...`: a page then needs no second file.

    Example:
        >>> data_uri(Image.new("L", (2, 2)))[:22]
        'data:image/png;base64,'
    """
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def curves(
    series: Sequence[Series],
    *,
    label_x: str,
    label_y: str,
    title: str,
    log_x: bool = False,
    log_y: bool = False,
    floor: tuple[str, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """Draw lines on one pair of axes, as an SVG string that holds the values for hovering.

    Args:
        series: at most four lines; a line with `low` and `high` gets a band.
        label_x: name and unit of the x axis.
        label_y: name and unit of the y axis.
        title: what the picture shows, for those who do not see it.
        log_x: logarithmic x.
        log_y: logarithmic y; points that are not positive are left out.
        floor: a name and a value to compare with, drawn as a dashed line.
        marks: x positions with a name (the end of a stage), drawn as thin vertical lines.

    Raises:
        ValueError: if there are more than four lines, or no finite point.
    """
    if len(series) > len(_SERIES):
        raise ValueError(f"A plot shows at most {len(_SERIES)} lines, got {len(series)}.")
    kept = [_finite(s, log_x, log_y) for s in series]
    kept = [s for s in kept if len(s.x) > 0]
    if not kept:
        raise ValueError(f"There is no finite point to draw in '{title}'.")
    figure, axes = _axes(label_x, label_y)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    for colour, line in zip(_SERIES, kept, strict=False):
        _draw(axes, line, colour)
    if floor is not None and math.isfinite(floor[1]) and (floor[1] > 0 or not log_y):
        axes.axhline(floor[1], color=_INK, linewidth=1, linestyle=(0, (4, 3)), label=floor[0])
    for axis, chosen in ((axes.xaxis, log_x), (axes.yaxis, log_y)):
        if chosen:
            _label_logarithm(axis)
    for x, name in marks:
        axes.axvline(x, color=_FAINT, linewidth=1)
        axes.annotate(
            name, (x, 1), xycoords=("data", "axes fraction"), xytext=(3, -9),
            textcoords="offset points", fontsize=9, color=_INK,
        )  # fmt: skip
    return _svg(figure, axes, kept, title)


def histograms(
    groups: Sequence[tuple[str, Sequence[float]]],
    *,
    label_x: str,
    label_y: str,
    title: str,
    bins: int = 30,
    mark: tuple[str, float] | None = None,
) -> str:
    """Draw the shares of several groups in the same bins, as an SVG string.

    Args:
        groups: at most four named lists of numbers.
        label_x: name and unit of the numbers.
        label_y: name of the share.
        title: what the picture shows, for those who do not see it.
        bins: how many bins of equal width.
        mark: a name and a value, drawn as a dashed vertical line.

    Raises:
        ValueError: if no group has a finite number.
    """
    values = [(name, np.asarray([v for v in group if math.isfinite(v)])) for name, group in groups]
    values = [(name, group) for name, group in values if len(group)]
    if not values:
        raise ValueError(f"There is no finite number to draw in '{title}'.")
    everything = np.concatenate([group for _, group in values])
    low, high = float(everything.min()), float(everything.max())
    edges = np.linspace(low, high if high > low else low + 1e-6, bins + 1)
    figure, axes = _axes(label_x, label_y)
    drawn = []
    for colour, (name, group) in zip(_SERIES, values, strict=False):
        share = np.histogram(group, edges)[0] / len(group)
        axes.stairs(share, edges, color=colour, linewidth=1.6, label=name)
        axes.stairs(share, edges, color=colour, alpha=0.15, fill=True)
        drawn.append(Series(name, ((edges[1:] + edges[:-1]) / 2).tolist(), share.tolist()))
    if mark is not None:
        axes.axvline(mark[1], color=_INK, linewidth=1, linestyle=(0, (4, 3)), label=mark[0])
    axes.set_ylim(bottom=0)
    return _svg(figure, axes, drawn, title)


def _finite(line: Series, log_x: bool, log_y: bool) -> Series:
    """The same line without the points that cannot be drawn."""
    keep = [
        i
        for i, (x, y) in enumerate(zip(line.x, line.y, strict=True))
        if math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x) and (y > 0 or not log_y)
    ]
    low, high = line.low, line.high
    return Series(
        line.name,
        [float(line.x[i]) for i in keep],
        [float(line.y[i]) for i in keep],
        line.style,
        None if low is None else [float(low[i]) for i in keep],
        None if high is None else [float(high[i]) for i in keep],
    )


def _axes(label_x: str, label_y: str) -> tuple[Figure, Axes]:
    """One pair of axes in our style, so small that its text can be read on a phone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(430 / _DPI, 250 / _DPI), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(label_x, fontsize=11, color=_INK)
    axes.set_ylabel(label_y, fontsize=11, color=_INK)
    axes.tick_params(which="both", colors=_INK, labelsize=10, length=0)
    axes.grid(True, color=_FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure, axes


def _label_logarithm(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers; a short range also at 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    short = high < 500 * low
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if short else (1.0,), numticks=9))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw(axes: Axes, line: Series, colour: str) -> None:
    """Draw one line with its band and its name."""
    if line.style == "points":
        axes.plot(line.x, line.y, "o", color=colour, markersize=5, label=line.name)
    elif line.style == "faint":
        axes.plot(line.x, line.y, color=colour, linewidth=1, alpha=0.6, label=line.name)
    else:
        marker = "o" if len(line.x) < 30 else ""
        axes.plot(
            line.x, line.y, color=colour, linewidth=1.8, marker=marker, markersize=3.5,
            label=line.name,
        )  # fmt: skip
    if line.low is not None and line.high is not None:
        axes.fill_between(
            np.asarray(line.x), np.asarray(line.low), np.asarray(line.high),
            color=colour, alpha=0.15, linewidth=0,
        )  # fmt: skip


def _svg(figure: Figure, axes: Axes, lines: Sequence[Series], title: str) -> str:
    """Write a figure as SVG to place inside a page, with CSS colours and hover points."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    handles, _ = axes.get_legend_handles_labels()
    if len(handles) > 1:
        axes.legend(frameon=False, fontsize=10, labelcolor=_INK, loc="best")
    buffer = io.StringIO()
    # With this salt and without a date, the same numbers give the same bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        canvas = FigureCanvasSVG(figure)
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None})
        hover = _hover_points(figure, axes, lines)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Inside a page, the drawing's style sheet would apply to all of it; the page sets the size.
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    text = re.sub(r" font-family: [^;\"]*;", "", text)
    for placeholder, css in _CSS.items():
        text = text.replace(placeholder, css)
    # A white background would hide that of the page.
    text = re.sub(r'(<g id="patch_[12]">\s*<path d="[^"]*" style="fill: )#ffffff', r"\1none", text)
    head = (
        f"<svg role='img' aria-label='{escape(title, quote=True)}' class='plot' "
        f"data-hover='{escape(json.dumps(hover, separators=(',', ':')), quote=True)}'"
    )
    return _own_ids(text.replace("<svg", head, 1), title)


def _own_ids(svg: str, title: str) -> str:
    """Put a prefix before the ids of one drawing: those of other drawings on the page differ."""
    prefix = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)


def _hover_points(
    figure: Figure, axes: Axes, lines: Sequence[Series]
) -> list[dict[str, str | list[list[float]]]]:
    """Positions (SVG units) and values of every line, at most 300 points each."""
    height = figure.get_figheight() * _DPI
    found: list[dict[str, str | list[list[float]]]] = []
    for line in lines:
        stride = max(1, len(line.x) // 150)
        data = np.column_stack([line.x, line.y])[::stride]
        pixels = axes.transData.transform(data)
        points = [
            [round(float(px), 1), round(height - float(py), 1), _short(x), _short(y)]
            for (px, py), (x, y) in zip(pixels, data, strict=True)
        ]
        found.append({"name": line.name, "points": points})
    return found


def _short(value: float) -> float:
    """Four significant digits, as a number."""
    return float(f"{value:.4g}")


def as_pixels(images: Tensor) -> np.ndarray:
    """Float [n, c, h, w] in [-1, 1] as uint8 [n, h, w, c], as pictures are stored in files.

    Example:
        >>> import torch
        >>> as_pixels(torch.tensor([-1.0, 0.0, 1.0]).view(1, 1, 1, 3)).ravel().tolist()
        [0, 128, 255]
    """
    pixels = images.detach().float().clamp(-1, 1).add(1).mul(127.5).round().byte()
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
