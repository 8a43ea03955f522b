"""`python -m noisewise.app.demo`: from packaged pictures to a generator of one call, and a report.

It says in plain words what happens. The same command resumes a demo that was stopped, and says so
if the demo is finished.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from noisewise.app.cli import carry_out
from noisewise.app.command import Command
from noisewise.app.numbers import figure
from noisewise.app.terminal.answer import say
from noisewise.app.terminal.duration import duration
from noisewise.app.terminal.notices import counted
from noisewise.app.terminal.program_name import program, python
from noisewise.app.terminal.progress import Progress
from noisewise.app.terminal.signals import Stop
from noisewise.app.terminal.stderr import tell
from noisewise.app.terminal.training import beside, lines_of
from noisewise.demo import checked, demo_path
from noisewise.plain_text import shell_words
from noisewise.training.settings.budget import Budget
from noisewise.training.settings.config import DistillConfig, TrainConfig
from noisewise.training.settings.shown import Shown

if TYPE_CHECKING:
    from noisewise.app.report.facts import Way
    from noisewise.training.run.run import Run, StageName

# Everything that the demo decides, in one place.
TEACHER_SHARE = 0.55  # of the budget; the rest distils
NUM_JUDGED = 1000  # pictures of each way that are measured
NUM_SAMPLES = 64  # pictures on the sheet
SEED = 0
TEACHER = TrainConfig(seed=SEED, classes=True)  # the packaged garments have ten names
STUDENT = DistillConfig(seed=SEED)
SUMMARY = "demo.json"
_RUN, _PROGRAM = "{run}", "{noisewise}"  # in place of paths of this machine in the summary


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Train, distil and judge a generator of garments from packaged pictures.

    Run the same command again to resume.
    """

    out: Annotated[str, Shown("RUN")] = "runs/demo"
    """Folder of the run."""
    budget: str = "5m"
    """How long to train, both stages together: 90s, 5m, 1h, or 20000images."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo, or resume it; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = Command(
        name="demo",
        usage="",
        summary="from packaged pictures to a generator and a report",
        options=DemoOptions,
        action=_demo,
        examples=("python -m noisewise.app.demo --budget 5m",),
    )
    return carry_out(command, words, "python -m noisewise.app.demo")


def budgets(text: str) -> tuple[str, str]:
    """Split the budget between teacher and distillation.

    Example:
        >>> budgets("5m")
        ('165s', '135s')
        >>> budgets("20000images")
        ('11000images', '9000images')
    """
    whole = Budget.parse(text)
    if whole.seconds is not None:
        teacher = TEACHER_SHARE * whole.seconds
        return f"{teacher:g}s", f"{whole.seconds - teacher:g}s"
    assert whole.images is not None
    images = round(TEACHER_SHARE * whole.images)
    return f"{images}images", f"{whole.images - images}images"


def _demo(options: DemoOptions, _: Sequence[str]) -> int:
    summary = Path(options.out) / SUMMARY
    budget = str(Budget.parse(options.budget))
    if summary.exists():
        told = _summary_of(summary)
        if told.get("budget") == budget:
            tell("This demo is finished. Remove its folder to run it again.")
            text = str(told.get("text", "")).replace(_RUN, options.out)
            say(*text.replace(_PROGRAM, program()).split("\n"))
            return 0
    return _run(options, budget, summary)


def _summary_of(path: Path) -> dict[str, Any]:
    """What an earlier demo told; nothing if the file is not one of a demo."""
    from noisewise.training.files.atomic import read_json

    try:
        told = read_json(path)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _run(options: DemoOptions, budget: str, summary: Path) -> int:
    """All stages in turn; the library skips those that are finished."""
    seconds: dict[str, float] = {}
    teacher_budget, student_budget = budgets(options.budget)
    with Stop() as stop:
        start = time.perf_counter()
        try:
            run = _train(options.out, teacher_budget, stop)
        except KeyboardInterrupt:  # while the pictures were read
            return _stopped(options, stop)
        if not run.finished("teacher"):
            return _stopped(options, stop)
        seconds["teacher"] = time.perf_counter() - start
        start = time.perf_counter()
        _distill(run, student_budget, stop)
        if not run.finished("generator"):
            return _stopped(options, stop)
        seconds["distillation"] = time.perf_counter() - start
    start = time.perf_counter()
    result = _judge(run)
    seconds["judging and report"] = time.perf_counter() - start
    text = _summary(run, seconds, result)
    from noisewise.training.files.atomic import write_json

    noted = text.replace(str(run.path), _RUN).replace(f"{program()} train", f"{_PROGRAM} train")
    write_json(summary, {"budget": budget, "seconds": seconds, "text": noted})
    say(*text.split("\n"))
    return 0


def _train(out: str, budget: str, stop: Stop) -> Run:
    from noisewise.training.train import train

    tell(
        "1 of 3  A teacher learns to remove noise from 6,000 pictures of garments, at every",
        f"        noise level ({_length(budget)}). Held-out loss and floors should fall.",
    )
    config = replace(TEACHER, budget=budget)
    with _progress(config.amount) as progress:
        run = train(
            checked(demo_path()),
            out,
            config=config,
            on_record=progress.update,
            on_file=counted(progress, stop),
            stop=stop,
        )
    _tell_result(run, "teacher")
    return run


def _distill(run: Run, budget: str, stop: Stop) -> None:
    from noisewise.training.distill import distill

    tell(
        "2 of 3  A generator learns from that teacher to draw a garment in one network call",
        f"        ({_length(budget)}). It sees no pictures. The floors should fall.",
    )
    config = replace(STUDENT, budget=budget)
    with _progress(config.amount) as progress:
        distill(run, config=config, on_record=progress.update, stop=stop)
    _tell_result(run, "generator")


def _tell_result(run: Run, stage: StageName) -> None:
    """What a finished stage came to."""
    if run.finished(stage):
        for line in lines_of(run, stage):
            tell(f"        {line}")


def _length(budget: str) -> str:
    amount = Budget.parse(budget)
    return f"{amount.images:,} images" if amount.seconds is None else duration(amount.seconds)


def _progress(amount: Budget) -> Progress:
    return Progress(seconds=amount.seconds, images=amount.images)


def _judge(run: Run) -> dict[str, Any]:
    """Draw the sheet, measure, and write the report."""
    from noisewise.app.commands.sample import SampleOptions, draw
    from noisewise.app.report import collect

    tell("3 of 3  Both draw pictures. These are measured against garments kept out of training.")
    sheet = run.path / "samples" / "one-call.png"
    draw(
        SampleOptions(run=str(run.path), num_images=NUM_SAMPLES, seed=SEED, out=str(sheet), scale=4)
    )
    facts = collect.gather(run, NUM_JUDGED, tell)
    page = run.path / "report.html"
    collect.write(facts, page)
    return {"sheet": sheet, "report": page, "ways": facts.ways}


def _summary(run: Run, seconds: dict[str, float], result: dict[str, Any]) -> str:
    page = beside(run.path, ".html")
    lines = ["", *_poor(result["ways"]), f"report      {result['report']}"]
    lines += [
        f"pictures    {result['sheet']}",
        f"teacher     {run.path / 'teacher'}",
        f"generator   {run.path / 'generator'}",
        "",
    ]
    lines += [f"{name:<20}{duration(value):>8}" for name, value in seconds.items()]
    lines += ["", *_table(result["ways"]), ""]
    lines.append("Floors say how far the pictures are from real ones; 1 or less is best.")
    lines.append("Times are of this machine, as busy as it was.")
    lines += [
        "",
        "To send it to people, as one page that draws:",
        f"  {program()} {shell_words('export', run.path, page, '--to', 'html')}",
        "",
        "Now your own pictures:",
        f"  {program()} train FOLDER --out runs/mine --budget 30m",
    ]
    return "\n".join(lines)


def _table(ways: Sequence[Way]) -> list[str]:
    """The verdict, the floors, the time and the calls of each way."""
    lines = [f"{'':<20}{'verdict':<19}{'floors':>8}{'ms a picture':>14}{'calls':>7}"]
    for way in ways:
        floors = "-" if way.found is None else figure(way.found["floors"]["value"])
        each = 1000 * (way.seconds_per_image or 0.0)
        lines.append(
            f"{way.name:<20}{way.verdict or '-':<19}{floors:>8}{each:>14.3g}{way.network_calls:>7}"
        )
    return lines


def _poor(ways: Sequence[Way]) -> list[str]:
    """Say it first if the result is poor."""
    poor = [way.name for way in ways if way.verdict == "poor"]
    if not poor:
        return []
    return [
        f"The result is poor ({'; '.join(poor)}):",
        "anybody sees that the pictures are not real. The budget was too short, or the machine too",
        "slow or too busy. A longer budget helps: --budget 30m",
        "",
    ]


def _stopped(options: DemoOptions, stop: Stop) -> int:
    words = ["-m", "noisewise.app.demo", "--out", Path(options.out), "--budget", options.budget]
    tell(f"Saved. To resume: {python()} {shell_words(*words)}")
    return stop.exit_code or 1


if __name__ == "__main__":
    sys.exit(main())
