"""What helps with 150 and 500 pictures: changed pictures, dropout, crops; at equal seconds.

Of a family of pictures, some hundred are trained on and the rest is never seen by noisewise. All
cells of a set share both parts, and are measured on the unseen rest: a loss at fixed noise, floors,
copies of the training pictures. The cells with the fewest floors are then trained for longer, and
the plain one. Finished cells are kept: the program can be stopped and started again.

    python -m benchmarks.pictures.few_pictures --data FOLDER --threads 2
    python -m benchmarks.pictures.few_pictures --data FOLDER --sets monsters_32 --counts 150
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import noisewise
from benchmarks.pictures import large_sets
from benchmarks.shared import harness, ours, summaries
from noisewise.diffusion import EDMWeight, LogNormal, denoising_loss
from noisewise.quality import copy_test
from noisewise.quality.eight_bits import rounded
from noisewise.quality.judge import Judge
from noisewise.quality.near_copies import NearCopyReference
from noisewise.training.models.models import Teacher
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe

NAME = "pictures/few_pictures"
SECONDS, LONG = 300, 1800
LIVING = ("People & Body", "Smileys & Emotion", "Animals & Nature")
WHOLE, PIECES = 0, 3  # the class of whole pictures; pieces of each, of the class 1
_LOSSES = 4  # noise levels of each unseen picture
_WITH_WHOLE = {"crops": PIECES, "keep_whole": True}
PLAIN = "nothing"


@dataclass(frozen=True)
class Family:
    """Pictures of one kind: file, chosen categories, side in training."""

    file: str
    categories: tuple[str, ...]
    size: int
    title: str


SETS = {
    "monsters_32": Family("dungeon_tiles_32.npz", ("monster",), 32, "monsters, pixel art, 32 px"),
    "emoji_32": Family("noto_emoji_64.npz", LIVING, 32, "emoji of people and animals, 32 px"),
    "emoji_48": Family("noto_emoji_64.npz", LIVING, 48, "emoji of people and animals, 48 px"),
    "emoji_64": Family("noto_emoji_64.npz", LIVING, 64, "emoji of people and animals, 64 px"),
}


def _none(**values: object) -> dict[str, object]:
    return {"augment": "none", **values}


# Settings of each cell; those of the recipe under "recipe".
CELLS: dict[str, dict[str, Any]] = {
    PLAIN: _none(),
    "as derived": {},
    "flips, not told": _none(flips="on"),
    "flips": {"augment": "flips", "flips": "off"},
    "shifts": {"augment": "shifts"},
    "far shifts": {"augment": "shifts", "recipe": {"shift_reach": 0.5}},
    "turns": {"augment": "turns"},
    "hue": {"augment": "hue"},
    "channels": {"augment": "channels"},
    "all": {"augment": "flips,turns,shifts,hue", "flips": "off"},
    "shifts and hue, share 0.4": {"augment": "shifts,hue", "recipe": {"changed_share": 0.4}},
    "dropout 0.1": _none(recipe={"dropout": 0.1}),
    "dropout 0.2": _none(recipe={"dropout": 0.2}),
    "all, dropout 0.1": {
        "augment": "flips,turns,shifts,hue",
        "flips": "off",
        "recipe": {"dropout": 0.1},
    },
    "crops with whole": _none(**_WITH_WHOLE),
    "crops as a class": _none(classes=True),
}


@dataclass(frozen=True)
class Part:
    """The training pictures of a set, as a file for each use, and the pictures never seen."""

    name: str
    size: int
    whole: Path
    pieces: Path
    training: Tensor
    unseen: Tensor
    has_room: bool  # for pieces that are smaller than a picture


def load(name: str, count: int, data: str | None, folder: Path) -> Part:
    """Choose the training pictures of a family, and write them."""
    family = SETS[name]
    with np.load(harness.data_file(data, family.file)) as stored:
        wanted = [k for k, c in enumerate(stored["categories"]) if str(c) in family.categories]
        images = stored["images"][np.isin(stored["labels"], wanted)]
    order = np.random.default_rng(0).permutation(len(images))
    chosen, unseen = images[np.sort(order[:count])], images[np.sort(order[count:])]
    small = resized(chosen, family.size)
    cut = pieces_of(chosen, family.size)
    labels = np.repeat([WHOLE, 1], [len(small), len(cut)]).astype(np.int64)
    place = folder / f"{name}_{count}"
    return Part(
        name,
        family.size,
        ours.prepare(place / "whole.npz", chosen),
        ours.prepare(place / "pieces.npz", np.concatenate([small, cut]), labels),
        ours.to_images(small),
        ours.to_images(resized(unseen, family.size)),
        images.shape[1] > family.size,
    )


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Pictures with this side, uint8 [n, size, size, 3]."""
    if images.shape[1] == size:
        return images
    made = [Image.fromarray(i).resize((size, size), Image.Resampling.LANCZOS) for i in images]
    return np.stack([np.asarray(one) for one in made])


