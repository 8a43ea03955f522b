"""The curves of the report: losses, gradient noise, floors over time, detail, nearest pictures."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Literal

from noisewise.app.html_text import escape
from noisewise.app.plots import svg
from noisewise.app.report.chart_values import value_table
from noisewise.app.report.facts import Copies, Facts, Point, Way
from noisewise.training.stages.teacher_steps import worth

_MOST_POINTS = 400  # of one line; more make the page larger and look the same
_LOSS_TEXT = (
    "Loss on the training pictures and on held-out pictures. If only the training loss falls, the "
    "model memorises."
)
_GAP_TEXT = (
    "Score gap: the difference between the teacher's score and the score of the generator's own "
    "pictures. It falls as the generator learns. The loss is not shown: it stays near 0 whether "
    "the generator learns or not."
)
_NOISE_TEXT = (
    "Gradient noise: the number of pictures per step at which the gradient holds as much signal as "
    "noise. A larger batch than this saves few steps. Read it as a lower bound: while the learning "
    "rate is high, the weights bounce, and this looks like signal; the curve rises as the rate "
    "falls. Dashed: the batch of this run."
)
_DISTANCE_TEXT = (
    "Distance during training: the teacher's to real pictures, the generator's to pictures of its "
    "teacher. Dashed: the floor, which real pictures reach. It is measured "
    "on fewer pictures than at the top of the page, so it is noisier."
)


_FLOORS_TEXT = (
    "Floors during training: the teacher's pictures against real ones, the generator's against "
    "pictures of its teacher. Dashed: 1, as far as such pictures are from "
    "each other. It is measured on fewer pictures than at the top of the page, so it is noisier."
)
_STEPS_TEXT = (
    "What one call is worth: how far the teacher's pictures in few steps are from those of its own "
    "sampler, over the time that a picture takes, and the generator on the same axes, from its "
    "first evaluation to its last. Lower and further to the left is better."
)
_SPECTRUM_TEXT = (
    "Detail: power of generated pictures against real ones, from coarse (left) to fine (right). "
    "Above 0 there is more detail than in real pictures, such as noise; below 0 there is less, "
    "such as blur. 3 dB is half or twice the power."
)


def spectrum_plot(ways: Sequence[Way]) -> str:
    """Power at each fineness of detail, generated against real; "" if it was not measured.

    Args:
        ways: at most four.
    """
    lines = [
        svg.Series(way.name, way.spectrum.frequency, way.spectrum.difference)
        for way in ways
        if way.spectrum is not None
    ]
    if not lines:
        return ""
    drawing = svg.curves(
        lines,
        label_x="fineness of detail, cycles per pixel",
        label_y="generated / real, dB",
        title="Detail of generated pictures against real ones",
        floor=("real", 0.0),
    )
    return f'<div class="plots">{figure(drawing, _SPECTRUM_TEXT)}</div>'


def nearest_plot(name: str, copies: Copies) -> str:
    """Distances to the nearest training picture, of generated and of held-out pictures.

    Args:
        name: of the way to draw.
        copies: its copy test.
    """
    drawing = svg.histograms(
        [
            (f"generated, {name}", copies.distances),
            ("held-out, real", copies.held_out_distances),
        ],
        label_x="distance to the nearest training picture (root mean square)",
        label_y="share of pictures",
        title="Distance to the nearest training picture, of generated and held-out pictures",
    )
    note = (
        "Generated pictures should be about as far from the training pictures as held-out pictures "
        "are. Further to the left means copying; further to the right means pictures unlike any "
        "real one."
    )
    return f'<div class="plots">{figure(drawing, note)}</div>'


def figure(drawing: str, caption: str) -> str:
    """A drawing with its caption and values, in the box that the hover script expects."""
    about = re.search(r"aria-label='([^']*)'", drawing)
    values = value_table(drawing, html.unescape(about[1]) if about else "the chart")
    return (
        f'<figure><div class="plot-box">{drawing}</div>'
        f"<figcaption>{escape(caption)}</figcaption>{values}</figure>"
    )


def learning_curves(facts: Facts) -> str:
    """Loss of each stage, gradient noise, floors over time; empty if nothing was logged."""
    drawn = []
    for stage in dict.fromkeys(point.stage for point in facts.points):
        points = [point for point in facts.points if point.stage == stage]
        if any(point.score_gap is not None for point in points):
            drawn.append((_gap_curve(points, stage, _unit(facts)), _GAP_TEXT))
        else:
            drawn.append((_loss_curve(points, stage, _unit(facts)), _LOSS_TEXT))
    drawn.append((_noise_curve(facts), _NOISE_TEXT))
    if any(point.floors is not None for point in facts.points):
        drawn.append((_floors_curve(facts), _FLOORS_TEXT))
    else:  # a run of an older version
        drawn.append((_distance_curve(facts), _DISTANCE_TEXT))
    drawn.append((_steps_curve(facts), f"{_STEPS_TEXT}{_worth(facts)}"))
    figures = "".join(figure(drawing, text) for drawing, text in drawn if drawing)
    return f'<div class="plots">{figures}</div>' if figures else ""


def _unit(facts: Facts) -> tuple[str, float]:
    """A unit of time that suits the whole run, for all its curves: its name and its seconds."""
    longest = max((point.seconds for point in facts.points), default=0.0)
    if longest > 3 * 3600:
        return "hours", 3600.0
    return ("minutes", 60.0) if longest > 180 else ("seconds", 1.0)


def _line(
    name: str,
    pairs: Sequence[tuple[float, float | None]],
    style: Literal["line", "faint"] = "line",
) -> svg.Series:
    """A line of (time, value); points without a value are left out, many points are thinned."""
    kept = [(x, y) for x, y in pairs if y is not None]
    kept = kept[:: max(1, len(kept) // _MOST_POINTS)]
    return svg.Series(name, [x for x, _ in kept], [y for _, y in kept], style)


def _curves(
    lines: Sequence[svg.Series],
    unit: str,
    label: str,
    title: str,
    log_y: bool,
    floor: tuple[str, float] | None = None,
) -> str:
    """Lines over time; "" if no value was logged that can be drawn."""
    label_x = f"{unit} of training"
    try:
        return svg.curves(
            lines, label_x=label_x, label_y=label, title=title, log_y=log_y, floor=floor
        )
    except ValueError:
        return ""


def _positive(lines: Sequence[svg.Series]) -> bool:
    return all(y > 0 for line in lines for y in line.y)


def _loss_curve(points: Sequence[Point], stage: str, time: tuple[str, float]) -> str:
    unit, seconds = time
    lines = [
        _line("training", [(p.seconds / seconds, p.loss) for p in points], "faint"),
        _line("held-out", [(p.seconds / seconds, p.heldout_loss) for p in points]),
    ]
    return _curves(lines, unit, "loss", f"Loss, {stage}", _positive(lines))


def _gap_curve(points: Sequence[Point], stage: str, time: tuple[str, float]) -> str:
    # It starts at 0, because generator and fake score start equal: these points say nothing.
    least = 1e-3 * max((p.score_gap or 0.0 for p in points), default=0.0)
    points = [p for p in points if (p.score_gap or 0.0) >= least]
    unit, seconds = time
    line = _line("score gap", [(p.seconds / seconds, p.score_gap) for p in points])
    return _curves([line], unit, "score gap", f"Score gap, {stage}", log_y=True)


def _noise_curve(facts: Facts) -> str:
    points = [p for p in facts.points if p.noise_scale is not None]
    unit, seconds = _unit(facts)
    line = _line("gradient noise", [(p.seconds / seconds, p.noise_scale) for p in points])
    floor = None if facts.batch is None else ("batch", float(facts.batch))
    return _curves([line], unit, "pictures", "Gradient noise, teacher", log_y=True, floor=floor)


def _floors_curve(facts: Facts) -> str:
    unit, seconds = _unit(facts)
    lines = [
        _line(stage, [(p.seconds / seconds, p.floors) for p in facts.points if p.stage == stage])
        for stage in dict.fromkeys(p.stage for p in facts.points)
    ]
    title = "Floors during training"
    return _curves(lines[:4], unit, "floors", title, _positive(lines), ("1 floor", 1.0))


def _generators_floors(facts: Facts) -> list[float]:
    return [p.floors for p in facts.points if p.stage == "generator" and p.floors is not None]


def _steps_curve(facts: Facts) -> str:
    """Floors over milliseconds a picture, of the teacher by steps and of the generator."""
    rows, ms = facts.teacher_steps, facts.generator_milliseconds
    if not rows:
        return ""
    steps = [f"{row[0]:g}" for row in rows]
    named = " and ".join(filter(None, (", ".join(steps[:-1]), steps[-1])))
    word = "step" if steps == ["1"] else "steps"
    lines = [svg.Series(f"teacher, {named} {word}", [r[2] for r in rows], [r[1] for r in rows])]
    found = _generators_floors(facts) if ms else []
    if ms and found:
        if len(found) > 1:
            times = [ms] * (len(found) - 1)
            lines.append(svg.Series("generator, while it learnt", times, found[:-1], "faint"))
        lines.append(svg.Series("generator, last", [ms], found[-1:], "points"))
    try:
        return svg.curves(
            lines,
            label_x="milliseconds a picture",
            label_y="floors",
            title="What one call is worth",
            log_x=True,
            log_y=_positive(lines),
            floor=("1 floor", 1.0),
        )
    except ValueError:
        return ""


def _worth(facts: Facts) -> str:
    found = _generators_floors(facts)
    if not (found and facts.teacher_steps):
        return ""
    rows = [(int(steps), floors, ms) for steps, floors, ms in facts.teacher_steps]
    return f" The generator is worth {worth(rows, found[-1])} of its teacher."


def _distance_curve(facts: Facts) -> str:
    unit, seconds = _unit(facts)
    lines = [
        _line(stage, [(p.seconds / seconds, p.distance) for p in facts.points if p.stage == stage])
        for stage in dict.fromkeys(p.stage for p in facts.points)
    ]
    floor = None if facts.floor is None else ("floor", facts.floor)
    return _curves(lines[:4], unit, "distance", "Distance during training", _positive(lines), floor)
