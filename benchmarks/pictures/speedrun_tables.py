"""The tables and the curve of speedrun.py, from its finished cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.shared import harness, summaries

ALONE = 1.0  # share of a teacher that gets all the time


@dataclass(frozen=True)
class Finished:
    """The cells of one judge and number of pictures."""

    results: harness.Results
    judge: str
    num_images: int
    ladder: tuple[int, ...]
    threads: int

    def totals(self) -> list[float]:
        """All total times with a finished cell, in minutes."""
        return sorted({cell.asked("minutes") for cell in self.results.cells({})})


def cells_of(done: Finished, minutes: float, share: float, who: str) -> list[harness.Cell]:
    """The finished cells of one row, one per seed."""
    own = {"judge": done.judge, "num_images": done.num_images}
    return done.results.cells({"minutes": minutes, "share": share, "stage": who} | own)


def runs_of(
    done: Finished, minutes: float, share: float, who: str, value: str
) -> list[list[float]]:
    """A value of one row: a list per run, with a number per sample seed."""
    return [cell.numbers(value) for cell in cells_of(done, minutes, share, who)]


def median_of(done: Finished, minutes: float, share: float, who: str) -> float | None:
    """Median distance of one row."""
    found = summaries.summarise(runs_of(done, minutes, share, who, "distance"), resamples=1)
    return found.median if found else None


def teacher_samplers(done: Finished) -> list[str]:
    """Names of all samplers that a teacher was measured with."""
    return ["teacher", "teacher, long", *(f"teacher, {calls} calls" for calls in done.ladder)]


def best_teacher(done: Finished, minutes: float, share: float) -> str | None:
    """The sampler with the smallest median distance."""
    known = {w: median_of(done, minutes, share, w) for w in teacher_samplers(done)}
    scored = {who: value for who, value in known.items() if value is not None}
    return min(scored, key=lambda who: scored[who]) if scored else None


def fewest_calls(done: Finished, minutes: float, share: float, distance: float) -> str | None:
    """The teacher's sampler with the fewest calls whose distance is `distance` or less."""
    near = []
    for who in teacher_samplers(done):
        median, cells = median_of(done, minutes, share, who), cells_of(done, minutes, share, who)
        if median is not None and median <= distance and cells:
            near.append((cells[0].number("calls") or 0.0, who))
    return min(near)[1] if near else None


def label(done: Finished, minutes: float, share: float, who: str) -> str:
    """Name of a row, with the last noise level of a sampler."""
    cells = cells_of(done, minutes, share, who)
    stops = sorted({stop for c in cells if (stop := c.number("sigma_min")) is not None})
    if not stops:
        return who
    last = "-".join(summaries.figure(stop) for stop in sorted({stops[0], stops[-1]}))
    name = "teacher, chosen sampler" if who == "teacher" else "teacher"
    return f"{name}, stops at {last}"


def distances_table(done: Finished, totals: Sequence[float], shares: Sequence[float]) -> str:
    """Table of all distances at every total time."""
    rows = []
    for minutes in totals:
        for share in shares:
            best = best_teacher(done, minutes, share)
            named = dict.fromkeys(["teacher", "teacher, long", *([best] if best else [])])
            for who in [*named, "one call", "two calls"]:
                row = distance_row(done, minutes, share, who)
                if row:
                    rows.append(row)
    columns = [
        "minutes", "of them teacher", "drawn by", "calls", "Frechet distance",
        "severe judge", "offline distance", "floors", "class entropy", "ms a picture", "runs",
    ]  # fmt: skip
    return summaries.table(columns, rows)


def distance_row(done: Finished, minutes: float, share: float, who: str) -> list[object] | None:
    """One row of the distances; None without finished cells."""
    cells = cells_of(done, minutes, share, who)
    if not cells:
        return None

    def shown(value: str) -> summaries.Summary | None:
        return summaries.summarise([cell.numbers(value) for cell in cells])

    return [
        f"{minutes:g}", f"{minutes * share:g}", label(done, minutes, share, who),
        int(cells[0].number("calls") or 0), shown("distance"), shown("severe"), shown("offline"),
        shown("floors"), shown("entropy"), shown("ms_per_image"), len(cells),
    ]  # fmt: skip


