"""Where the sampler of a teacher of large pictures should stop: floors by levels and last level.

The teacher is one that `high_resolution` trained, with the same options.

    python -m benchmarks.pictures.large_samplers --data FOLDER --minutes 30
    python -m benchmarks.pictures.large_samplers --pictures TEXTURES --size 128 --crops 500
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.pictures import high_resolution, large_measures, large_sets
from benchmarks.shared import harness, ours, summaries
from noisewise.diffusion import DPMPP_2M
from noisewise.quality.judge import Judge
from noisewise.training.models.models import Teacher

NAME = "pictures/large_samplers"
ROWS = ("floors", "finest_spread", "sliced_finest", "sliced_middle")


def samplers(text: str) -> list[tuple[int, float]]:
    """Read "15:0.1,23:0.01": levels and the last of them."""
    return [
        (int(n), float(stop)) for n, _, stop in (part.partition(":") for part in text.split(","))
    ]


def measure(
    which: large_sets.LargeSet, teacher: Teacher, judge: Judge, levels: int, stop: float, count: int
) -> harness.Values:
    """Draw with DPM-Solver++(2M) and measure the pictures."""
    settings = replace(teacher.config.sampler, name=DPMPP_2M.name, num_steps=levels, sigma_min=stop)
    teacher.config = replace(teacher.config, sampler=settings)
    drawn = teacher.sample(count, seed=1)
    floors = judge.measure(drawn).at_standard
    return large_measures.pictures(drawn, which.real) | {"floors": floors}


def main() -> None:
    """Run the missing cells and print the table."""
    parser = high_resolution.options("Where the sampler of large pictures stops.")
    parser.add_argument("--samplers", default="15:0.1,19:0.05,19:0.03,23:0.02,23:0.01")
    parser.add_argument("--num-images", type=int, default=96)
    parser.set_defaults(minutes=[30.0])
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    results = harness.Results(
        harness.results_file(arguments, NAME), harness.environment(threads), arguments.redo
    )
    name = arguments.pictures.stem if arguments.pictures else arguments.set
    way = high_resolution.Way(crops=arguments.crops)
    match: dict[str, object] = {"set": name, "minutes": arguments.minutes[0]}
    if not arguments.table_only:
        which = large_sets.load(
            name, arguments.data, arguments.pictures, arguments.size, arguments.crops
        )
        work = harness.work_folder(arguments, high_resolution.NAME)
        folder = high_resolution.cell_folder(work, which, arguments.minutes[0], 0, way)
        if not ours.has_model(folder, "teacher"):
            raise harness.UsageError(f"{folder} has no teacher: run high_resolution first.")
        teacher, judge = ours.teacher_of(folder), Judge(which.real)
        count = 8 if arguments.quick else arguments.num_images
        for levels, stop in samplers(arguments.samplers):
            results.cell(
                {**match, "levels": levels, "stop": stop, "count": count},
                lambda n=levels, s=stop: measure(which, teacher, judge, n, s, count),
            )
    titles = ["set", "levels", "to", "pictures", *ROWS]
    rows = [
        [cell.setting["set"], cell.setting["levels"], cell.setting["stop"], cell.setting["count"],
         *(summaries.figure(cell.number(row)) for row in ROWS)]
        for cell in sorted(results.cells({}), key=lambda cell: str(cell.setting["set"]))
    ]  # fmt: skip
    about = "DPM-Solver++(2M). Spreads and sliced distances are over those of real pictures."
    harness.publish(results, "Samplers of large pictures", [about, summaries.table(titles, rows)])


if __name__ == "__main__":
    harness.run_program(main)
