"""The tables of the judge's panel, from finished cells."""

from __future__ import annotations

import statistics

from benchmarks.pictures import damages, panel_cells, panel_runs, panel_sets
from benchmarks.pictures.panel_measures import FLOORS, MEASURES
from benchmarks.pictures.panel_readings import TRUTHS, UNDAMAGED, Readings
from benchmarks.pictures.panel_sets import PanelSet, Spoilt
from benchmarks.pictures.panel_targets import BETTER, WORSE
from benchmarks.shared import summaries

TITLES = {**MEASURES, "eye": "eye"}
_OTHERS = ("severe", "plain", "apart", "net")  # not in floors


def _with_interval(found: tuple[float, float, float, int] | None) -> str | None:
    return None if found is None else f"{found[0]:.2f} [{found[1]:.2f}, {found[2]:.2f}]"


def correlations(readings: Readings) -> str:
    """Rank correlations over the garments outputs, with the number of outputs."""
    rows, counts = [], {}
    for measure in (*FLOORS, "apart", "net", "severe", "plain"):
        row: list[object] = [TITLES[measure]]
        for truth in TRUTHS:
            found = None if truth == measure else readings.correlation(measure, truth)
            counts[truth] = max(counts.get(truth, 0), found[3] if found else 0)
            row.append(_with_interval(found))
        rows.append(row)
    columns = [f"{TITLES[truth]} ({counts[truth]} outputs)" for truth in TRUTHS]
    return summaries.table(["measure", *columns], rows)


def outputs(readings: Readings, which: PanelSet) -> str:
    """All outputs of a set, the nearest to real first; a column of floors for each teacher."""
    judging = readings.judging(which.name)
    more = {f"judge with {run}": run for run in judging[1:]}
    others = [
        measure
        for measure in ("eye", *_OTHERS)
        if any(readings.output(which.name, o, measure) for o in readings.outputs(which.name))
    ]
    rows = []
    for name in readings.outputs(which.name):
        low, high = (readings.output(which.name, name, f"judge_{end}") for end in ("low", "high"))
        row: list[object] = [name, *(readings.output(which.name, name, m) for m in FLOORS)]
        row.insert(2, f"{summaries.figure(low)} to {summaries.figure(high)}")
        row += [readings.output(which.name, name, "judge", run) for run in more.values()]
        row += [readings.output(which.name, name, measure) for measure in others]
        rows.append(row)
    rows.sort(key=lambda row: row[1] if isinstance(row[1], float) else 0.0)
    columns = ["pictures", "judge", "95 % interval", *(TITLES[m] for m in FLOORS[1:])]
    return summaries.table([*columns, *more, *(TITLES[m] for m in others)], rows)


def damage_table(readings: Readings, which: PanelSet) -> str:
    """All damages of a set, beside undamaged pictures."""
    wanted = [UNDAMAGED, *readings.damages(which.name)]
    others = [m for m in _OTHERS if readings.damage(which.name, UNDAMAGED, m) is not None]
    rows = []
    for what in wanted:
        row: list[object] = [_named(what)]
        row += [readings.damage(which.name, what, measure) for measure in (*FLOORS, *others)]
        rows.append(row)
    return summaries.table(["damage", *(TITLES[m] for m in (*FLOORS, *others))], rows)


def _named(what: Spoilt) -> str:
    return what.damage if what == UNDAMAGED else f"{what.damage} {what.strength:g}"


def orders(readings: Readings) -> str:
    """Does each measure in floors rise with the strength of each damage, in each set?"""
    rows = []
    for which in readings.sets:
        families: dict[str, list[Spoilt]] = {}
        for what in readings.damages(which.name):
            families.setdefault(what.damage, []).append(what)
        for name, members in families.items():
            if len(members) < 2 or name in ("hidden colour", panel_sets.COPIES):
                continue  # these should not be seen
            row: list[object] = [which.title, name]
            row.append(" < ".join(f"{what.strength:g}" for what in members))
            for measure in FLOORS:
                found = [readings.damage(which.name, what, measure) for what in members]
                values = [value for value in found if value is not None]
                rising = "yes" if values == sorted(values) else "NO"
                row.append(rising if len(values) == len(members) else None)
            rows.append(row)
    columns = ["set", "damage", "strengths", *(TITLES[m] for m in FLOORS)]
    return summaries.table(columns, rows)


