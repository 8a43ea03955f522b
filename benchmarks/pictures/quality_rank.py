"""Does the distance that needs no download rank damages like a trained classifier's distance?

`noisewise.quality` and the judge (Frechet distance in a classifier's features, see `judge.py`)
measure some fifty damages of real Fashion-MNIST pictures, from hardly visible to total. Two simpler
measures are compared: the same kernel distance on plain means of 4x4 cells, and the sliced
Wasserstein distance averaged over levels. The program prints Spearman's rank correlation with the
judge, over all damages and over those that the judge puts near (as finished models are), whether
each family is ordered by strength, and each measure in units of the score of real pictures.

    python -m benchmarks.pictures.quality_rank --data FOLDER --seeds 3
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor

from benchmarks.shared import harness, judge, summaries
from noisewise.quality import Reference, sliced_wasserstein

NAME = "pictures/quality_rank"
NEAR = 15.0  # a damage is near if the judge's distance is at most this
NUM_REFERENCE = 2000
RESAMPLES = 2000
MEASURES = ("ours", "wasserstein", "cells", "severe")
TITLES = {
    "ours": "noisewise.quality.distance",
    "wasserstein": "sliced Wasserstein, mean of levels",
    "cells": "same kernel on means of 4x4 cells",
    "severe": "the other judge",
}
Damage = Callable[["Material"], Tensor]


class Material:
    """Real pictures in a random order, their classes, and a source of noise."""

    def __init__(self, data: judge.FashionMNIST, num_images: int, seed: int) -> None:
        """Shuffle the training part; the first num_images are damaged."""
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(data.train_images), generator=self.generator)
        self.all, self.labels = data.train_images[order], data.train_labels[order]
        self.num_images = num_images
        self.images = self.all[:num_images]
        others = self.all[num_images : num_images + 3000].flatten(1)
        self.mean = others.mean(0)
        self.components = torch.linalg.svd(others - self.mean, full_matrices=False)[2].T
        self.spread = ((others - self.mean) @ self.components).std(0)

    def restarted(self) -> Material:
        """Restart the noise, so that a damage does not depend on the damages before it."""
        self.generator.manual_seed(self.seed + 1000)
        return self

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers; without a shape, that of the pictures."""
        return torch.randn(shape or self.images.shape, generator=self.generator)


# ------------------------------------------------------------------------------------------ damages


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, sigma in pixels, edges mirrored."""
    radius = max(1, round(3 * sigma))
    t = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = (-t * t / (2 * sigma * sigma)).exp()
    kernel /= kernel.sum()
    images = F.pad(images, (radius,) * 4, mode="reflect")
    images = F.conv2d(images, kernel.view(1, 1, 1, -1))
    return F.conv2d(images, kernel.view(1, 1, -1, 1))


def missing(m: Material, num_classes: int) -> Tensor:
    """Leave out the last num_classes of the ten classes."""
    return m.all[m.labels < 10 - num_classes][: m.num_images]


def dropped_mode(m: Material, share: float) -> Tensor:
    """Replace a share of the pictures by pictures of one class."""
    count = round(share * m.num_images)
    one = m.all[m.labels == 1][:count]
    return torch.cat([m.images[: m.num_images - count], one])


def copies(m: Material, num_different: int) -> Tensor:
    """Repeat a few pictures."""
    return m.images[torch.arange(m.num_images) % num_different]


def low_rank(m: Material, rank: int) -> Tensor:
    """Reconstruction from the first principal components of other pictures."""
    basis = m.components[:, :rank]
    flat = m.images.flatten(1)
    return (m.mean + (flat - m.mean) @ basis @ basis.T).view_as(m.images)


def gaussian_law(m: Material, rank: int) -> Tensor:
    """Draws from a normal distribution with the pictures' mean and first components."""
    codes = m.normal(m.num_images, rank) * m.spread[:rank]
    return (m.mean + codes @ m.components[:, :rank].T).view_as(m.images)


def mixed(m: Material, share: float) -> Tensor:
    """Each picture mixed with another one."""
    other = m.images[torch.randperm(m.num_images, generator=m.generator)]
    return (1 - share) * m.images + share * other


