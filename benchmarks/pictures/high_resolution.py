"""Large pictures after some minutes on this machine: denoising, details, spread, floors, a grid.

Each cell is one `noisewise train` with its own settings, and nothing set but the size. An
interrupted training resumes.

    python -m benchmarks.pictures.high_resolution --data FOLDER --minutes 10
    python -m benchmarks.pictures.high_resolution --pictures FOLDER --size 256 --minutes 30
    python -m benchmarks.pictures.high_resolution --pictures FOLDER --size 128 --crops 500
    python -m benchmarks.pictures.high_resolution --data FOLDER --set fluent_64 --net unet
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from torch import Tensor

from benchmarks.pictures import large_measures, large_sets
from benchmarks.shared import harness, ours, summaries
from noisewise.nets.derive import Architecture
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.noise_plan import measured_scale

NAME = "pictures/high_resolution"
DRAWN = 64
PICTURE_ROWS = (
    ("finest_spread", "spread of the finest details, over real"),
    ("corner_sd", "deviation in corners"),
    ("corner_sd_real", "the same of real pictures"),
    ("mean_colour_spread", "spread of mean colours, over real"),
    ("sliced_coarse", "sliced Wasserstein, coarse, over real"),
    ("sliced_middle", "the same, middle"),
    ("sliced_finest", "the same, finest"),
    ("floors", "floors"),
)
ROWS = (
    *PICTURE_ROWS,
    ("calls", "calls a picture"),
    ("images", "pictures seen"),
    ("images_per_second", "pictures a second in training"),
)


@dataclass(frozen=True)
class Way:
    """How to train: what is not the default is part of a cell's setting.

    Attributes:
        net: architecture; auto: the default of the size.
        shifted: draw the noise levels at this size's scale; False: as at 32 pixels.
        high_noise: share of the draws that is spread up to the sampler's first level; None: usual.
        crops: of each picture, at their own scale; 0: whole pictures.
    """

    net: Architecture = "auto"
    shifted: bool = True
    high_noise: float | None = None
    crops: int = 0

    def setting(self) -> dict[str, object]:
        """What differs from the default."""
        own: dict[str, object] = {} if self.net == "auto" else {"net": self.net}
        own |= {} if self.shifted else {"shifted": False}
        own |= {"crops": self.crops} if self.crops else {}
        return own if self.high_noise is None else {**own, "high_noise": self.high_noise}

    def recipe(self, pictures: Tensor) -> TeacherRecipe:
        """The constants of the training."""
        recipe = TeacherRecipe()
        if self.high_noise is not None:
            recipe = replace(recipe, high_noise=self.high_noise)
        if self.shifted:
            return recipe
        scale, _ = measured_scale(ours.to_pixels(pictures), pictures.shape[-1])
        return replace(recipe, noise_mean=recipe.noise_mean - math.log(scale))


DEFAULT = Way()


def cell_folder(
    work: Path, which: large_sets.LargeSet, minutes: float, seed: int, way: Way = DEFAULT
) -> Path:
    """The run of a cell."""
    own = "".join(f"_{value}" for value in way.setting().values())
    return work / f"{which.name}_{which.size}_{minutes:g}m_{seed}{own}"


def compute(
    which: large_sets.LargeSet,
    folder: Path,
    minutes: float,
    seed: int,
    threads: int,
    way: Way = DEFAULT,
    count: int = DRAWN,
) -> harness.Values:
    """Train and measure one cell; count: pictures that are drawn."""
    config = TrainConfig(
        budget=f"{60 * minutes:g}s",
        size=which.size,
        seed=seed,
        device="cpu",
        threads=threads,
        net=way.net,
        crops=way.crops,
        recipe=way.recipe(which.train),
    )
    teacher = large_sets.train(which, folder, config)
    noted = large_sets.noted(folder)
    speed = noted["images"] / (60 * minutes)
    found = large_sets.measure(which, teacher, count, folder / "grid.png", folder)
    size = sum(p.numel() for p in teacher.denoiser.parameters())
    return found | {"images": noted["images"], "images_per_second": speed, "parameters": size}


def tables(results: harness.Results, match: dict[str, object]) -> list[str]:
    """Errors by noise level, and the pictures."""
    cells = results.cells(match)
    errors = [
        [f"{_name(cell)}, {label}", *(f"{v:.2f}" for v in cell.numbers(key))]
        for cell in cells
        for key, label in (("over_wiener", "all"), ("finest_over_wiener", "finest band"))
    ]
    names = [f"{_name(cell)}, seed {cell.setting['seed']}" for cell in cells]
    rows = [[title, *(summaries.figure(cell.number(key)) for cell in cells)] for key, title in ROWS]
    first = ["held-out error over Wiener, ln sigma", *map(str, large_measures.LEVELS)]
    return [
        summaries.table(first, errors),
        summaries.table([f"{DRAWN} pictures", *names], rows),
    ]


def _name(cell: harness.Cell) -> str:
    own = cell.setting
    words = [f"{own['minutes']:g} min", *([str(own["net"])] if "net" in own else [])]
    words += ["not shifted"] if "shifted" in own else []
    words += [f"high noise {own['high_noise']}"] if "high_noise" in own else []
    return ", ".join(words)


def options(about: str) -> argparse.ArgumentParser:
    """The options of this program and of its relatives."""
    parser = harness.parser(about)
    parser.add_argument("--set", choices=tuple(large_sets.SETS), default="fluent_128")
    parser.add_argument("--pictures", type=Path, default=None, help="another folder or .npz")
    parser.add_argument("--size", type=int, default=None, help="side of these pictures")
    parser.add_argument("--net", choices=get_args(Architecture), default="auto")
    parser.add_argument("--not-shifted", action="store_true", help="noise levels of 32 pixels")
    parser.add_argument("--high-noise", type=float, help="share of the draws; none: the usual one")
    parser.add_argument("--crops", type=int, default=0, help="of each picture; 0: whole pictures")
    parser.add_argument("--minutes", type=harness.numbers(float), default=[10.0, 30.0])
    parser.add_argument("--seeds", type=harness.numbers(int), default=[0])
    return parser


def main() -> None:
    """Run the missing cells and print the tables."""
    arguments = options("Large pictures after some minutes.").parse_args()
    threads = harness.use_threads(arguments.threads)
    results = harness.Results(
        harness.results_file(arguments, NAME), harness.environment(threads), arguments.redo
    )
    name = arguments.pictures.stem if arguments.pictures else arguments.set
    minutes = [0.1] if arguments.quick else arguments.minutes
    match: dict[str, object] = {"set": name, "threads": threads}
    crops = arguments.crops
    way = Way(arguments.net, not arguments.not_shifted, arguments.high_noise, crops)
    if not arguments.table_only:
        which = large_sets.load(name, arguments.data, arguments.pictures, arguments.size, crops)
        work = harness.work_folder(arguments, NAME)
        for count in minutes:
            for seed in arguments.seeds:
                folder = cell_folder(work, which, count, seed, way)
                at: dict[str, object] = {"size": which.size, "minutes": count, "seed": seed}
                results.cell(
                    {**match, **at, **way.setting()},
                    lambda f=folder, m=count, s=seed: compute(which, f, m, s, threads, way),
                )
    about = (
        f"{name}: held-out error over that of a Wiener filter; above 1 is worse than the spectrum "
        "alone. Sliced Wasserstein distances are over those between real pictures."
    )
    harness.publish(results, "High resolution", [about, *tables(results, match)])


if __name__ == "__main__":
    harness.run_program(main)