def splits(readings: Readings) -> str:
    """Real pictures against real pictures: how often at most one floor."""
    rows = []
    for which in readings.sets:
        found = readings.splits(which.name)
        for measure in FLOORS:
            if values := found.get(measure):
                below = sum(value <= 1 for value in values)
                row = [which.title, TITLES[measure], f"{below} of {len(values)}"]
                rows.append([*row, statistics.median(values), max(values)])
    return summaries.table(["set", "measure", "at most 1 floor", "median", "largest"], rows)


def choices(readings: Readings) -> str:
    """Which sampler each measure chooses, and how often it is the better one."""
    best = {truth: readings.best_sampler(truth) for truth in TRUTHS}
    rows = []
    rules = {"the smallest": 0.0, "fewest calls within a tenth": 0.1}
    wanted = [(c, m, r) for c in panel_cells.COUNTS for m in FLOORS for r in rules]
    for count, measure, rule in wanted:
        chosen = readings.chosen(measure, count, rules[rule])
        if chosen:
            row: list[object] = [count, TITLES[measure], rule]
            for name in best.values():
                row.append(f"{chosen.count(name)} of {len(chosen)}" if name else None)
            won, of = readings.preferred(measure, count, BETTER, WORSE)
            row.append(f"{won} of {of}" if of else None)
            row.append(_loss(readings, chosen))
            row.append(", ".join(f"{n} {chosen.count(n)}" for n in sorted(set(chosen))))
            rows.append(row)
    columns = ["pictures", "measure", "chosen is"]
    columns += [f"the best by {TITLES[truth]} ({name or '-'})" for truth, name in best.items()]
    columns += [f"{BETTER} before {WORSE}", "severe, times the best", "chosen"]
    return summaries.table(columns, rows)


def _loss(readings: Readings, chosen: list[str]) -> float | None:
    """Mean distance by the severe judge of the chosen samplers, over that of the best one."""
    best = readings.best_sampler("severe")
    base = readings.output("garments", best, "severe") if best else None
    found = [readings.output("garments", name, "severe") for name in chosen]
    values = [value for value in found if value is not None]
    return statistics.fmean(values) / base if base and values else None


def costs(readings: Readings) -> str:
    """Seconds to prepare a measure and to judge with it."""
    rows = []
    for which in readings.sets:
        cell = readings.cost(which.name)
        if cell is None:
            continue
        for measure in FLOORS:
            judged = cell.number(f"{measure}_judged")
            if judged is not None:
                count = int(cell.asked("num_images"))
                row = [which.title, TITLES[measure], count, judged]
                rows.append([*row, cell.number(f"{measure}_prepared"), cell.values["reference"]])
    columns = ["set", "measure", "pictures", "seconds", "seconds to prepare", "reference pictures"]
    return summaries.table(columns, rows)


def strengths() -> str:
    """What the strength of each damage means."""
    rows = [[d.name, d.about] for d in damages.DAMAGES if d.name not in damages.SET_ASIDE]
    rows += [[name, about] for name, about in panel_sets.SET_ABOUT.items()]
    return summaries.table(["damage", "its strength"], rows)


def scores(readings: Readings) -> str:
    """Floors by the judge of every damage, with a column for each set."""
    found: dict[Spoilt, dict[str, float]] = {}
    for which in readings.sets:
        for what in [UNDAMAGED, *readings.damages(which.name)]:
            value = readings.damage(which.name, what, "judge")
            if value is not None:
                found.setdefault(what, {})[which.name] = value
    order = list(found)
    names = list(dict.fromkeys(what.damage for what in order))
    order.sort(key=lambda what: names.index(what.damage))
    rows = [[_named(what), *(found[what].get(s.name) for s in readings.sets)] for what in order]
    return summaries.table(["damage", *(which.title for which in readings.sets)], rows)


def runs() -> str:
    """The budgets of the runs, without those that are set aside."""
    rows = []
    for name, training in panel_runs.RUNS.items():
        if not training.set_aside:
            teacher = training.budget or f"that of {training.teacher}"
            rows.append([name, training.file, teacher, training.distill])
    return summaries.table(["run", "pictures", "teacher", "generator"], rows)
