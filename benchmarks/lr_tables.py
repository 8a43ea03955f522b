"""The tables of `lr_laws.py`: predicted over observed, factor errors, overhead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

import harness
from lr_laws import BATCHES, KINDS, parabola
from lr_nets import BATCH
from summaries import ratio, summarise, table

LAWS = (
    "preconditioned", "B_noise", "B_simple", "square root", "linear", "closed form", "gns-pytorch",
    "finder",
)  # fmt: skip


def one_tables(results: harness.Results) -> list[str]:
    """Predicted over observed at every batch, and the laws' factor errors."""
    cells = results.cells({"part": "one"})
    rows = []
    for net in ("mlp", "transformer"):
        for kind in KINDS:
            here = [c for c in cells if c.setting["net"] == net and c.setting["kind"] == kind]
            for cell in here:
                rows.append((net, kind, cell.setting["checkpoint"], *_ratios(cell)))
    first = table(
        ["one step: net", "optimiser", "checkpoint", *(f"B={b}" for b in BATCHES), "worst"], rows
    )
    direct = "Absolute: preconditioned law over observed optimum (its 95 % interval in brackets)."
    return [direct, first, _error_table(cells)]


def _observed(values: Mapping[str, object]) -> list[float]:
    found = values.get("observed")
    assert isinstance(found, list)
    return [math.nan if v is None else float(v) for v in found]


def _ratios(cell: harness.Cell) -> list[str | None]:
    shown: list[str | None] = []
    worst = 1.0
    for batch in BATCHES:
        values = cell.values.get(str(batch))
        if not isinstance(values, Mapping):
            shown.append(None)
            continue
        foot, low, high = _observed(values)
        law = values["preconditioned"]
        if not (math.isfinite(foot) and isinstance(law, float)):
            shown.append(None)
            continue
        worst = max(worst, law / foot, foot / law)
        ends = f" [{law / high:.2f}, {law / low:.2f}]" if math.isfinite(low + high) else ""
        shown.append(f"{law / foot:.2f}{ends}")
    return [*shown, f"{worst:.2f}"]


def factor_error(predicted: Sequence[float], observed: Sequence[float], aligned: bool) -> float:
    """Exp of the root mean square of ln(predicted / observed), its mean taken out if aligned."""
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


def _cell_error(cell: harness.Cell, law: str) -> float | None:
    predicted, observed = [], []
    for batch in BATCHES:
        values = cell.values.get(str(batch))
        if not isinstance(values, Mapping):
            continue
        foot, value = _observed(values)[0], values.get(law)
        if math.isfinite(foot) and isinstance(value, (int, float)) and value > 0:
            predicted.append(float(value))
            observed.append(foot)
    return factor_error(predicted, observed, True) if len(predicted) >= 3 else None


def many_table(results: harness.Results) -> str:
    """Factor errors of the laws' ratios after a budget of examples, over seeds."""
    cells = results.cells({"part": "many"})
    groups = sorted(
        {(str(c.setting["net"]), str(c.setting["kind"]), c.asked("checkpoint")) for c in cells}
    )
    rows = []
    for net, kind, steps in groups:
        here = [
            c for c in cells
            if (c.setting["net"], c.setting["kind"], c.asked("checkpoint")) == (net, kind, steps)
        ]  # fmt: skip
        observed = _observed_many(here)
        one = results.cells({"part": "one", "net": net, "kind": kind, "checkpoint": int(steps)})
        batches = [b for b, foot in observed.items() if math.isfinite(foot)]
        if len(batches) < 3 or not one:
            continue
        shown = " ".join(f"{b}:{observed[b]:.2g}" for b in batches)
        row: list[object] = [net, kind, int(steps), len(here), shown]
        for law in (
            "preconditioned",
            "B_noise",
            "B_simple",
            "square root",
            "linear",
            "gns-pytorch",
        ):
            predicted = [_predicted(one[0], law, b) for b in batches]
            bad = any(p is None or not p > 0 for p in predicted)
            feet = [observed[b] for b in batches]
            row.append(
                None if bad else f"{factor_error([p or 1.0 for p in predicted], feet, True):.2f}"
            )
        rows.append(row)
    columns = [
        "many steps: net", "optimiser", "checkpoint", "seeds", "observed optimum", "preconditioned",
        "B_noise", "B_simple", "square root", "linear", "gns-pytorch",
    ]  # fmt: skip
    return table(columns, rows)


def _observed_many(cells: Sequence[harness.Cell]) -> dict[int, float]:
    """Optimum of the mean loss over seeds at each batch."""
    found: dict[int, float] = {}
    batches = sorted({int(name) for cell in cells for name in cell.values})
    for batch in batches:
        sweeps = [np.asarray(c.values[str(batch)], dtype=float) for c in cells]
        mean = np.nanmean([np.where(np.isfinite(s[:, 1]), s[:, 1], 1e3) for s in sweeps], axis=0)
        found[batch] = parabola(np.log(sweeps[0][:, 0]), mean)
    return found


def _predicted(cell: harness.Cell, law: str, batch: int) -> float | None:
    """A law at any batch, interpolated in logarithms between the batches that were kept."""
    known = []
    for b in BATCHES:
        values = cell.values.get(str(b))
        value = values.get(law) if isinstance(values, Mapping) else None
        if isinstance(value, (int, float)) and value > 0:
            known.append((math.log(b), math.log(value)))
    if len(known) < 2:
        return None
    x, y = np.asarray(known).T
    return float(np.exp(np.interp(math.log(batch), x, y)))


def cost_table(results: harness.Results) -> str:
    """What watching costs, as ratios of medians."""
    rows = []
    for cell in results.cells({"part": "cost"}):
        plain = cell.numbers("plain")
        for name in ("plain", "every 10", "every step"):
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
