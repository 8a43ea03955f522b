"""Sheets keep every pixel; curves are valid, repeatable SVG with true hover points."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from noisewise.app.plots import svg


def _pictures(num: int, size: int, channels: int) -> np.ndarray:
    return np.random.default_rng(num).integers(0, 256, (num, size, size, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grid_shows_each_picture_exactly(channels: int) -> None:
    """Every pixel of every picture stands in the sheet, as a square of scale x scale."""
    images, scale, gap = _pictures(7, 5, channels), 3, 1
    sheet = np.asarray(svg.grid(images, columns=3, scale=scale, gap=gap).convert("RGBA"))
    small = sheet[::scale, ::scale]
    assert np.array_equal(np.repeat(np.repeat(small, scale, 0), scale, 1), sheet)
    for i, picture in enumerate(images):
        top, left = (i // 3) * 6, (i % 3) * 6
        cell = small[top : top + 5, left : left + 5, : max(3, channels)]
        assert np.array_equal(cell, np.broadcast_to(picture, cell.shape))


def test_grid_leaves_empty_cells_transparent() -> None:
    """A sheet that is not full shows the page, not a black picture."""
    sheet = np.asarray(svg.grid(_pictures(3, 4, 3), columns=2).convert("RGBA"))
    assert sheet[-1, -1, 3] == 0
    assert svg.grid(_pictures(4, 4, 3), columns=2, gap=0).mode == "RGB"
    assert svg.grid(_pictures(4, 4, 1), columns=2, gap=0).mode == "L"


@pytest.mark.parametrize(
    "images", [_pictures(4, 4, 2), _pictures(0, 4, 3), _pictures(4, 4, 3).astype(np.float32)]
)
def test_grid_refuses_what_is_no_picture(images: np.ndarray) -> None:
    """Wrong channels, nothing, and floats are refused in one sentence."""
    with pytest.raises(ValueError, match="sheet needs"):
        svg.grid(images)


def test_data_uri_round_trip() -> None:
    """The picture comes back from its address bit by bit."""
    sheet = svg.grid(_pictures(4, 6, 3), scale=1)
    raw = base64.b64decode(svg.data_uri(sheet).split(",", 1)[1])
    with Image.open(io.BytesIO(raw)) as back:
        assert np.array_equal(np.asarray(back), np.asarray(sheet))


def _lines() -> list[svg.Series]:
    x = np.linspace(1.0, 100.0, 500)
    return [
        svg.Series("training", x.tolist(), (1 / x).tolist(), "faint"),
        svg.Series("held-out", [1.0, 50.0, 100.0], [1.0, float("nan"), 0.01]),
    ]


def _draw(log_y: bool) -> str:
    return svg.curves(
        _lines(), label_x="minutes", label_y="loss", title="Loss, A & B's", log_y=log_y,
        floor=("floor", 0.005), marks=[(50.0, "distillation")],
    )  # fmt: skip


def test_curves_are_valid_repeatable_and_themed() -> None:
    """The SVG parses, is the same twice, has real text, and takes its colours from the page."""
    drawing = _draw(True)
    assert drawing == _draw(True)
    ElementTree.fromstring(drawing)
    assert ">minutes<" in drawing
    assert "distillation" in drawing
    assert "var(--series-1)" in drawing
    assert not re.search(r"#0[0-9]0[0-9]0[0-9]", drawing)
    assert "<style" not in drawing
    assert len(drawing) < 60_000


@pytest.mark.parametrize("log_y", [False, True])
def test_hover_points_lie_on_the_drawn_line(log_y: bool) -> None:
    """The positions given to the script are those of the path that was drawn."""
    root = ElementTree.fromstring(_draw(log_y))
    hover = json.loads(html.unescape(root.attrib["data-hover"]))
    assert [line["name"] for line in hover] == ["training", "held-out"]
    path = next(
        e.attrib["d"]
        for e in root.iter("{http://www.w3.org/2000/svg}path")
        if "var(--series-1)" in e.attrib.get("style", "")
    )
    numbers = [float(v) for v in re.findall(r"-?\d+\.?\d*", path)]
    drawn = np.array(numbers[:2]), np.array(numbers[-2:])
    points = np.array(hover[0]["points"])
    assert np.abs(points[0, :2] - drawn[0]).max() < 0.2
    assert points[0, 2:].tolist() == [1.0, 1.0]
    # Thinning may leave the very last point out, never by more than its stride.
    assert abs(points[-1, 0] - drawn[1][0]) < 3


def test_numbers_that_cannot_be_drawn_are_left_out() -> None:
    """Infinite, not-a-number and (on a logarithm) negative values vanish; none left is an error."""
    bad = [svg.Series("a", [1.0, 2.0, 3.0], [float("inf"), -1.0, float("nan")])]
    with pytest.raises(ValueError, match="no finite point"):
        svg.curves(bad, label_x="x", label_y="y", title="none", log_y=True)
    assert "<svg" in svg.curves(bad, label_x="x", label_y="y", title="one")


def test_histogram_shares_sum_to_one() -> None:
    """Each group's bars are shares of that group."""
    rng = np.random.default_rng(0)
    drawing = svg.histograms(
        [("a", rng.normal(size=300).tolist()), ("b", rng.normal(1, 1, size=40).tolist())],
        label_x="x", label_y="share", title="two", mark=("half", 0.5),
    )  # fmt: skip
    hover = json.loads(html.unescape(ElementTree.fromstring(drawing).attrib["data-hover"]))
    for line in hover:
        assert sum(p[3] for p in line["points"]) == pytest.approx(1.0, abs=1e-3)


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    """No setting and no open figure stays behind, so a caller's own plots are safe."""
    before = dict(mpl.rcParams)
    _draw(False)
    assert dict(mpl.rcParams) == before
