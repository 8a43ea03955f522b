"""The best learning rate of noisewise's own training at several batches, compared with its advice.

For each batch, noisewise trains on the packaged garments at several learning rates and seeds, with
the same number of pictures each. The best rate is the minimum of a parabola through the three
lowest mean held-out losses, over the logarithm of the rate. Its interval is a bootstrap over seeds,
all rates of a seed together; with fewer than three seeds the best rate counts as unknown. If the
lowest loss is at the end of the rates, more rates are added. The advice comes only from the noise
that the run at the usual batch and rate measured itself (RUN/noise.json). Budgets are in pictures,
so a busy machine does not change the results.

    python -m benchmarks.pictures.batch_rate --seeds 0,1,2
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np

import noisewise
from benchmarks.learning_rate.sweeps import optimum, resampled_feet
from benchmarks.shared import harness, summaries
from noisewise.demo import demo_path
from noisewise.scaling import Measurement, advise
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe

NAME = "pictures/batch_rate"
BATCHES = (64, 16, 256)
FACTORS = (1.0, 0.5, 2.0, 0.25, 4.0)  # times the recipe's rate; the middle first
WIDEST = 32.0  # no rates beyond this factor
USUAL = TeacherRecipe().batch


def train(
    folder: Path, batch: int, factor: float, seed: int, images: int, threads: int
) -> harness.Values:
    """One run: its lowest held-out loss, and the measured noise if the run has one."""
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


def losses_of(results: harness.Results, batch: int, images: int) -> dict[float, dict[int, float]]:
    """Held-out loss by factor and seed."""
    found: dict[float, dict[int, float]] = {}
    for cell in results.cells({"batch": batch, "images": images}):
        loss = cell.number("heldout_loss")
        if loss is not None:
            found.setdefault(cell.asked("factor"), {})[int(cell.asked("seed"))] = loss
    return dict(sorted(found.items()))


def best_factor(losses: dict[float, dict[int, float]]) -> tuple[np.ndarray, str]:
    """The best factor: resampled over seeds (empty if not known), and as text for a table.

    Only seeds with every factor count, so no factor profits from an easy seed.
    """
    factors = sorted(losses)
    seeds = sorted(set.intersection(*(set(losses[f]) for f in factors))) if factors else []
    if len(factors) < 3 or not seeds:
        return np.empty(0), "unknown"
    logs = np.log(factors)
    values = np.asarray([[losses[f][seed] for f in factors] for seed in seeds])
    foot, low, high = optimum(logs, values)
    if not math.isfinite(foot):
        return np.empty(0), "unknown: at the end of the rates"
    if len(seeds) < 3:
        return np.empty(0), f"unknown: {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    return resampled_feet(logs, values), f"{foot:.2f} [{low:.2f}, {high:.2f}]"


def next_factor(losses: dict[float, dict[int, float]]) -> float | None:
    """A factor beyond the end where the lowest mean loss is; None if it is inside."""
    factors = sorted(losses)
    if not factors:
        return None
    means = [sum(losses[f].values()) / len(losses[f]) for f in factors]
    at = means.index(min(means))
    wanted = factors[0] / 2 if at == 0 else 2 * factors[-1] if at == len(factors) - 1 else None
    return wanted if wanted is not None and 1 / WIDEST <= wanted <= WIDEST else None


def rates_table(results: harness.Results, images: int) -> str:
    """Mean held-out losses by batch and rate, with their standard error over seeds."""
    found = {batch: losses_of(results, batch, images) for batch in BATCHES}
    factors = sorted({f for losses in found.values() for f in losses} | set(FACTORS))
    rows = []
    for batch, losses in found.items():
        shown = [_mean(list(losses.get(f, {}).values())) for f in factors]
        rows.append([batch, *shown, best_factor(losses)[1]])
    titles = [f"rate x {factor:g}" for factor in factors]
    return summaries.table(["batch", *titles, "best rate, times the recipe's"], rows)


def _mean(values: list[float]) -> str:
    if not values:
        return "-"
    mean = f"{np.mean(values):.4f}"
    if len(values) < 2:
        return mean
    return f"{mean} +- {np.std(values, ddof=1) / math.sqrt(len(values)):.4f}"


def advice_table(results: harness.Results, images: int) -> str:
    """The advice from the measured noise, beside the best rates."""
    usual = results.cells({"batch": USUAL, "factor": 1.0, "images": images})
    stored = [m for cell in usual if isinstance(m := cell.values.get("measurement"), dict)]
    base = best_factor(losses_of(results, USUAL, images))[0]
    rows = []
    for batch in BATCHES:
        if batch == USUAL or not stored:
            continue
        best = best_factor(losses_of(results, batch, images))[0]
        found = advise(Measurement.from_dict(stored[0]), batch=batch, batch0=USUAL, lr=1.0)
        rows.append(
            [
                f"{USUAL} to {batch}", _change(best, base),
                f"{found.lr:.2f} [{found.low:.2f}, {found.high:.2f}]", found.rule,
                f"{math.sqrt(batch / USUAL):.2f}", "1",
            ]
        )  # fmt: skip
    columns = ["batch", "best rate changes by", "advised", "rule", "square root", "no change"]
    return summaries.table(columns, rows)


def _change(best: np.ndarray, base: np.ndarray) -> str:
    """Median and interval of the ratio of two resampled best factors, drawn independently."""
    if not len(best) or not len(base):
        return "unknown"
    order = np.random.default_rng(0).permutation(len(base))
    middle, low, high = np.quantile(best / base[order], [0.5, 0.025, 0.975])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Run the missing cells and print both tables."""
    parser = harness.parser("The best learning rate by batch, compared with the advice.")
    parser.add_argument("--seeds", type=harness.numbers(int), default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=48_000, help="pictures that each run sees")
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    images = 2_048 if arguments.quick else arguments.images
    results = harness.Results(
        harness.results_file(arguments, NAME), harness.environment(threads), arguments.redo
    )
    folder = harness.work_folder(arguments, NAME) / "run"

    def run(batch: int, factor: float) -> None:
        for seed in arguments.seeds:
            results.cell(
                {"batch": batch, "factor": factor, "seed": seed, "images": images},
                lambda s=seed: train(folder, batch, factor, s, images, threads),
            )

    for batch in () if arguments.table_only else BATCHES:
        tried: set[float] = set()
        wanted: list[float] = list(FACTORS[:3] if arguments.quick else FACTORS)
        while wanted:
            for factor in wanted:
                run(batch, factor)
            tried.update(wanted)
            wider = None if arguments.quick else next_factor(losses_of(results, batch, images))
            wanted = [] if wider is None or wider in tried else [wider]
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
