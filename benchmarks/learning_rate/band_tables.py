"""The tables of `band.py`: errors of all rules side by side, bands, verdicts, what following gives.

An error is exp |ln(advised factor / true factor)|, so 1 is perfect. A band holds the truth if it
holds the point where the parabola of the sweep is lowest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.learning_rate.sweeps import WORST, halves_optimum
from benchmarks.shared import harness
from benchmarks.shared.summaries import table
from noisewise.scaling import Estimate, Measurement, advise
from noisewise.scaling.advise import unwidened
from noisewise.scaling.band import needed_power

BASE = 32
ONE_TIME = ("after 10 %", "after 33 %", "after 67 %")
SEVERAL = ("33 and 67 %", "watch")
PLAIN = ("square root", "linear", "constant", "alpha 1/2")
_TIE = math.log(1.1)  # errors within 10 % of each other are a tie


@dataclass(frozen=True)
class Case:
    """One question: net, optimiser, batch; the true factor, and what each rule answers."""

    net: str
    kind: str
    batch: int
    truth: tuple[float, float, float]
    rules: Mapping[str, Estimate]
    bare: Mapping[str, Estimate]  # bands before they are widened

    def error(self, rule: str) -> float:
        """Factor error of a rule."""
        return math.exp(abs(math.log(self.rules[rule].value / self.truth[0])))

    def holds(self, rule: str) -> bool:
        """Whether the rule's band holds the truth."""
        return self.rules[rule].low <= self.truth[0] <= self.rules[rule].high

    def power(self, rule: str) -> float:
        """Power of B / B_0 by which the rule's band must be widened to hold the truth."""
        return needed_power(self.truth[0], self.bare[rule], self.batch, BASE)

    def verdict(self, rule: str) -> str:
        """Against the square root: beats, ties or loses."""
        apart = math.log(self.error(rule)) - math.log(self.error("square root"))
        return "ties" if abs(apart) <= _TIE else "beats" if apart < 0 else "loses"

    def beyond(self, rule: str) -> bool:
        """Whether it is worse than the square root by more than its own band reaches."""
        band, apart = self.rules[rule], self.error(rule) / self.error("square root")
        return apart > max(band.high / band.value, band.value / band.low)


def tables(results: harness.Results) -> list[str]:
    """Every table that the finished cells allow."""
    cases = list(_cases(results))
    if not cases:
        return ["No case is finished yet."]
    return [
        f"Factor from batch {BASE}, and the factor error of each rule (1 is perfect).",
        _errors(cases),
        "Geometric mean of the errors, the worst one, and the cases against the square root.",
        _means(cases),
        "The bands: how many hold the truth, how wide they are, and the power of B / B_0 by which "
        "nine of ten hold it (the constants of noisewise/scaling/band.py).",
        _bands(cases),
        "Held-out loss when each is followed (mean of seeds; diverged: above an untrained net).",
        _followed(results),
        _cost(results),
    ]


def _cases(results: harness.Results) -> Iterator[Case]:
    for cell in results.cells({"part": "measure"}):
        net, kind = str(cell.setting["net"]), str(cell.setting["kind"])
        best = _sweeps(results, net, kind, cell.asked("examples"))
        rate = cell.number("lr")
        if rate is None or BASE not in best:
            continue
        found = {
            name: Measurement.from_dict(values)
            for name in (*ONE_TIME, "watch")
            if isinstance(values := cell.values.get(name), Mapping)
        }
        for batch in sorted(set(best) - {BASE}):
            foot, low, high = best[batch]
            base = best[BASE][0]
            if not math.isfinite(foot) or not math.isfinite(base):
                continue
            rules, bare = _answers(found, batch, rate)
            yield Case(net, kind, batch, (foot / base, low / base, high / base), rules, bare)


def _sweeps(
    results: harness.Results, net: str, kind: str, examples: float
) -> dict[int, tuple[float, float, float]]:
    """Best rate of each batch that was swept."""
    by_batch: dict[int, dict[float, dict[int, float]]] = {}
    match = {"part": "train", "net": net, "kind": kind, "examples": int(examples)}
    for cell in results.cells(match):
        if "octave" not in cell.setting:
            continue
        loss = cell.number("loss")
        batch, octave = int(cell.asked("batch")), cell.asked("octave")
        seeds = by_batch.setdefault(batch, {}).setdefault(octave, {})
        seeds[int(cell.asked("seed"))] = WORST if loss is None else min(loss, WORST)
    found = {}
    for batch, octaves in by_batch.items():
        common = sorted(set.intersection(*(set(seeds) for seeds in octaves.values())))
        losses = {k: [seeds[s] for s in common] for k, seeds in octaves.items()}
        if common:
            found[batch] = halves_optimum(losses)
    return found


