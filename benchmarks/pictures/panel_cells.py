"""The measurements of the judge's panel, cell by cell; a finished cell is not run again.

A cell stores what it depends on (the digests of features and models) as its stamp. If that has
changed, because a model was trained again, the cell runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.pictures import panel_measures, panel_runs, panel_sets
from benchmarks.pictures.panel_measures import Extractors, Measures
from benchmarks.pictures.panel_sets import PanelSet, Spoilt
from benchmarks.shared import harness, judge

BLOCK = 10  # splits of one cell
COUNTS = (80, 256)  # pictures with which a sampler is chosen
SUBSETS = 16
NUM_CHOOSING = 300  # real pictures with which a sampler is chosen, as many as a run holds out
NUM_COST = 500  # pictures whose judging is timed
LARGEST_NET = 32  # side of the largest damaged pictures that a net is trained to tell apart
PARTS = ("damage", "output", "splits", "choice", "cost")


@dataclass(frozen=True)
class Asked:
    """What to run.

    Attributes:
        data: folder with the picture sets.
        runs: folder with the trained runs.
        drawn: folder with drawn pictures.
        sets: the sets.
        parts: of `PARTS`.
        set_aside: run the part that is set aside, instead of the usual one.
        seeds: draws of real pictures and of damages.
        num_images: pictures of a judged set; None: as the set says.
        num_splits: splits of real pictures.
        quick: only the strongest damage of each family, no net.
    """

    data: str | None
    runs: Path
    drawn: Path
    sets: tuple[PanelSet, ...]
    parts: tuple[str, ...]
    set_aside: bool
    seeds: int = 3
    num_images: int | None = None
    num_splits: int = 100
    quick: bool = False

    def count(self, which: PanelSet) -> int:
        """Pictures of a judged set."""
        return self.num_images or which.num_images


class Panel:
    """Runs the missing cells of one picture set."""

    def __init__(
        self, asked: Asked, which: PanelSet, results: harness.Results, bench: judge.Bench | None
    ) -> None:
        """Nothing is read or computed before a cell needs it."""
        self.asked, self.which, self.results = asked, which, results
        self.bench = bench if which.name == "garments" else None
        self.count = asked.count(which)

    @cached_property
    def pictures(self) -> panel_sets.Pictures:
        """The real pictures."""
        return panel_sets.load(self.which, self.asked.data)

    @cached_property
    def teachers(self) -> list[str]:
        """Runs with a finished teacher that may judge, the best first."""
        found = [
            name
            for name in self.which.teachers
            if panel_runs.digest(self.asked.runs / name, "teacher")
        ]
        if self.which.teachers and not found:
            harness.note(f"{self.which.name}: no finished teacher, judged by frozen features only")
        return found

    def extractors(self, run: str | None) -> Extractors:
        """Features with a run's teacher; those of real pictures are computed once."""
        made = Extractors(panel_runs.teacher(self.asked.runs, run) if run else None)
        made.remember(self.pictures.images)
        return made

    @cached_property
    def main(self) -> Extractors:
        """The features with the best teacher."""
        return self.extractors(self.teachers[0] if self.teachers else None)

    def measures(self, seed: int, extractors: Extractors | None = None) -> Measures:
        """All measures against the reference of one draw."""
        reference = panel_sets.divide(self.pictures, self.count, seed).reference
        return Measures(reference, extractors or self.main, self.bench)

    def run(self) -> None:
        """Run the missing cells of all parts that were asked for."""
        for part in self.asked.parts:
            getattr(self, f"_{part}")()

    def _cell(
        self, setting: harness.Setting, stamp: str, compute: Callable[[], harness.Values]
    ) -> None:
        """Run a cell that is missing or has another stamp."""
        found = self.results.find(setting)
        if found is None or found.values.get("stamp") != stamp:
            self.results.run(setting, lambda: {**compute(), "stamp": stamp})

    # ----------------------------------------------------------------------------------- damages

    def _damage(self) -> None:
        channels = self.pictures.images.shape[1]
        families = panel_sets.families(self.which, channels, self.asked.set_aside)
        wanted = [Spoilt(panel_sets.UNDAMAGED, 0.0)]
        for name, strengths in families.items():
            wanted += [Spoilt(name, s) for s in strengths[-1 if self.asked.quick else 0 :]]
        for seed in range(self.asked.seeds):
            measures = self.measures(seed)
            division = panel_sets.divide(self.pictures, self.count, seed)
            for what in wanted:
                self._damaged(what, seed, measures, division)

    def _damaged(
        self, what: Spoilt, seed: int, measures: Measures, division: panel_sets.Division
    ) -> None:
        spoilt: list[Tensor] = []  # made once, and only if a measure is missing

        def images() -> Tensor:
            if not spoilt:
                spoilt.append(panel_sets.spoilt(division, self.count, what, seed))
            return spoilt[0]

        for group, measure in self._groups(measures, seed):
            setting = {
                "part": "damage", "set": self.which.name, "damage": what.damage,
                "strength": what.strength, "seed": seed, "num_images": self.count,
                "measure": group,
            }  # fmt: skip
            self._cell(setting, measures.stamp(group), lambda m=measure: m(images()))

    def _groups(
        self, measures: Measures, seed: int
    ) -> Iterator[tuple[str, Callable[[Tensor], harness.Values]]]:
        """The groups of measures of one draw; a net is trained for the first draw only."""
        for group, measure in measures.groups().items():
            small = self.pictures.images.shape[2] <= LARGEST_NET
            if group == panel_measures.NET and (seed > 0 or not small or self.asked.quick):
                continue
            yield group, measure

    # ----------------------------------------------------------------------------------- outputs

    def drawn(self, output: panel_runs.Output) -> panel_runs.Drawn | None:
        """An output's pictures; of garments twice as many, since samplers are chosen with them."""
        wanted = self.count * (2 if self.which.name == "garments" and not self.asked.quick else 1)
        return panel_runs.drawn(output, self.asked.runs, self.asked.drawn, wanted)

    def _output(self) -> None:
        pools: dict[str, panel_runs.Drawn] = {}
        for output in panel_runs.outputs(self.asked.set_aside):
            if output.set == self.which.name:
                found = self.drawn(output)
                if found is None:
                    harness.note(f"{output.name}: no pictures and no run {output.run}; left out")
                else:
                    pools[output.name] = found
        for place, run in enumerate(self.teachers or [None]):
            measures = self.measures(0, self.main if place == 0 else self.extractors(run))
            for name, found in pools.items():
                for draw in range(len(found.images) // self.count):
                    self._judge_output(name, pools, draw, measures, run, place == 0)

    def _judge_output(
        self, name: str, pools: dict[str, panel_runs.Drawn], draw: int, measures: Measures,
        judged_by: str | None, is_main: bool,
    ) -> None:  # fmt: skip
        drawn = pools[name]
        for group, measure in measures.groups().items():
            if group != panel_measures.JUDGED and not is_main:
                continue  # the other measures do not depend on the judging teacher
            if group in (panel_measures.NET, panel_measures.TRAINED) and draw > 0:
                continue
            if group == panel_measures.NET and self.asked.quick:
                continue
            images = drawn.images[draw * self.count : (draw + 1) * self.count]
            stamp = f"{measures.stamp(group)} on {drawn.model}"
            if group == panel_measures.TRAINED:
                # They are the truth of the panel, so they get all pictures. A Frechet distance
                # falls as pictures are added, so they get as many of every output.
                images = drawn.images[: min(len(pool.images) for pool in pools.values())]
                stamp += f", {len(images)} pictures"
            setting = {
                "part": "output", "set": self.which.name, "output": name,
                "judged_by": judged_by if group == panel_measures.JUDGED else None, "draw": draw,
                "num_images": self.count, "measure": group,
            }  # fmt: skip
            self._cell(setting, stamp, lambda m=measure, x=images: m(x))

    # ------------------------------------------------------------------------------- real pictures

    def _splits(self) -> None:
        if self.asked.set_aside and not self.which.set_aside:
            return
        for block in range(-(-self.asked.num_splits // BLOCK)):
            size = min(BLOCK, self.asked.num_splits - block * BLOCK)
            setting = {
                "part": "splits", "set": self.which.name, "block": block, "size": size,
                "num_images": self.count,
            }  # fmt: skip
            measures = self.measures(0)
            stamp = f"{measures.stamp(panel_measures.JUDGED)} {measures.stamp(panel_measures.OLD)}"
            seeds = range(100 + block * BLOCK, 100 + block * BLOCK + size)
            self._cell(setting, stamp, lambda s=seeds: self._judge_splits(s))

    def _judge_splits(self, seeds: range) -> harness.Values:
        found: dict[str, list[float]] = {}
        for seed in seeds:
            division = panel_sets.divide(self.pictures, self.count, seed)
            values = self._floors(division.reference, division.others[: self.count])
            for name, value in values.items():
                found.setdefault(name, []).append(value)
        return dict(found)

    def _floors(self, reference: Tensor, images: Tensor) -> dict[str, float]:
        """All measures in floors."""
        measures = Measures(reference, self.main)
        found = measures.judge.measure(images)
        parts = {panel_measures.part_of(part): part.ratio for part in found.parts}
        return {"judge": found.value, **parts, "old": measures.old.distance(images).ratio}

    # -------------------------------------------------------------------------------- the choice

    def _choice(self) -> None:
        if self.which.name != "garments" or self.asked.set_aside:
            return
        names = set(panel_runs.SAMPLERS)
        wanted = [o for o in panel_runs.OUTPUTS if o.set == "garments" and o.name in names]
        pools = {o.name: found for o in wanted if (found := self.drawn(o)) is not None}
        if len(pools) < 2:
            harness.note("choice: pictures of fewer than two samplers; left out")
            return
        models = sorted({drawn.model for drawn in pools.values()})
        measures = self.measures(0)
        stamp = f"{measures.stamp(panel_measures.JUDGED)} on {' '.join(models)}"
        for count in COUNTS:
            for subset in range(2 if self.asked.quick else SUBSETS):
                setting = {
                    "part": "choice", "set": "garments", "count": count, "subset": subset,
                    "samplers": len(pools),
                }  # fmt: skip
                self._cell(
                    setting, stamp, lambda c=count, s=subset: self._judge_subset(pools, c, s)
                )

    def _judge_subset(
        self, pools: dict[str, panel_runs.Drawn], count: int, subset: int
    ) -> harness.Values:
        """Each measure of each sampler, with the same noise for all, and new real pictures."""
        division = panel_sets.divide(self.pictures, self.count, subset, NUM_CHOOSING)
        measures = Measures(division.reference, self.main)
        generator = torch.Generator().manual_seed(subset)
        size = min(len(drawn.images) for drawn in pools.values())
        chosen = torch.randperm(size, generator=generator)[:count]
        found: dict[str, dict[str, float]] = {}
        for name, drawn in pools.items():
            images = drawn.images[chosen]
            judged = measures.judge.measure(images)
            found.setdefault("judge", {})[name] = judged.value
            found.setdefault("old", {})[name] = measures.old.distance(images).ratio
            for part in judged.parts:
                found.setdefault(panel_measures.part_of(part), {})[name] = part.ratio
        return dict(found)

    # ------------------------------------------------------------------------------------- costs

    def _cost(self) -> None:
        if self.asked.set_aside or self.which.opacity:
            return
        run = self.teachers[0] if self.teachers else None
        num = min(NUM_COST, self.count) if self.asked.quick else NUM_COST

        def compute() -> harness.Values:
            division = panel_sets.divide(self.pictures, num, 0)
            model = panel_runs.teacher(self.asked.runs, run) if run else None
            values = panel_measures.seconds(division.others[:num], division.reference, model)
            return values | {"reference": len(division.reference)}

        setting = {"part": "cost", "set": self.which.name, "num_images": num}
        self._cell(setting, self.measures(0).stamp(panel_measures.JUDGED), compute)
