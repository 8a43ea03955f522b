"""Can a long distillation please its teacher's features alone? One student, measured as it learns.

A generator is trained to agree with its teacher, and the judge reads the teacher's features. So
pictures could come nearer in these features and be no better to anybody else. Snapshots of one long
distillation are measured in the teacher's features, in frozen features (both against the teacher's
own pictures and against real ones), and by the two trained judges, which neither has seen. It would
be gamed where a later snapshot is nearer to real pictures in the teacher's features, and farther by
both trained judges.

    python -m benchmarks.pictures.judge_gaming --data FOLDER --run RUN --minutes 20

RUN has a teacher of garments; the snapshots' pictures are kept as sheets beside the results.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

import noisewise
from benchmarks.shared import harness, judge, summaries
from noisewise.quality import DenoiserFeatures, Judge, NativeFeatures
from noisewise.training.devices.engine import Engine
from noisewise.training.models.models import Teacher
from noisewise.training.settings.config import DistillConfig
from noisewise.training.stages.loop import Loop
from noisewise.training.stages.student import StudentStage, student_pace

NAME = "pictures/judge_gaming"
NUM_IMAGES = 500


class Measures:
    """The measures of one teacher's student."""

    def __init__(self, teacher: Teacher, bench: judge.Bench) -> None:
        """Draw the teacher's pictures; measure both references."""
        features = [
            NativeFeatures(),
            DenoiserFeatures(teacher.denoiser, conditioned=bool(teacher.classes)),
        ]
        self.bench = bench
        self.real = Judge(bench.data.test_images[:NUM_IMAGES], features)
        self.own = Judge(teacher.sample(NUM_IMAGES, seed=1).cpu(), features)

    def of(self, images: Tensor) -> harness.Values:
        """All values for some pictures of the student."""
        real, own = self.real.measure(images), self.own.measure(images)
        return {
            "native_real": real.parts[0].ratio,
            "teacher_real": real.parts[1].ratio,
            "native_own": own.parts[0].ratio,
            "teacher_own": own.parts[1].ratio,
            "severe": self.bench.severe(images),
            "plain": self.bench.distance(images),
        }


def snapshots(
    arguments: argparse.Namespace, teacher: Teacher, measures: Measures
) -> list[harness.Values]:
    """Distil once; measure the weights of the moment's average at even times."""
    config = DistillConfig(budget=f"{60 * arguments.minutes:g}s", threads=arguments.threads)
    stage = StudentStage(teacher, config, Engine.choose(config.device, threads=config.threads))
    loop = Loop(stage, config.amount, student_pace(config.recipe))
    found: list[harness.Values] = []
    for record in loop.records():
        due = (len(found) + 1) / arguments.snapshots * 60 * arguments.minutes
        if record.seconds >= due or record.kind == "finished":
            stage._ema.copy_to(stage.judged._shadow, 0)
            images = stage.judged.pictures(stage.judged._shadow, NUM_IMAGES)
            found.append(
                {"seconds": record.seconds, "images": record.images, **measures.of(images)}
            )
            harness.note(f"{found[-1]}")
    return found


def table(found: list[harness.Values]) -> str:
    """One row a snapshot."""
    names = (
        *("seconds", "images", "teacher_own", "native_own"),
        *("teacher_real", "native_real", "severe", "plain"),
    )
    titles = (
        *("seconds", "pictures seen", "teacher features, to its teacher", "native, to its teacher"),
        *("teacher features, to real", "native, to real", "severe judge", "plain judge"),
    )
    return summaries.table(titles, [[row[name] for name in names] for row in found])


def main() -> None:
    """Distil, measure, and print the table."""
    parser = harness.parser(__doc__.split("\n", 1)[0])
    judge.add_options(parser)
    parser.add_argument("--run", type=Path, required=True, help="a run with a teacher of garments")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--snapshots", type=int, default=10)
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    if arguments.quick:
        arguments.minutes, arguments.snapshots = 0.5, 2
    bench = judge.bench_from(arguments)
    conditions = harness.environment(threads) | bench.conditions()
    results = harness.Results(harness.results_file(arguments, NAME), conditions, arguments.redo)
    teacher = noisewise.load(arguments.run, "teacher")
    assert isinstance(teacher, Teacher)
    setting = {"run": arguments.run.name, "minutes": arguments.minutes}

    def compute() -> harness.Values:
        rows = snapshots(arguments, teacher, Measures(teacher, bench))
        return {name: [row[name] for row in rows] for name in rows[0]}

    results.cell(setting, compute)
    rows = []
    for cell in results.cells(setting):
        columns = {name: cell.numbers(name) for name in cell.values}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    harness.publish(
        results, "A long distillation against its own teacher's features", [table(rows)]
    )


if __name__ == "__main__":
    harness.run_program(main)
