"""What the near-copy test finds: planted copies by kind of change, and false alarms.

For each set, 85 of 100 pictures are training pictures and the rest are held out. Training pictures
with small changes are planted (moved, recoloured, stained, warped, ...), and the test says which of
them it finds; the held-out pictures say how often it is wrong. It is tried on pixels alone, and on
pixels and features of places (random ones, and those of a teacher if its run is given), of which it
takes what finds most.

    python -m benchmarks.pictures.near_copies --data FOLDER [--run tiles=RUN --run garments=RUN]
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.shared import harness, ours, summaries
from noisewise.quality import DenoiserPlaces, NativePlaces, NearCopyReference, PlaceFeatures

NAME = "pictures/near_copies"
SETS = {
    "garments": "fashion_mnist_6k.npz",
    "tiles": "dungeon_tiles_32.npz",
    "emoji": "noto_emoji_32.npz",
    "fluent": "fluent_emoji_3d_64.npz",
}
ALARMS = (0.01, 0.05)
MOST = 2000  # pictures of a set
HELD_OUT = 0.15


def pictures(file: Path) -> tuple[Tensor, Tensor]:
    """Training and held-out pictures of a set, float [n, c, h, w] in [-1, 1]."""
    with np.load(file) as stored:
        images = stored["images"]
    images = images[..., None] if images.ndim == 3 else images
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:MOST]]
    held_out = round(HELD_OUT * len(x))
    return x[held_out:], x[:held_out]


def measure(
    training: Tensor, held_out: Tensor, features: PlaceFeatures | None, alarms: float
) -> harness.Values:
    """Power by change, and the share of held-out pictures that are called near copies."""
    reference = NearCopyReference(training, held_out, features, false_alarms=alarms)
    found = reference.test(held_out)
    exact = found.exact.double().mean()
    return {
        "power": found.power,
        "alarms": found.fraction - float(exact),
        "compared": found.compared,
        **{f"power_{change}": share for change, share in found.power_by_change.items()},
    }


def table(results: harness.Results) -> str:
    """One row for each set, features and share of false alarms."""
    cells = results.cells({})
    changes = [name for name in cells[0].values if name.startswith("power_")]
    rows = []
    for cell in cells:
        setting = cell.setting
        rows.append(
            [setting["set"], setting["features"], f"{100 * float(str(setting['alarms'])):g} %"]
            + [cell.number(name) for name in ("power", "alarms", *changes)]
            + [cell.values["compared"]]
        )
    titles = ["set", "features given", "allowed", "found", "false alarms"]
    return summaries.table(
        [*titles, *(name.removeprefix("power_") for name in changes), "compared"], rows
    )


def main() -> None:
    """Run the missing cells and print the table."""
    parser = harness.parser("The near-copy test: power and false alarms.")
    parser.add_argument("--run", action="append", default=[], help="SET=RUN: features of a teacher")
    parser.add_argument("--sets", default=",".join(SETS), help="which sets")
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    results = harness.Results(
        harness.results_file(arguments, NAME), harness.environment(threads), arguments.redo
    )
    runs = dict(run.split("=", 1) for run in arguments.run)
    for name in harness.names(arguments.sets, SETS, "set"):
        training, held_out = pictures(harness.data_file(arguments.data, SETS[name]))
        if arguments.quick:
            training, held_out = training[:200], held_out[:40]
        for kind, features in _features(runs.get(name)).items():
            for alarms in ALARMS:
                setting = {"set": name, "features": kind, "alarms": alarms}

                def compute(
                    features: PlaceFeatures | None = features, alarms: float = alarms
                ) -> harness.Values:
                    return measure(training, held_out, features, alarms)  # noqa: B023

                results.cell(setting, compute)
    harness.publish(results, "Near copies: what is found, and false alarms", [table(results)])


def _features(run: str | None) -> dict[str, PlaceFeatures | None]:
    found: dict[str, PlaceFeatures | None] = {"none": None, "random": NativePlaces()}
    if run is not None:
        teacher = ours.teacher_of(Path(run))
        found["teacher"] = DenoiserPlaces(teacher.denoiser, conditioned=bool(teacher.classes))
    return found


if __name__ == "__main__":
    harness.run_program(main)
