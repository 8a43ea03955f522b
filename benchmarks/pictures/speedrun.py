"""Distance after some minutes on this machine: teacher, one call, two calls, on Fashion-MNIST.

For each total time and seed there are two ways to use the time. The chain gives a share of it to
the teacher and the rest to distillation; the other way gives all of it to a teacher. Both judges
and noisewise's own distance compare n pictures (several sample seeds) with the 10,000 test
pictures, which are never trained on. A teacher also draws with 18 steps to 0.002 and, for each
small number of calls, with the best of a few last noise levels, which the judge itself picks: this
favours the teacher. These rows have one sample seed. Speed-ups are relative to the fewest teacher
calls of equal distance.

    python -m benchmarks.pictures.speedrun --data FOLDER --minutes 5 --seeds 0,1 [--condition names]

The nets get the kind of a picture, found by noisewise (its default), or one of the ten class names,
or nothing; each condition has its own results.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from benchmarks.pictures import speedrun_tables as tables
from benchmarks.pictures.speedrun_tables import ALONE
from benchmarks.shared import harness, judge, ours

NAME = "pictures/speedrun"
LADDER = (3, 5, 9, 13)
STOPS = (0.15, 0.3, 0.6)  # last noise levels for each number of calls, beside the chosen one
TITLES = {
    "kinds": "with kinds found by likeness",
    "names": "with its ten names",
    "nothing": "told nothing",
}


@dataclass(frozen=True)
class Grid:
    """What to measure, and with what."""

    bench: judge.Bench
    offline: ours.Offline
    results: harness.Results
    data: Path
    folder: Path
    threads: int
    condition: str
    num_images: int
    sample_seeds: tuple[int, ...]
    ladder: tuple[int, ...]
    stops: tuple[float, ...]

    def measured(self, minutes: float, share: float, seed: int, who: str) -> dict[str, object]:
        """Setting of one cell of distances; they depend on the judge and the number of pictures."""
        return {
            "minutes": minutes, "share": share, "seed": seed, "stage": who,
            "judge": self.bench.fingerprint, "num_images": self.num_images,
        }  # fmt: skip


# ---------------------------------------------------------------------------------------- measuring


def measure(
    grid: Grid,
    sample: Callable[[int, int], Tensor],
    calls: int,
    seeds: tuple[int, ...],
    teacher: ours.Teacher,
) -> harness.Values:
    """Distances, class entropy and time over the sample seeds; the judge reads the teacher."""
    drawn = [ours.draw(sample, grid.num_images, seed) for seed in seeds]
    return {
        "calls": calls,
        "distance": [grid.bench.distance(d.images) for d in drawn],
        "severe": [grid.bench.severe(d.images) for d in drawn],
        "offline": [grid.offline.distance(d.images) for d in drawn],
        "floors": [grid.offline.floors(d.images, teacher) for d in drawn],
        "entropy": [grid.bench.entropy(d.images) for d in drawn],
        "ms_per_image": [d.ms_per_image for d in drawn],
    }


def measure_teacher(
    grid: Grid, teacher: ours.Teacher, num_steps: int, sigma_min: float, seeds: tuple[int, ...]
) -> harness.Values:
    """Measure a teacher with one sampler."""
    drawn_with = ours.with_sampler(teacher, num_steps, sigma_min)
    values = measure(grid, drawn_with.sample, drawn_with.sampler.calls, seeds, teacher)
    return values | {"num_steps": num_steps, "sigma_min": sigma_min}


def best_stop(grid: Grid, teacher: ours.Teacher, num_steps: int) -> float:
    """The best last noise level at this number of steps by the judge, with other noise."""
    tried = sorted({teacher.sampler.sigma_min, *grid.stops})
    count, seed = grid.num_images // 2, 1_000_003

    def distance(sigma_min: float) -> float:
        sample = ours.with_sampler(teacher, num_steps, sigma_min).sample
        return grid.bench.distance(sample(count, seed))

    return min(tried, key=distance)


def drawers(grid: Grid, share: float) -> list[str]:
    """All ways to draw from a run: samplers of the teacher, then the generator's calls."""
    samplers = ["teacher", "teacher, long", *(f"teacher, {calls} calls" for calls in grid.ladder)]
    return samplers if share == ALONE else [*samplers, "one call", "two calls"]


def measure_run(grid: Grid, minutes: float, share: float, seed: int) -> None:
    """Measure all cells of one total time, share and seed."""
    wanted = {who: grid.measured(minutes, share, seed, who) for who in drawers(grid, share)}
    if grid.results.complete(wanted.values()):
        harness.note(f"[kept] {minutes:g} minutes, share {share:g}, seed {seed}")
        return
    folder = grid.folder / f"{minutes:g}min-share{share:g}-seed{seed}"
    own = {"minutes": minutes, "share": share, "seed": seed}
    ours.run_chain(
        grid.results,
        own,
        ours.Chain(
            grid.data,
            folder,
            60 * minutes,
            share,
            seed,
            grid.threads,
            classes=grid.condition == "names",
            kinds=0 if grid.condition == "nothing" else None,
        ),
    )
    for who, setting in wanted.items():
        grid.results.cell(setting, lambda w=who: measure_drawer(grid, folder, w))