def pieces_of(images: np.ndarray, size: int) -> np.ndarray:
    """Pieces with this side at random places; of pictures without room two thirds, enlarged."""
    generator, side = np.random.default_rng(1), images.shape[1]
    cut = size if side > size else side * 2 // 3
    found = []
    for image in images.repeat(PIECES, axis=0):
        top, left = generator.integers(0, side - cut + 1, 2)
        found.append(image[top : top + cut, left : left + cut])
    if cut == size:
        return np.stack(found)
    grown = [Image.fromarray(i).resize((size, size), Image.Resampling.NEAREST) for i in found]
    return np.stack([np.asarray(one) for one in grown])


def train(part: Part, setting: harness.Setting, folder: Path, threads: int) -> harness.Values:
    """Train one cell and measure it; an interrupted training starts again."""
    cell, seed, budget = (str(setting[name]) for name in ("cell", "seed", "budget"))
    changed = dict(CELLS[cell])
    recipe = dataclasses.replace(TeacherRecipe(), **changed.pop("recipe", {}))
    config = TrainConfig(
        budget=budget,
        size=part.size,
        seed=int(seed),
        kinds=None if changed.get("classes") else 0,
        device="cpu",
        threads=threads,
        recipe=recipe,
        **changed,
    )
    place = folder / "run"
    shutil.rmtree(place, ignore_errors=True)
    run = noisewise.train(part.pieces if config.classes else part.whole, out=place, config=config)
    noted, derived = run.info["stages"]["teacher"], run.info["derived"]
    label = "".join(c if c.isalnum() else "_" for c in cell)
    grid = folder / f"{part.name}_{len(part.training)}_{label}_{budget}_{seed}.png"
    return {
        "images": noted["images"],
        "looks": noted["images"] / len(part.training),
        "kept_after": run.teacher().config.stats["kept_after_images"] / noted["images"],
        "augment": derived["augment"]["reason"],
        "dropout": derived["dropout"]["value"],
    } | measure(part, run.teacher(), int(str(setting["num_images"])), grid)


def measure(part: Part, teacher: Teacher, count: int, grid: Path) -> harness.Values:
    """Loss on unseen pictures, floors from them, copies of training pictures; the grid."""
    label = WHOLE if teacher.classes else None
    drawn = teacher.sample(count, seed=1, label=label)
    large_sets.save_grid(grid, drawn[:64])
    copies = copy_test(drawn, part.training, part.unseen, flips=True)
    near = NearCopyReference(rounded(part.training), rounded(part.unseen), flips=True)
    return {
        "unseen_loss": loss(teacher, part.unseen),
        "training_loss": loss(teacher, part.training),
        "floors": Judge(part.unseen).measure(drawn).at_standard,
        "copies": copies.fraction,
        "near_copies": near.test(rounded(drawn)).fraction,
        "nearness": copies.median_ratio,
    }


@torch.no_grad()
def loss(teacher: Teacher, images: Tensor) -> float:
    """The denoising loss at noise that depends on nothing but the pictures."""
    sd, generator = float(images.std()), torch.Generator().manual_seed(0)
    draw, n, parts = LogNormal(-0.4 + float(np.log(sd)), 1.4), len(images), []
    for _ in range(_LOSSES):
        sigma = draw.quantile((torch.randperm(n, generator=generator) + 0.5) / n)
        noise = torch.randn(images.shape, generator=generator)
        for rows in torch.arange(n).split(64):
            labels = torch.full_like(rows, WHOLE) if teacher.classes else None
            given = (images[rows], sigma[rows], noise[rows], EDMWeight(sd), labels)
            parts.append(denoising_loss(teacher.denoiser, *given))
    return float(torch.cat(parts).mean())


