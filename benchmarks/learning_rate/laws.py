"""Which law gives the best learning rate at another batch size: ours, the textbook's, two peers'.

One step: from a checkpoint, the optimiser's update of batch B is tried with many learning rates on
held-out data. The observed optimum is the minimum of a parabola in log lr, with a bootstrap over
draws. The grid of rates starts around our own law and grows until it contains the optimum; the
tables count the cases where it still does not. Every law is measured at batch 64 only, by
`calibrate`. Many steps: train on a budget of examples at each batch and learning rate, with several
seeds. Laws are compared by their ratios, after the best common factor ("factor error": exp of the
root mean square of the remaining logarithms).

Peers: gns-pytorch 0.1.5 (its noise scale in the same law), torch-lr-finder 0.2.2 (its suggestion at
each batch). If they are not installed, their columns are dashes.

    python -m benchmarks.learning_rate.laws --data FOLDER
    python -m benchmarks.learning_rate.laws --data FOLDER --parts one,edge --nets mlp
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from benchmarks.learning_rate import nets as lr_nets
from benchmarks.learning_rate import peers as lr_peers
from benchmarks.learning_rate.nets import BATCH, BATCHES, KINDS, WATCHED, Data, loss
from benchmarks.learning_rate.sweeps import at_an_edge, optimum, sweep
from benchmarks.shared import harness
from noisewise.scaling import Measurement, calibrate, sharpness, watch
from noisewise.scaling.curvature import Route, quadratic_form
from noisewise.scaling.flat import Flat, gradient
from noisewise.scaling.laws import SGD
from noisewise.scaling.rules import factors
from noisewise.scaling.updates import Updater

LR = {  # for training the checkpoints
    ("mlp", "sgd"): 0.1, ("mlp", "adam"): 1e-3, ("mlp", "adam large"): 5e-3,
    ("transformer", "sgd"): 0.5, ("transformer", "adam"): 2e-3,
    ("transformer", "adam large"): 2e-2,
}  # fmt: skip
# Micro-batches and probes: enough for errors of slope and curvature near 5 %.
MEASURED = {"mlp": (1600, 320), "transformer": (132, 32)}
PARTS = "one,edge,cost,many"
NETS = "mlp,transformer"
MANY_BATCHES = (16, 64, 256, 1024)
CHECKPOINTS = (100, 400, 1600)


def main() -> None:
    """Run the missing cells and print the tables."""
    parser = harness.parser(__doc__ or "")
    parser.add_argument("--parts", default=PARTS, help="which of " + PARTS)
    parser.add_argument("--nets", default=NETS, help="which of " + NETS)
    parser.add_argument(
        "--checkpoints",
        type=harness.numbers(int),
        default=list(CHECKPOINTS),
        help="training steps before each measurement",
    )
    parser.add_argument(
        "--seeds", type=harness.numbers(int), default=list(range(8)), help="for many-step sweeps"
    )
    parser.add_argument("--examples", type=int, default=16384, help="budget of a many-step run")
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    packages = ("noisewise", "torch", "numpy", "gns-pytorch", "torch-lr-finder")
    conditions = harness.environment(threads, packages)
    results = harness.Results(
        harness.results_file(arguments, "learning_rate/laws"), conditions, arguments.redo
    )
    if not arguments.table_only:
        _run(arguments, results)
    from benchmarks.learning_rate.figure import draw

    place = (
        harness.work_folder(arguments, "learning_rate/laws") if arguments.quick else harness.FIGURES
    )
    if draw(results, place / "lr_laws.svg"):
        harness.note(f"figure: {place / 'lr_laws.svg'}")
    harness.publish(results, "Learning rate against batch size", _tables(results))


def _run(arguments: argparse.Namespace, results: harness.Results) -> None:
    """Breadth first, so a stopped run has results for every net and optimiser."""
    quick, parts = arguments.quick, harness.names(arguments.parts, PARTS.split(","), "part")
    points = [20] if quick else arguments.checkpoints
    chosen = harness.names(arguments.nets, NETS.split(","), "net")
    nets = {net: _data(arguments, net, quick) for net in chosen}
    places = [
        {"net": net, "kind": kind, "checkpoint": steps}
        for steps in points for net in nets for kind in KINDS
    ]  # fmt: skip
    for where in places if "one" in parts else ():
        data, setting = nets[str(where["net"])], {"part": "one", **where}
        _again_if_cut_off(results, setting)
        results.cell(setting, lambda d=data, w=where: _one(d, w, quick))
    for where in places if "edge" in parts else ():
        setting = {"part": "edge", **where}
        results.cell(setting, lambda d=nets[str(where["net"])], w=where: _edge(d, w, quick))
    if "cost" in parts:
        wide = {lr_nets.WIDE: nets["transformer"]} if "transformer" in nets else {}
        for net, data in {**nets, **wide}.items():
            results.cell({"part": "cost", "net": net}, lambda d=data, n=net: _cost(d, n, quick))
    for seed in (arguments.seeds[:1] if quick else arguments.seeds) if "many" in parts else ():
        for where in places:
            budget = 512 if quick else arguments.examples
            data = nets[str(where["net"])]
            setting = {"part": "many", **where, "seed": seed, "examples": budget}
            _again_if_cut_off(results, setting)
            first = results.find({**setting, "seed": 0}) if seed else None
            results.cell(setting, lambda d=data, s=setting, f=first: _many(d, s, f, quick))


def _again_if_cut_off(results: harness.Results, setting: Mapping[str, object]) -> None:
    """Drop a sweep on the fixed grid of an earlier version whose optimum is at its end."""
    cell = results.find(setting)
    if cell is None or "widened" in cell.values:
        return
    for name, values in cell.values.items():
        if not name.isdigit():
            continue
        observed = values.get("observed") if isinstance(values, Mapping) else None
        cut = at_an_edge(values) if isinstance(values, list) else bool(observed) and not observed[0]
        if cut:
            results.forget(setting)
            return


def _data(arguments: argparse.Namespace, net: str, quick: bool) -> Data:
    if net == "transformer":
        return lr_nets.manual(256 if quick else 512)
    path = harness.data_file(arguments.data, "fashion_mnist_zalando.npz")
    return lr_nets.garments(path, 256 if quick else 8192)


def _at(data: Data, where: Mapping[str, object]) -> tuple[nn.Module, torch.optim.Optimizer]:
    net, kind, steps = str(where["net"]), str(where["kind"]), where["checkpoint"]
    assert isinstance(steps, int)
    return _trained_to(data, net, kind, steps)


@functools.cache
def _trained_to(
    data: Data, net: str, kind: str, steps: int
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A checkpoint; training continues on copies, so all seeds share one checkpoint."""
    return lr_nets.checkpoint(net, data, kind.split()[0], KINDS[kind], steps, LR[net, kind])


