"""What a small colour set of some 500 pictures needs: training time, dropout, width.

A teacher that sees each picture hundreds of times memorises the pictures; the held-out loss shows
when. Budgets are in pictures, so a busy machine does not change the results. The table has the
held-out loss of the best weights, the distance of their pictures to held-out and to training
pictures, and the nearness to training pictures: the median distance to the nearest one, over that
of held-out pictures, which are not copies.

    python -m benchmarks.pictures.small_sets --data FOLDER --sets people --seeds 0,1
"""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import noisewise
from benchmarks.pictures.colour_sets import save_grid, sides_of
from benchmarks.shared import harness, ours, picture_sets, summaries
from noisewise.quality import copy_test
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe

NAME = "pictures/small_sets"
SAMPLER = (9, 0.1)  # Heun steps and last noise level, the same for all
USUAL = 96_000
VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "a quarter as long": {"images": USUAL // 4},
    "half as long": {"images": USUAL // 2},
    "twice as long": {"images": 2 * USUAL},
    "dropout 0.1": {"dropout": 0.1},
    "dropout 0.3": {"dropout": 0.3},
    "width 24": {"widths": (24, 48, 96)},
    "width 48": {"widths": (48, 96, 192)},
    "weight decay 0.1": {"weight_decay": 0.1},
    "Muon 0.0075": {"lr": 0.0075},
    "noise mean 0": {"noise_mean": 0.0},
    "labels": {"classes": True},
}


@dataclass(frozen=True)
class Job:
    """One set, and the settings of all its variants."""

    name: str
    data: Path
    folder: Path
    grids: Path
    threads: int
    num_images: int
    usual: int


def train(job: Job, variant: str, seed: int) -> harness.Values:
    """Train a teacher with one setting changed, and measure its pictures."""
    changed = dict(VARIANTS[variant])
    images = changed.pop("images", USUAL) * job.usual // USUAL
    config = TrainConfig(
        budget=f"{images}images",
        seed=seed,
        device="cpu",
        precision="bfloat16",
        threads=job.threads,
        classes=changed.pop("classes", False),
        widths=changed.pop("widths", ()),
        recipe=dataclasses.replace(TeacherRecipe(sampler_images=0, distance_images=0), **changed),
    )
    shutil.rmtree(job.folder, ignore_errors=True)
    run = noisewise.train(job.data, out=job.folder, config=config)
    stats, noted = run.teacher().config.stats, run.info["stages"]["teacher"]
    return {
        "seconds": noted["seconds"],
        "heldout_loss": noted["heldout_loss"],
        "kept_after": stats["kept_after_images"] / images,
    } | measure(job, variant, seed)


def measure(job: Job, variant: str, seed: int) -> harness.Values:
    """Distances, copies and the grid of the last trained run."""
    sides = sides_of(job.folder)
    teacher = ours.with_sampler(ours.teacher_of(job.folder), *SAMPLER)
    drawn = teacher.sample(job.num_images, seed=1)
    copies = copy_test(drawn, sides.training, sides.held_out, flips=sides.flips)
    grid = job.grids / f"{job.name}-{variant.replace(' ', '_')}-seed{seed}.png"
    save_grid(grid, drawn, sides.training, sides.flips)
    return {
        "to_held_out": ours.Offline(sides.held_out).distance(drawn),
        "to_training": ours.Offline(sides.training).distance(drawn),
        "floor": ours.Offline(sides.held_out).distance(sides.training),
        "copies": copies.fraction,
        "nearness": copies.median_ratio,
    }


def listing(results: harness.Results, match: dict[str, object]) -> str:
    """Table of the variants, lowest held-out loss first."""
    columns = ["heldout_loss", "kept_after", "to_held_out", "to_training", "nearness", "copies"]
    rows = []
    for variant in VARIANTS:
        cells = results.cells({**match, "variant": variant})
        if cells:
            found = [[cell.number(c) for cell in cells] for c in [*columns, "seconds"]]
            rows.append([variant, *map(spread, found), len(cells)])
    rows.sort(key=lambda row: float(str(row[1]).split()[0]))
    titles = [
        "held-out loss", "kept after (share)", "to held-out", "to training",
        "nearness to training", "copies", "seconds", "seeds",
    ]  # fmt: skip
    return summaries.table(["variant", *titles], rows)


def spread(values: list[float | None]) -> str:
    """One value, or the lowest and the highest."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = summaries.figure(min(known)), summaries.figure(max(known))
    return low if len(known) == 1 else f"{low} to {high}"


def main() -> None:
    """Train what is missing, and print a table for each set."""
    parser = harness.parser("What a small colour set needs.")
    parser.add_argument("--sets", default="people", help="which sets")
    parser.add_argument("--variants", default="", help="comma-separated names; none: all")
    parser.add_argument("--seeds", type=harness.numbers(int), default=[0], help="training seeds")
    parser.add_argument("--images", type=int, default=USUAL, help="pictures that the recipe sees")
    parser.add_argument("--num-images", type=int, default=500, help="pictures to draw")
    arguments = parser.parse_args()
    names = harness.names(arguments.variants, VARIANTS, "variant") if arguments.variants else []
    quick = arguments.quick
    usual = 1280 if quick else arguments.images
    num_images = 64 if quick else arguments.num_images
    threads = harness.use_threads(arguments.threads)
    results = harness.Results(
        harness.results_file(arguments, NAME), harness.environment(threads), arguments.redo
    )
    work = harness.work_folder(arguments, NAME)
    parts = [
        f"{usual:,} pictures seen unless the variant changes it, bfloat16, {num_images} drawn in "
        f"{2 * SAMPLER[0] - 1} calls that stop at {SAMPLER[1]}; the range over seeds. Nearness: "
        "median distance to the nearest training picture over that of held-out pictures."
    ]
    for which in picture_sets.chosen(arguments.sets):
        match: dict[str, object] = {"set": which.name, "usual": usual, "num_images": num_images}
        data = picture_sets.prepare(which, arguments.data, work.parent / "data")
        job = Job(which.name, data, work / "run", work / "grids", threads, num_images, usual)
        for variant in names or (["recipe"] if quick else VARIANTS):
            for seed in [0] if quick else arguments.seeds:
                if not arguments.table_only:
                    results.cell(
                        {**match, "variant": variant, "seed": seed},
                        lambda v=variant, s=seed, j=job: train(j, v, s),
                    )
        parts += [f"{which.title}:", listing(results, match)]
    harness.publish(results, "What a small colour set needs", parts)


if __name__ == "__main__":
    harness.run_program(main)
