"""`noisewise report RUN`: collects what a run holds into facts, and writes them as one page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from noisewise.app.report.facts import Derived, Event, Facts, Frame, Point
from noisewise.app.report.measure import Judged, judge
from noisewise.app.report.page import render
from noisewise.app.report.resume_command import again
from noisewise.app.terminal.program_name import program
from noisewise.app.terminal.progress import duration
from noisewise.training.devices.hardware import describe_machine
from noisewise.training.files.atomic import write_text
from noisewise.training.files.sample_sheet import COLUMNS
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.model_folder import read_config
from noisewise.training.run.run import Run, StageName
from noisewise.training.settings.config import Budget, DistillConfig
from noisewise.training.settings.recipes import StudentRecipe
from noisewise.training.stages.plan import student_values
from noisewise.training.stages.record import TROUBLE, Record

_SHEET_NAME = re.compile(r"(teacher|generator)-(\d+)\.png")
_STAGES: tuple[StageName, ...] = ("teacher", "generator")
_TOO_MANY_SKIPPED = 0.05
_FEW_COPIES = 0.005  # below it, a share says nothing about 500 pictures


def report(
    run: Run | str | Path,
    out: str | Path | None = None,
    *,
    num_images: int = 1000,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Write one self-contained HTML page about a run, at whatever stage it is.

    Args:
        run: a run, or its folder.
        out: where to write; None: RUN/report.html.
        num_images: pictures to generate for each distance on the page.
        tell: is given a line about each thing that takes long.

    Returns:
        The path of the page.

    Raises:
        ValueError: if there is no run, or a model file is damaged.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    path = run.path / "report.html" if out is None else Path(out)
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder; name a file, for example {path}/report.html")
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out {path}: the report is a web page; name a file ending in .html")
    write(gather(run, num_images, tell), path)
    return path


def write(facts: Facts, path: Path) -> None:
    """Write the page, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render(facts))


def gather(run: Run, num_images: int = 1000, tell: Callable[[str], None] | None = None) -> Facts:
    """Collect everything that the page shows: read, draw and judge.

    Args:
        run: at any stage.
        num_images: pictures to generate for each distance.
        tell: is given a line about each thing that takes long.
    """
    judged = judge(run, num_images, tell or _silent)
    data, stages = run.info["data"], run.info["stages"]
    records = run.records()
    return Facts(
        name=run.name,
        path=str(run.path),
        size=data["size"],
        channels=data["channels"],
        num_pictures=data["num_training"],
        source=Path(data["source"]).name,
        has_teacher=(run.path / "teacher" / "config.json").exists(),
        has_generator=(run.path / "generator" / "config.json").exists(),
        ways=judged.ways,
        floor=judged.floor,
        against=judged.against,
        real=judged.real,
        real_missing=judged.real_missing,
        copies=judged.copies,
        copies_missing=judged.copies_missing,
        frames=_frames(run, records),
        points=_points(records),
        events=_events(run, records, judged),
        data_card=_data_card(run, judged),
        skipped=_skipped(data["skipped"]),
        derived=_derived(run),
        machine=(*describe_machine(), *_versions(run.info)),
        stage_seconds={s: stages[s]["seconds"] for s in _STAGES if "seconds" in stages.get(s, {})},
        commands=tuple((what, _as_typed_here(line)) for what, line in _commands(run)),
    )


def _silent(text: str) -> None:
    """Tell nobody."""


def _frames(run: Run, records: list[Record]) -> tuple[Frame, ...]:
    """The sheets of fixed seeds, in the order in which they were drawn."""
    when = {(r.stage, r.step): r.seconds for r in records}
    found = []
    for path in (run.path / "samples").glob("*.png"):
        match = _SHEET_NAME.fullmatch(path.name)
        if match is None:
            continue
        stage, step = match[1], int(match[2])
        with Image.open(path) as image:
            columns = image.width // run.info["data"]["size"]
            rows = image.height // run.info["data"]["size"]
        seconds = when.get((stage, step))
        text = f"{stage}, step {step:,}"
        if seconds is not None:
            text += f", after {duration(seconds)}"
        order = (_STAGES.index("teacher" if stage == "teacher" else "generator"), step)
        found.append((order, Frame(stage, path, text, min(columns, COLUMNS), rows)))
    return tuple(frame for _, frame in sorted(found, key=lambda item: item[0]))