def ladder_table(done: Finished, totals: Sequence[float], shares: Sequence[float]) -> str:
    """Table of the distance for each number of teacher calls."""
    rows = []
    for minutes in totals:
        for share in shares:
            shown = [
                summaries.summarise(
                    runs_of(done, minutes, share, f"teacher, {c} calls", "distance")
                )
                for c in done.ladder
            ]
            if any(shown):
                rows.append([f"{minutes:g}", f"{minutes * share:g}", *shown])
    return summaries.table(
        ["minutes", "of them teacher", *(f"{c} calls" for c in done.ladder)], rows
    )


def speedup_table(done: Finished, totals: Sequence[float], shares: Sequence[float]) -> str:
    """Table of one and two calls against the fewest equal calls of both teachers."""
    rows = []
    for minutes in totals:
        for share in (s for s in shares if s < ALONE):
            for who in ("one call", "two calls"):
                own = median_of(done, minutes, share, who)
                if own is None:
                    continue
                for name, other in (("its own teacher", share), ("teacher of all", ALONE)):
                    row = speedup_row(done, minutes, (share, other), who, own)
                    if row:
                        rows.append([f"{minutes:g}", who, name, *row])
    columns = [
        "minutes", "drawn by", "against", "ratio of distances to its best",
        "fewest calls of equal distance", "times as fast",
    ]  # fmt: skip
    return summaries.table(columns, rows)


def speedup_row(
    done: Finished, minutes: float, shares: tuple[float, float], who: str, own: float
) -> list[object] | None:
    """Ratio to the teacher's best sampler, its fewest equal calls, and the ratio of times."""
    share, other = shares
    best = best_teacher(done, minutes, other)
    if best is None:
        return None
    mine = runs_of(done, minutes, share, who, "distance")
    gap = summaries.ratio(mine, runs_of(done, minutes, other, best, "distance"))
    equal = fewest_calls(done, minutes, other, own)
    if equal is None:
        return [gap, "none is as near", "-"]
    calls = cells_of(done, minutes, other, equal)[0].number("calls") or 0
    slow = runs_of(done, minutes, other, equal, "ms_per_image")
    quick = runs_of(done, minutes, share, who, "ms_per_image")
    return [gap, f"{calls:.0f}", summaries.ratio(slow, quick)]


def times_table(done: Finished, totals: Sequence[float], shares: Sequence[float]) -> str:
    """Table of the measured times; far fewer cores than threads mean a busy machine."""
    names = ("wall_seconds", "images_per_second", "cores_used")
    rows = []
    for minutes in totals:
        for share in shares:
            for stage in ("train", "distill"):
                cells = done.results.cells({"minutes": minutes, "share": share, "stage": stage})
                shown = [
                    summaries.summarise([[v] for c in cells if (v := c.number(name)) is not None])
                    for name in names
                ]
                if cells:
                    rows.append([f"{minutes:g}", f"{minutes * share:g}", stage, *shown])
    columns = ["wall-clock, s", "pictures a second", "cores used"]
    return summaries.table(["minutes", "of them teacher", "stage", *columns], rows)


def draw_curve(done: Finished, totals: Sequence[float], share: float, path: Path) -> bool:
    """Draw distance against minutes as SVG; False if fewer than two total times are finished."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "speedrun"
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, LogLocator

    curves = {
        "teacher alone, its best sampler": (ALONE, None),
        "teacher alone, 18 steps to 0.002": (ALONE, "teacher, long"),
        "chain: one call": (share, "one call"),
        "chain: two calls": (share, "two calls"),
    }
    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    drawn = 0
    for name, (part, fixed) in curves.items():
        points = []
        for minutes in totals:
            who = fixed or best_teacher(done, minutes, part)
            runs = runs_of(done, minutes, part, who, "distance") if who else []
            found = summaries.summarise(runs)
            if found:
                points.append((minutes, found))
        if points:
            x = [minutes for minutes, _ in points]
            y = [found.median for _, found in points]
            below = [found.median - found.low for _, found in points]
            above = [found.high - found.median for _, found in points]
            spread = [[max(0.0, v) for v in below], [max(0.0, v) for v in above]]
            axes.errorbar(x, y, yerr=spread, marker="o", capsize=3, label=name)
            drawn = max(drawn, len(points))
    if drawn >= 2:
        axes.set(xscale="log", yscale="log", xlabel="minutes in all", ylabel="Frechet distance")
        axes.set_xticks(list(totals), [f"{minutes:g}" for minutes in totals])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
        axes.set_title(f"Fashion-MNIST, CPU threads: {done.threads}; distance to the test pictures")
        axes.legend()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return drawn >= 2
