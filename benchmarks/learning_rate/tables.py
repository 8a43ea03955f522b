"""The tables of `laws.py`: predicted over observed, factor errors, overhead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.learning_rate.nets import BATCH, BATCHES, KINDS, WATCHED
from benchmarks.learning_rate.sweeps import WORST, optimum
from benchmarks.shared import harness
from benchmarks.shared.summaries import ratio, summarise, table
from noisewise.scaling.stability import bent

LAWS = (
    "preconditioned", "B_noise", "B_noise, level", "B_simple", "alpha 1/2", "square root", "linear",
    "constant", "closed form", "gns-pytorch", "finder",
)  # fmt: skip
MANY_LAWS = ("edge", *(law for law in LAWS if law not in ("closed form", "finder")))


def one_tables(results: harness.Results) -> list[str]:
    """Predicted over observed at every batch, and the factor errors of the laws.

    "B_noise, level" is the law of B_noise up to that batch, and constant above it; "alpha 1/2" is
    (1 + B_simple / B)^(-1/2). The advice uses these for SGD, and for Adam without curvature.
    """
    cells = results.cells({"part": "one"})
    rows = []
    for net in ("mlp", "transformer"):
        for kind in KINDS:
            here = [c for c in cells if c.setting["net"] == net and c.setting["kind"] == kind]
            for cell in here:
                rows.append((net, kind, cell.setting["checkpoint"], *_ratios(cell)))
    first = table(
        [
            "one step: net",
            "optimiser",
            "checkpoint",
            *(f"B={b}" for b in BATCHES),
            "worst",
            "outside",
        ],
        rows,
    )
    direct = "Absolute: preconditioned law over observed optimum (its 95 % interval in brackets)."
    return [direct, first, _error_table(cells)]


def _observed(values: Mapping[str, object]) -> list[float]:
    found = values.get("observed")
    assert isinstance(found, list)
    return [math.nan if v is None else float(v) for v in found]


def _ratios(cell: harness.Cell) -> list[str | None]:
    shown: list[str | None] = []
    worst, outside = 1.0, 0
    for batch in BATCHES:
        values = cell.values.get(str(batch))
        if not isinstance(values, Mapping):
            shown.append(None)
            continue
        foot, low, high = _observed(values)
        law = values["preconditioned"]
        if not (math.isfinite(foot) and isinstance(law, float)):
            outside += not math.isfinite(foot)
            shown.append(None)
            continue
        worst = max(worst, law / foot, foot / law)
        ends = f" [{law / high:.2f}, {law / low:.2f}]" if math.isfinite(low + high) else ""
        shown.append(f"{law / foot:.2f}{ends}")
    return [*shown, f"{worst:.2f}", str(outside)]


def factor_error(predicted: Sequence[float], observed: Sequence[float], aligned: bool) -> float:
    """Exp of the root mean square of ln(predicted / observed), without its mean if aligned."""
    logs = np.log(np.asarray(predicted) / np.asarray(observed))
    if aligned:
        logs = logs - logs.mean()
    return float(np.exp(np.sqrt((logs**2).mean())))


def _error_table(cells: Sequence[harness.Cell]) -> str:
    rows = []
    for net in ("mlp", "transformer"):
        for kind in KINDS:
            here = [c for c in cells if c.setting["net"] == net and c.setting["kind"] == kind]
            if not here:
                continue
            row: list[object] = [net, kind, len(here)]
            for law in LAWS:
                found = [e for e in (_cell_error(c, law) for c in here) if e is not None]
                row.append(f"{np.median(found):.2f}" if found else None)
            rows.append(row)
    named = ["one step, ratios: net", "optimiser", "checkpoints", *LAWS]
    return table(named, rows)


def _kept(cell: harness.Cell, law: str, batch: float) -> float | None:
    """A law at a batch, up to a common factor: stored, or computed from the noise scales."""
    scales = {}
    for name in ("b_noise", "b_simple"):
        stored = cell.values.get(name)
        value = stored.get("value") if isinstance(stored, Mapping) else None
        scales[name] = value if isinstance(value, (int, float)) and value > 0 else None
    if law == "constant":
        return 1.0
    if law == "alpha 1/2":
        scale = scales["b_simple"]
        return None if scale is None else (1 + scale / batch) ** -0.5
    if law == "B_noise, level":
        scale = scales["b_noise"]
        return None if scale is None else 1 / (1 + scale / min(batch, scale))
    values = cell.values.get(str(batch))
    value = values.get(law) if isinstance(values, Mapping) else None
    return float(value) if isinstance(value, (int, float)) and value > 0 else None


def _cell_error(cell: harness.Cell, law: str) -> float | None:
    predicted, observed = [], []
    for batch in BATCHES:
        values = cell.values.get(str(batch))
        if not isinstance(values, Mapping):
            continue
        foot, value = _observed(values)[0], _kept(cell, law, batch)
        if math.isfinite(foot) and value is not None:
            predicted.append(value)
            observed.append(foot)
    return factor_error(predicted, observed, True) if len(predicted) >= 3 else None


def many_tables(results: harness.Results) -> list[str]:
    """Factor errors of the laws' ratios after a budget of examples, over seeds.

    Two tables: after the best common factor, and from the best rate at BATCH, which is the case of
    a user. "edge" is the preconditioned law below the edge of stability, which the advice follows
    for SGD and for Adam with a large epsilon; without an edge (a small epsilon) it is the law
    itself. Means over checkpoints are geometric.
    """
    fitted, anchored, optima = [], [], []
    for net in ("mlp", "transformer"):
        for kind in KINDS:
            rows = [
                row
                for steps in sorted({c.asked("checkpoint") for c in many_cells(results, net, kind)})
                if (row := _many_row(results, net, kind, int(steps))) is not None
            ]
            optima += [(net, kind, row.steps, row.seeds, row.observed) for row in rows]
            for table_rows, take in ((fitted, 0), (anchored, 1)):
                errors = [row.errors[take] for row in rows]
                table_rows += [
                    (net, kind, str(r.steps), *e) for r, e in zip(rows, errors, strict=True)
                ]
                table_rows += [(net, kind, "mean", *_means(errors))] if len(rows) > 1 else []
    for table_rows in (fitted, anchored):
        for kind in KINDS:
            every = [row[3:] for row in table_rows if row[1] == kind and row[2] != "mean"]
            table_rows += [("both", kind, "mean", *_means(every))] if len(every) > 3 else []
    head = ["optimiser", "checkpoint"]
    return [
        table(["many steps: net", *head, "seeds", "observed optimum"], optima),
        "After the best common factor:\n\n" + table(["many steps: net", *head, *MANY_LAWS], fitted),
        f"From the rate that was best at batch {BATCH}:\n\n"
        + table(["many steps: net", *head, *MANY_LAWS], anchored),
    ]


@dataclass(frozen=True)
class _Row:
    """One net, optimiser and checkpoint: errors by law, after the best factor and from BATCH."""

    steps: int
    seeds: int
    observed: str
    errors: tuple[list[str | None], list[str | None]]


def many_cells(results: harness.Results, net: str, kind: str) -> list[harness.Cell]:
    """The many-step sweeps of a net and an optimiser."""
    return results.cells({"part": "many", "net": net, "kind": kind})


def _many_row(results: harness.Results, net: str, kind: str, steps: int) -> _Row | None:
    where: dict[str, object] = {"net": net, "kind": kind, "checkpoint": steps}
    cells, one = results.cells({"part": "many", **where}), results.cells({"part": "one", **where})
    observed = observed_many(cells)
    feet = {b: foot for b, (foot, _, _) in observed.items() if math.isfinite(foot)}
    if len(feet) < 3 or not one:
        return None
    found = [
        _errors({b: _predicted(one[0], law, b) for b in feet}, feet, _edge_of(results, where, law))
        for law in MANY_LAWS
    ]
    fitted, anchored = ([pair[i] for pair in found] for i in (0, 1))
    return _Row(steps, len(cells), _shown(observed), (fitted, anchored))


def _edge_of(results: harness.Results, where: dict[str, object], law: str) -> float | None:
    """The edge that bends the law; inf: no edge, None: not measured."""
    if law != "edge" or where["kind"] == "adam":
        return math.inf
    cells = results.cells({"part": "edge", **where})
    return cells[0].number("edge") if cells else None


def law_at(
    results: harness.Results, where: dict[str, object], batch: float, anchor: float, edge: bool
) -> float | None:
    """The preconditioned law through a rate at BATCH, with or without the edge."""
    one = results.cells({"part": "one", **where})
    limit = _edge_of(results, where, "edge") if edge else math.inf
    values = [_predicted(one[0], "preconditioned", b) for b in (batch, BATCH)] if one else []
    if limit is None or not values or values[0] is None or values[1] is None:
        return None
    return anchor * bent(values[0] / values[1], anchor / limit)


def _errors(
    law: dict[int, float | None], feet: dict[int, float], edge: float | None
) -> tuple[str | None, str | None]:
    """Factor error after the best common factor, and from the optimum at BATCH."""
    known = {b: value for b, value in law.items() if value is not None and value > 0}
    if len(known) < len(feet) or edge is None:
        return None, None
    observed, limit = [feet[b] for b in known], 1 / edge

    def scaled(scale: float) -> list[float]:
        return [1 / (1 / (scale * value) + limit) for value in known.values()]

    centre = observed[0] / next(iter(known.values()))
    fitted = min(
        factor_error(scaled(centre * s), observed, False) for s in np.geomspace(0.01, 100, 2000)
    )
    if BATCH not in feet:
        return f"{fitted:.2f}", None
    others = [b for b in known if b != BATCH]
    share, at = feet[BATCH] * limit, known[BATCH]
    guess = {b: feet[BATCH] * bent(known[b] / at, share) for b in others}
    anchored = factor_error([guess[b] for b in others], [feet[b] for b in others], False)
    return f"{fitted:.2f}", f"{anchored:.2f}"


def _means(rows: Sequence[Sequence[str | None]]) -> list[str | None]:
    """Geometric means of each law over the checkpoints."""
    columns = [[float(x) for x in column if x is not None] for column in zip(*rows, strict=True)]
    return [f"{np.exp(np.log(column).mean()):.2f}" if column else None for column in columns]


def _shown(observed: Mapping[int, tuple[float, float, float]]) -> str:
    """The optimum at each batch with its interval over seeds, or "outside" the grid."""
    parts = []
    for batch, (foot, low, high) in observed.items():
        ends = f" [{low:.2g}, {high:.2g}]" if math.isfinite(low + high) else ""
        parts.append(f"{batch}: {foot:.2g}{ends}" if math.isfinite(foot) else f"{batch}: outside")
    return "; ".join(parts)


def observed_many(cells: Sequence[harness.Cell]) -> dict[int, tuple[float, float, float]]:
    """Optimum of the mean loss over seeds at each batch, with a bootstrap interval over seeds.

    Only rates with results for every seed count; an interval needs three seeds or more.
    """
    found: dict[int, tuple[float, float, float]] = {}
    batches = sorted({int(name) for cell in cells for name in cell.values if name.isdigit()})
    for batch in batches:
        sweeps = [_sweep_of(c, batch) for c in cells if str(batch) in c.values]
        rates = sorted(set.intersection(*(set(sweep) for sweep in sweeps)))
        losses = np.asarray([[sweep[rate] for rate in rates] for sweep in sweeps])
        found[batch] = optimum(np.log(rates), losses) if len(rates) > 2 else (math.nan,) * 3
    return found


def _sweep_of(cell: harness.Cell, batch: int) -> dict[float, float]:
    pairs = np.asarray(cell.values[str(batch)], dtype=float)
    return {float(r): float(x) if math.isfinite(x) else WORST for r, x in pairs}


def _predicted(cell: harness.Cell, law: str, batch: float) -> float | None:
    """A law at any batch, interpolated in logarithms between the stored batches."""
    law = "preconditioned" if law == "edge" else law
    if law in ("constant", "alpha 1/2", "B_noise, level"):
        return _kept(cell, law, batch)
    known = []
    for b in BATCHES:
        value = _kept(cell, law, b)
        if value is not None:
            known.append((math.log(b), math.log(value)))
    if len(known) < 2:
        return None
    x, y = np.asarray(known).T
    return float(np.exp(np.interp(math.log(batch), x, y)))


def cost_table(results: harness.Results) -> str:
    """The cost of watching, as ratios of medians."""
    rows = []
    for cell in results.cells({"part": "cost"}):
        plain = cell.numbers("plain")
        for name in WATCHED:
            taken = cell.numbers(name)
            spent = summarise([[1000 * t for t in taken]])
            rows.append((cell.setting["net"], name, str(spent), str(ratio([taken], [plain]))))
    routes = []
    for cell in results.cells({"part": "cost"}):
        base = cell.numbers("gradient")
        for name in ("gradient", "double_backward", "central_difference", "three_losses"):
            taken = [1000 * t for t in cell.numbers(name)]
            if taken and base:
                times = ratio([[t / 1000 for t in taken]], [base])
                routes.append((cell.setting["net"], name, str(summarise([taken])), str(times)))
    curvature = table(["v'Hv: net", "route", "ms", "times a gradient"], routes)
    return (
        f"{curvature}\n\n"
        + table(["watching: net", "measured", "ms a step", "times plain"], rows)
        + (f"\n\nFour micro-batches of 16 a step; laws are measured at batch {BATCH}.")
    )
