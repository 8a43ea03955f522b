"""Draws the low-rank benchmark: the error relative to the best one, against the time."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.shared import harness

BASES = {"singular": "torch.svd_lowrank, q = k + 10", "skeleton": "scipy interp_decomp"}
TITLES = {"singular": "singular vectors", "skeleton": "real columns and rows"}
LEAST = 1e-5  # smaller values of F/opt - 1 are drawn here
Points = dict[str, list[tuple[float, float]]]


def points_of(results: harness.Results, part: str, k: int) -> Points:
    """For each method: (time / time of the base, F/opt - 1) on each matrix in double precision."""
    found: Points = {}
    for cell in results.cells({"part": part, "dtype": "float64", "k": k}):
        ways = cell.values["ways"]
        assert isinstance(ways, dict)
        base = ways.get(BASES[part])
        if base is None or cell.setting["matrix"] == "Kahan":
            continue
        for name, values in ways.items():
            found.setdefault(name, []).append(point(values, base))
    return found


def point(
    values: Mapping[str, Sequence[float]], base: Mapping[str, Sequence[float]]
) -> tuple[float, float]:
    """The medians over the seeds."""
    time = statistics.median(values["ms"]) / statistics.median(base["ms"])
    return time, max(LEAST, statistics.median(values["F"]) - 1)


def draw(results: harness.Results, k: int, path: Path) -> bool:
    """Draw both parts side by side as an SVG; False if a part has no cell of this rank."""
    parts = {part: points_of(results, part, k) for part in BASES}
    if not all(parts.values()):
        return False
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "lowrank"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9.6, 4.6), layout="constrained")
    for axes, (part, ways) in zip(panels, parts.items(), strict=True):
        for number, (name, points) in enumerate(sorted(ways.items())):
            x, y = zip(*points, strict=True)
            marker = "o" if name.startswith("noisewise") else "x"
            axes.scatter(x, y, marker=marker, s=26, color=f"C{number % 10}", label=name)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel=f"time over {BASES[part]}",
            ylabel="error over the best of its rank, minus 1",
            title=f"{TITLES[part]}, rank {k}",
        )
        axes.axvline(1, color="0.8", linewidth=1, zorder=0)
        axes.legend(fontsize=7, loc="best")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True