def _points(records: list[Record]) -> tuple[Point, ...]:
    """The log for the curves: time goes on counting from one stage to the next."""
    teacher = max((r.seconds for r in records if r.stage == "teacher"), default=0.0)
    return tuple(
        Point(
            r.stage,
            r.seconds + (teacher if r.stage == "generator" else 0.0),
            r.images,
            r.loss,
            r.heldout_loss,
            r.distance,
            r.fisher,
            r.noise_scale,
        )
        for r in records
    )


def _events(run: Run, records: list[Record], judged: Judged) -> tuple[Event, ...]:
    """What happened, the bad first: on top of the page stands what a reader must not miss."""
    logged = [Event(r.stage, r.seconds, r.event, r.kind in TROUBLE) for r in records if r.event]
    found = [event for event in logged if event.bad]
    if stale := run.stale_generator():
        found.append(Event("generator", 0.0, stale, True))
    if run.warning:
        found.append(Event("run", 0.0, run.warning, True))
    for stage in _STAGES:
        here = [r for r in records if r.stage == stage]
        if here and not run.finished(stage):
            text = "this stage is not finished; the same command goes on"
            if _failed(run, stage):
                text = "this stage broke down too often and ended; begin anew in a new folder"
            found.append(Event(stage, here[-1].seconds, text, True))
    seconds = records[-1].seconds if records else 0.0
    copies = judged.copies
    if copies is not None and copies.low > max(copies.held_out_fraction or 0.0, _FEW_COPIES):
        text = (
            f"at least {100 * copies.low:.1f}% of the pictures copy a training picture; of real "
            f"held-out ones {100 * (copies.held_out_fraction or 0.0):.1f}% look like it"
        )
        found.append(Event(copies.way, seconds, text, True))
    data = run.info["data"]
    skipped = _harmful(data["skipped"])
    if skipped > _TOO_MANY_SKIPPED * (skipped + data["num_pictures"]):
        text = f"{skipped:,} files were skipped, more than 5%; the reasons stand below"
        found.append(Event("data", 0.0, text, True))
    return (*found, *(event for event in logged if not event.bad))


def _failed(run: Run, stage: StageName) -> bool:
    """Whether a stage gave up, when it was last tried."""
    return "failed" in run.info["stages"].get(stage, {})


def _harmful(skipped: list[dict[str, str]]) -> int:
    from noisewise.pictures.sources import HARMLESS, read_skipped

    return sum(read_skipped(item).code not in HARMLESS for item in skipped)


def _data_card(run: Run, judged: Judged) -> tuple[tuple[str, str], ...]:
    data = run.info["data"]
    rows = [
        ("source", str(data["source"])),
        ("pictures", f"{data['num_pictures']:,}"),
        ("to learn from", f"{data['num_training']:,}"),
        ("held out", f"{data['num_held_out']:,}"),
        ("size", f"{data['size']} x {data['size']} pixels"),
        ("channels", f"{data['channels']} ({'grey' if data['channels'] == 1 else 'colour'})"),
        ("classes", _listed(data["classes"]) or "none"),
        ("fingerprint", str(data["fingerprint"])[:16]),
    ]
    if "seconds_to_first_batch" in data:
        rows.append(("first batch after", f"{data['seconds_to_first_batch']} s, with reading"))
    if judged.noise_curve:
        curve = ", ".join(f"s={s} {value:.2f}" for s, value in judged.noise_curve.items())
        rows.append(("variance left by averaging s x s", curve))
    rows += [("note", note) for note in data["notes"]]
    return tuple(rows)


