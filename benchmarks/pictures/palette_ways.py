"""Which way onto the palette is best: at the end, drawn again, or inside each call.

For a trained run of each set the teacher draws the same noise in each way: without a palette; the
nearest colours at the end, with and without choosing a few for each picture; then a little noise,
two calls and the nearest colours again; each call leaning towards the palette, for several widths
of the lean. The judge's floors are at 500 pictures, against real pictures of the set. A grid has a
row for each way, and real pictures above: the number and the eye should agree.

    python -m benchmarks.pictures.palette_ways --data FOLDER --sets dungeon --minutes 30
    python -m benchmarks.pictures.palette_ways --data FOLDER --run dungeon=runs/mine
    python -m benchmarks.pictures.palette_ways --sets drawn --minutes 30
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import noisewise
from benchmarks.pictures.sampler_stop import given_runs
from benchmarks.shared import harness, ours, picture_sets, summaries
from noisewise.quality import flat_area, told_apart
from noisewise.quality.colours import count_colours
from noisewise.quality.snap_colours import colours_a_picture, on_palette
from noisewise.training.files.sample_sheet import sheet
from noisewise.training.models.models import Teacher
from noisewise.training.models.palette import NO_PALETTE, Palette
from noisewise.training.stages.choose_palette import choose_tolerance, folder_palette

NAME = "pictures/palette_ways"
SOFT = (0.1, 0.2, 0.35, 0.7)  # width of the lean inside the calls
FACTORS = (0.5, 2.0)  # of the chosen tolerance
COLUMNS, SCALE = 16, 4  # of a grid
KEYS = ("floors", "told", "on", "colours", "flat")


@dataclass(frozen=True)
class Subject:
    """A trained run with real pictures; `palette` has the tolerance chosen for this teacher."""

    teacher: Teacher
    palette: Palette
    real: Tensor
    offline: ours.Offline
    num_images: int
    seeds: tuple[int, ...]


def palette_of_set(images: np.ndarray) -> Palette:
    """The palette that noisewise finds; forced where a set has none, to see what it costs there."""
    found = count_colours(images)
    colours, most = folder_palette(images, found), min(found.high, 256)
    return Palette(colours, most, found.median, tolerance=0.02, reason=found.text())


def open_subject(folder: Path, quick: bool, num_images: int) -> Subject:
    """The run's teacher without flats and without a palette, and the palette of its pictures."""
    teacher = ours.teacher_of(folder)
    pictures = noisewise.Run.open(folder).pictures()
    images = np.asarray(pictures.images)
    real = pictures.shown(list(range(len(pictures))))[: 200 if quick else None]
    plain = with_palette(teacher, NO_PALETTE)
    palette = choose_tolerance(plain.sample(64, seed=1), palette_of_set(images))
    seeds = (0,) if quick else (0, 1, 2)
    return Subject(teacher, palette, real, ours.Offline(real), num_images, seeds)


def with_palette(teacher: Teacher, palette: Palette) -> Teacher:
    """The same teacher with another palette."""
    config = dataclasses.replace(teacher.config, palette=palette)
    return Teacher(teacher.denoiser, config).eval()


def ways_of(palette: Palette, quick: bool) -> dict[str, Palette]:
    """All ways onto one palette, by name."""
    changed = dataclasses.replace
    found = {
        "none": NO_PALETTE,
        "end, all colours": changed(palette, tolerance=0.0, most=0),
        "end": palette,
        "again": changed(palette, way="again"),
    }
    for soft in SOFT[:1] if quick else SOFT:
        found[f"inside {soft:g}"] = changed(palette, way="inside", soft=soft)
    for factor in () if quick else FACTORS:
        other = changed(palette, tolerance=factor * palette.tolerance)
        found[f"end, tolerance x {factor:g}"] = other
    return found


def measure(subject: Subject, way: Palette) -> harness.Values:
    """Draw and measure one way; all ways start from the same noise."""
    teacher = with_palette(subject.teacher, way)
    parts = [teacher.sample(subject.num_images, seed) for seed in subject.seeds]
    colours = subject.palette.tensor
    numbers: dict[str, Callable[[Tensor], float]] = {
        "floors": lambda x: subject.offline.floors(x, subject.teacher),
        "told": lambda x: told_apart(x[:500], subject.real[:500]).accuracy,
        "on": lambda x: on_palette(x, colours),
        "colours": lambda x: float(np.median(colours_a_picture(x))),
        "flat": flat_area,
    }
    made = ours.draw(teacher.sample, min(64, subject.num_images), 3)
    found: harness.Values = {key: [number(x) for x in parts] for key, number in numbers.items()}
    return found | {"calls": teacher.network_calls(), "ms": made.ms_per_image,
                    "tolerance": way.tolerance}  # fmt: skip


