"""`noisewise report RUN`: gathers what a run holds into facts, and writes them as one page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from noisewise.app.report.contents import Contents, has_model
from noisewise.app.report.decisions import decisions, listed
from noisewise.app.report.events import events
from noisewise.app.report.facts import Facts, Frame, Point
from noisewise.app.report.measure import SHOWN, Measurements, measure_ways
from noisewise.app.report.next_commands import next_commands
from noisewise.app.report.page import render
from noisewise.app.terminal.duration import duration
from noisewise.pictures.alpha import colours
from noisewise.pictures.sources import read_skipped
from noisewise.sizes import sides, spelled
from noisewise.training.callbacks import OnPart
from noisewise.training.devices.hardware import describe_machine
from noisewise.training.files.sample_sheet import COLUMNS, open_sheet, sheets
from noisewise.training.models.model_folder import Build
from noisewise.training.run.places import run_name
from noisewise.training.run.run import STAGES, Run
from noisewise.training.run.run_json import known_batch
from noisewise.training.stages.record import Record
from noisewise.whole_files import write_text


def report(
    run: Run | str | Path,
    out: str | Path | None = None,
    *,
    data: str | Path | None = None,
    num_images: int = 1000,
    tell: Callable[[str], None] | None = None,
    on_part: OnPart | None = None,
    build: Build | None = None,
    license: str = "",
    note: str = "",
) -> Path:
    """Write one self-contained HTML page about a run, at any stage of it.

    Args:
        run: a run, or its folder.
        out: where to write the page, .html or .htm; None: RUN/report.html.
        data: where the training pictures lie now, if they were moved; the run notes it.
        num_images: how many pictures to draw for each way and to measure, at least 64.
        tell: is called with a line before each part that takes long.
        on_part: is called with (what is being done, done, of all) while a way is measured.
        build: makes the nets from their configuration; None: the nets of this package.
        license: of the model, such as "cc0-1.0", to be shown.
        note: what people should know, such as the intended use.

    Returns:
        The path of the page.

    Raises:
        ValueError: if there is no run, a model file is damaged, `out` cannot be a page, or the
            pictures at `data` are not those of the run.
    """
    run = run if isinstance(run, Run) else Run(run)
    path = run.path / "report.html" if out is None else Path(out)
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder; name a file, for example {path}/report.html")
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out {path}: the report is a web page; name a file ending in .html")
    facts = gather(run, num_images, tell, on_part, build, data)
    write(replace(facts, license=license, note=note), path)
    return path


def write(facts: Facts, path: Path) -> None:
    """Write the page, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render(facts))


def gather(
    run: Run,
    num_images: int = 1000,
    tell: Callable[[str], None] | None = None,
    on_part: OnPart | None = None,
    build: Build | None = None,
    data: str | Path | None = None,
) -> Facts:
    """Gather everything that the page shows: read each file once, draw, measure.

    Args:
        run: at any stage.
        num_images: how many pictures to draw for each way, at least 64.
        tell: is called with a line before each part that takes long.
        on_part: is called with (what is being done, done, of all) while a way is measured.
        build: makes the nets from their configuration; None: the nets of this package.
        data: where the training pictures lie now, if they were moved.

    Raises:
        ValueError: if num_images is too small, a model file is damaged, or the pictures at `data`
            are not those of the run.
    """
    if num_images < SHOWN:
        raise ValueError(f"{num_images} pictures are too few for a page; use at least {SHOWN}")
    contents = Contents.read(run, build, data)
    measured = measure_ways(contents, num_images, tell or _silent, on_part)
    notes = run.data
    return Facts(
        name=run.name,
        path=run_name(run.path),
        size=notes.size,
        channels=notes.channels,
        num_pictures=notes.num_training,
        source=notes.name,
        has_teacher=has_model(run, "teacher"),
        has_generator=has_model(run, "generator"),
        ways=measured.ways,
        floor=measured.floor,
        against=measured.against,
        real=measured.real,
        missing=contents.missing,
        frames=_frames(run, contents.records),
        points=_points(contents.records),
        teacher_steps=_teacher_steps(contents.records),
        generator_milliseconds=next(
            (r.milliseconds for r in reversed(contents.records) if r.milliseconds is not None), None
        ),
        batch=known_batch(run.info),
        events=events(contents, measured.ways),
        data_card=_data_card(run, measured),
        skipped=_skipped(notes.skipped),
        decisions=tuple(decisions(contents)),
        training=_training(run),
        machine=(*_versions(), *describe_machine()),
        stage_seconds={s: t for s in STAGES if (t := run.stage(s).seconds) is not None},
        commands=next_commands(run),
        class_sheets=measured.class_sheets,
        written=_written(),
    )


