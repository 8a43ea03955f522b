"""The curves of the report: losses, distance over time, nearest training pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from noisewise.app.plots import svg
from noisewise.app.report.facts import Copies, Facts

_LOSS_TEXT = "Loss in training and on held-out pictures; when only the first falls, it memorises."
_GAP_TEXT = (
    "How far the score of the generator's own pictures is from the teacher's. The loss itself is "
    "not shown: it hovers about nothing whether the generator learns or not."
)

_NOISE_TEXT = (
    "Noise of the gradient: so many pictures a step hold as much signal as noise. A lower bound of "
    "the batch that pays: while the learning rate is high weights bounce, which looks like signal, "
    "and the curve rises as the rate falls. Dashed: the batch."
)


def nearest_plot(copies: Copies) -> str:
    """Distances to the nearest training picture, of generated and of held-out pictures."""
    groups = [("generated", copies.distances), ("held-out, real", copies.held_out_distances)]
    drawing = svg.histograms(
        groups,
        label_x="distance to the nearest training picture (root mean square)",
        label_y="share of pictures",
        title="Nearest training picture, generated and held-out",
    )
    note = (
        "Generated pictures should lie about as far from the training pictures as unseen real ones "
        "do: a heap further left would be memory, one further right pictures unlike any real one."
    )
    return f'<div class="plots">{figure(drawing, note)}</div>'


def figure(drawing: str, caption: str) -> str:
    """A drawing with its caption, in the box that the hover script expects."""
    return (
        f'<figure><div class="plot-box">{drawing}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def learning_curves(facts: Facts) -> str:
    """Loss of each stage, and the distance over time; empty when nothing was logged."""
    figures = []
    for stage in dict.fromkeys(point.stage for point in facts.points):
        gap = any(p.score_gap is not None for p in facts.points if p.stage == stage)
        drawing = _gap_curve(facts, stage) if gap else _loss_curve(facts, stage)
        if drawing:
            figures.append(figure(drawing, _GAP_TEXT if gap else _LOSS_TEXT))
    drawing = _noise_curve(facts)
    if drawing:
        figures.append(figure(drawing, _NOISE_TEXT))
    drawing = _distance_curve(facts)
    if drawing:
        figures.append(
            figure(
                drawing,
                "Distance while training: of the teacher to real pictures, of the generator to its "
                "teacher's pictures (it sees no real ones). The dashed line is what real pictures "
                "reach against other real ones. Fewer pictures than above, so noisier.",
            )
        )
    return f'<div class="plots">{"".join(figures)}</div>' if figures else ""


def _unit(points: Sequence[float]) -> tuple[str, float]:
    """A unit of time that suits the longest of them: its name and its seconds."""
    longest = max(points, default=0.0)
    if longest > 3 * 3600:
        return "hours", 3600.0
    return ("minutes", 60.0) if longest > 180 else ("seconds", 1.0)


def _loss_curve(facts: Facts, stage: str) -> str:
    points = [point for point in facts.points if point.stage == stage]
    unit, seconds = _unit([point.seconds for point in points])
    lines = []
    for name, style in (("training", "faint"), ("held-out", "line")):
        pairs = [
            (p.seconds / seconds, value)
            for p in points
            if (value := p.loss if name == "training" else p.heldout_loss) is not None
        ]
        if pairs:
            pairs = pairs[:: max(1, len(pairs) // 400)]
            x, y = zip(*pairs, strict=True)
            lines.append(svg.Series(name, x, y, "faint" if style == "faint" else "line"))
    positive = all(value > 0 for line in lines for value in line.y)
    try:
        return svg.curves(
            lines, label_x=unit, label_y="loss", title=f"Loss, {stage}", log_y=positive
        )
    except ValueError:
        return ""  # this stage logged no finite loss: there is no curve to draw


def _gap_curve(facts: Facts, stage: str) -> str:
    points = [p for p in facts.points if p.stage == stage and p.score_gap is not None]
    # It starts at nothing, because generator and fake score start equal: that is no news.
    least = 1e-3 * max((p.score_gap or 0.0 for p in points), default=0.0)
    points = [p for p in points if (p.score_gap or 0.0) >= least]
    unit, seconds = _unit([point.seconds for point in points])
    points = points[:: max(1, len(points) // 400)]
    line = svg.Series(
        "score gap", [p.seconds / seconds for p in points], [p.score_gap or 0.0 for p in points]
    )
    try:
        return svg.curves(
            [line], label_x=unit, label_y="score gap", title=f"Score gap, {stage}", log_y=True
        )
    except ValueError:
        return ""  # no gap above nothing was logged


def _noise_curve(facts: Facts) -> str:
    points = [p for p in facts.points if p.noise_scale is not None]
    unit, seconds = _unit([point.seconds for point in points])
    points = points[:: max(1, len(points) // 400)]
    line = svg.Series(
        "noise scale", [p.seconds / seconds for p in points], [p.noise_scale or 0.0 for p in points]
    )
    batch = next((float(d.value) for d in facts.derived if d.name == "batch"), None)
    floor = None if batch is None else ("batch", batch)
    try:
        return svg.curves(
            [line], label_x=unit, label_y="pictures", title="Gradient noise, teacher", log_y=True,
            floor=floor,
        )  # fmt: skip
    except ValueError:
        return ""  # it was not measured


def _distance_curve(facts: Facts) -> str:
    measured = [point for point in facts.points if point.distance is not None]
    unit, seconds = _unit([point.seconds for point in facts.points])
    lines = []
    for stage in dict.fromkeys(point.stage for point in measured):
        here = [point for point in measured if point.stage == stage]
        lines.append(
            svg.Series(
                stage, [p.seconds / seconds for p in here], [p.distance or 0.0 for p in here]
            )
        )
    floor = None if facts.floor is None else ("floor", facts.floor)
    positive = bool(measured) and all((p.distance or 0.0) > 0 for p in measured)
    try:
        return svg.curves(
            lines[:4], label_x=f"{unit} of training", label_y="distance",
            title="Distance while training", log_y=positive, floor=floor,
        )  # fmt: skip
    except ValueError:
        return ""  # no distance was measured while training
