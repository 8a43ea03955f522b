"""What the judge must do: each target with its figure, for the table "must hold"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.pictures import panel_cells
from benchmarks.pictures.panel_readings import Readings
from benchmarks.pictures.panel_sets import Spoilt
from benchmarks.shared import summaries

Figure = Callable[[Readings], float | None]
BETTER, WORSE = "h9_0.3", "h7_0.5"


@dataclass(frozen=True)
class Target:
    """One target: the figure must be at least, or at most, the bound."""

    text: str
    bound: float
    figure: Figure
    at_least: bool = True

    def row(self, readings: Readings) -> list[object]:
        """Text, bound, figure, and whether it holds."""
        found = self.figure(readings)
        sign = ">=" if self.at_least else "<="
        held = None
        if found is not None:
            right = found >= self.bound if self.at_least else found <= self.bound
            held = "yes" if right else "NO"
        return [self.text, f"{sign} {self.bound:g}", found, held]


def _correlation(truth: str) -> Figure:
    def figure(readings: Readings) -> float | None:
        found = readings.correlation("judge", truth)
        return found[0] if found else None

    return figure


def _ratio(which: str, output: str, beside: str) -> Figure:
    """Floors of an output over those of another one."""

    def figure(readings: Readings) -> float | None:
        found, base = (readings.output(which, name, "judge") for name in (output, beside))
        return found / base if found is not None and base is not None and base > 0 else None

    return figure


def _worse(which: str, output: str, beside: str, draws: str) -> Figure:
    """Floors of an output minus those of another one, by each teacher that judges: the least."""

    def figure(readings: Readings) -> float | None:
        found = []
        for run in readings.judging(which):
            x, y = (
                readings.output(which, f"{name}_{draws}", "judge", run) for name in (output, beside)
            )
            if x is not None and y is not None:
                found.append(x - y)
        return min(found) if found else None

    return figure


def _floors(which: str, damage: str, strength: float) -> Figure:
    return lambda readings: readings.damage(which, Spoilt(damage, strength), "judge")


def _above(which: str, damage: str, strength: float) -> Figure:
    return lambda readings: readings.above(which, damage, strength, "judge")


def _away(which: str, damage: str, strength: float) -> Figure:
    def figure(readings: Readings) -> float | None:
        found = readings.above(which, damage, strength, "judge")
        return None if found is None else abs(found)

    return figure


def _as_real(which: str) -> Figure:
    """In how many of 100 splits real pictures are at most one floor away."""

    def figure(readings: Readings) -> float | None:
        found = readings.splits(which).get("judge", [])
        return 100 * sum(value <= 1 for value in found) / len(found) if found else None

    return figure


def _seconds(which: str) -> Figure:
    def figure(readings: Readings) -> float | None:
        found = readings.cost(which)
        return found.number("judge_judged") if found else None

    return figure


def _chosen(readings: Readings) -> float | None:
    """Of 16 draws, in how many the judge prefers the better sampler; in proportion if fewer."""
    won, of = readings.preferred("judge", max(panel_cells.COUNTS), BETTER, WORSE)
    return panel_cells.SUBSETS * won / of if of else None


def _colour(which: str, title: str) -> list[Target]:
    return [
        Target(f"{title}: {damage} {strength:g}, floors", 1.5, _floors(which, damage, strength))
        for damage, strength in (("hue", 0.06), ("palette", 0.15), ("stains", 0.15))
    ]


def _splits(which: str, title: str) -> Target:
    return Target(f"{title}: real, of 100 splits at most 1 floor", 95, _as_real(which))


USUAL = (
    Target("garments: rank correlation with the severe judge", 0.85, _correlation("severe")),
    Target("garments: rank correlation with the plain judge", 0.75, _correlation("plain")),
    Target("garments: rank correlation with the eye", 0.85, _correlation("eye")),
    Target(
        "garments, 35 calls: a quarter of the training is so many times as far", 2,
        _ratio("garments", "garments_early_h35", "h35_0.05"),
    ),
    Target("garments: noise 0.1, floors", 15, _floors("garments", "noise", 0.1)),
    Target("garments: stains 0.4, floors", 10, _floors("garments", "stains", 0.4)),
    Target("garments: warp 1.5, floors", 12, _floors("garments", "warp", 1.5)),
    Target(
        "garments: noise 0.01, floors away from undamaged", 0.3,
        _away("garments", "noise", 0.01), at_least=False,
    ),
    _splits("garments", "garments"),
    _splits("tiles", "tiles"),
    _splits("fluent", "3D emoji, 64 px"),
    _splits("fluent_128", "3D emoji, 128 px"),
    _splits("opacity", "3D emoji, RGBA"),
    Target("128 px: noise 0.1, floors above undamaged", 40, _above("fluent_128", "noise", 0.1)),
    Target("128 px: blur 0.8, floors above undamaged", 12, _above("fluent_128", "blur", 0.8)),
    Target("128 px: JPEG 25, floors above undamaged", 1, _above("fluent_128", "JPEG", 25)),
    *_colour("tiles", "tiles"),
    Target(
        "tiles, own samplers: floors of 15 minutes above those of an hour", 0,
        _worse("tiles", "tiles_15", "tiles_60", "own"),
    ),
    Target(
        "tiles, 35 calls: floors of 15 minutes above those of an hour", 0,
        _worse("tiles", "tiles_15", "tiles_60", "h35"),
    ),
    Target(f"of 16 draws of 256 pictures, {BETTER} before {WORSE}", 13, _chosen),
    Target("28 px: seconds for 500 pictures", 1, _seconds("garments"), at_least=False),
    Target("128 px: seconds for 500 pictures", 4, _seconds("fluent_128"), at_least=False),
)  # fmt: skip
SET_ASIDE = (
    _splits("emoji", "emoji"),
    *_colour("emoji", "emoji"),
    Target(
        "emoji: noise 0.01, floors away from undamaged", 0.3,
        _away("emoji", "noise", 0.01), at_least=False,
    ),
    Target(
        "emoji, 35 calls: a quarter of the training is so many times as far", 2,
        _ratio("emoji", "emoji_early_h35", "emoji_h35"),
    ),
    Target(
        "3D emoji, 35 calls: a quarter of the training is so many times as far", 2,
        _ratio("fluent", "fluent_early_h35", "fluent_h35"),
    ),
)  # fmt: skip


def table(readings: Readings, set_aside: bool) -> str:
    """The table "must hold"; a dash: not measured."""
    targets = SET_ASIDE if set_aside else USUAL
    rows = [target.row(readings) for target in targets]
    return summaries.table(["what must hold", "target", "figure", "holds"], rows)
