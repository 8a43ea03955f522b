"""Losses, multi-scale and schedules with the same number of pictures seen, measured alike.

Each loss has its own weights, so their values cannot be compared. Every teacher is therefore
measured with one loss (EDM's, over the log-normal draw, on held-out pictures), by how far its
pictures are from real ones, and by the spread of their mean colours. Budgets are in pictures, so a
busy machine changes nothing but the seconds.

    python -m benchmarks.pictures.losses --data FOLDER
    python -m benchmarks.pictures.losses --data FOLDER --set tiles --variants "edm;sigmoid;min-snr"
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np

import noisewise
from benchmarks.shared import harness, ours, summaries
from noisewise.pictures.noise_curve import mean_colour_sd
from noisewise.pictures.pictures import Pictures, load_pictures
from noisewise.quality.judge import Judge
from noisewise.training.devices.engine import Engine
from noisewise.training.settings.config import Loss, Schedule, TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.heldout_loss import HeldOutBatch
from noisewise.training.stages.plan import TeacherPlan, plan_teacher

NAME = "pictures/losses"
IMAGES = 48_000
SAMPLER = (10, 0.3)  # Heun steps and last noise level, the same for every teacher
HELD_OUT = 256
SETS = {
    "fluent": ("fluent_emoji_3d_64.npz", "3D emoji, 64 px"),
    "noto": ("noto_emoji_64.npz", "emoji, 64 px"),
    "tiles": ("dungeon_tiles_32.npz", "dungeon tiles, 32 px"),
}
NOT_SHIFTED = "lognormal, not shifted"  # the recipe of 32 pixels at every size


@dataclass(frozen=True)
class Bench:
    """One set with what every teacher is measured against."""

    data: Path
    pictures: Pictures
    plan: TeacherPlan
    judge: Judge
    folder: Path
    threads: int
    num_images: int


def variants(size: int) -> dict[str, dict[str, object]]:
    """Settings by name. Below 64 pixels multi-scale has one scale and is left out."""
    found: dict[str, dict[str, object]] = {loss: {"loss": loss} for loss in get_args(Loss)}
    if size >= 64:
        found |= {f"{x}, multi-scale": {"loss": x, "multiscale": True} for x in get_args(Loss)}
    found |= {f"schedule {s}": {"schedule": s} for s in get_args(Schedule) if s != "lognormal"}
    return found | ({NOT_SHIFTED: {}} if size > 32 else {})


def bench_of(data: Path, folder: Path, threads: int, num_images: int) -> Bench:
    """Read the set; plan the usual training, whose loss measures all."""
    pictures = load_pictures(data)
    config = TrainConfig(budget=f"{IMAGES}images", kinds=0, device="cpu", threads=threads)
    plan = plan_teacher(config, pictures, Engine.choose("cpu", threads=threads))
    real = ours.to_images(np.asarray(pictures.images[:2000]))
    return Bench(data, pictures, plan, Judge(real), folder, threads, num_images)


def train(bench: Bench, name: str, seed: int, images: int) -> harness.Values:
    """Train one variant and measure it."""
    recipe = TeacherRecipe(sampler_images=0, distance_images=0, snap_flats=False)
    if name == NOT_SHIFTED:
        shift = math.log(bench.plan.noise_scale)
        recipe = replace(recipe, noise_mean=recipe.noise_mean - shift)
    config = TrainConfig(
        budget=f"{images}images",
        seed=seed,
        kinds=0,
        device="cpu",
        threads=bench.threads,
        recipe=recipe,
        **variants(bench.plan.size)[name],  # pyrefly: ignore[bad-argument-type]
    )
    folder = bench.folder / "run"
    shutil.rmtree(folder, ignore_errors=True)
    run = noisewise.train(bench.data, out=folder, config=config)
    return {"seconds": run.info["stages"]["teacher"]["seconds"]} | measure(bench, run, seed)


def measure(bench: Bench, run: noisewise.Run, seed: int) -> harness.Values:
    """The common loss, the distance, and the spread of mean colours."""
    teacher = ours.with_sampler(run.teacher(), *SAMPLER)
    chosen = bench.pictures.split(seed)[1][:HELD_OUT]
    x0 = bench.pictures.tensor(chosen)
    engine = Engine.choose("cpu", threads=bench.threads)
    drawn = teacher.sample(bench.num_images, seed=1)
    real = mean_colour_sd(np.asarray(bench.pictures.images[:2000]))
    return {
        "common_loss": HeldOutBatch(x0, None, bench.plan, engine).loss(teacher.denoiser),
        "floors": bench.judge.measure(drawn).value,
        "spread": mean_colour_sd(ours.to_pixels(drawn)) / real,
    }


def table(results: harness.Results, match: dict[str, object], names: list[str]) -> str:
    """One row for each variant, nearest pictures first; ranges over the seeds."""
    rows = []
    for name in names:
        cells = results.cells({**match, "variant": name})
        if not cells:
            continue
        row: list[object] = [name]
        for column in ("floors", "common_loss", "spread", "seconds"):
            values = [v for cell in cells if (v := cell.number(column)) is not None]
            both = f"{summaries.figure(min(values))} to {summaries.figure(max(values))}"
            row.append(both if len(values) > 1 else summaries.figure(values[0]))
        rows.append([*row, len(cells)])
    rows.sort(key=lambda row: float(str(row[1]).split()[0]))
    titles = ["variant", "floors", "held-out EDM loss", "spread of mean colours", "seconds"]
    return summaries.table([*titles, "seeds"], rows)


def main() -> None:
    """Run the missing cells and print one table for each set."""
    parser = harness.parser("Losses, multi-scale and schedules with equally many pictures seen.")
    parser.add_argument("--set", choices=tuple(SETS), default="fluent", help="pictures")
    parser.add_argument("--variants", default="", help="names with ';' between them; none: all")
    parser.add_argument("--seeds", type=harness.numbers(int), default=[0, 1])
    parser.add_argument("--images", type=int, default=IMAGES, help="pictures seen")
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    folder = harness.work_folder(arguments, NAME)
    file, title = SETS[arguments.set]
    with np.load(harness.data_file(arguments.data, file)) as stored:
        images = stored["images"][: 64 if arguments.quick else None]
    size = images.shape[1]
    given, known = arguments.variants, variants(size)
    names = harness.names(given, known, "variant", ";") if given else []
    results = harness.Results(
        harness.results_file(arguments, NAME), harness.environment(threads), arguments.redo
    )
    count = 640 if arguments.quick else arguments.images
    match: dict[str, object] = {"set": arguments.set, "images": count}
    if not arguments.table_only:
        data = ours.prepare(folder / f"{arguments.set}.npz", images)
        bench = bench_of(data, folder, threads, 32 if arguments.quick else 1000)
        few = list(variants(size))[: 2 if arguments.quick else None]
        for name in names or few:
            for seed in [0] if arguments.quick else arguments.seeds:
                results.cell(
                    {**match, "variant": name, "seed": seed},
                    lambda n=name, s=seed: train(bench, n, s, count),
                )
    about = (
        f"{title}: {count:,} pictures seen, {2 * SAMPLER[0] - 1} calls that stop at {SAMPLER[1]}. "
        "Floors: distance to real pictures in frozen features. The held-out loss is EDM's for "
        "every row. Spread of mean colours: generated over real, 1 is best. Ranges over seeds."
    )
    harness.publish(
        results, "Losses, multi-scale, schedules", [about, table(results, match, [*variants(size)])]
    )


if __name__ == "__main__":
    harness.run_program(main)