def _listed(names: list[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _skipped(skipped: list[dict[str, str]]) -> tuple[tuple[str, int, str], ...]:
    """Skipped files by reason, the most frequent first, with the first of their names."""
    from noisewise.pictures.sources import read_skipped

    names: dict[str, list[str]] = {}
    for item in map(read_skipped, skipped):
        names.setdefault(item.reason, []).append(item.name)
    order = sorted(names, key=lambda reason: -len(names[reason]))
    return tuple((reason, len(names[reason]), _listed(names[reason], 3)) for reason in order)


def _derived(run: Run) -> tuple[Derived, ...]:
    """Every decision of both stages with its reason."""
    found = [
        Derived(name, _plain(item["value"]), item["reason"])
        for name, item in run.info["derived"].items()
    ]
    config = _model_config(run, "teacher")
    if config is not None:
        s = config.sampler
        value = f"{s.name}, {s.num_steps} steps from sigma {s.sigma_max:.3g} to {s.sigma_min:.3g}"
        value += f", rho {s.rho:g}"
        found.append(Derived("sampler", value, s.reason))
    if config is not None and "distill" in run.info:
        values = student_values(_distill_config(run.info["distill"]), config.sigma_data)
        found += [
            Derived(f"distillation: {name}", _plain(item.value), item.reason)
            for name, item in values.items()
        ]
    student = _model_config(run, "generator")
    if student is not None and student.two_call_sigma is not None:
        found.append(
            Derived(
                "distillation: noise of a second call",
                f"{student.two_call_sigma:.3g}",
                "the best of those tried, by distance to the teacher's own pictures",
            )
        )
    return tuple(found)


def _model_config(run: Run, stage: StageName) -> ModelConfig | None:
    if not (run.path / stage / "config.json").exists():
        return None
    return read_config(run.path / stage)[0]


def _distill_config(values: Mapping[str, Any]) -> DistillConfig:
    recipe: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values["recipe"].items()
    }
    rest: dict[str, Any] = {**values, "recipe": StudentRecipe(**recipe)}
    return DistillConfig(**rest)


def _plain(value: object) -> str:
    """A derived value as people write it."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_plain(v) for v in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _versions(info: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    rows = [(f"trained with {name}", str(value)) for name, value in info["versions"].items()]
    rows += [(f"trained on {name}", str(value)) for name, value in info.get("machine", {}).items()]
    return (("begun", str(info["created"])), ("seed", str(info["seed"])), *rows)


def _twice(run: Run) -> str:
    """Twice the budget that the teacher had: less would end where it is."""
    had = Budget.parse(run.info["stages"]["teacher"].get("budget", run.info["train"]["budget"]))
    if had.seconds is not None:
        return str(Budget(seconds=2 * had.seconds))
    assert had.images is not None
    return str(Budget(images=2 * had.images))


def _as_typed_here(lines: str) -> str:
    """Commands with the program as this shell finds it: it may be in a `.venv` only."""
    return re.sub(r"^noisewise(?= )", lambda _: program(), lines, flags=re.MULTILINE)


def _commands(run: Run) -> tuple[tuple[str, str], ...]:
    """What a reader may want to do next, ready to be typed."""
    path = shlex.quote(str(run.path))
    train, distill = run.info["train"], run.info.get("distill", {})
    adopted = "teacher_from" in run.info  # its pictures are somebody else's
    rows = []
    best = run.checkpoints("teacher").best
    if not run.finished("teacher") and _failed(run, "teacher"):
        shown = f"noisewise sample {shlex.quote(str(best))} -n 64 --out best.png"
        return (("Look at the best teacher so far", shown),) if best.exists() else ()
    if not run.finished("teacher"):
        rows.append(("Go on training", again(run, train["budget"])))
        return tuple(rows)
    if not run.finished("generator"):
        budget = distill.get("budget", train.get("budget", "5m"))
        line = f"noisewise distill {path} --budget {budget}"
        if _failed(run, "generator"):  # the same would end in the same way
            seed = distill.get("seed", 0) + 1
            line = f"noisewise distill runs/again --teacher {path} --budget {budget} --seed {seed}"
        rows.append(("Distil it into one network call", line))
    rows += [
        ("More pictures", f"noisewise sample {path} -n 64 --seed 1 --out more.png"),
        ("Measure again", f"noisewise evaluate {path} -n 2000"),
        *([] if adopted else [("Train longer", again(run, _twice(run)))]),
        ("Your own pictures", "noisewise train FOLDER --out runs/mine --budget 30m"),
        ("From Python", f'import noisewise\nnoisewise.load("{run.path}").sample(64, seed=0)'),
    ]
    return tuple(rows)
