"""Does the noise scale say which batch is too large, and does a batch that grows save steps?

Two nets (`nets`) and two optimisers. From checkpoints of a training at batch 64, branches of 8,192
examples at batches 64 to 2,048 and three rates each give the critical batch (three seeds, averaged;
the rate falls to 0 over the second half of a branch). The rate of batch 64 is tuned first, by
octaves. Beside it stand B_simple and B_noise, measured at the same checkpoint, and the critical
batch that each predicts. At last a schedule is made from the branches, and a training from the
beginning follows it: its steps and loss against those of batch 64.

    python -m benchmarks.learning_rate.branching --data FOLDER
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from benchmarks.learning_rate import nets as lr_nets
from benchmarks.learning_rate.nets import BATCH, KINDS, Data, loss
from benchmarks.learning_rate.sweeps import sweep
from benchmarks.shared import harness
from benchmarks.shared.summaries import table
from noisewise.scaling import Branching, Estimate, Trial, batch_warmup, branch, calibrate

NAME = "learning_rate/branching"
NETS, OPTIMISERS, CHECKPOINTS = ("mlp", "transformer"), ("sgd", "adam"), (200, 800)
RATES = {"sgd": 0.1, "adam": 2e-3}  # of the checkpoints
_SEEDS = 3


class Bench:
    """One run of the program: its results, sizes and data."""

    def __init__(self, arguments: argparse.Namespace, results: harness.Results) -> None:
        """Read the data of each net."""
        self.results, self.quick = results, bool(arguments.quick)
        self.examples = 1024 if self.quick else 8192
        self.seeds = range(1 if self.quick else _SEEDS)
        self.batches = (128, 256) if self.quick else (128, 256, 512, 1024, 2048)
        held = 256 if self.quick else 2048
        self.data: dict[str, Data] = {}
        if "mlp" in arguments.nets:
            path = harness.data_file(arguments.data, "fashion_mnist_zalando.npz")
            self.data["mlp"] = lr_nets.garments(path, held)
        if "transformer" in arguments.nets:
            self.data["transformer"] = lr_nets.manual(held // 4)
        self._kept: dict[tuple[str, str, int], tuple[nn.Module, torch.optim.Optimizer]] = {}

    def run(self) -> None:
        """Net by net and checkpoint by checkpoint, then the schedules."""
        points = (20,) if self.quick else CHECKPOINTS
        for net in self.data:
            for kind in OPTIMISERS:
                found = [self._branches(net, kind, steps) for steps in points]
                setting = {"part": "grow", "net": net, "kind": kind, "examples": self.examples}
                self.results.cell(setting, lambda n=net, k=kind, f=found: self._grown(n, k, f))

    def _branches(self, net: str, kind: str, steps: int) -> Branching:
        where = {"net": net, "kind": kind, "checkpoint": steps, "examples": self.examples}
        tuned = self.results.cell(
            {"part": "tune", **where}, lambda: self._tuned(net, kind, steps)
        ).number("lr")
        assert tuned is not None
        cell = self.results.cell(
            {"part": "branch", **where},
            lambda: (
                {"found": self._branched(net, kind, steps, tuned).to_dict()}
                | self._noise(net, kind, steps)
            ),
        )
        stored = cell.values["found"]
        assert isinstance(stored, dict)
        return Branching.from_dict(stored)

    def _at(self, net: str, kind: str, steps: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        """A checkpoint, trained once; its users go on with copies."""
        key, data = (net, kind, steps), self.data[net]
        if key not in self._kept:
            found = lr_nets.checkpoint(net, data, kind, KINDS[kind], steps, RATES[kind])
            self._kept[key] = found
        return self._kept[key]

    def _tuned(self, net: str, kind: str, steps: int) -> harness.Values:
        """The octave that is best for branches of batch 64."""
        model, optimizer = self._at(net, kind, steps)

        def losses_at(lr: float) -> list[float]:
            return self._losses(net, model, optimizer, BATCH, lr, self.examples)

        rates, losses = sweep(losses_at, RATES[kind], 1.0, range(-1, 2), 12, 1)
        return {"lr": float(rates[int(np.argmin(losses.mean(0)))])}

    def _branched(self, net: str, kind: str, steps: int, lr: float) -> Branching:
        model, optimizer = self._at(net, kind, steps)

        def train(batch: int, rate: float, examples: int) -> float:
            return float(np.mean(self._losses(net, model, optimizer, batch, rate, examples)))

        return branch(
            train, batch=BATCH, lr=lr, examples=self.examples, batches=self.batches,
            powers=(0.5, 1.0) if self.quick else (0.5, 0.0, 1.0), seen=steps * BATCH,
        )  # fmt: skip

    def _losses(
        self, net: str, model: nn.Module, optimizer: torch.optim.Optimizer, batch: int, lr: float,
        examples: int,
    ) -> list[float]:  # fmt: skip
        """Held-out loss of a branch, for each seed."""
        found, data = [], self.data[net]
        for seed in self.seeds:
            twin, again = lr_nets.continued(model, optimizer, lr)
            seen = 0
            for step in lr_nets.batches(data, batch, examples, seed):
                again.param_groups[0]["lr"] = lr * min(1.0, 2 * (1 - seen / examples))
                again.zero_grad()
                loss(twin, step).backward()
                again.step()
                seen += batch
            found.append(_held_out(twin, data))
        return found

    def _noise(self, net: str, kind: str, steps: int) -> harness.Values:
        """B_simple and B_noise at the checkpoint."""
        model, optimizer = self._at(net, kind, steps)
        generator, data = torch.Generator().manual_seed(3), self.data[net]
        micro = [data.draw(BATCH, generator) for _ in range(16 if self.quick else 160)]
        found = calibrate(
            model, loss, micro, optimizer, batch=BATCH, probes=2 if self.quick else 32, seconds=60
        )
        return {"b_simple": found.b_simple.to_dict(), "b_noise": found.b_noise.to_dict()}

    def _grown(self, net: str, kind: str, found: list[Branching]) -> harness.Values:
        """A training from the beginning: batch 64, and the schedule."""
        rate = found[-1].lr0
        # Each checkpoint has its own tuned rate; the schedule is in multiples of one.
        warmup = batch_warmup([replace(one, lr0=rate, trials=_scaled(one, rate)) for one in found])
        total = round(found[-1].seen) + self.examples
        values: harness.Values = {"total": total, "text": warmup.text(total)}
        data, first = self.data[net], lr_nets.build(net, self.data[net], 0)
        for name in ("steady", "grown"):
            losses, steps = [], 0
            for seed in self.seeds:
                model = copy.deepcopy(first)
                optimizer = lr_nets.optimizer_for(model, kind, KINDS[kind], rate)
                order = torch.randint(
                    len(data.x), (total,), generator=torch.Generator().manual_seed(1000 + seed)
                )
                seen = steps = 0
                while seen < total:
                    now = warmup(seen)
                    batch, lr = (BATCH, rate) if name == "steady" else (now.batch, now.lr)
                    chosen = order[seen : seen + batch]
                    optimizer.param_groups[0]["lr"] = lr * min(1.0, 2 * (1 - seen / total))
                    optimizer.zero_grad()
                    loss(model, (data.x[chosen], data.y[chosen])).backward()
                    optimizer.step()
                    seen, steps = seen + len(chosen), steps + 1
                losses.append(_held_out(model, data))
            values |= {f"{name} loss": losses, f"{name} steps": steps}
        return values


def _scaled(one: Branching, rate: float) -> tuple[Trial, ...]:
    return tuple(replace(t, lr=t.lr * rate / one.lr0) for t in one.trials)


def _held_out(model: nn.Module, data: Data) -> float:
    with torch.no_grad():
        found = float(loss(model, data.held_out))
    return found if math.isfinite(found) else math.inf


def tables(results: harness.Results) -> list[str]:
    """Critical batches beside the noise scales, and what the schedules save."""
    rows = []
    for cell in results.cells({"part": "branch"}):
        stored = cell.values["found"]
        assert isinstance(stored, dict)
        found, row = Branching.from_dict(stored), [cell.setting[n] for n in _WHERE]
        row += [f"{found.lr0:.3g}", _interval(found.critical), f"{found.power:.2f}"]
        for name in ("b_simple", "b_noise"):
            values = cell.values[name]
            assert isinstance(values, Mapping)
            beside = replace(found, noise_scale=Estimate.from_dict(values))
            row += [_interval(beside.noise_scale), _interval(beside.predicted), _word(beside)]
        rows.append(row)
    columns = ["net", "optimiser", "checkpoint", "lr at 64", "critical", "power"]
    for name in ("B_simple", "B_noise"):
        columns += [name, "predicts", "agrees"]
    grown = [
        [
            c.setting["net"], c.setting["kind"], c.number("steady steps"),
            c.number("grown steps"), _mean(c, "steady loss"), _mean(c, "grown loss"),
        ]
        for c in results.cells({"part": "grow"})
    ]  # fmt: skip
    titles = ["net", "optimiser", "steps", "steps, growing", "loss", "loss, growing"]
    return [
        "Critical batch (largest good, smallest bad), the best rate's power of the batch, and what "
        "the noise scales predict; they agree if the intervals meet within a factor of two.",
        table(columns, rows),
        "A training from the beginning with batch 64, and with the schedule.",
        table(titles, grown),
    ]


_WHERE = ("net", "kind", "checkpoint")


def _interval(found: Estimate) -> str:
    if not found.known:
        return "not known"
    return f"{found.value:.0f} [{found.low:.0f}, {found.high:.0f}]"


def _word(found: Branching) -> str | None:
    return None if found.agrees is None else "yes" if found.agrees else "no"


def _mean(cell: harness.Cell, name: str) -> str:
    values = cell.numbers(name)
    return f"{np.mean(values):.4f}" if values else "-"


def main() -> None:
    """Run the missing cells and print the tables."""
    parser = harness.parser(__doc__ or "")
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--core", type=int, default=None, help="keep to it; none: the last one")
    arguments = parser.parse_args()
    arguments.nets = harness.names(arguments.nets, NETS, "net")
    conditions = harness.environment(1)
    harness.note(f"core {harness.keep_to_one_core(arguments.core)}, one thread")
    results = harness.Results(harness.results_file(arguments, NAME), conditions, arguments.redo)
    if not arguments.table_only:
        Bench(arguments, results).run()
    harness.publish(results, "Which batch is too large", tables(results))


if __name__ == "__main__":
    harness.run_program(main)