def speckled(m: Material, share: float) -> Tensor:
    """Make a share of the pixels black or white."""
    hit = torch.rand(m.images.shape, generator=m.generator) < share
    return torch.where(hit, m.normal().sign(), m.images)


def board(m: Material, height: float) -> Tensor:
    """Add a checkerboard of single pixels, as from pixel shuffling."""
    pattern = torch.zeros(1, 1, judge.SIZE, judge.SIZE)
    pattern[..., ::2, ::2] = pattern[..., 1::2, 1::2] = height
    return m.images + pattern


def lines(m: Material, step: int) -> Tensor:
    """Make every step-th row black."""
    images = m.images.clone()
    images[..., ::step, :] = -1
    return images


def pixelated(m: Material, cell: int) -> Tensor:
    """Cells of equal pixels."""
    return F.interpolate(F.avg_pool2d(m.images, cell), scale_factor=float(cell), mode="nearest")


def clouded(m: Material, height: float) -> Tensor:
    """Add smooth noise."""
    return m.images + 3 * height * gaussian_blur(m.normal(), 3.0)


def shifted(m: Material, pixels: int) -> Tensor:
    """Move down and to the right; pixels wrap around."""
    return m.images.roll((pixels, pixels), (2, 3))


# Strengths increase: within a family a measure should grow from left to right.
FAMILIES: dict[str, tuple[Callable[[Material, float], Tensor], tuple[float, ...]]] = {
    "blur": (lambda m, s: gaussian_blur(m.images, s), (0.4, 0.6, 1.0, 2.0)),
    "noise": (lambda m, s: m.images + s * m.normal(), (0.03, 0.1, 0.2, 0.5)),
    "contrast": (lambda m, s: m.images * s, (0.9, 0.75, 0.5)),
    "brightness": (lambda m, s: m.images + s, (0.05, 0.15, 0.4)),
    "shift": (lambda m, s: shifted(m, int(s)), (1, 2, 4)),
    "missing classes": (lambda m, s: missing(m, int(s)), (1, 3, 6, 9)),
    "copies of": (lambda m, s: copies(m, int(s)), (100, 20, 5)),
    "one class more": (dropped_mode, (0.1, 0.3, 0.6)),
    "principal components": (lambda m, s: low_rank(m, int(s)), (150, 64, 16, 4)),
    "mixture": (mixed, (0.1, 0.25, 0.5)),
    "speckle": (speckled, (0.003, 0.01, 0.05)),
    "checkerboard": (board, (0.05, 0.15, 0.4)),
    "clouds": (clouded, (0.2, 0.5, 1.0)),
    "black lines every": (lambda m, s: lines(m, int(s)), (8, 4)),
    "pixels of": (lambda m, s: pixelated(m, int(s)), (2, 4)),
    "normal law of rank": (lambda m, s: gaussian_law(m, int(s)), (60,)),
}
REAL = "real"


def damages() -> dict[str, Damage]:
    """Every damage by name."""
    found: dict[str, Damage] = {}
    for family, (spoil, strengths) in FAMILIES.items():
        for strength in strengths:
            found[f"{family} {strength:g}"] = lambda m, f=spoil, s=strength: f(m, s)
    found["noise only"] = lambda m: m.normal()
    found["mean picture"] = lambda m: m.mean.view(1, 1, judge.SIZE, judge.SIZE).expand(
        m.num_images, -1, -1, -1
    )
    return found


# --------------------------------------------------------------------------------------- measuring


def means_of_cells(images: Tensor) -> Tensor:
    """Plain means of 4x4 cells: features without detail."""
    return F.adaptive_avg_pool2d(images, 4).flatten(1)


