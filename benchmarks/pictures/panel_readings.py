"""The finished cells of the judge's panel, as the numbers that tables and targets ask for."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.pictures import damages, panel_cells, panel_runs, panel_sets
from benchmarks.pictures.panel_sets import PanelSet, Spoilt
from benchmarks.pictures.quality_rank import rank_correlation
from benchmarks.shared import harness

RESAMPLES = 2000
TRUTHS = ("severe", "plain", "eye")  # what the measures of garments are compared with
MOST_STEPS = 8  # of the samplers that noisewise chooses from: 15 calls
UNDAMAGED = Spoilt(panel_sets.UNDAMAGED, 0.0)


class Readings:
    """Finished cells, sorted by what they measured."""

    def __init__(
        self, results: harness.Results, sets: Sequence[PanelSet], counts: Mapping[str, int],
        eye: Mapping[str, float],
    ) -> None:  # fmt: skip
        """Read the cells.

        Args:
            results: the file of the cells.
            sets: picture sets to read, in the order of the tables.
            counts: pictures of a judged set, by name of the set.
            eye: ranks by eye of garments, by output.
        """
        self.sets, self.eye = tuple(sets), dict(eye)
        self._damages: dict[tuple[str, Spoilt], dict[str, list[float]]] = {}
        self._outputs: dict[tuple[str, str], dict[tuple[str, object], list[float]]] = {}
        self._splits: dict[str, dict[str, list[float]]] = {}
        self._choices: dict[int, list[Mapping[str, dict[str, float]]]] = {}
        self._costs: dict[str, harness.Cell] = {}
        for cell in results.cells({}):
            name, part = str(cell.setting["set"]), str(cell.setting["part"])
            judged = part in ("damage", "output", "splits")  # the others have numbers of their own
            if name not in counts or (judged and cell.setting["num_images"] != counts[name]):
                continue
            getattr(self, f"_read_{part}")(name, cell)

    def _read_damage(self, name: str, cell: harness.Cell) -> None:
        what = Spoilt(str(cell.setting["damage"]), cell.asked("strength"))
        found = self._damages.setdefault((name, what), {})
        for measure in cell.values:
            if (number := cell.number(measure)) is not None:
                found.setdefault(measure, []).append(number)

    def _read_output(self, name: str, cell: harness.Cell) -> None:
        found = self._outputs.setdefault((name, str(cell.setting["output"])), {})
        for measure in cell.values:
            if (number := cell.number(measure)) is not None:
                found.setdefault((measure, cell.setting["judged_by"]), []).append(number)

    def _read_splits(self, name: str, cell: harness.Cell) -> None:
        found = self._splits.setdefault(name, {})
        for measure in cell.values:
            if numbers := cell.numbers(measure):
                found.setdefault(measure, []).extend(numbers)

    def _read_choice(self, name: str, cell: harness.Cell) -> None:
        kept = {m: v for m, v in cell.values.items() if isinstance(v, dict)}
        self._choices.setdefault(int(cell.asked("count")), []).append(kept)

    def _read_cost(self, name: str, cell: harness.Cell) -> None:
        self._costs[name] = cell

    # ----------------------------------------------------------------------------------- damages

    def damages(self, which: str) -> list[Spoilt]:
        """The measured damages of a set: families in their order, from weak to strong."""
        found = {what for name, what in self._damages if name == which}
        every = {d.name: d.strengths for d in damages.DAMAGES} | panel_sets.SET_DAMAGES
        return [
            what
            for name, strengths in every.items()
            for strength in strengths
            if (what := Spoilt(name, float(strength))) in found
        ]

    def damage(self, which: str, what: Spoilt, measure: str) -> float | None:
        """Median over draws of a damage; None if it was not measured."""
        found = self._damages.get((which, what), {}).get(measure)
        return statistics.median(found) if found else None

    def draws(self, which: str) -> int:
        """Number of draws of real pictures."""
        return len(self._damages.get((which, UNDAMAGED), {}).get("old", []))

    def above(self, which: str, damage: str, strength: float, measure: str) -> float | None:
        """Floors of a damage above those of undamaged pictures."""
        spoilt = self.damage(which, Spoilt(damage, strength), measure)
        plain = self.damage(which, UNDAMAGED, measure)
        return None if spoilt is None or plain is None else spoilt - plain

    # ----------------------------------------------------------------------------------- outputs

    def outputs(self, which: str) -> list[str]:
        """The measured outputs of a set, in the order of the panel."""
        return [o.name for o in panel_runs.OUTPUTS if (which, o.name) in self._outputs]

    def judging(self, which: str) -> list[object]:
        """The teachers that judged the outputs of a set, the best first; None: no teacher."""
        found = {
            run
            for (name, _), values in self._outputs.items()
            if name == which
            for measure, run in values
            if measure == "judge"
        }
        order = [*panel_sets.SETS[which].teachers, None]
        return [run for run in order if run in found]

    def output(
        self, which: str, output: str, measure: str, judged_by: object = ""
    ) -> float | None:  # fmt: skip
        """Median over draws of an output, judged by the best teacher or by the one given."""
        if measure == "eye":
            return self.eye.get(output) if which == "garments" else None
        found = self._outputs.get((which, output), {})
        runs = [judged_by] if judged_by != "" else [*self.judging(which), None]
        values = next((v for run in runs if (v := found.get((measure, run)))), None)
        return statistics.median(values) if values else None

    def correlation(self, measure: str, truth: str) -> tuple[float, float, float, int] | None:
        """Spearman's correlation over the garments outputs, its interval, and their number."""
        pairs = [
            (x, y)
            for name in self.outputs("garments")
            if (x := self.output("garments", name, measure)) is not None
            and (y := self.output("garments", name, truth)) is not None
        ]
        if len(pairs) < 4:
            return None
        table = np.array(pairs)
        rng, drawn = np.random.default_rng(0), []
        for _ in range(RESAMPLES):
            rows = table[rng.integers(len(table), size=len(table))]
            if np.ptp(rows[:, 0]) > 0 and np.ptp(rows[:, 1]) > 0:
                drawn.append(rank_correlation(rows[:, 0], rows[:, 1]))
        low, high = np.quantile(drawn, [0.025, 0.975])
        return rank_correlation(*table.T), float(low), float(high), len(table)

    # --------------------------------------------------------------------- real, choices, costs

    def splits(self, which: str) -> dict[str, list[float]]:
        """Floors of splits of real pictures, by measure."""
        return self._splits.get(which, {})

    def best_sampler(self, truth: str) -> str | None:
        """The sampler that a truth puts first, of those that noisewise may choose."""
        found = {
            name: value
            for name, (steps, _) in panel_runs.SAMPLERS.items()
            if steps <= MOST_STEPS and (value := self.output("garments", name, truth)) is not None
        }
        return min(found, key=lambda name: found[name]) if found else None

    def chosen(self, measure: str, count: int, near: float = 0.0) -> list[str]:
        """The sampler that a measure chooses, for each subset.

        Args:
            measure: in floors.
            count: pictures of a subset.
            near: of those that are at most this share of the lowest value above it, the one with
                the fewest calls is chosen.
        """
        chosen = []
        for cell in self._choices.get(count, []):
            values = {
                name: value
                for name, value in cell.get(measure, {}).items()
                if panel_runs.SAMPLERS[name][0] <= MOST_STEPS
            }
            if values:
                lowest = min(values.values())
                equal = [n for n, value in values.items() if value <= lowest + near * abs(lowest)]
                fewest = min(panel_runs.SAMPLERS[name][0] for name in equal)
                few = [name for name in equal if panel_runs.SAMPLERS[name][0] == fewest]
                chosen.append(min(few, key=lambda name: values[name]))
        return chosen

    def preferred(self, measure: str, count: int, better: str, worse: str) -> tuple[int, int]:
        """In how many subsets a measure prefers the better of two samplers, and of how many."""
        found = [cell[measure] for cell in self._choices.get(count, []) if measure in cell]
        both = [values for values in found if better in values and worse in values]
        return sum(values[better] < values[worse] for values in both), len(both)

    def cost(self, which: str) -> harness.Cell | None:
        """Seconds of each measure; see `panel_measures.seconds`."""
        return self._costs.get(which)


def counts_of(asked: panel_cells.Asked) -> dict[str, int]:
    """Pictures of a judged set, by name of the set."""
    return {which.name: asked.count(which) for which in asked.sets}
