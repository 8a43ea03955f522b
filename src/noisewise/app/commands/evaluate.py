"""`noisewise evaluate`: how near a run's pictures are to real ones, and whether they are copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from noisewise.app.command import Command
from noisewise.app.flags import plain
from noisewise.app.options import JsonOption, RunFolder
from noisewise.app.terminal.answer import show
from noisewise.training.settings.config import EvaluateConfig


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(EvaluateConfig, JsonOption):
    """Measure a run's pictures: distance with interval and floor, copies, time for each picture."""

    run: RunFolder
    """Folder of a run."""


def _evaluate(options: EvaluateOptions, _: Sequence[str]) -> int:
    from noisewise.app.terminal.notices import warn_of_damage
    from noisewise.app.terminal.progress import Progress
    from noisewise.training.evaluate import evaluate

    warn_of_damage(options.run)
    with Progress() as progress:
        progress.note(f"drawing and judging {options.num_images:,} pictures")
        found = evaluate(options.run, config=plain(options, EvaluateConfig))
    copies = "not tested: the training pictures are missing"
    if found.copies is not None:
        copies = (
            f"{100 * found.copies['fraction']:.2f}% "
            f"(95%: {100 * found.copies['low']:.2f} to {100 * found.copies['high']:.2f}%)"
        )
    rows = [
        ("model", found.model),
        ("pictures", f"{found.num_images:,} against {found.against}"),
        (
            "distance",
            f"{found.distance:.4f} (95%: {found.distance_low:.4f} to {found.distance_high:.4f})",
        ),
        ("floor", f"{found.floor:.4f}: real pictures are below it, 95 times in 100"),
        ("wasserstein", " ".join(f"{v:.4f}" for v in found.wasserstein) + ", coarse to fine"),
        ("copies", copies),
        ("speed", f"{1000 * found.seconds_per_image:.3g} ms for each picture on {found.device}"),
        ("calls", f"{found.network_calls} for each picture"),
    ]
    show(found.to_dict(), options.json, _aligned(rows))
    return 0


def _aligned(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


COMMAND = Command(
    name="evaluate",
    usage="RUN",
    summary="distance to real pictures, copies of them, time for each picture",
    options=EvaluateOptions,
    action=_evaluate,
    examples=("noisewise evaluate runs/mine --against other_pictures",),
)
