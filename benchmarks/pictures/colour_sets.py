"""Small colour sets: the quality after a number of minutes, with a copy test and a grid.

Each set is trained and distilled within the given minutes. The pictures of the teacher, of one call
and of two calls are measured as `noisewise evaluate` does it: floors, verdict, how many are told
apart, copies and near copies with the power of that test. A grid shows 64 pictures on the left and
the nearest training picture of each on the right.

    python -m benchmarks.pictures.colour_sets --data FOLDER --minutes 60
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import noisewise
from benchmarks.shared import harness, ours, picture_sets, summaries
from noisewise.quality import nearest
from noisewise.training.files.sample_sheet import sheet
from noisewise.training.settings.config import EvaluateConfig
from noisewise.training.training_set import mirrored

NAME = "pictures/colour_sets"
IMAGES = harness.FIGURES
WHO = ("teacher", "one call", "two calls")


@dataclass(frozen=True)
class Sides:
    """Training and held-out pictures of a run, float NCHW in [-1, 1]."""

    training: Tensor
    held_out: Tensor
    flips: bool


def sides_of(folder: Path) -> Sides:
    """The split that the run was trained with."""
    run = noisewise.Run.open(folder)
    pictures = run.pictures()
    training, held_out = pictures.split(run.info["seed"])
    flips = mirrored(run, pictures)
    return Sides(pictures.shown(training), pictures.shown(held_out), flips)


def offers_two(folder: Path) -> bool:
    """Whether the run's generator offers a second call."""
    return ours.generator_of(folder, always_two=False).config.two_call_sigma is not None


def sampler_of(folder: Path, who: str) -> tuple[Callable[[int, int], Tensor], int]:
    """The sampling function of "teacher", "one call" or "two calls", and its network calls."""
    if who == "teacher":
        teacher = ours.teacher_of(folder)
        return teacher.sample, teacher.network_calls()
    generator, calls = ours.generator_of(folder), 1 if who == "one call" else 2
    return lambda n, seed: generator.sample(n, seed=seed, calls=calls), calls


