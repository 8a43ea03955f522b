"""`noisewise theory`: the figure of one-call distillation, from exact Gaussian cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from noisewise.app.command import Command
from noisewise.app.options import JsonOption
from noisewise.app.plots.saving import checked_picture
from noisewise.app.terminal.answer import show
from noisewise.training.settings.shown import Shown


@dataclass(frozen=True, kw_only=True)
class TheoryOptions(JsonOption):
    """Draw the theory of one-call distillation: exact Gaussian cases of the loss that trains.

    docs/theory.md explains the six panels.
    """

    out: Annotated[str, Shown("FILE")] = "theory.svg"
    """Picture to write: .svg, .png or .pdf."""


def _theory(options: TheoryOptions, _: Sequence[str]) -> int:
    picture = checked_picture(options.out, "--out")
    from noisewise.app.plots.distill_theory import draw_theory, ends
    from noisewise.diffusion.gaussian_case import widest

    found = ends()
    draw_theory(picture, found)
    lines = [
        str(picture),
        "widths of a generator (of data with width 1) at sigma 1, by descent:",
    ]
    for lam in dict.fromkeys(one.lam for one in found):
        edge, here = widest(lam, 1.0), [one for one in found if one.lam == lam]
        back = [f"{one.width:g}" for one in here if one.converged]
        away = [f"{one.width:g}" for one in here if not one.converged]
        line = f"lambda {lam:g}: comes to 1 from {', '.join(back)}"
        line += f"; runs away from {', '.join(away)}" if away else ""
        lines.append(f"{line} (no return above {edge:.3g})" if edge < 1e9 else line)
    values = {"out": str(picture), "ends": [one.to_dict() for one in found]}
    show(values, options.json, lines, allow_nan=False)
    return 0


COMMAND = Command(
    name="theory",
    usage="[--out FILE]",
    summary="a picture of the theory of one-call distillation",
    options=TheoryOptions,
    action=_theory,
    examples=("noisewise theory --out theory.svg",),
)
