"""Results of the sweep over adapters: tables by rate, gaps with their intervals, three verdicts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.adapters.methods import EARLY, METHODS, STEPS
from benchmarks.shared import harness, summaries

OURS = "ours adam"  # the method that was named before any result
OURS_PRO = "ours adam + ProAdamW"
IN_PEFT = ("LoRA", "LoRA+ x8", "rsLoRA", "DoRA", "AdaLoRA", "PiSSA", "lora_ga (PEFT)")
GOAL = 0.8  # share of the gap to close
FEWEST = 3  # seeds needed for a verdict


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval over resampled seeds."""

    value: float
    low: float
    high: float
    num_seeds: int

    def __str__(self) -> str:
        """Return it as text for a sentence."""
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    @property
    def percent(self) -> str:
        """Return it as a share in percent."""
        return f"{100 * self.value:.0f} % [{100 * self.low:.0f}, {100 * self.high:.0f}]"


def mean(cells: list[harness.Cell], value: str) -> float:
    """Return the mean over seeds; infinite if a run broke down."""
    numbers = [cell.number(value) for cell in cells]
    if not numbers or any(n is None for n in numbers):
        return math.inf
    return statistics.mean(n for n in numbers if n is not None)


def rates_of(results: harness.Results, method: str) -> list[float]:
    """Return the learning rates for which a method has cells."""
    return sorted({cell.asked("lr") for cell in results.cells({"method": method})})


def best_rate(results: harness.Results, method: str) -> float | None:
    """Return the learning rate with the lowest mean loss at the end; None if all broke down."""
    rates = rates_of(results, method)
    at = {lr: mean(results.cells({"method": method, "lr": lr}), f"loss_{STEPS}") for lr in rates}
    at = {lr: loss for lr, loss in at.items() if math.isfinite(loss)}
    return min(at, key=at.__getitem__) if at else None


def by_seed(results: harness.Results, method: str, lr: float, value: str) -> dict[float, float]:
    """Return a value of each seed; infinite if the run broke down."""
    found = {}
    for cell in results.cells({"method": method, "lr": lr}):
        number = cell.number(value)
        found[cell.asked("seed")] = math.inf if number is None else number
    return found


def estimate(runs: list[dict[float, float]], of: Callable[..., float]) -> Estimate | None:
    """Return a function of the means of several methods, with a bootstrap over the seeds.

    With the same seed the methods had the same batches, so seeds are resampled together.
    """
    seeds = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
    values = np.array([[run[seed] for seed in seeds] for run in runs])
    if not seeds or not np.isfinite(values).all():
        return None
    rng = np.random.default_rng(0)
    draws = rng.integers(len(seeds), size=(2000, len(seeds)))
    means = values[:, draws].mean(2)
    low, high = np.quantile([of(*column) for column in means.T], (0.025, 0.975))
    return Estimate(float(of(*values.mean(1))), float(low), float(high), len(seeds))


def closed(results: harness.Results, method: str, lr: float, value: str) -> Estimate | None:
    """Return the share of the gap from LoRA to full fine-tuning that a method closes at a rate."""
    runs = [by_seed(results, name, lr, value) for name in ("LoRA", "full", method)]
    gap = estimate(runs[:2], lambda lora, full: lora - full)
    if gap is None or gap.low <= 0:  # there is no gap to close
        return None
    return estimate(runs, lambda lora, full, own: (lora - own) / (lora - full))


def table(results: harness.Results) -> list[str]:
    """Return losses by rate, each method at its best rate, and the verdicts."""
    rates = sorted({cell.asked("lr") for cell in results.cells({})})
    parts = []
    for value in (f"loss_{EARLY}", f"loss_{STEPS}"):
        rows = []
        for method in METHODS:
            row: list[object] = [method]
            for lr in rates:
                cells = results.cells({"method": method, "lr": lr})
                row.append(f"{mean(cells, value):.3f}" if cells else None)
            rows.append(row)
        head = ["method", *(f"{lr:g}" for lr in rates)]
        parts.append(f"{value}, mean over seeds:\n\n" + summaries.table(head, rows))
    own = best_rate(results, "full")
    if own is None:
        return parts
    rows = [row for method in METHODS if (row := best_row(results, method, own))]
    head = [
        "method", "best rate", f"loss at {STEPS}", f"gap closed at {EARLY}, full's rate",
        f"at {STEPS}", "distance of W to full's, same rate", "start, s", f"{STEPS} steps, s",
        "numbers trained", "in the optimiser", "peak MB, steps", "start",
    ]  # fmt: skip
    parts.append(f"At each method's best rate; full fine-tuning's own is {own:g}. Intervals are "
                 "over seeds; peak MB of a step include the weights and the optimiser's state, "
                 "those of the start do not:\n\n"
                 + summaries.table(head, rows))  # fmt: skip
    parts.append("Verdicts:\n\n" + "\n".join(f"* {line}" for line in verdicts(results, own)))
    return parts


