"""Warm starts against cold ones at equal seconds, on sets that the base has not seen.

For each set a base is trained without the set and its twins (`make_bases`). Then a teacher is
trained twice on the set within the same seconds, the trials of a warm start among them: from
nothing, and from the base. Measured is what `noisewise evaluate` gives (floors, verdict, told
apart, copies), the held-out loss, and copies of the base's own pictures, which the new set does not
have. A grid shows 64 pictures on the left and the nearest training picture of each on the right; of
a warm start another one shows the nearest picture of the base.

    python -m benchmarks.pictures.warm_start --data FOLDER --sets people,monsters --minutes 5
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import noisewise
from benchmarks.pictures import base_sets, make_bases
from benchmarks.pictures.colour_sets import percent, save_grid, sides_of
from benchmarks.shared import harness, ours, summaries
from noisewise.quality import copy_test
from noisewise.training.settings.config import EvaluateConfig, TrainConfig

NAME = "pictures/warm_start"
WAYS = ("nothing", "base")
_QUICK = 64  # pictures of a set, and pictures drawn


@dataclass(frozen=True)
class Job:
    """One set with its base.

    Attributes:
        name: of the set.
        data: its pictures.
        base: folder of the base, trained without the set.
        base_images: the pictures of the base.
        work: folder of the runs.
        grids: folder of the grids.
        threads: of torch.
        num_images: pictures to draw.
    """

    name: str
    data: Path
    base: Path
    base_images: Tensor
    work: Path
    grids: Path
    threads: int
    num_images: int


def train(job: Job, way: str, seconds: float, seed: int) -> harness.Values:
    """Train one way, and measure it."""
    folder = job.work / f"{job.name}-{way}-{seconds:g}s-seed{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    config = TrainConfig(
        budget=ours.budget(seconds),
        seed=seed,
        threads=job.threads,
        device="cpu",
        start_from=str(job.base) if way == "base" else None,
    )
    clock = ours.Clock.start()
    run = noisewise.train(job.data, out=folder, config=config, progress=False)
    wall, cores = clock.passed()
    noted, start = run.info["stages"]["teacher"], run.info.get("start", {})
    return {
        "wall_seconds": round(wall, 2),
        "cores_used": round(cores, 2),
        "seconds": noted["seconds"],
        "images": noted["images"],
        "heldout_loss": noted.get("heldout_loss"),
        "share": start.get("share"),
        "reason": start.get("reason"),
        "losses": start.get("losses"),
        "net": dict(run.teacher().config.net)["widths"],
    } | measure(job, folder, way, seed)


def measure(job: Job, folder: Path, way: str, seed: int) -> harness.Values:
    """What `evaluate` finds, copies of the base's pictures, and grids."""
    sides, teacher = sides_of(folder), ours.teacher_of(folder)
    drawn = teacher.sample(job.num_images, seed=1)
    name = f"warm_{job.name}_{way}_{folder.name.split('-')[-2]}_seed{seed}"
    save_grid(job.grids / f"{name}.png", drawn, sides.training, sides.flips)
    if way != "nothing":
        save_grid(job.grids / f"{name}_base.png", drawn, job.base_images, sides.flips)
    found = noisewise.evaluate(
        folder, config=EvaluateConfig(num_images=job.num_images, seed=1, teacher=True)
    )
    of_base = copy_test(drawn, job.base_images, sides.held_out, flips=sides.flips)
    copies = found.copies or {}
    return {
        "floors": found.floors["value"],
        "verdict": found.verdict,
        "told": (found.told_apart or {}).get("share"),
        "copies": copies.get("fraction"),
        "copies_of_base": of_base.fraction,
        "copies_of_base_real": of_base.held_out_fraction,
        "nearness_to_base": of_base.median_ratio,
        "grid": f"{name}.png",
    }


def listing(results: harness.Results, match: dict[str, object], seconds: list[float]) -> str:
    """Table of the ways of one set."""
    rows = []
    for length in seconds:
        for way in WAYS:
            cells = results.cells({**match, "seconds": length, "way": way})
            if not cells:
                continue
            first = cells[0]
            numbers = ("heldout_loss", "floors")
            spread = [_spread([cell.number(n) for cell in cells]) for n in numbers]
            rows.append(
                [
                    f"{length:g}", way, *spread, first.values.get("verdict"),
                    percent(first.number("told")), percent(first.number("copies")),
                    percent(first.number("copies_of_base")),
                    percent(first.number("copies_of_base_real")),
                    percent(first.number("share")), trials(first), first.values.get("grid"),
                    len(cells),
                ]
            )  # fmt: skip
    columns = [
        "seconds", "start", "held-out loss", "floors", "verdict", "told apart", "copies",
        "copies of the base's pictures", "the same of real pictures", "weights carried",
        "losses of the trials, base and nothing", "grid", "runs",
    ]  # fmt: skip
    return summaries.table(columns, rows)