def _answers(
    found: Mapping[str, Measurement], batch: int, rate: float
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """The factor of each rule with its band, and the band before it is widened."""
    asked: dict[str, list[Measurement]] = {name: [m] for name, m in found.items()}
    if all(name in found for name in ONE_TIME[1:]):
        asked[SEVERAL[0]] = [found[name] for name in ONE_TIME[1:]]
    rules, bare = {}, {}
    for name, ms in asked.items():
        advice = advise(ms, batch=batch, batch0=BASE, lr=rate)
        rules[name] = Estimate(advice.ratio, advice.low / rate, advice.high / rate)
        bare[name] = unwidened(ms, batch, BASE, rate, "examples").factor
    times = batch / BASE
    plain = {"square root": math.sqrt(times), "linear": times, "constant": 1.0}
    scale = found["watch"].b_simple.value if "watch" in found else math.nan
    if math.isfinite(scale) and scale > 0:
        plain["alpha 1/2"] = math.sqrt((1 + scale / BASE) / (1 + scale / batch))
    rules |= {name: Estimate(value, value, value) for name, value in plain.items()}
    return rules, bare


def _errors(cases: Sequence[Case]) -> str:
    names = _names(cases)
    rows = [
        [c.net, c.kind, c.batch, _interval(c.truth), *(_error(c, name) for name in names)]
        for c in cases
    ]
    return table(["net", "optimiser", "batch", "true factor", *names], rows)


def _names(cases: Sequence[Case]) -> list[str]:
    order = (*ONE_TIME, *SEVERAL, *PLAIN)
    return [name for name in order if any(name in c.rules for c in cases)]


def _interval(truth: tuple[float, float, float]) -> str:
    return f"{truth[0]:.2f} [{truth[1]:.2f}, {truth[2]:.2f}]"


def _error(case: Case, name: str) -> str | None:
    return f"{case.error(name):.2f}" if name in case.rules else None


def _means(cases: Sequence[Case]) -> str:
    rows = []
    for kind in sorted({c.kind for c in cases}):
        for name in _names(cases):
            here = [c for c in cases if c.kind == kind and name in c.rules]
            if not here:
                continue
            errors = [c.error(name) for c in here]
            verdicts = [c.verdict(name) for c in here]
            rows.append(
                [
                    kind, name, len(here), f"{math.exp(np.mean(np.log(errors))):.2f}",
                    f"{max(errors):.2f}", *(verdicts.count(v) for v in ("beats", "ties", "loses")),
                    sum(c.beyond(name) for c in here) if name in here[0].bare else None,
                ]
            )  # fmt: skip
    columns = ["optimiser", "rule", "cases", "mean error", "worst"]
    return table([*columns, "beats", "ties", "loses", "worse by more than its band"], rows)


def _bands(cases: Sequence[Case]) -> str:
    """Each way by itself, then the two kinds that have a constant."""
    groups = {name: (name,) for name in (*ONE_TIME, *SEVERAL)}
    groups |= {"all of one time": ONE_TIME, "all of several times": SEVERAL}
    rows = []
    for title, names in groups.items():
        found = [(c, name) for c in cases for name in names if name in c.bare]
        if not found:
            continue
        bands = [c.rules[name] for c, name in found]
        widths = [b.high / b.low if b.low > 0 else math.inf for b in bands]
        powers = sorted(c.power(name) for c, name in found)
        ninth = powers[math.ceil(0.9 * len(powers)) - 1]
        held = sum(c.holds(name) for c, name in found)
        rows.append([title, f"{held} of {len(found)}", f"{np.median(widths):.2f}", f"{ninth:.2f}"])
    return table(["measured", "band holds", "median high / low", "power needed"], rows)


def _followed(results: harness.Results) -> str:
    untrained = {
        (cell.setting["net"], cell.setting["kind"]): cell.number("untrained")
        for cell in results.cells({"part": "measure"})
    }
    losses: dict[tuple[object, object, object], dict[str, list[float]]] = {}
    for cell in results.cells({"part": "train"}):
        if "way" in cell.setting:
            key = (cell.setting["net"], cell.setting["kind"], cell.setting["batch"])
            found, loss = losses.setdefault(key, {}), cell.number("loss")
            found.setdefault(str(cell.setting["way"]), []).append(WORST if loss is None else loss)
    ways = sorted({way for found in losses.values() for way in found})
    rows = [
        [*key, *(_told(found.get(way, []), untrained.get((key[0], key[1]))) for way in ways)]
        for key, found in losses.items()
    ]
    return table(["net", "optimiser", "batch", *ways], rows)


def _told(losses: Sequence[float], untrained: float | None) -> str | None:
    if not losses:
        return None
    diverged = sum(loss >= (untrained or WORST) for loss in losses)
    return f"{np.mean(losses):.4f}" + (f", {diverged} diverged" if diverged else "")


def _cost(results: harness.Results) -> str:
    """The longest training, because the goal is ten seconds."""
    cells = results.cells({"part": "train"})
    found = [(seconds, c) for c in cells if (seconds := c.number("cpu_seconds")) is not None]
    if not found:
        return ""
    longest, cell = max(found, key=lambda pair: pair[0])
    where = ", ".join(str(cell.setting[name]) for name in ("net", "kind", "batch"))
    total = sum(seconds for seconds, _ in found) / 3600
    return (
        f"{len(found)} trainings took {total:.2f} hours of one core; the longest took "
        f"{longest:.1f} s ({where})."
    )