def best_row(results: harness.Results, method: str, own: float) -> tuple[object, ...] | None:
    """Return a method at its best rate, and its gap and distance at full fine-tuning's rate."""
    best = best_rate(results, method)
    if best is None:
        return None
    tried = rates_of(results, method)
    edge = " (edge)" if best in (tried[0], tried[-1]) else ""
    cells = results.cells({"method": method, "lr": best})
    shares = [closed(results, method, own, f"loss_{step}") for step in (EARLY, STEPS)]
    far = by_seed(results, method, own, f"distance_{STEPS}")
    away = estimate([far], lambda distance: distance)
    last = estimate([by_seed(results, method, best, f"loss_{STEPS}")], lambda loss: loss)
    seconds = [mean(cells, name) for name in ("start_seconds", "seconds")]
    return (
        method,
        f"{best:g}{edge}",
        last,
        *(None if share is None else share.percent for share in shares),
        away,
        *(s if math.isfinite(s) else None for s in seconds),
        *(known(mean(cells, name)) for name in ("trained", "moments")),
        *(megabytes(cells, name) for name in ("step_bytes", "start_bytes")),
    )


def known(number: float) -> str | None:
    """Return a count as text; None if nothing was trained."""
    return f"{number:.0f}" if math.isfinite(number) else None


def megabytes(cells: list[harness.Cell], value: str) -> str | None:
    """Return the largest measured value over seeds in MB; None if there is none."""
    known = [number for cell in cells if (number := cell.number(value)) is not None]
    return f"{max(known) / 1e6:.2f}" if known else None


# ------------------------------------------------------------------------------------ verdicts


def verdicts(results: harness.Results, own: float) -> list[str]:
    """Return whether the three goals hold, for the methods that were named beforehand."""
    return [
        f"At full fine-tuning's rate {own:g}, {OURS} closes at least {100 * GOAL:.0f} % of the gap "
        f"between LoRA and full fine-tuning at step {EARLY}: {gap_verdict(results, own)}",
        f"At each method's best rate, {OURS} is within noise of the best adapter or better at step "
        f"{STEPS}: {best_verdict(results)}",
        f"{OURS_PRO} is strictly closer to full fine-tuning's weights at step {STEPS} than any "
        f"method in PEFT, at the rate {own:g}: {nearer_verdict(results, own, f'distance_{STEPS}')}",
        *(
            f"The same by the loss at step {step}: {nearer_verdict(results, own, f'loss_{step}')}"
            for step in (EARLY, STEPS)
        ),
        f"Chosen afterwards, so no verdict: {afterwards(results)}",
    ]


def decided(found: Estimate | None, holds: Callable[[Estimate], bool | None], told: str) -> str:
    """Return the verdict in a word, with its numbers."""
    if found is None:
        return "unknown: runs are missing or broke down, or there is no clear gap"
    if found.num_seeds < FEWEST:
        return f"unknown with {found.num_seeds} seeds, {FEWEST} are needed; so far {told}"
    return {True: "holds", False: "fails", None: "is undecided"}[holds(found)] + f", {told}"


def gap_verdict(results: harness.Results, own: float) -> str:
    """Return the verdict on goal 1."""
    share = closed(results, OURS, own, f"loss_{EARLY}")
    return decided(
        share,
        lambda e: True if e.low >= GOAL else False if e.high < GOAL else None,
        share.percent if share else "",
    )


def best_verdict(results: harness.Results) -> str:
    """Return the verdict on goal 2: compare with the best other adapter by mean loss."""
    value = f"loss_{STEPS}"
    others = [m for m in METHODS if not m.startswith(("full", "ours"))]
    missing = [m for m in (OURS, *others) if not rates_of(results, m)]
    best = {m: lr for m in (OURS, *others) if (lr := best_rate(results, m)) is not None}
    if missing or len(best) < 2 or OURS not in best:
        return f"unknown: missing or broken down: {', '.join(missing) or OURS}"
    first = min(
        (m for m in best if m != OURS),
        key=lambda m: mean(results.cells({"method": m, "lr": best[m]}), value),
    )
    runs = [by_seed(results, m, best[m], value) for m in (OURS, first)]
    found = estimate(runs, lambda ours, other: ours - other)
    return decided(found, lambda e: e.low <= 0, f"ours minus {first}: {found}")


def afterwards(results: harness.Results) -> str:
    """Compare the best of ours with the best of the others, each at its best rate."""
    value = f"loss_{STEPS}"
    best = {m: lr for m in METHODS if (lr := best_rate(results, m)) is not None}

    def first(names: list[str]) -> str | None:
        at = {m: mean(results.cells({"method": m, "lr": best[m]}), value) for m in names}
        return min(at, key=at.__getitem__) if at else None

    ours = first([m for m in best if m.startswith("ours")])
    other = first([m for m in best if not m.startswith(("ours", "full"))])
    if ours is None or other is None:
        return "runs are missing"
    runs = [by_seed(results, m, best[m], value) for m in (ours, other)]
    return f"{ours} minus {other} at step {STEPS}: {estimate(runs, lambda a, b: a - b)}"


def nearer_verdict(results: harness.Results, own: float, value: str) -> str:
    """Return the verdict on goal 3: compare with the closest of PEFT's, so it holds for all."""
    runs = {m: by_seed(results, m, own, value) for m in (OURS_PRO, *IN_PEFT)}
    missing = [m for m, run in runs.items() if estimate([run], lambda x: x) is None]
    if missing:
        return f"unknown: missing or broken down: {', '.join(missing)}"
    first = min(IN_PEFT, key=lambda m: statistics.mean(runs[m].values()))
    found = estimate([runs[OURS_PRO], runs[first]], lambda ours, other: ours - other)
    return decided(
        found,
        lambda e: True if e.high < 0 else False if e.low > 0 else None,
        f"ours minus {first}: {found}",
    )
