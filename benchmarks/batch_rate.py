"""The best learning rate of noisewise's own training at several batches, against what it advises.

For each batch the packaged garments are trained on at several learning rates, the same number of
pictures each; the best rate is where a parabola through the three lowest held-out losses (over the
logarithm of the rate) has its lowest point. The advice comes from the noise that the run at the
usual batch and rate has measured of itself (RUN/noise.json), and nothing else. Budgets are in
pictures, so that a busy machine changes no result.

    python benchmarks/batch_rate.py --seeds 0
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np

import harness
import noisewise
import summaries
from noisewise.demo import demo_path
from noisewise.scaling import Measurement, advise
from noisewise.train.config import TrainConfig
from noisewise.train.recipes import TeacherRecipe

NAME = "batch_rate"
BATCHES = (64, 16, 256)
FACTORS = (1.0, 0.5, 2.0, 0.25, 4.0)  # of the recipe's rate; the middle first
USUAL = TeacherRecipe().batch


def train(
    folder: Path, batch: int, factor: float, seed: int, images: int, threads: int
) -> harness.Values:
    """One run; the lowest held-out loss, and the noise where it is the usual run."""
    recipe = TeacherRecipe(sampler_images=0, distance_images=0)
    config = TrainConfig(
        budget=f"{images}images",
        batch=batch,
        lr=factor * recipe.lr,
        seed=seed,
        kinds=0,
        device="cpu",
        precision="bfloat16",
        threads=threads,
        recipe=recipe,
    )
    shutil.rmtree(folder, ignore_errors=True)
    run = noisewise.train(demo_path(), out=folder, config=config)
    noted = run.info["stages"]["teacher"]
    values = {"heldout_loss": noted["heldout_loss"], "seconds": noted["seconds"]}
    if (folder / "noise.json").exists():
        values["measurement"] = Measurement.load(folder / "noise.json").to_dict()
    return values


def best_factor(losses: dict[float, float]) -> float | None:
    """Where a parabola through the three lowest has its lowest point; None where it is unknown."""
    if len(losses) < 3:
        return None
    factors = sorted(losses)
    at = min(range(len(factors)), key=lambda i: losses[factors[i]])
    if at in (0, len(factors) - 1):
        return None
    near = factors[at - 1 : at + 2]
    a, b, _ = np.polyfit([math.log(f) for f in near], [losses[f] for f in near], 2)
    return math.exp(-b / (2 * a))


def rates_table(results: harness.Results, images: int) -> str:
    """Held-out losses by batch and rate."""
    rows = []
    for batch in BATCHES:
        losses = losses_of(results, batch, images)
        best = best_factor(losses)
        shown = [f"{losses[f]:.4f}" if f in losses else "-" for f in sorted(FACTORS)]
        rows.append([batch, *shown, "unknown" if best is None else f"{best:.2f}"])
    titles = [f"rate x {factor:g}" for factor in sorted(FACTORS)]
    return summaries.table(["batch", *titles, "best rate, times the recipe's"], rows)


def losses_of(results: harness.Results, batch: int, images: int) -> dict[float, float]:
    """Mean held-out loss over the seeds, by factor."""
    found: dict[float, list[float]] = {}
    for cell in results.cells({"batch": batch, "images": images}):
        loss = cell.number("heldout_loss")
        if loss is not None:
            found.setdefault(cell.asked("factor"), []).append(loss)
    return {factor: sum(values) / len(values) for factor, values in found.items()}


def advice_table(results: harness.Results, images: int) -> str:
    """What the measured noise advises, beside what was best."""
    usual = results.cells({"batch": USUAL, "factor": 1.0, "images": images})
    stored = [m for cell in usual if isinstance(m := cell.values.get("measurement"), dict)]
    base = best_factor(losses_of(results, USUAL, images))
    rows = []
    for batch in BATCHES:
        best = best_factor(losses_of(results, batch, images))
        if batch == USUAL or not stored or base is None:
            continue
        found = advise(Measurement.from_dict(stored[0]), batch=batch, batch0=USUAL, lr=1.0)
        rows.append(
            [
                f"{USUAL} to {batch}", "unknown" if best is None else f"{best / base:.2f}",
                f"{found.lr:.2f} [{found.low:.2f}, {found.high:.2f}]", found.rule,
                f"{math.sqrt(batch / USUAL):.2f}", "1",
            ]
        )  # fmt: skip
    columns = ["batch", "best rate changes by", "advised", "rule", "square root", "no change"]
    return summaries.table(columns, rows)


def main() -> None:
    """Run what is missing and print both tables."""
    parser = harness.parser("The best learning rate by batch, against the advice.")
    parser.add_argument("--seeds", type=harness.numbers(int), default=[0])
    parser.add_argument("--images", type=int, default=48_000, help="pictures seen by each run")
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    images = 2_048 if arguments.quick else arguments.images
    results = harness.Results(
        harness.results_file(arguments, NAME), harness.environment(threads), arguments.redo
    )
    folder = harness.work_folder(arguments, NAME) / "run"
    grid = [(b, f, s) for s in arguments.seeds for b in BATCHES for f in FACTORS]
    for batch, factor, seed in [] if arguments.table_only else grid:
        results.cell(
            {"batch": batch, "factor": factor, "seed": seed, "images": images},
            lambda b=batch, f=factor, s=seed: train(folder, b, f, s, images, threads),
        )
    harness.publish(
        results,
        "The best learning rate by batch, in our own training",
        [
            f"Packaged garments, {images:,} pictures seen by each run, the small U-Net, Muon; "
            "held-out loss of the best average.",
            rates_table(results, images),
            advice_table(results, images),
        ],
    )


if __name__ == "__main__":
    harness.run_program(main)
