"""One call and a few: every way for the same time from one teacher; the teacher at 1 to 18 steps.

The teacher is a finished run; each way starts from it anew, with the same wall-clock time. The
judge is that of `noisewise evaluate` against real pictures, its frozen part alone and with the
teacher's features; and, on the axis that a distillation watches, against pictures that the teacher
draws in its own calls. --plain adds the plain and the severe judge of garments.

    python -m benchmarks.pictures.one_step --teacher runs/garments --minutes 5 --seeds 0,1
    python -m benchmarks.pictures.one_step --teacher runs/garments --minutes 30 --ways "SiD 1.2"
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

import noisewise
from benchmarks.pictures.one_call_rivals import Limits, consistency, regression
from benchmarks.shared import harness, judge, ours, summaries
from noisewise.quality import Judge
from noisewise.quality.native_features import NativeFeatures
from noisewise.training.look import RealPictures
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.real_batches_of import real_batches
from noisewise.training.run.run import Run
from noisewise.training.settings.config import DistillConfig, TrainConfig
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe
from noisewise.training.stages.loop import TrainingFailed
from noisewise.training.training_set import TrainingSet

NAME = "pictures/one_step"
STEPS = (1, 2, 4, 8, 18)
WAYS: dict[str, dict[str, Any]] = {
    "SiD 0.5": {"lam": 0.5},
    "SiD 1": {"lam": 1.0},
    "SiD 1.2": {"lam": 1.2},
    "DMD": {"through": "none"},
    "with data 0.06": {"data_weight": 0.06},
    "with data 0.3": {"data_weight": 0.3},
    "adversary": {"data_weight": 0.5, "data_term": "sida"},
    "adversary, 10 times as strong": {
        "data_weight": 0.5,
        "data_term": "sida",
        "recipe": StudentRecipe(adversarial_scale=1e-3),
    },
    "guidance 1.25": {"guidance": 1.25},
    "guidance 1.5": {"guidance": 1.5},
    "2 calls": {"calls": 2},
    "4 calls": {"calls": 4},
    "2 calls, fake not told": {"calls": 2, "recipe": StudentRecipe(fake_told=False)},
    "adapters 8": {"student": "lora"},
    "adapters 32": {"student": "lora", "rank": 32},
}
RIVALS = ("regression", "consistency")
GUIDED = ("guidance 1.25", "guidance 1.5")  # need a teacher of classes or kinds
QUICK = ("SiD 1", "2 calls", "with data 0.06", "adversary", *RIVALS)


@dataclass(frozen=True, eq=False)
class Bench:
    """The teacher, the judges by what they read and compare with, and how long a way may take."""

    run: Run
    teacher: Teacher
    judges: dict[str, Judge]
    num_real: int
    folder: Path
    threads: int
    seconds: float
    num_images: int
    quick: bool
    plain: judge.Bench | None

    def measured(self, draw: Callable[[int, int], Tensor]) -> harness.Values:
        """Floors by the frozen features and by all, milliseconds, and the judges of garments."""
        drawn = ours.draw(draw, self.num_images, seed=1)
        values: dict[str, object] = {
            name: found.measure(drawn.images).at_standard for name, found in self.judges.items()
        }
        values["ms"] = drawn.ms_per_image
        if self.plain is not None:
            values |= {
                "plain": self.plain.distance(drawn.images),
                "severe": self.plain.severe(drawn.images),
            }
        return values


def made(bench: Bench, way: str, seed: int) -> tuple[Generator, harness.Values]:
    """Train a generator in one way."""
    began = time.perf_counter()
    if way in RIVALS:
        limits = Limits(bench.seconds, 2 if bench.quick else None)
        sigma_init = 5.0 * bench.teacher.config.sigma_data
        if way == "regression":
            found = regression(bench.teacher, sigma_init, limits, seed)
        else:
            real = real_batches(bench.run, bench.teacher.config)
            found = consistency(bench.teacher, real, sigma_init, limits, seed)
        return found, {"wall_seconds": time.perf_counter() - began}
    folder = bench.folder / "student"
    shutil.rmtree(folder, ignore_errors=True)
    config = DistillConfig(
        budget="64images" if bench.quick else f"{bench.seconds:g}s",
        seed=seed,
        threads=bench.threads,
        device="cpu",
        **WAYS[way],
    )
    failed = ""
    try:
        noisewise.distill(folder, teacher=bench.run.path, config=config, progress=False)
    except TrainingFailed as error:  # the best generator so far is kept
        failed = str(error)
    generator = noisewise.load(folder, which="generator")
    assert isinstance(generator, Generator)
    noted = noisewise.Run.open(folder).info["stages"]["generator"]
    return generator, {
        "wall_seconds": time.perf_counter() - began,
        "images": noted.get("images"),
        "floors_by_call": noted.get("floors_by_call"),
        **({"failed": failed} if failed else {}),
    }


def student(bench: Bench, way: str, seed: int) -> harness.Values:
    """Train and measure one way."""
    generator, values = made(bench, way, seed)
    return {**values, **bench.measured(lambda n, s: generator.sample(n, s))}


def teachers(bench: Bench, steps: int) -> harness.Values:
    """The teacher with so many noise levels: as many calls, by its deterministic sampler."""
    calls = bench.teacher.sampler.calls_for(steps, "dpmpp_2m", 1.0)
    drawn = bench.measured(lambda n, s: bench.teacher.sample(n, s, None, calls, "dpmpp_2m", 1.0))
    return {"calls": calls, **drawn}


def table(results: harness.Results, match: dict[str, object]) -> str:
    """A row for each way, nearest first, then the teacher; the range over seeds."""
    columns = ("frozen", "floors", "from_teacher", "plain", "severe")
    columns += ("ms", "images", "wall_seconds")
    found: dict[str, list[harness.Cell]] = {}
    for cell in results.cells(match):
        found.setdefault(str(cell.setting["way"]), []).append(cell)
    rows = []
    for way, cells in found.items():
        shown = []
        for column in columns:
            values = [v for cell in cells if (v := cell.number(column)) is not None]
            ends = [summaries.figure(min(values)), summaries.figure(max(values))] if values else []
            shown.append(" to ".join(dict.fromkeys(ends)))
        failed = sum("failed" in cell.values for cell in cells)
        low = min((v for cell in cells if (v := cell.number("floors")) is not None), default=0.0)
        rows.append((way.startswith("teacher"), low, [way, *shown, failed, len(cells)]))
    rows.sort(key=lambda row: row[:2])
    titles = ["way", "frozen, floors", "all, floors", "from its teacher, floors"]
    titles += ["plain judge", "severe judge"]
    titles += ["ms a picture", "pictures seen", "seconds", "gave up", "seeds"]
    return summaries.table(titles, [row for _, _, row in rows])


def quick_run(folder: Path) -> Run:
    """A tiny teacher of soft dots, to try the program with."""
    if ours.has_model(folder / "run", "teacher"):
        return Run(folder / "run")
    at = np.random.default_rng(0).uniform(2, 6, (160, 2, 1, 1))
    rows, columns = np.mgrid[:8, :8]
    dots = np.exp(-((rows - at[:, 0]) ** 2 + (columns - at[:, 1]) ** 2) / 3)
    data = ours.prepare(folder / "dots.npz", (255 * dots[..., None]).astype(np.uint8))
    recipe = TeacherRecipe(sampler_images=0, distance_images=0)
    config = TrainConfig(
        budget="320images", device="cpu", threads=1, widths=(8, 8), kinds=0, recipe=recipe
    )
    return noisewise.train(data, out=folder / "run", config=config, progress=False)


def main() -> None:
    """Run the missing cells and print the table."""
    parser = harness.parser("One call and a few, every way at the same time.")
    judge.add_options(parser)
    parser.add_argument("--teacher", type=Path, default=None, help="finished run to distil")
    parser.add_argument("--minutes", type=float, default=5.0, help="of each way")
    parser.add_argument("--seeds", type=harness.numbers(int), default=[0, 1])
    parser.add_argument("--ways", default="", help="comma-separated names; none: all")
    parser.add_argument("--plain", action="store_true", help="also the judges of garments")
    arguments = parser.parse_args()
    names = harness.names(arguments.ways, (*WAYS, *RIVALS), "way") if arguments.ways else []
    threads = harness.use_threads(arguments.threads)
    folder = harness.work_folder(arguments, NAME)
    if arguments.teacher is None and not arguments.quick:
        raise harness.UsageError("Which teacher? Give --teacher RUN, a finished run.")
    run = quick_run(folder) if arguments.teacher is None else Run.open(arguments.teacher)
    training = TrainingSet.read(run)
    chosen = training.held_out if len(training.held_out) >= 256 else training.trained
    teacher, num_images = run.teacher(), 64 if arguments.quick else 2000
    real = training.pictures.tensor(chosen[: ours.MOST_REAL])
    own = teacher.sample(num_images, seed=2, guidance=1.0)
    judges = {
        "frozen": Judge(real, [NativeFeatures()]),
        "floors": RealPictures(real, "real pictures", teacher).judge,
        "from_teacher": Judge(own, [NativeFeatures()]),
    }
    bench = Bench(
        run,
        teacher,
        judges,
        len(real),
        folder,
        threads,
        1.0 if arguments.quick else 60 * arguments.minutes,
        num_images,
        arguments.quick,
        judge.bench_from(arguments) if arguments.plain else None,
    )
    results = harness.Results(
        harness.results_file(arguments, NAME), harness.environment(threads), arguments.redo
    )
    match: dict[str, object] = {
        "teacher": run.teacher_digest(),
        "seconds": bench.seconds,
        "num_images": bench.num_images,
    }
    if not arguments.table_only:
        for steps in STEPS[:2] if arguments.quick else STEPS:
            own = {**match, "way": f"teacher, {steps} steps", "seed": 0}
            results.cell(own, lambda k=steps: teachers(bench, k))
        every = [way for way in (*WAYS, *RIVALS) if teacher.classes or way not in GUIDED]
        for way in names or (QUICK if arguments.quick else every):
            for seed in [0] if arguments.quick else arguments.seeds:
                own = {**match, "way": way, "seed": seed}
                results.cell(own, lambda w=way, s=seed: student(bench, w, s))
    about = (
        f"Every way had {bench.seconds:g} s of wall-clock time from the teacher {run.name} "
        f"({match['teacher']}); {bench.num_images:,} pictures drawn, {bench.num_real:,} real. "
        "A regression draws its pairs in this time."
    )
    harness.publish(results, "One call and a few", [about, table(results, match)])


if __name__ == "__main__":
    harness.run_program(main)