def table(results: harness.Results, match: Mapping[str, object]) -> str:
    """One row for each cell and seed, the fewest floors first."""
    columns = ["floors", "unseen_loss", "training_loss", "copies", "near_copies", "nearness"]
    rows = []
    for cell in ranked(results, match):
        numbers = [summaries.figure(cell.number(name)) for name in columns]
        seed, looks = f"{cell.asked('seed'):.0f}", f"{cell.number('looks') or 0:.0f}"
        kept = summaries.figure(cell.number("kept_after"))
        rows.append([cell.setting["cell"], *numbers, seed, looks, kept])
    titles = ["loss, unseen", "loss, training", "copies", "near copies", "nearness"]
    return summaries.table(
        ["cell", "floors", *titles, "seed", "looks a picture", "kept after"], rows
    )


def ranked(results: harness.Results, match: Mapping[str, object]) -> list[harness.Cell]:
    """The finished cells, the fewest floors first."""
    return sorted(results.cells(match), key=lambda cell: cell.number("floors") or 0.0)


def winners(results: harness.Results, match: Mapping[str, object], count: int) -> list[str]:
    """Names of the cells with the fewest floors, and the plain one."""
    names = list(dict.fromkeys(str(c.setting["cell"]) for c in ranked(results, match)))
    return [PLAIN, *[name for name in names if name != PLAIN][:count]]


@dataclass(frozen=True)
class Job:
    """What all sets share."""

    arguments: argparse.Namespace
    results: harness.Results
    threads: int
    folder: Path

    def run(self, name: str, count: int, cells: list[str]) -> list[str]:
        """Run the missing cells of a set, then the winners for longer; return the tables."""
        asked = self.arguments
        match: dict[str, object] = {"set": name, "count": count, "threads": self.threads}
        match["num_images"] = asked.num_images
        budgets = [f"{asked.seconds:g}s", f"{asked.long:g}s"]
        if asked.quick:  # a busy machine takes its time
            budgets = ["640images", "768images"]
        short, long = ({**match, "budget": budget} for budget in budgets)
        if not asked.table_only:
            part = load(name, count, asked.data, self.folder)
            self._train(part, cells, short)
            if asked.winners:
                self._train(part, winners(self.results, short, asked.winners), long)
        title = f"{SETS[name].title}, {count} pictures"
        found = [(setting, f"{title}, {setting['budget']} each:") for setting in (short, long)]
        return [text for one, about in found for text in (about, table(self.results, one))]

    def _train(self, part: Part, cells: list[str], setting: harness.Setting) -> None:
        for cell in cells:
            if cell == "crops with whole" and not part.has_room:
                continue
            for seed in self.arguments.seeds:
                whole = {**setting, "cell": cell, "seed": int(seed)}
                self.results.cell(whole, partial(self._cell, part, whole))

    def _cell(self, part: Part, setting: harness.Setting) -> harness.Values:
        return train(part, setting, self.folder, self.threads)


def main() -> None:
    """Train what is missing, and print the tables."""
    parser = harness.parser("What helps with few pictures.")
    parser.add_argument("--sets", default="monsters_32,emoji_32,emoji_48", help="which sets")
    parser.add_argument("--counts", type=harness.numbers(int), default=[150, 500])
    parser.add_argument("--cells", default="", help="names with ';' between them; none: all")
    parser.add_argument("--seeds", type=harness.numbers(int), default=[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each training")
    parser.add_argument("--winners", type=int, default=2, help="cells to train for longer")
    parser.add_argument("--long", type=float, default=LONG, help="seconds of their training")
    parser.add_argument("--num-images", type=int, default=512, help="pictures to draw")
    arguments = parser.parse_args()
    sets, cells = harness.names(arguments.sets, SETS, "set"), list(CELLS)
    if arguments.cells:
        cells = harness.names(arguments.cells, CELLS, "cell", ";")
    if arguments.quick:
        sets, arguments.counts, arguments.winners = sets[:1], [150], 1
        cells = cells if arguments.cells else [PLAIN, "shifts", "crops as a class"]
        arguments.num_images = 64
    threads = harness.use_threads(arguments.threads)
    results = harness.Results(
        harness.results_file(arguments, NAME), harness.environment(threads), arguments.redo
    )
    job = Job(arguments, results, threads, harness.work_folder(arguments, NAME))
    parts = [text for name in sets for n in arguments.counts for text in job.run(name, n, cells)]
    about = (
        "Floors, losses and nearness are measured against pictures of the same family that were "
        "never seen. Nearness: median distance to the nearest training picture over that of unseen "
        "pictures. Looks: pictures trained on over the number of training pictures. Crops as a "
        "class: pieces are a class of their own, and whole pictures are drawn."
    )
    harness.publish(results, "Few pictures", [about, *parts])


if __name__ == "__main__":
    harness.run_program(main)
