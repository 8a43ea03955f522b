"""Does the band of the advice hold the best rate, and is the advice better than the square root?

Four nets (`band_nets`) and two optimisers, all chosen before the first run. Each training sees
16,384 examples with a warm-up and a cosine. First the rate is tuned at batch 32: octaves until the
best one is inside, then half octaves beside it, five seeds; the optimum is a parabola in log lr.
Then one training at this rate is watched, and calibrated after 10, 33 and 67 % of it. From this the
advice says the rates of batches 8, 128 and 512; the truth is tuned there in the same way. At last
the advice is followed: with its rate and settings, with its rate and the old settings, and with the
square root.

Goals, set before the first run: the band holds the truth in 9 of 10 cases; the geometric mean of
the factor errors is 1.25 or less for each optimiser when the whole training was watched; no case is
worse than the square root by more than its band; following the advice never diverges where keeping
beta2 does not.

The tables also say by which power of B / B_0 each band had to be widened to hold the truth: its
90 % quantiles are the constants of noisewise/scaling/band.py.

    python -m benchmarks.learning_rate.band --data FOLDER
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence

import torch

from benchmarks.learning_rate import band_nets
from benchmarks.learning_rate.band_nets import KINDS, NETS, Settings
from benchmarks.learning_rate.nets import Data, batches
from benchmarks.learning_rate.sweeps import WORST, halves_optimum, lowest
from benchmarks.shared import harness
from noisewise.scaling import Measurement, advise, calibrate, watch

NAME = "learning_rate/band"
BASE, OTHERS = 32, (8, 128, 512)
POINTS = (0.1, 1 / 3, 2 / 3)  # of the training, where it is calibrated
_MICRO = 64  # micro-batches of a calibration
_MOST = 14  # octaves; then the optimum counts as outside
WAYS = ("advice", "advice, old settings", "square root")


class Bench:
    """One run of the program: its results, sizes and data."""

    def __init__(self, arguments: argparse.Namespace, results: harness.Results) -> None:
        """Read the data of each net."""
        self.results, self.quick = results, bool(arguments.quick)
        self.examples = 2048 if self.quick else int(arguments.examples)
        self.seeds: list[int] = arguments.seeds[:1] if self.quick else arguments.seeds
        self.nets: list[str] = arguments.nets
        self.data: dict[str, Data] = {}
        if not arguments.table_only:
            for net in self.nets:
                self.data[net] = band_nets.data_of(
                    net, lambda name: harness.data_file(arguments.data, name), self.quick
                )

    def run(self) -> None:
        """Net by net, so a stopped program has finished nets."""
        for net in self.nets:
            for kind in KINDS:
                self._one(net, kind)

    def _one(self, net: str, kind: str) -> None:
        tuned = self.tuned(net, kind, BASE, band_nets.CENTRES[kind])
        rate = tuned[0]
        if self.quick and not math.isfinite(rate):
            rate = 2.0 ** band_nets.CENTRES[kind]
        if not math.isfinite(rate):
            harness.note(f"{net}, {kind}: no rate of batch {BASE} is inside the octaves tried")
            return
        setting = {"part": "measure", "net": net, "kind": kind, "examples": self.examples}
        measured = self.results.cell(setting, lambda: self._measured(net, kind, rate))
        for batch in OTHERS[:1] if self.quick else OTHERS:
            power = 1.0 if kind == "sgd" else 0.5
            self.tuned(net, kind, batch, round(math.log2(rate * (batch / BASE) ** power)))
            self._follow(net, kind, batch, rate, measured)

    def _train(
        self, net: str, kind: str, batch: int, lr: float, seed: int, settings: Settings,
        way: Mapping[str, object],
    ) -> float:  # fmt: skip
        """One training as one cell; its held-out loss, WORST if it diverged."""
        where = {"part": "train", "net": net, "kind": kind, "batch": batch, "seed": seed}

        def run() -> harness.Values:
            start = time.process_time()
            loss = band_nets.trained(
                net, kind, self.data[net], batch, lr, self.examples, seed, settings
            )
            return {"lr": lr, "loss": loss, "cpu_seconds": time.process_time() - start}

        cell = self.results.cell({**where, "examples": self.examples, **way}, run)
        found = cell.number("loss")
        return WORST if found is None else min(found, WORST)

    def tuned(self, net: str, kind: str, batch: int, centre: int) -> tuple[float, float, float]:
        """The best rate at a batch with a 95 % bootstrap over seeds; nan if it is outside."""
        found: dict[float, list[float]] = {}

        def add(octaves: Sequence[float]) -> None:
            for k in octaves:
                if k not in found:
                    found[k] = [
                        self._train(net, kind, batch, 2.0**k, seed, {}, {"octave": k})
                        for seed in self.seeds
                    ]

        if self.quick:
            add(range(centre - 4, centre + 5, 2))
            return halves_optimum(found)
        add(range(centre - 2, centre + 3))
        while len(found) < _MOST:
            best, places = lowest(found), sorted(found)
            if places[0] < best < places[-1]:
                break
            add([best - 1] if best == places[0] else [best + 1])
        best = lowest(found)
        add([best - 0.5, best + 0.5])
        return halves_optimum(found)

    def _measured(self, net: str, kind: str, lr: float) -> harness.Values:
        """What `watch` and three calibrations say about one training at the tuned rate."""
        data, steps = self.data[net], self.examples // BASE
        model = band_nets.build(net, self.seeds[0])
        begun = band_nets.held_out(model, data)
        optimizer = band_nets.optimizer_for(model, kind, lr, {})
        schedule = band_nets.scheduled(optimizer, steps)
        monitor = watch(model, optimizer, every=4, total_steps=steps)
        stops = {round(share * steps): share for share in POINTS}
        values: harness.Values = {"lr": lr, "untrained": begun}
        for i, step in enumerate(batches(data, BASE, self.examples, self.seeds[0])):
            if i in stops:
                found = self._calibrated(model, data, optimizer, stops[i])
                values[f"after {100 * stops[i]:.0f} %"] = found.to_dict()
            band_nets.watched_step(model, step, optimizer)
            schedule.step()
        values["watch"] = monitor.measurement().to_dict()
        monitor.remove()
        return values

    def _calibrated(
        self, model: torch.nn.Module, data: Data, optimizer: torch.optim.Optimizer, share: float
    ) -> Measurement:
        generator = torch.Generator().manual_seed(round(1000 * share))
        micro = [data.draw(BASE, generator) for _ in range(16 if self.quick else _MICRO)]
        return calibrate(
            model, band_nets.loss, micro, optimizer, batch=BASE, after=share,
            probes=2 if self.quick else 16,
        )  # fmt: skip

    def _follow(self, net: str, kind: str, batch: int, rate: float, measured: harness.Cell) -> None:
        """Train as the advice says, with the old settings, and by the square root."""
        stored = measured.values["watch"]
        assert isinstance(stored, Mapping)
        found = advise(Measurement.from_dict(stored), batch=batch, batch0=BASE, lr=rate)
        settings = {"beta2": found.beta2, "weight_decay": found.weight_decay}
        rates = {WAYS[0]: found.lr, WAYS[1]: found.lr, WAYS[2]: rate * math.sqrt(batch / BASE)}
        for way, lr in rates.items():
            for seed in self.seeds[:3]:
                changed = settings if way == WAYS[0] else {}
                self._train(net, kind, batch, lr, seed, changed, {"way": way})


def main() -> None:
    """Run the missing cells and print the tables."""
    parser = harness.parser(__doc__ or "")
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--seeds", type=harness.numbers(int), default=[0, 1, 2, 3, 4])
    parser.add_argument("--examples", type=int, default=16384, help="of each training")
    parser.add_argument("--core", type=int, default=None, help="keep to it; none: the last one")
    arguments = parser.parse_args()
    arguments.nets = harness.names(arguments.nets, NETS, "net")
    conditions = harness.environment(1)
    harness.note(f"core {harness.keep_to_one_core(arguments.core)}, one thread")
    results = harness.Results(harness.results_file(arguments, NAME), conditions, arguments.redo)
    bench = Bench(arguments, results)
    if not arguments.table_only:
        bench.run()
    from benchmarks.learning_rate.band_tables import tables

    harness.publish(results, "The band of the advice", tables(results))


if __name__ == "__main__":
    harness.run_program(main)