def measure_drawer(grid: Grid, folder: Path, who: str) -> harness.Values:
    """Measure one cell: one way to draw from the run in this folder."""
    if who in ("one call", "two calls"):
        generator, calls = ours.generator_of(folder), 1 if who == "one call" else 2
        sample = partial(drawn_in, generator, calls)
        return measure(grid, sample, calls, grid.sample_seeds, ours.teacher_of(folder))
    teacher = ours.teacher_of(folder)
    if who == "teacher":
        chosen = teacher.sampler
        values = measure(grid, teacher.sample, teacher.network_calls(), grid.sample_seeds, teacher)
        own = {"num_steps": chosen.num_steps, "sigma_min": chosen.sigma_min}
        return values | own | {"sampler": chosen.name, "guidance": chosen.guidance}
    one = grid.sample_seeds[:1]
    if who == "teacher, long":
        return measure_teacher(grid, teacher, ours.LONG_STEPS, ours.LONG_STOP, one)
    num_steps = (int(who.split()[1]) + 1) // 2
    return measure_teacher(grid, teacher, num_steps, best_stop(grid, teacher, num_steps), one)


def drawn_in(generator: ours.Generator, calls: int, num_images: int, seed: int) -> Tensor:
    """Pictures in one call or two."""
    return generator.sample(num_images, seed=seed, calls=calls)


# ------------------------------------------------------------------------------------- the program


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = harness.parser("Distance after some minutes: teacher, one call, two calls.")
    judge.add_options(parser)
    floats, integers = harness.numbers(float), harness.numbers(int)
    parser.add_argument(
        "--minutes", type=floats, default=[3.0, 5.0, 10.0, 20.0, 60.0], help="total times"
    )
    parser.add_argument("--seeds", type=integers, default=[0, 1, 2], help="training seeds")
    parser.add_argument("--share", type=float, default=0.5, help="the teacher's share of the time")
    parser.add_argument(
        "--arms", choices=("both", "chain", "teacher"), default="both", help="ways to use the time"
    )
    parser.add_argument(
        "--condition", choices=tuple(TITLES), default="kinds", help="what the nets get as a class"
    )
    parser.add_argument("--num-images", type=int, default=2000, help="pictures per distance")
    parser.add_argument("--figure", type=Path, default=None, help="SVG file for the curve")
    return parser.parse_args()


def open_grid(arguments: argparse.Namespace) -> Grid:
    """Data, judge and results for the options."""
    threads = harness.use_threads(arguments.threads)
    bench = judge.bench_from(arguments)
    conditions = harness.environment(threads) | bench.conditions()
    condition = arguments.condition
    name = NAME if condition == "kinds" else f"{NAME}_{condition}"
    results = harness.Results(harness.results_file(arguments, name), conditions, arguments.redo)
    folder = harness.work_folder(arguments, name)
    data = judge.training_file(bench.data, folder.parent / "data", condition == "names")
    quick = arguments.quick
    return Grid(
        bench=bench,
        offline=ours.Offline(bench.data.test_images[: 500 if quick else 10_000]),
        results=results,
        data=data,
        folder=folder,
        threads=threads,
        condition=condition,
        num_images=64 if quick else arguments.num_images,
        sample_seeds=(0,) if quick else (0, 1, 2),
        ladder=(3, 5) if quick else LADDER,
        stops=(0.3,) if quick else STOPS,
    )


def main() -> None:
    """Measure the missing cells, print the tables, draw the curve."""
    arguments = read_arguments()
    if not 0 < arguments.share < 1:
        raise harness.UsageError(
            f"--share is {arguments.share}: give the teacher's share of the time, between 0 and 1."
        )
    grid = open_grid(arguments)
    totals = [0.4] if arguments.quick else arguments.minutes
    seeds = [0] if arguments.quick else arguments.seeds
    arms = {"both": [arguments.share, ALONE], "chain": [arguments.share], "teacher": [ALONE]}
    if not arguments.table_only:
        for minutes in totals:
            for seed in seeds:
                for share in arms[arguments.arms]:
                    measure_run(grid, minutes, share, seed)
    done = tables.Finished(
        grid.results, grid.bench.fingerprint, grid.num_images, grid.ladder, grid.threads
    )
    found = done.totals()
    shares = [arguments.share, ALONE]
    place = grid.folder if arguments.quick else harness.FIGURES
    figure = arguments.figure or place / f"{grid.folder.name}.svg"
    if tables.draw_curve(done, found, arguments.share, figure):
        harness.note(f"curve: {figure}")
    harness.publish(
        grid.results,
        f"Minutes to a distance (Fashion-MNIST, 28 px, {TITLES[grid.condition]})",
        [
            f"n = {grid.num_images} pictures, sample seeds {list(grid.sample_seeds)}, against the "
            f"10,000 test pictures; judges {grid.bench.fingerprint}. "
            "Median [95 % bootstrap interval].",
            tables.distances_table(done, found, shares),
            "Distance for each number of teacher calls, at the best last noise level of "
            f"{', '.join(map(str, grid.stops))} and the chosen one:",
            tables.ladder_table(done, found, shares),
            "Speed-up relative to the fewest teacher calls of equal distance:",
            tables.speedup_table(done, found, shares),
            "Time as measured:",
            tables.times_table(done, found, shares),
        ],
    )


if __name__ == "__main__":
    harness.run_program(main)
