"""What to train first, where channels belong, and how large a batch should be, at equal seconds.

simple diffusion (Hoogeboom et al. 2023) puts parameters at the lowest resolution; Matryoshka
diffusion (Gu et al. 2023) trains coarse scales first. Both claims are tested here on large
pictures, one teacher a cell, with equal seconds: held-out error over a Wiener filter's, sliced
Wasserstein distances and floors.

    python -m benchmarks.pictures.where_to_grow --data FOLDER --threads 1
    python -m benchmarks.pictures.where_to_grow --data FOLDER --cells "share 0" --seeds 0,1
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.pictures import large_measures, large_sets
from benchmarks.shared import harness, summaries
from noisewise.nets.derive import build
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe

NAME = "pictures/where_to_grow"
SECONDS = 180


@dataclass(frozen=True)
class Way:
    """How one cell differs from the usual training.

    Attributes:
        share: of the budget for coarse scales.
        batch: pictures in a step; None: derived.
        dropout: at the lowest resolution.
        multiscale: whether the loss is summed over scales.
        net: settings of the net in place of the derived ones.
        full: channels at full size; None: derived.
        trunk: channels of the coarsest resolutions, down to the lowest one; (): derived.
        lowest: blocks at the lowest resolution; None: derived.
    """

    share: float = 0.3
    batch: int | None = None
    dropout: float = 0.0
    multiscale: bool = False
    net: Mapping[str, Any] = field(default_factory=dict)
    full: int | None = None
    trunk: tuple[int, ...] = ()
    lowest: int | None = None

    def build(self) -> Callable[[dict[str, Any]], nn.Module] | None:
        """What builds the net; None: as usual."""
        usual = not self.net and self.full is None and not self.trunk and self.lowest is None
        return None if usual else self._build

    def _build(self, config: dict[str, Any]) -> nn.Module:
        widths, blocks = list(config["widths"]), list(config["blocks"])
        if self.full is not None:
            widths[0] = self.full
        if self.trunk:
            widths[-len(self.trunk) :] = self.trunk
        if self.lowest is not None:
            blocks[-1] = self.lowest
        return build({**config, "widths": widths, "blocks": blocks, **self.net})


CELLS = {
    "share 0": Way(0.0),
    "share 0.3": Way(0.3),
    "share 0.5": Way(0.5),
    "share 0.7": Way(0.7),
    "share 0.85": Way(0.85),
    "no gains": Way(net={"gains": False}),
    "wide at full size": Way(full=24),
    "wide at 32 pixels": Way(trunk=(48, 48, 48)),
    "wide at 8 pixels": Way(trunk=(192,)),
    "deep at 8 pixels": Way(lowest=3),
    "transformer at 8 pixels": Way(net={"depth": 2}),
    "dropout 0.1 at 8 pixels": Way(dropout=0.1),
    "multi-scale loss": Way(multiscale=True),
    "batch 8": Way(batch=8),
    "batch 16": Way(batch=16),
    "batch 32": Way(batch=32),
    "batch 64": Way(batch=64),
}


def train(
    which: large_sets.LargeSet, name: str, seed: int, seconds: float, folder: Path, threads: int
) -> harness.Values:
    """Train one cell and measure it."""
    way = CELLS[name]
    config = TrainConfig(
        budget=f"{seconds:g}s",
        size=which.size,
        seed=seed,
        kinds=0,
        device="cpu",
        threads=threads,
        batch=way.batch,
        multiscale=way.multiscale,
        recipe=TeacherRecipe(coarse_share=way.share, dropout=way.dropout),
    )
    teacher = large_sets.train(which, folder / "run", config, keep=False, build=way.build())
    label = "".join(c if c.isalnum() else "_" for c in name)
    grid = folder / f"{which.name}_{label}_{seed}.png"
    return large_sets.measure(which, teacher, 64, grid)


def table(results: harness.Results, match: dict[str, object]) -> str:
    """One row for each cell and seed."""
    rows: list[list[object]] = []
    for name in CELLS:
        for cell in results.cells({**match, "cell": name}):
            error = cell.numbers("over_wiener")
            fine = cell.numbers("finest_over_wiener")
            rows.append(
                [
                    name,
                    " ".join(f"{v:.2f}" for v in error),
                    f"{max(fine):.2f}",
                    *(
                        summaries.figure(cell.number(k))
                        for k in ("sliced_coarse", "sliced_finest", "finest_spread", "floors")
                    ),
                ]
            )
    levels = (
        f"error over Wiener, ln sigma {large_measures.LEVELS[0]} to {large_measures.LEVELS[-1]}"
    )
    titles = ["cell", levels, "finest band, worst", "sliced coarse", "sliced finest"]
    return summaries.table([*titles, "finest spread", "floors"], rows)


def main() -> None:
    """Run the missing cells and print the table."""
    parser = harness.parser("Where large pictures need the budget and the channels.")
    parser.add_argument("--set", choices=tuple(large_sets.SETS), default="fluent_128")
    parser.add_argument("--cells", default="", help="names with ';' between them; none: all")
    parser.add_argument("--seeds", type=harness.numbers(int), default=[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="budget of each training")
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    given = arguments.cells
    names = harness.names(given, CELLS, "cell", ";") if given else list(CELLS)
    results = harness.Results(
        harness.results_file(arguments, NAME), harness.environment(threads), arguments.redo
    )
    seconds = 5.0 if arguments.quick else arguments.seconds
    match: dict[str, object] = {"set": arguments.set, "seconds": seconds, "threads": threads}
    if not arguments.table_only:
        which = large_sets.load(arguments.set, arguments.data)
        folder = harness.work_folder(arguments, NAME)
        for name in names[: 1 if arguments.quick else None]:
            for seed in arguments.seeds:
                results.cell(
                    {**match, "cell": name, "seed": seed},
                    lambda n=name, s=seed: train(which, n, s, seconds, folder, threads),
                )
    about = (
        f"{large_sets.SETS[arguments.set][1]}, {seconds:g} s each. Errors are held-out, over "
        "those of a Wiener filter: above 1 is worse than the spectrum alone. Sliced Wasserstein "
        "distances are in units of those between real pictures; 64 pictures."
    )
    harness.publish(results, "Where to grow", [about, table(results, match)])


if __name__ == "__main__":
    harness.run_program(main)
