"""`noisewise evaluate`: a verdict on a run's pictures, and each number with what it sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from shutil import get_terminal_size
from textwrap import wrap
from typing import TYPE_CHECKING

from noisewise.app.command import Command
from noisewise.app.flags import plain
from noisewise.app.numbers import Number, milliseconds, numbers
from noisewise.app.options import JsonOption, RunFolder
from noisewise.app.terminal.answer import show
from noisewise.training.settings.config import EvaluateConfig

if TYPE_CHECKING:
    from noisewise.training.evaluate import Evaluation

_WIDTH = 96  # characters of a line, or as many as the terminal has
_VALUE = 24


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(EvaluateConfig, JsonOption):
    """Say how far a run's pictures are from real ones: a verdict, and the numbers behind it."""

    run: RunFolder
    """Folder of a run."""


def _evaluate(options: EvaluateOptions, _: Sequence[str]) -> int:
    from noisewise.app.terminal.forecast import Forecast
    from noisewise.app.terminal.notices import warn_of_damage
    from noisewise.app.terminal.progress import Progress
    from noisewise.training.evaluate import evaluate

    warn_of_damage(options.run)
    with Progress() as progress:
        begun, forecast = False, Forecast(progress.note, f"-n {max(16, options.num_images // 4)}")

        def on_part(part: str, done: int, total: int) -> None:
            nonlocal begun
            if not begun and part == "drawing":  # now everything is checked and read
                progress.note(f"drawing and judging {options.num_images:,} pictures")
                begun = True
            forecast.part(part, done, total)
            progress.part(part, done, total, "pictures")

        found = evaluate(options.run, config=plain(options, EvaluateConfig), on_part=on_part)
    show(found.to_dict(), options.json, _lines(found))
    return 0


def _lines(found: Evaluation) -> list[str]:
    """The verdict, then each number with what it sees, then what helps to compare runs."""
    from noisewise.quality.verdict import MEANINGS

    width = max(60, min(_WIDTH, get_terminal_size((_WIDTH, 24)).columns))
    shown = numbers(found.to_dict())
    names = max(len(number.name) for number in shown)
    values = min(_VALUE, max(len(number.value) for number in shown))
    lines = [
        *wrap(f"{found.verdict} ({MEANINGS[found.verdict]}): {found.verdict_reason}.", width),
        "",
        *wrap(f"{found.num_images:,} pictures of the {found.model} against {found.against}", width),
        "",
    ]
    for number in shown:
        lines += _row(number, names, values, width)
    compared = (
        f"distance {found.distance:.4f} (95%: {found.distance_low:.4f} to "
        f"{found.distance_high:.4f}), floor {found.floor:.4f}"
    )
    calls = "1 network call" if found.network_calls == 1 else f"{found.network_calls} network calls"
    each = f"{milliseconds(found.seconds_per_image)} on {found.device}"
    lines += [
        "",
        *wrap(f"To compare with other runs, by features that never change: {compared}", width),
        *wrap(f"Each picture takes {calls}, {each} (as busy as this machine was)", width),
    ]
    return lines


def _row(number: Number, names: int, values: int, width: int) -> list[str]:
    """A number and its sentences side by side; a long value stands above them."""
    said = f"{number.sees} {number.note}".strip()
    if len(number.value) > values:
        indent = names + 2
        lines = [*wrap(number.value, width - indent), *wrap(said, width - indent)]
        return [f"{number.name:<{indent}}{lines[0]}", *(" " * indent + line for line in lines[1:])]
    left = names + values + 4
    lines = wrap(said, width - left)
    first = f"{number.name:<{names}}  {number.value:<{values}}  {lines[0]}"
    return [first, *(" " * left + line for line in lines[1:])]


COMMAND = Command(
    name="evaluate",
    usage="RUN",
    summary="how real its pictures look, what differs, copies, time",
    options=EvaluateOptions,
    action=_evaluate,
    examples=("noisewise evaluate runs/mine --against other_pictures",),
    less_memory="measure fewer pictures with -n",
)