class AllMeasures:
    """The judge and the three measures, all against the test pictures."""

    def __init__(self, bench: judge.Bench) -> None:
        """Measure the references once, on the same 2,000 test pictures."""
        order = torch.randperm(
            len(bench.data.test_images), generator=torch.Generator().manual_seed(0)
        )
        self.bench = bench
        self.real = bench.data.test_images[order[:NUM_REFERENCE]]
        self.ours = Reference(self.real)
        self.cells = Reference(self.real, means_of_cells)

    def of(self, images: Tensor) -> harness.Values:
        """The values of all measures for some pictures."""
        images = images.clamp(-1, 1).contiguous()
        ours = self.ours.distance(images)
        levels = sliced_wasserstein(images, self.real)
        return {
            "judge": self.bench.distance(images),
            "severe": self.bench.severe(images),
            "ours": ours.value,
            "low": ours.low,
            "high": ours.high,
            "floor": ours.floor,
            "wasserstein": statistics.fmean(levels),
            "cells": self.cells.distance(images).value,
        }


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's correlation; ties get their mean rank."""
    ranks = np.corrcoef(rankdata(x), rankdata(y))
    return float(ranks[0, 1])


def correlation(
    measure: np.ndarray, judged: np.ndarray, near: bool
) -> tuple[float, np.ndarray, int]:
    """Rank correlation of medians over seeds, its resamples, and the number of damages.

    Args:
        measure: [damages, seeds].
        judged: the judge's distances, [damages, seeds].
        near: use only damages whose median is `NEAR` or less by the judge.
    """
    kept = np.median(judged, 1) <= (NEAR if near else np.inf)
    measure, judged = measure[kept], judged[kept]
    value = rank_correlation(np.median(measure, 1), np.median(judged, 1))
    rng, drawn = np.random.default_rng(0), []  # the same resamples for each measure
    num_damages, num_seeds = measure.shape
    for _ in range(RESAMPLES):
        rows = rng.integers(num_damages, size=num_damages)
        seeds = rng.integers(num_seeds, size=num_seeds)
        x, y = (np.median(table[rows][:, seeds], 1) for table in (measure, judged))
        drawn.append(rank_correlation(x, y))
    return value, np.array(drawn), num_damages


def _with_interval(value: float, drawn: np.ndarray) -> str:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


# ------------------------------------------------------------------------------------------- tables


class Findings:
    """Finished cells as arrays: a row for each damage, a column for each seed."""

    def __init__(self, results: harness.Results, match: harness.Setting) -> None:
        """Read the cells of damages with results for every seed."""
        cells = results.cells(match)
        seeds = sorted({str(cell.setting["seed"]) for cell in cells})
        by_name = {
            name: [c for c in cells if c.setting["damage"] == name] for name in (REAL, *damages())
        }
        complete = {name: found for name, found in by_name.items() if len(found) == len(seeds) > 0}
        self.real = complete.pop(REAL, [])
        self.cells = complete
        self.names = list(complete)

    def array(self, value: str) -> np.ndarray:
        """A value of all damages, [damages, seeds]."""
        return np.array([[c.number(value) for c in self.cells[name]] for name in self.names], float)

    def median(self, name: str, value: str) -> float | None:
        """Median over seeds of one damage; None if it was not measured."""
        found = [c.number(value) for c in self.cells.get(name, [])]
        kept = [number for number in found if number is not None]
        return statistics.median(kept) if kept else None

    def of_real(self, value: str) -> float:
        """Median over seeds for real pictures."""
        return statistics.median(c.number(value) or 0.0 for c in self.real)


def correlation_table(found: Findings) -> str:
    """Rank correlations with the judge, and the differences between ours and the others."""
    judged = found.array("judge")
    titles = [TITLES[measure] for measure in MEASURES]
    rows: list[list[object]] = [[t] for t in [*titles, *(f"ours minus: {t}" for t in titles[1:])]]
    counts = []
    for near in (False, True):
        made = [correlation(found.array(measure), judged, near) for measure in MEASURES]
        ours = made[0]
        texts = [_with_interval(value, drawn) for value, drawn, _ in made]
        texts += [_with_interval(ours[0] - value, ours[1] - drawn) for value, drawn, _ in made[1:]]
        for row, text in zip(rows, texts, strict=True):
            row.append(text)
        counts.append(ours[2])
    columns = ["measure", f"all {counts[0]} damages", f"{counts[1]} that it puts up to {NEAR:g}"]
    return summaries.table(columns, rows)