def save_grid(path: Path, images: Tensor, training: Tensor, flips: bool, scale: int = 2) -> None:
    """Write 64 pictures, a gap, and the nearest training picture of each."""
    images = images[:64]
    near = training[torch.as_tensor(nearest(images, training, k=1, flips=flips).index)[:, 0]]
    left, right = sheet(images), sheet(near)
    gap = np.full((left.shape[0], images.shape[-1] // 2, *left.shape[2:]), 255, np.uint8)
    picture = Image.fromarray(np.concatenate([left, gap, right], axis=1))
    size = (picture.width * scale, picture.height * scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.resize(size, Image.Resampling.NEAREST).save(path)


def measure(
    folder: Path, who: str, num_images: int, seeds: list[int], grid: Path
) -> harness.Values:
    """What `evaluate` finds for each seed, and the grid of the first."""
    if who == "two calls" and not offers_two(folder):
        return {"calls": 2, "verdict": "not offered: not surely better"}
    sides = sides_of(folder)
    sample, calls = sampler_of(folder, who)
    save_grid(grid, sample(64, seeds[0]), sides.training, sides.flips)
    teacher = who == "teacher"
    found = [
        noisewise.evaluate(
            folder,
            config=EvaluateConfig(
                num_images=num_images, seed=seed, teacher=teacher, calls=None if teacher else calls
            ),
        )
        for seed in seeds
    ]
    first = found[0]
    assert first.copies is not None
    near = first.copies["near"] or {}
    return {
        "calls": calls,
        "floors": [one.floors["value"] for one in found],
        "verdict": first.verdict,
        "against": first.against,
        "told": [one.told_apart["share"] for one in found if one.told_apart],
        "copies": first.copies["fraction"],
        "near": near.get("fraction"),
        "near_low": near.get("low"),
        "near_high": near.get("high"),
        "near_allowed": near.get("allowed"),
        "near_power": near.get("power"),
        "ms_per_image": [1000 * one.seconds_per_image for one in found],
        "num_training": len(sides.training),
        "num_held_out": len(sides.held_out),
        "grid": grid.name,
    }


def measure_set(
    which: picture_sets.PictureSet,
    arguments: argparse.Namespace,
    results: harness.Results,
    minutes: float,
    threads: int,
) -> None:
    """Train, distil and measure one set."""
    work = harness.work_folder(arguments, NAME)
    images = work / "grids" if arguments.quick else arguments.images
    share, num_images = arguments.share, arguments.num_images
    for seed in arguments.seeds:
        own = {"set": which.name, "minutes": minutes, "share": share, "seed": seed}
        wanted = {who: {**own, "stage": who, "num_images": num_images} for who in WHO}
        if results.complete(wanted.values()):
            harness.note(f"[kept] {which.name}, {minutes:g} minutes, seed {seed}")
            continue
        data = picture_sets.prepare(which, arguments.data, work.parent / "data")
        folder = work / f"{which.name}-{minutes:g}min-share{share:g}-seed{seed}"
        ours.run_chain(results, own, ours.Chain(data, folder, 60 * minutes, share, seed, threads))
        for who, setting in wanted.items():
            suffix = "" if seed == arguments.seeds[0] else f"_seed{seed}"
            grid = images / f"colour_{which.name}_{who.replace(' ', '_')}{suffix}.png"
            results.cell(
                setting,
                lambda f=folder, w=who, g=grid: measure(
                    f, w, num_images, arguments.sample_seeds, g
                ),
            )


def listing(results: harness.Results, num_images: int) -> str:
    """Table of all finished cells."""
    groups: dict[tuple[str, float, float, str], list[harness.Cell]] = {}
    for cell in results.cells({"num_images": num_images}):
        key = (
            str(cell.setting["set"]), cell.asked("minutes"), cell.asked("share"),
            str(cell.setting["stage"]),
        )  # fmt: skip
        groups.setdefault(key, []).append(cell)
    rows = []
    for key in sorted(groups, key=lambda k: (k[0], k[1], k[2], WHO.index(k[3]))):
        (name, minutes, share, who), cells = key, groups[key]
        first = cells[0]
        rows.append(
            [
                picture_sets.SETS[name].title, f"{minutes:g}", f"{minutes * share:g}", who,
                int(first.number("calls") or 0), first.values.get("verdict"),
                summaries.summarise([cell.numbers("floors") for cell in cells]),
                percent(next(iter(first.numbers("told")), None)), percent(first.number("copies")),
                near_copies(first), percent(first.number("near_allowed")),
                percent(first.number("near_power")),
                summaries.summarise([cell.numbers("ms_per_image") for cell in cells]),
                first.values.get("grid"), len(cells),
            ]
        )  # fmt: skip
    columns = [
        "set", "minutes", "of them teacher", "drawn by", "calls", "verdict", "floors",
        "told apart", "copies", "near copies", "allowed false alarms", "power of that test",
        "ms a picture", "grid", "runs",
    ]  # fmt: skip
    return summaries.table(columns, rows)


def near_copies(cell: harness.Cell) -> str:
    """The share of near copies with its interval."""
    low, high = percent(cell.number("near_low")), percent(cell.number("near_high"))
    return f"{percent(cell.number('near'))} [{low}, {high}]"


def percent(share: float | None) -> str | None:
    """A share as a percentage."""
    return None if share is None else f"{100 * share:.1f} %"


def main() -> None:
    """Train, distil and measure the missing cells; print the table."""
    parser = harness.parser("Small colour sets, with copy tests.")
    floats, integers = harness.numbers(float), harness.numbers(int)
    parser.add_argument("--sets", default="people,emoji,dungeon", help="which sets")
    parser.add_argument("--minutes", type=floats, default=[60.0], help="total minutes per set")
    parser.add_argument("--share", type=float, default=0.6, help="the teacher's share of the time")
    parser.add_argument("--seeds", type=integers, default=[0], help="training seeds")
    parser.add_argument("--num-images", type=int, default=1000, help="pictures per distance")
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder for the grids")
    arguments = parser.parse_args()
    if not 0 < arguments.share < 1:
        raise harness.UsageError(
            f"--share is {arguments.share}: give the teacher's share of the time, between 0 and 1."
        )
    arguments.sample_seeds = [0] if arguments.quick else [0, 1, 2]
    if arguments.quick:
        arguments.minutes, arguments.num_images, arguments.seeds = [0.4], 64, [0]
    threads = harness.use_threads(arguments.threads)
    conditions = harness.environment(threads)
    results = harness.Results(harness.results_file(arguments, NAME), conditions, arguments.redo)
    sets = picture_sets.chosen(arguments.sets)
    if not arguments.table_only:
        for minutes in arguments.minutes:
            for which in sets:
                measure_set(which, arguments, results, minutes, threads)
    credits = "; ".join(dict.fromkeys(picture_sets.CREDITS[which.name] for which in sets))
    harness.publish(
        results,
        "Small colour sets",
        [
            f"n = {arguments.num_images} pictures, sample seeds {arguments.sample_seeds}; floors, "
            "verdict, told apart, copies and near copies as `noisewise evaluate` gives them; beside"
            " near copies, how many real pictures may look so, and the share of planted ones that "
            "the test finds. Median [95 % bootstrap interval]. "
            f"{credits}.",
            listing(results, arguments.num_images),
        ],
    )


if __name__ == "__main__":
    harness.run_program(main)