def _silent(text: str) -> None:
    """Tell nobody."""


def _frames(run: Run, records: list[Record]) -> tuple[Frame, ...]:
    """The sheets of fixed seeds, in the order in which they were drawn."""
    seconds = {(r.stage, r.step): r.seconds for r in records}
    (height, width), found = sides(run.data.size), []
    for stage, step, path in sheets(run.path):
        image = open_sheet(path)
        if image is None:  # the report does without it
            continue
        columns, rows = min(image.width // width, COLUMNS), image.height // height
        if not (columns and rows):
            continue
        found.append(Frame(stage, step, seconds.get((stage, step)), path, columns, rows))
    return tuple(frame for stage in STAGES for frame in found if frame.stage == stage)


def _points(records: list[Record]) -> tuple[Point, ...]:
    """The log for the curves; the time of the generator counts from the end of the teacher."""
    teacher = max((r.seconds for r in records if r.stage == "teacher"), default=0.0)
    return tuple(
        Point(
            r.stage,
            r.seconds + (teacher if r.stage == "generator" else 0.0),
            r.images,
            r.loss,
            r.heldout_loss,
            r.distance,
            r.floors,
            r.fisher,
            r.noise_scale,
        )
        for r in records
    )


def _teacher_steps(records: list[Record]) -> tuple[tuple[float, float, float], ...]:
    """What the teacher draws in few steps, as it was measured before the last distillation."""
    rows = next((r.teacher_steps for r in reversed(records) if r.teacher_steps), ())
    return tuple((float(steps), float(floors), float(ms)) for steps, floors, ms in rows)


def _data_card(run: Run, measured: Measurements) -> tuple[tuple[str, str], ...]:
    data = run.data
    rows = [
        ("source", data.name),
        ("pictures", f"{data.num_pictures:,}"),
        ("trained on", f"{data.num_training:,}"),
        ("held out", f"{data.num_held_out:,}"),
        ("size", f"{spelled(data.size)} pixels"),
        ("channels", f"{data.channels} ({colours(data.channels)})"),
        (
            ("kinds", f"{len(data.classes)}, found by noisewise")
            if data.kinds
            else ("classes", listed(data.classes) or "none")
        ),
        ("fingerprint", data.fingerprint[:16]),
    ]
    if data.seconds_to_first_batch is not None:
        time = duration(data.seconds_to_first_batch)
        rows.append(("time to first batch", f"{time}, with reading"))
    if measured.noise_curve:
        curve = ", ".join(f"s = {s}: {value:.2f}" for s, value in measured.noise_curve.items())
        rows.append(("variance left after averaging s x s pixels", curve))
    rows += [("note", note) for note in data.notes]
    return tuple(rows)


def _skipped(skipped: Iterable[Mapping[str, str]]) -> tuple[tuple[str, int, str], ...]:
    """Skipped files by reason, the most frequent reason first, with their first names."""
    names: dict[str, list[str]] = {}
    for item in map(read_skipped, skipped):
        names.setdefault(item.reason, []).append(item.name)
    order = sorted(names, key=lambda reason: -len(names[reason]))
    return tuple((reason, len(names[reason]), listed(names[reason], 3)) for reason in order)


def _training(run: Run) -> tuple[tuple[str, str], ...]:
    """When and with which seed a run started, with which versions, on which machine."""
    info = run.info
    return (
        ("started", str(info["created"])),
        ("seed", str(run.seed)),
        *((name, str(value)) for name, value in info["versions"].items()),
        *((name, str(value)) for name, value in info.get("machine", {}).items()),
    )


def _written() -> str:
    """When, and by which version, the page is written."""
    now = datetime.now(UTC)
    return f"{now.day} {now:%B %Y} by noisewise {version('noisewise')}"


def _versions() -> tuple[tuple[str, str], ...]:
    """The versions that wrote the page: another one may have trained the run."""
    return (
        ("written", datetime.now(UTC).isoformat(timespec="seconds")),
        ("noisewise", version("noisewise")),
        ("torch", version("torch")),
    )