@functools.cache
def _centres(data: Data, net: str, kind: str, steps: int) -> dict[int, float]:
    """Centres of the grids of the many-step sweeps: half of our law, the same for every seed."""
    model, optimizer = _trained_to(data, net, kind, steps)
    micro = [data.draw(BATCH, torch.Generator().manual_seed(i)) for i in range(40)]
    law = calibrate(model, loss, micro, optimizer, batch=BATCH, probes=4).preconditioned()
    assert law is not None
    found = {}
    for batch in MANY_BATCHES:
        at = law.lr(batch) / 2
        found[batch] = 2.0 ** round(math.log2(at)) if math.isfinite(at) and at > 0 else 1e-3
    return found


# --------------------------------------------------------------------------------- one step
def _one(data: Data, where: Mapping[str, object], quick: bool) -> harness.Values:
    model, optimizer = _at(data, where)
    generator = torch.Generator().manual_seed(3)
    num_micro, probes = (24, 2) if quick else MEASURED[str(where["net"])]
    micro = [data.draw(BATCH, generator) for _ in range(num_micro)]
    start = time.perf_counter()
    found = calibrate(model, loss, micro, optimizer, batch=BATCH, probes=probes)
    seconds = time.perf_counter() - start
    values: harness.Values = {
        "widened": True,
        "calibrate_seconds": seconds,
        "g2": found.g2.to_dict(), "b_simple": found.b_simple.to_dict(),
        "b_noise": found.b_noise.to_dict(), "epsilon_share": found.epsilon_share,
        "curvature": {name: value.to_dict() for name, value in found.curvature.items()},
        "micro_batches": num_micro,
        "direct": [[p.batch, p.lr.value, p.lr.low, p.lr.high] for p in found.direct],
    }  # fmt: skip
    gns = lr_peers.gns_scale(model, data)
    values["gns_pytorch"] = gns
    g, sigma2 = lr_nets.truth(model, data, 16 if quick else 256)
    for batch in BATCHES[:2] if quick else BATCHES:
        values[str(batch)] = {
            "observed": _swept(model, optimizer, data, batch, found, (g, sigma2), quick),
            **_predictions(found, batch, gns),
            "finder": None if quick else lr_peers.finder(model, optimizer, data, batch),
        }
    return values