def measure_real(subject: Subject) -> harness.Values:
    """What real pictures have."""
    half = subject.real[: len(subject.real) // 2]
    return {
        "on": [on_palette(half, subject.palette.tensor)],
        "colours": [float(np.median(colours_a_picture(half)))],
        "flat": [flat_area(half)],
        "reason": subject.palette.reason,
        "palette": subject.palette.text,
    }


def grid(subject: Subject, ways: dict[str, Palette], path: Path) -> None:
    """Write a PNG: real pictures above, then a row for each way with the same noise."""
    step = max(1, len(subject.real) // COLUMNS)
    rows = [subject.real[::step][:COLUMNS]]
    rows += [with_palette(subject.teacher, way).sample(COLUMNS, 7) for way in ways.values()]
    laid = Image.fromarray(sheet(torch.cat(rows), COLUMNS))
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (laid.width * SCALE, laid.height * SCALE)
    laid.resize(size, Image.Resampling.NEAREST).save(path)


def table(results: harness.Results, match: harness.Setting) -> str:
    """A row for each way of one set, real pictures first."""
    rows: list[list[object]] = []
    for cell in [
        *results.cells({**match, "way": "real"}),
        *(cell for cell in results.cells(match) if cell.setting["way"] != "real"),
    ]:
        numbers = [summaries.summarise([cell.numbers(key)]) for key in KEYS]
        rows.append(
            [cell.setting["way"], *numbers, cell.number("tolerance"), cell.number("calls"),
             summaries.figure(cell.number("ms"))]
        )  # fmt: skip
    columns = [
        "way", "floors", "told apart", "pixels on the palette", "colours a picture", "flat area",
        "tolerance", "calls", "ms a picture",
    ]  # fmt: skip
    return summaries.table(columns, rows)


def about(results: harness.Results, match: harness.Setting) -> str:
    """What was found about a set's colours."""
    cells = results.cells({**match, "way": "real"})
    return "\n".join(f"{c.values.get('palette')}: {c.values.get('reason')}." for c in cells)


def run_set(
    which: picture_sets.PictureSet,
    arguments: argparse.Namespace,
    results: harness.Results,
    own: harness.Setting,
    folder: Path,
) -> None:
    """Measure all ways of one set, and draw its grid."""
    subject = open_subject(folder, arguments.quick, arguments.num_images)
    ways = ways_of(subject.palette, arguments.quick)
    results.cell({**own, "way": "real"}, lambda: measure_real(subject))
    for name, way in ways.items():
        results.cell({**own, "way": name}, lambda way=way: measure(subject, way))
    place = results.path.with_name(f"palette_ways_{which.name}.png")
    grid(subject, ways, place)
    names = ", ".join(("real", *ways))
    harness.note(f"{place}: rows from above: {names}")


def main() -> None:
    """Train what is missing, measure, then print the tables."""
    parser = harness.parser("Ways onto the palette, by the judge and by eye.")
    parser.add_argument("--sets", default="dungeon", help="which sets")
    parser.add_argument("--minutes", type=float, default=30.0, help="training time per set")
    parser.add_argument("--num-images", type=int, default=500, help="pictures per number")
    parser.add_argument("--run", action="append", default=[], help="SET=FOLDER of a trained run")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.minutes, arguments.num_images = 0.0, 64
    threads = harness.use_threads(arguments.threads)
    sets, runs = picture_sets.chosen(arguments.sets), given_runs(arguments.run)
    conditions = harness.environment(threads)
    results = harness.Results(harness.results_file(arguments, NAME), conditions, arguments.redo)
    work = harness.work_folder(arguments, NAME)
    parts = []
    for which in sets:
        given = runs.get(which.name)
        own = {"set": which.name, "run": given.name if given else f"{arguments.minutes:g} minutes"}
        own |= {"num_images": arguments.num_images}
        folder = given or work / f"{which.name}-{arguments.minutes:g}min"
        if not arguments.table_only:
            if not ours.has_model(folder, "teacher"):
                data = picture_sets.prepare(which, arguments.data, work.parent / "data")
                ours.train(data, folder, 60 * arguments.minutes, 0, threads)
            run_set(which, arguments, results, own, folder)
        parts += [f"### {which.title}", about(results, own), table(results, own)]
    harness.publish(results, "Ways onto the palette", parts)


if __name__ == "__main__":
    harness.run_program(main)