def order_table(found: Findings) -> str:
    """Table: does each measure order each family by strength?"""
    rows = []
    for family, (_, strengths) in FAMILIES.items():
        names = [f"{family} {strength:g}" for strength in strengths]
        if len(names) < 2 or not all(name in found.cells for name in names):
            continue
        row: list[object] = [family, " < ".join(f"{s:g}" for s in strengths)]
        for measure in ("judge", *MEASURES):
            values = [found.median(name, measure) or 0.0 for name in names]
            row.append("yes" if values == sorted(values) else "no")
        rows.append(row)
    return summaries.table(["family", "strengths", "judge", *MEASURES], rows)


def damage_table(found: Findings) -> str:
    """Table of every damage, sorted by the judge's distance."""
    floor = found.of_real("floor")
    rows: list[list[object]] = [
        [REAL, found.of_real("judge"), found.of_real("ours"), found.of_real("ours") / floor,
         "", found.of_real("wasserstein"), found.of_real("cells"), found.of_real("severe")]
    ]  # fmt: skip
    for name in sorted(found.names, key=lambda name: found.median(name, "judge") or 0.0):
        values = ("judge", "ours", "low", "high", "wasserstein", "cells", "severe")
        judged, ours, low, high, *others = (found.median(name, value) for value in values)
        ratio = None if ours is None else ours / floor
        interval = f"[{summaries.figure(low)}, {summaries.figure(high)}]"
        rows.append([name, judged, ours, ratio, interval, *others])
    columns = "pictures,judge,ours,in floors,95 % interval,Wasserstein,cells,other judge"
    return summaries.table(columns.split(","), rows)


def main() -> None:
    """Measure every damage with every seed, then print the tables."""
    parser = harness.parser("Rank agreement of the offline distance with a trained classifier.")
    judge.add_options(parser)
    parser.add_argument("--seeds", type=int, default=3, help="draws of pictures and of noise")
    parser.add_argument("--num-images", type=int, default=1000, help="pictures of each damage")
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    if arguments.quick:
        arguments.seeds, arguments.num_images = 1, min(arguments.num_images, 200)
    bench = judge.bench_from(arguments)
    conditions = harness.environment(threads, ("noisewise", "torch", "numpy", "scipy"))
    results = harness.Results(
        harness.results_file(arguments, NAME), conditions | bench.conditions(), arguments.redo
    )
    match = {"judge": bench.fingerprint, "num_images": arguments.num_images}
    if not arguments.table_only:
        measure(arguments, bench, results, match)
    publish(results, Findings(results, match), arguments.num_images)


def measure(
    arguments: argparse.Namespace, bench: judge.Bench, results: harness.Results,
    match: dict[str, object],
) -> None:  # fmt: skip
    """Run the missing cells."""
    measures = AllMeasures(bench)
    for seed in range(arguments.seeds):
        material = Material(bench.data, arguments.num_images, seed)
        for name, spoil in {REAL: lambda m: m.images, **damages()}.items():

            def compute(spoil: Damage = spoil, m: Material = material) -> harness.Values:
                return measures.of(spoil(m.restarted()))

            results.cell({**match, "damage": name, "seed": seed}, compute)


def publish(results: harness.Results, found: Findings, num_images: int) -> None:
    """Print the tables and write them beside the results."""
    if not found.names or not found.real:
        raise harness.UsageError("There are no finished cells: run without --table-only first.")
    title = "Rank agreement of the offline distance with a trained classifier"
    about = (
        f"{num_images} damaged training pictures against test pictures (judge: 10,000; the others: "
        f"{NUM_REFERENCE:,}), {len(found.real)} seeds. Spearman's correlation of medians over "
        "seeds, 95 % bootstrap interval over damages and seeds. A floor is the 95th percentile of "
        "the score of real pictures. The features' scaling was chosen among some 50 variants on "
        "one draw of nearly these damages (0.74 to 0.95 there), so this is not a held-out test."
    )
    parts = [about, correlation_table(found), order_table(found), damage_table(found)]
    harness.publish(results, title, parts)


if __name__ == "__main__":
    harness.run_program(main)