def _swept(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Data,
    batch: int,
    found: Measurement,
    true: tuple[torch.Tensor, torch.Tensor],
    quick: bool,
) -> list[float]:
    """The observed optimum of one step, from updates and the true v of this batch."""
    flat, generator = Flat(model), torch.Generator().manual_seed(50 + batch)
    updater, (g, sigma2) = Updater(optimizer, flat), true
    v = None if updater.second_moment() is None else g.square() + sigma2 / batch
    law = found.preconditioned()
    assert law is not None
    centre = law.lr(batch) if math.isfinite(law.lr(batch)) else updater.facts.lr
    most = 48 if isinstance(model, nn.Sequential) else 24
    draws = 2 if quick else int(min(most, max(8, 4096 // batch)))
    updates = [
        updater.update(gradient(flat, loss, data.draw(batch, generator)), v) for _ in range(draws)
    ]

    def losses_at(lr: float) -> list[float]:
        losses = []
        for u in updates:
            with flat.moved(-lr * u), torch.no_grad():
                losses.append(float(loss(model, data.held_out)))
        return losses

    if quick:
        rates, losses = sweep(losses_at, centre, 1.5, range(-1, 2), most=6, margin=1)
    else:
        rates, losses = sweep(losses_at, centre, 0.375, range(-6, 6))
    return list(optimum(np.log(rates), losses))


def _predictions(found: Measurement, batch: int, gns: float | None) -> dict[str, float | None]:
    """Absolute learning rates of each law; anchored rules pass through our own law at BATCH."""
    law, plain, closed = found.preconditioned(), found.sgd(), found.soft_sign()
    assert law is not None
    anchor, g2 = law.lr(BATCH), found.g2.value
    drift = found.curvature["g_h_g"].value
    simple = SGD(g2 / drift, max(0.0, found.b_simple.value)) if g2 > 0 and drift > 0 else None
    is_sgd = found.optimizer.family == "sgd"
    ratios = factors(found, batch, BATCH)
    values: dict[str, float | None] = {
        "preconditioned": law.lr(batch),
        "square root": anchor * ratios["square root"].value,
        "linear": anchor * ratios["linear"].value,
        "closed form": closed.lr(batch) if closed is not None else None,
    }
    for name, one in (("B_noise", plain), ("B_simple", simple)):
        if one is not None:
            # For Adam, SGD's law has no absolute rate: use its ratio, from our law at BATCH.
            values[name] = one.lr(batch) if is_sgd else anchor * one.lr(batch) / one.lr(BATCH)
    if gns is not None:
        values["gns-pytorch"] = anchor * (1 + gns / BATCH) / (1 + gns / batch)
    return values


def _edge(data: Data, where: Mapping[str, object], quick: bool) -> harness.Values:
    """The edge of stability, from the micro-batches that `calibrate` keeps for the Hessian."""
    model, optimizer = _at(data, where)
    generator = torch.Generator().manual_seed(3)
    kept = [data.draw(BATCH, generator) for _ in range(2 if quick else 16)]
    flat = Flat(model)
    updater = Updater(optimizer, flat)
    scale = updater.preconditioner(updater.second_moment())
    found = sharpness(flat, loss, kept, torch.Generator().manual_seed(0), scale)
    return {"sharpness": found.to_dict(), "edge": updater.facts.edge_times_sharpness / found.value}


# --------------------------------------------------------------------------------- many steps
def _many(
    data: Data, setting: Mapping[str, object], first_seed: harness.Cell | None, quick: bool
) -> harness.Values:
    """Held-out loss after the budget at each batch and learning rate, for one seed.

    The grid of the first seed starts around half of our law, the grids of the others around its
    best rate. All grids use the same octaves and are widened in the same way.
    """
    model, optimizer = _at(data, setting)
    seed, examples, steps = setting["seed"], setting["examples"], setting["checkpoint"]
    assert isinstance(seed, int)
    assert isinstance(examples, int)
    assert isinstance(steps, int)
    centres = _centres(data, str(setting["net"]), str(setting["kind"]), steps)
    values: harness.Values = {"widened": True}
    for batch in MANY_BATCHES[:2] if quick else MANY_BATCHES:

        def losses_at(lr: float, batch: int = batch) -> list[float]:
            return [_trained(model, optimizer, data, batch, lr, examples, seed)]

        first = range(-2, 2) if quick else range(-4, 4)
        step, most, margin = (2.0, 5, 1) if quick else (1.0, 24, 2)
        centre = centres[batch]
        if first_seed is not None:
            centre, first = _best_rate(first_seed, batch), range(-2, 3)
        rates, losses = sweep(losses_at, centre, step, first, most, margin)
        values[str(batch)] = [[float(r), float(x)] for r, x in zip(rates, losses[0], strict=True)]
    return values


def _best_rate(cell: harness.Cell, batch: int) -> float:
    """The rate of the lowest loss in a finished sweep, exactly as it was used."""
    pairs = cell.values[str(batch)]
    assert isinstance(pairs, list)
    known = [(loss, rate) for rate, loss in pairs if loss is not None]
    return min(known)[1]


def _trained(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, batch: int, lr: float,
    examples: int, seed: int,
) -> float:  # fmt: skip
    twin, again = lr_nets.continued(model, optimizer, lr)
    for step in lr_nets.batches(data, batch, examples, seed):
        again.zero_grad()
        loss(twin, step).backward()
        again.step()
    with torch.no_grad():
        return float(loss(twin, data.held_out))


# --------------------------------------------------------------------------------- overhead
def _cost(data: Data, net: str, quick: bool) -> harness.Values:
    """Processor seconds of a step of four micro-batches: plain, and with `watch`."""
    ways: dict[str, list[float]] = {name: [] for name in WATCHED}
    loops = {name: _loop(data, net, name) for name in ways}
    for _ in range(
        3 if quick else 10 if net == lr_nets.WIDE else 30
    ):  # in turns, so a change of the machine's speed affects all equally
        for name, run in loops.items():
            start = time.process_time()
            for _ in range(20):
                run()
            ways[name].append((time.process_time() - start) / 20)
    return {**ways, **_routes(data, net, quick)}


def _routes(data: Data, net: str, quick: bool) -> dict[str, list[float]]:
    """Processor seconds of a gradient and of v'Hv by each of the three routes, in turns."""
    flat = Flat(lr_nets.build(net, data, 0))
    batch = data.draw(BATCH, torch.Generator().manual_seed(0))
    v = torch.randn(flat.num_parameters, generator=torch.Generator().manual_seed(1))
    routes: tuple[Route, ...] = ("double_backward", "central_difference", "three_losses")
    taken: dict[str, list[float]] = {"gradient": [], **{name: [] for name in routes}}
    for _ in range(3 if quick else 10 if net == lr_nets.WIDE else 40):
        start = time.process_time()
        gradient(flat, loss, batch)
        taken["gradient"].append(time.process_time() - start)
        for route in routes:
            start = time.process_time()
            quadratic_form(flat, loss, batch, v, route)
            taken[route].append(time.process_time() - start)
    return taken


def _loop(data: Data, net: str, name: str):  # noqa: ANN202 (a closure)
    model, generator = lr_nets.build(net, data, 0), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    if WATCHED[name]:
        watch(model, optimizer, every=WATCHED[name], skip=0)

    def step() -> None:
        for _ in range(4):
            (loss(model, data.draw(16, generator)) / 4).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


# --------------------------------------------------------------------------------- tables
def _tables(results: harness.Results) -> list[str]:
    from benchmarks.learning_rate.tables import cost_table, many_tables, one_tables

    return [*one_tables(results), *many_tables(results), cost_table(results)]


if __name__ == "__main__":
    harness.run_program(main)