def trials(cell: harness.Cell) -> str:
    """The held-out losses of the trials before a warm start; "" of a cold one."""
    losses = cell.values.get("losses")
    if not isinstance(losses, dict):
        return ""
    return ", ".join(summaries.figure(loss) for loss in losses.values() if loss is not None)


def _spread(values: list[float | None]) -> str:
    """One value, or the lowest and the highest."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = summaries.figure(min(known)), summaries.figure(max(known))
    return low if len(known) == 1 else f"{low} to {high}"


def prepared(arguments: argparse.Namespace, name: str, threads: int) -> Job:
    """A set, and its base, which is trained if it is missing."""
    which, quick = base_sets.TESTS[name], arguments.quick
    work = harness.work_folder(arguments, NAME)
    images = base_sets.test_pictures(arguments.data, which)
    if quick:
        images = images[:: max(1, len(images) // _QUICK)]
    data = base_sets.save(work / "data", name, images)
    seconds = 0.0 if quick else 60 * arguments.base_minutes
    wanted = make_bases.Wanted(which.size, name, seconds, 0, threads, quick)
    place = make_bases.folder_of(work, seconds / 60)
    base = make_bases.make(wanted, arguments.data, place, work)
    seen, _ = base_sets.base_pictures(arguments.data, which.size, which)
    if quick:
        seen = seen[:: max(1, len(seen) // _QUICK)]
    grids = work / "grids" if quick else arguments.images
    num_images = _QUICK if quick else arguments.num_images
    pixels: Tensor = ours.to_images(seen)
    return Job(name, data, base, pixels, work / "runs", grids, threads, num_images)


def main() -> None:
    """Train and measure the missing cells; print a table for each set."""
    parser = harness.parser("Warm starts against cold ones at equal seconds.")
    parser.add_argument("--sets", default="people,monsters,fluent", help=", ".join(base_sets.TESTS))
    parser.add_argument("--minutes", type=harness.numbers(float), default=[5.0], help="of training")
    parser.add_argument("--base-minutes", type=float, default=60.0, help="training of each base")
    parser.add_argument("--ways", default="nothing,base", help=", ".join(WAYS))
    parser.add_argument("--seeds", type=harness.numbers(int), default=[0], help="training seeds")
    parser.add_argument("--num-images", type=int, default=1000, help="pictures to draw")
    parser.add_argument("--images", type=Path, default=harness.FIGURES, help="folder of the grids")
    arguments = parser.parse_args()
    ways = harness.names(arguments.ways, WAYS, "way")
    chosen, quick = base_sets.tests(arguments.sets), arguments.quick
    seconds = [0.0] if quick else [60 * minutes for minutes in arguments.minutes]
    threads = harness.use_threads(arguments.threads)
    results = harness.Results(
        harness.results_file(arguments, NAME), harness.environment(threads), arguments.redo
    )
    parts = [
        "Each base was trained without the set and its twins. Copies of the base's pictures: the "
        "share of drawn pictures that are one, beside that of held-out pictures of the set, which "
        "are not. Ranges are over seeds."
    ]
    for name, which in chosen.items():
        match: dict[str, object] = {
            "set": name, "base_minutes": 0.0 if quick else arguments.base_minutes,
        }  # fmt: skip
        if not arguments.table_only:
            job = prepared(arguments, name, threads)
            torch.manual_seed(0)
            for length in seconds:
                for seed in [0] if quick else arguments.seeds:
                    for way in ways:
                        results.cell(
                            {**match, "seconds": length, "way": way, "seed": seed},
                            lambda j=job, w=way, s=length, k=seed: train(j, w, s, k),
                        )
        parts += [f"{which.title}:", listing(results, match, seconds)]
    credits = "; ".join(f"{s.name} {s.credit}, {s.license}" for s in base_sets.SOURCES.values())
    harness.publish(results, "Warm starts", [*parts, credits])


if __name__ == "__main__":
    harness.run_program(main)
