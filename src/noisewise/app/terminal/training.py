"""What train, adapt and distill show: progress, derived values, the result, what comes next."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from noisewise.app.sinks.sending import both, logging_to
from noisewise.app.terminal.answer import leads, show
from noisewise.app.terminal.came_to import came_to_lines
from noisewise.app.terminal.notices import counted, told
from noisewise.app.terminal.program_name import program
from noisewise.app.terminal.progress import Progress
from noisewise.app.terminal.signals import Stop
from noisewise.app.terminal.stderr import tell
from noisewise.plain_text import json_text, shell_words

if TYPE_CHECKING:
    from noisewise.training.run.run import Run, StageName
    from noisewise.training.settings.budget import Budget

_LONG_LIST = 12  # numbers; a longer list is not shown


def stream() -> TextIO | None:
    """Where notes go: to stderr, or nowhere, for all but one of several processes."""
    return None if leads() else io.StringIO()


def progress_of(budget: Budget) -> Progress:
    """A display for a stage with this budget."""
    return Progress(stream(), seconds=budget.seconds, images=budget.images)


def train_teacher(
    begin: Callable[..., Run],
    out: str,
    budget: Budget,
    as_json: bool,
    words: Sequence[str],
    log_to: str | None = None,
) -> int:
    """Train a teacher with a display, stop when asked to, and print how it went.

    Args:
        begin: trains, given on_record, on_file and stop.
        out: folder of the run.
        budget: of the stage.
        as_json: print one JSON object.
        words: the whole command after `noisewise`, for the line that resumes.
        log_to: name of a log sink; None: none.

    Returns:
        The exit code.
    """
    with (
        Stop(stream()) as stop,
        progress_of(budget) as progress,
        logging_to(log_to, Path(out), progress.note) as sink,
    ):
        try:
            take = both(told(progress, out), sink)
            run = begin(on_record=take, on_file=counted(progress, stop), stop=stop)
        except KeyboardInterrupt:
            return stop.exit_code or 130
    return show_result(run, "teacher", stop, as_json, words)


def show_plan(
    derived: Mapping[str, Mapping[str, Any]], budget: str, as_json: bool, notes: Sequence[str] = ()
) -> int:
    """Print what would be used and why, for --dry-run.

    Args:
        derived: {"value": ..., "reason": ...} by name.
        budget: as it was given.
        as_json: print one JSON object.
        notes: what people should know about the pictures.

    Returns:
        The exit code.
    """
    values = {"budget": budget, "derived": dict(derived), "notes": list(notes)}
    lines = [*(f"note: {note}" for note in notes), f"budget: {budget}"]
    for name, item in derived.items():
        lines += [f"{name}: {_readable(item['value'])}", f"    {item['reason']}"]
    show(values, as_json, lines)
    return 0


def show_result(run: Run, stage: StageName, stop: Stop, as_json: bool, words: Sequence[str]) -> int:
    """Print the result of a stage and what comes next, or how to resume it.

    Args:
        run: as training left it.
        stage: that was trained.
        stop: whether somebody asked to stop.
        as_json: print one JSON object.
        words: the whole command after `noisewise`.

    Returns:
        The exit code.
    """
    name = program()
    found = run.stage(stage)
    if found.stopped or not found.finished:  # a finished model of a smaller budget may be there
        if leads():
            tell(f"Saved. To resume: {name} {shell_words(*words)}")
        # If nobody asked to stop, training itself gave up, and has said why.
        return stop.exit_code or 1
    came_to = dict(run.info["stages"][stage])
    values = {"run": str(run.path), "stage": stage, "model": str(run.path / stage), **came_to}
    lines = [f"{stage}: {run.path / stage}", *lines_of(run, stage)]
    if stage == "teacher":
        lines.append(
            f"next: {name} {shell_words('distill', run.path, '--budget', str(came_to['budget']))}"
        )
    else:
        sheet = beside(run.path, ".png")
        line = shell_words("sample", run.path, "-n", "64", "--out", sheet)
        lines.append(f"next: {name} {line}")
        page = shell_words("export", run.path, beside(run.path, ".html"), "--to", "html")
        lines.append(f"send: {name} {page}")
    lines.append(f"also: {name} {shell_words('report', run.path)}")
    show(values, as_json, lines)
    return 0


def beside(run: Path, suffix: str) -> Path:
    """A file beside a run that has its name.

    Example:
        >>> print(beside(Path("runs/mine"), ".html"))
        runs/mine.html
    """
    if run.name in ("", ".."):  # "." has no name of its own
        return Path(os.path.relpath(f"{os.path.abspath(run)}{suffix}"))
    return Path(f"{run}{suffix}")


def lines_of(run: Run, stage: StageName) -> list[str]:
    """What a finished stage came to."""
    from noisewise.training.models.model_folder import read_config

    config, _ = read_config(run.path / stage)
    sampler = ""
    if stage == "teacher":
        own = config.sampler
        guidance = f", guidance {own.guidance:g}" if own.guidance != 1 else ""
        sampler = f"{own.name}{guidance}, {own.calls} calls for each picture"
    return came_to_lines(run.info["stages"][stage], sampler, config.two_call_sigma is not None)


def _readable(value: object) -> str:
    """A derived value as JSON that fits on a screen: of a long table its size, and real letters."""
    return json_text(_without_tables(value))


def _without_tables(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    if isinstance(value, dict):
        return {name: _without_tables(part) for name, part in value.items()}
    if not isinstance(value, list | tuple):
        return value
    if len(value) > _LONG_LIST and all(isinstance(part, float) for part in value):
        return f"{len(value)} numbers"
    return [_without_tables(part) for part in value]
