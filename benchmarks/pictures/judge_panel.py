"""The panel of the judge: does it see what people see, and is it silent where there is nothing?

The judge is `noisewise.quality.Judge`: the larger, in floors, of the distances in frozen features
at native size and in the features of the finished teacher. It judges graded damages of real
pictures, outputs of models (samplers of one teacher, generators, early teachers) and real pictures.
Beside it stand the old distance, two trained judges and a net that is trained to tell the pictures
apart (garments), and rankings by eye (see `eye_sheets`). The last table says what must hold.

    python -m benchmarks.pictures.judge_panel --data FOLDER --runs RUNS --train     trains too
    python -m benchmarks.pictures.judge_panel --data FOLDER --runs RUNS
    python -m benchmarks.pictures.judge_panel --data FOLDER --runs RUNS --sheets OUT
    python -m benchmarks.pictures.judge_panel --data FOLDER --table-only --page     fills the page

One part is set aside and runs only with `--set-aside`, which runs nothing else: two damages, the
set noto_emoji_32 with its runs, and an early training. Nobody looks at it while a judge is built.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.pictures import (
    eye_sheets,
    panel_cells,
    panel_page,
    panel_runs,
    panel_sets,
    panel_tables,
    panel_targets,
)
from benchmarks.pictures.panel_readings import Readings, counts_of
from benchmarks.shared import harness, judge

NAME = "pictures/judge_panel"
SHEET_SEEDS = (0, 1, 2)


def options() -> argparse.ArgumentParser:
    """The options of the program."""
    parser = harness.parser("The panel of the judge of pictures.")
    judge.add_options(parser)
    parser.add_argument("--runs", type=Path, default=None, help="folder of the trained runs")
    parser.add_argument("--drawn", type=Path, default=None, help="folder of drawn pictures")
    parser.add_argument("--train", action="store_true", help="train missing runs into --runs first")
    parser.add_argument("--set-aside", action="store_true", help="run the part that is set aside")
    parser.add_argument("--sets", default=None, help="only these sets, with commas; none: all")
    parser.add_argument("--parts", default=",".join(panel_cells.PARTS), help="which measurements")
    parser.add_argument("--seeds", type=int, default=3, help="draws of real pictures and damages")
    parser.add_argument("--num-images", type=int, default=None, help="pictures; none: by the set")
    parser.add_argument("--splits", type=int, default=100, help="splits of real pictures")
    parser.add_argument("--sheets", type=Path, default=None, help="write sheets for the eye here")
    parser.add_argument("--page", action="store_true", help="fill docs/judge.md, draw its picture")
    return parser


def asked_of(arguments: argparse.Namespace) -> panel_cells.Asked:
    """What the options ask for.

    Raises:
        harness.UsageError: for an unknown set or part.
    """
    aside, work = arguments.set_aside, harness.work_folder(arguments, NAME)
    # Every set has damages that are set aside; a set that is set aside is not in a usual run.
    possible = [s for s in panel_sets.SETS.values() if aside or not s.set_aside]
    if aside:
        possible = [s for s in possible if not s.opacity]
    names = [s.name for s in possible]
    chosen = harness.names(arguments.sets, names, "set") if arguments.sets else names
    parts = harness.names(arguments.parts, list(panel_cells.PARTS), "part")
    return panel_cells.Asked(
        data=arguments.data,
        runs=arguments.runs or work / "runs",
        drawn=arguments.drawn or work / "drawn",
        sets=tuple(s for s in possible if s.name in chosen),
        parts=tuple(p for p in panel_cells.PARTS if p in parts),
        set_aside=aside,
        seeds=1 if arguments.quick else arguments.seeds,
        num_images=60 if arguments.quick else arguments.num_images,
        num_splits=4 if arguments.quick else arguments.splits,
        quick=arguments.quick,
    )


def measure(
    asked: panel_cells.Asked, results: harness.Results, bench: judge.Bench | None
) -> None:  # fmt: skip
    """Run the missing cells of every set."""
    for which in asked.sets:
        panel_cells.Panel(asked, which, results, bench).run()


def write_sheets(asked: panel_cells.Asked, out: Path) -> None:
    """Write the sheets for the eye: for each set, rows of all outputs and of real pictures.

    The mixed sheets have the pictures of one output each, half and half with real ones.
    """
    for which in asked.sets:
        drawn: dict[str, Tensor] = {}
        for output in panel_runs.outputs(asked.set_aside):
            if output.set == which.name:
                found = panel_runs.drawn(output, asked.runs, asked.drawn, asked.count(which))
                if found is not None:
                    drawn[output.name] = found.images
        if not drawn:
            continue
        real = panel_sets.load(which, asked.data).images
        for seed in SHEET_SEEDS:
            name = f"{which.name}_rank_{seed}"
            eye_sheets.write_rank(out, name, drawn | {eye_sheets.REAL: real}, seed)
        shuffled = torch.randperm(len(drawn), generator=torch.Generator().manual_seed(0)).tolist()
        for number, (output, images) in zip(shuffled, drawn.items(), strict=True):
            name = f"{which.name}_mix_{number}"  # the name must not say whose pictures these are
            eye_sheets.write_mix(out, name, images, real, number, output)
    harness.note(f"sheets: {out}; look at no file in {out / eye_sheets.KEYS} before you answer")


def tables(readings: Readings, set_aside: bool) -> dict[str, str]:
    """All tables by name."""
    found = {"must hold": panel_targets.table(readings, set_aside)}
    if not set_aside:
        found["correlations"] = panel_tables.correlations(readings)
    for which in readings.sets:
        if readings.outputs(which.name):
            found[f"outputs {which.name}"] = panel_tables.outputs(readings, which)
    found["splits"] = panel_tables.splits(readings)
    if not set_aside:
        found["choices"] = panel_tables.choices(readings)
    for which in readings.sets:
        if readings.damages(which.name):
            found[f"damages {which.name}"] = panel_tables.damage_table(readings, which)
    found["orders"] = panel_tables.orders(readings)
    if not set_aside:
        found["costs"] = panel_tables.costs(readings)
        found["runs"] = panel_tables.runs()
        found["strengths"] = panel_tables.strengths()
        found["scores"] = panel_tables.scores(readings)
    found["mixes"] = eye_sheets.mix_table()
    return found


_HEADS = {
    "must hold": "What must hold (floors by the judge; a dash: not measured):",
    "correlations": (
        "Garments, outputs of models: Spearman's rank correlation of each measure, [95 % bootstrap "
        "interval over outputs]:"
    ),
    "splits": "Real pictures against other real pictures of the set, in floors:",
    "choices": "Choosing among the samplers of the garments teacher with up to 15 calls:",
    "orders": "Does the measure rise with the strength?",
    "costs": "Seconds:",
    "runs": "The runs and their budgets:",
    "mixes": "Mixed sheets, real and made, by eye; half of the calls are right by chance:",
}


def publish(results: harness.Results, readings: Readings, set_aside: bool) -> None:
    """Print the tables and write them beside the results."""
    about = (
        "In floors: the value over the 95th percentile of the distance between two sets of real "
        "pictures of these sizes; about 1 or less: no difference from real was found. Median over "
        f"{max([readings.draws(s.name) for s in readings.sets], default=0)} draws of real pictures "
        "and damages. The trained judges give Frechet distances, 'told apart' is the share of "
        "pictures that a classifier puts right, 'eye' is a rank: 0 most real, 1 least."
    )
    parts = [about]
    for name, table in tables(readings, set_aside).items():
        if name in ("strengths", "scores") or table.count("\n") < 2:
            continue  # the first two are for the page; the others have no rows
        kind, _, which = name.partition(" ")
        if which and kind in ("outputs", "damages"):
            head = f"{kind.capitalize()}, {panel_sets.SETS[which].title}:"
        else:
            head = _HEADS[name]
        parts += [head, table]
    title = "The panel of the judge" + (": the part that is set aside" if set_aside else "")
    harness.publish(results, title, parts)


def main() -> None:
    """Train if asked to, run the missing cells, print the tables."""
    arguments = options().parse_args()
    threads = harness.use_threads(arguments.threads)
    asked = asked_of(arguments)
    if arguments.train:
        panel_runs.train(asked.runs, asked.data, asked.set_aside)
    if arguments.sheets:
        write_sheets(asked, arguments.sheets)
        return
    garments = any(which.name == "garments" for which in asked.sets)
    needs_bench = garments and not arguments.table_only
    bench = judge.bench_from(arguments) if needs_bench else None
    conditions = harness.environment(threads, ("noisewise", "torch", "numpy", "scipy"))
    name = NAME + "_set_aside" * asked.set_aside
    results = harness.Results(
        harness.results_file(arguments, name),
        conditions | (bench.conditions() if bench else {}),
        arguments.redo,
    )
    if not arguments.table_only:
        measure(asked, results, bench)
    readings = Readings(results, asked.sets, counts_of(asked), eye_sheets.eye("garments"))
    if not results.cells({}):
        raise harness.UsageError("There are no finished cells: run without --table-only first.")
    publish(results, readings, asked.set_aside)
    if arguments.page and asked.set_aside:
        raise harness.UsageError("--page shows the usual part: leave out --set-aside.")
    if arguments.page:
        panel_page.write(tables(readings, set_aside=False))
        panel_page.draw(arguments.data)


if __name__ == "__main__":
    harness.run_program(main)
