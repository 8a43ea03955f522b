"""What a finished stage came to: a line for what was kept, one for the sampler, one number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noisewise.app.numbers import floors_text
from noisewise.app.terminal.duration import duration
from noisewise.training.stages.speed import is_slow

_WASTED = 0.8  # if the weights kept are from before this share of the images, training was too long


def came_to_lines(
    stage: Mapping[str, Any], sampler: str = "", two_calls: bool = False
) -> list[str]:
    """The lines about a finished stage; what was not measured has none.

    Args:
        stage: its entry in run.json.
        sampler: of a teacher, in words.
        two_calls: whether the generator offers a second call.

    Example:
        >>> found = {"steps": 10, "images": 640, "seconds": 5.0, "budget": "5s", "ema_share": 0.05}
        >>> for line in came_to_lines(found, sampler="heun, 7 calls"):
        ...     print(line)
        trained: 10 steps, 640 images, 5.0s of 5s
        kept: weight average with look-back 0.05
        sampler: heun, 7 calls
    """
    steps = "1 step" if stage["steps"] == 1 else f"{stage['steps']:,} steps"
    lines = [
        f"trained: {steps}, {stage['images']:,} images, "
        f"{duration(stage['seconds'])} of {stage['budget']}"
    ]
    if slow := _slow(stage.get("speed")):
        lines.append(slow)
    if "ema_share" in stage:
        lines.append(f"kept: {_kept(stage)}")
    if sampler:
        lines.append(f"sampler: {sampler}")
    if isinstance(stage.get("floors"), Mapping):
        against = stage.get("distance_against") or "real pictures"
        lines.append(f"floors: {_floors(stage['floors'])} from {against}")
    elif isinstance(stage.get("distance"), float):  # of an older version
        lines.append(f"distance: {stage['distance']:.4f}")
    if two_calls:
        lines.append("second call: surely nearer still, so it is offered (calls=2)")
    return lines


def _slow(speed: Mapping[str, float] | None) -> str:
    """That another program took the machine, or ""."""
    if speed is None or not is_slow(speed["mean"], speed["possible"]):
        return ""
    return (
        f"slow: {speed['mean']:.3g} images/s on average, where {speed['possible']:.3g} are "
        "possible; another program probably used this machine too: a larger budget resumes"
    )


def _floors(floors: Mapping[str, Any]) -> str:
    """The number, or that it cannot be told: a bare 0.0 of few pictures would be praise."""
    from noisewise.quality.verdict import word_by_floors

    fewest = min(floors["num_images"], floors["num_real"])
    word = word_by_floors(floors["value"], floors["low"], floors.get("chance", 1.0), fewest)
    if word == "cannot tell":
        return f"cannot tell with {fewest} pictures how far they are"
    return f"{floors_text(floors)}, 1 or less is best,"


def _kept(stage: Mapping[str, Any]) -> str:
    share = stage["ema_share"]
    text = "weights from before training: no later ones were nearer; give a larger budget"
    if share is not None:
        text = f"weight average with look-back {share:g}"
    if isinstance(stage.get("heldout_loss"), float):
        text += f", held-out loss {stage['heldout_loss']:.4f}"
    images = stage.get("kept_after_images", stage["images"])
    if images < stage["images"]:
        text += f", from {images:,} of {stage['images']:,} images"
    if images < _WASTED * stage["images"]:
        text += "; later ones were worse: use more pictures or a shorter budget"
    return text
