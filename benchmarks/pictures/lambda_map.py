"""Lambda against the learning rate: where a distillation converges, drifts, explodes; as a picture.

The exact case needs no teacher: one width, a fake score that lags (`diffusion/gaussian_case.py`).
With a teacher, each cell distils it for as many steps, without the guards that would go back.

    python -m benchmarks.pictures.lambda_map
    python -m benchmarks.pictures.lambda_map --teacher runs/mine --steps 600
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.pictures.one_step import quick_run
from benchmarks.shared import harness, summaries
from noisewise.diffusion.gaussian_case import descend
from noisewise.training.devices.engine import Engine
from noisewise.training.models.models import Teacher
from noisewise.training.run.run import Run
from noisewise.training.settings.config import DistillConfig
from noisewise.training.stages.student import StudentStage

NAME = "pictures/lambda_map"
LAMBDAS = (0.0, 0.5, 1.0, 1.2, 1.5, 2.0)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
EXACT_RATES = (0.05, 0.2, 0.8, 2.0, 5.0)
LAG = 0.1  # share of its lag that the exact fake score catches up in a step
FATES = ("converges", "drifts", "explodes")
COLOURS = {"converges": "#2e7d32", "drifts": "#f9a825", "explodes": "#b71c1c"}


def exact(lam: float, lr: float, steps: int) -> harness.Values:
    """The fate of one width that starts at a third of the data's."""
    path = descend(1 / 3, 0.5, lam, lr, steps, LAG)
    end = path[-1]
    if not 1e-3 < end < 20:
        return {"fate": "explodes", "end": end}
    late = path[len(path) // 2 :]
    steady = max(late) < 1.15 and min(late) > 0.85
    return {"fate": "converges" if steady else "drifts", "end": end, "widest": max(path)}


def trained(teacher: Teacher, lam: float, lr: float, steps: int, threads: int) -> harness.Values:
    """The fate of a generator of pictures: pixels, spread, and the best and the last distance."""
    config = DistillConfig(budget=f"{64 * steps}images", lr=lr, threads=threads, device="cpu")
    stage = StudentStage(teacher, config, Engine.choose("cpu", "float32", threads))
    stage.lam = lam  # also one that the settings refuse
    stage.begin(None)
    floors, spread = [_floors(stage)], 0.0
    for step in range(steps):
        measured = stage.step(step, step * stage.batch, 1.0, step / steps)
        values = dict(zip(stage.measures, measured.tolist(), strict=True))
        spread = values["_std"] / teacher.config.sigma_data
        if not math.isfinite(values["loss"]) or values["_max"] > 5 or not 0.1 < spread < 3:
            return {"fate": "explodes", "step": step, "spread": spread, "floors": floors}
        if (step + 1) % max(1, steps // 5) == 0:
            floors.append(_floors(stage))
    drifts = floors[-1] > 1.5 * max(min(floors), 1.0)
    return {"fate": "drifts" if drifts else "converges", "spread": spread, "floors": floors}


@torch.no_grad()
def _floors(stage: StudentStage) -> float:
    """Distance of the net that learns, not of an average, to the teacher's own pictures."""
    judged = stage.judged
    assert judged.reference is not None
    pictures = judged.pictures(stage._generator, judged.num_images)
    if not pictures.isfinite().all():
        return math.inf
    return judged.reference.measure(pictures).at_standard


def table(results: harness.Results, match: dict[str, object], rates: tuple[float, ...]) -> str:
    """A row for each lambda, a column for each rate."""
    rows = []
    for lam in LAMBDAS:
        cells = [results.find({**match, "lam": lam, "lr": lr}) for lr in rates]
        rows.append([f"{lam:g}", *("" if c is None else c.values["fate"] for c in cells)])
    return summaries.table(["lambda", *(f"rate {lr:g}" for lr in rates)], rows)


def picture(
    results: harness.Results, match: dict[str, object], rates: tuple[float, ...], path: Path
) -> None:
    """The same as an SVG: a coloured field for each lambda and rate."""
    wide, high, left, top = 110, 44, 90, 40
    parts = []
    for row, lam in enumerate(reversed(LAMBDAS)):
        y = top + row * high
        parts.append(f'<text x="8" y="{y + 27}">lambda {lam:g}</text>')
        for column, lr in enumerate(rates):
            cell = results.find({**match, "lam": lam, "lr": lr})
            fate = "" if cell is None else str(cell.values["fate"])
            x = left + column * wide
            parts.append(
                f'<rect x="{x}" y="{y}" width="{wide - 2}" height="{high - 2}" '
                f'fill="{COLOURS.get(fate, "#bdbdbd")}"/>'
                f'<text x="{x + 8}" y="{y + 27}" fill="white">{fate}</text>'
            )
    for column, lr in enumerate(rates):
        parts.append(f'<text x="{left + column * wide + 8}" y="26">rate {lr:g}</text>')
    width, height = left + len(rates) * wide, top + len(LAMBDAS) * high
    harness.write_atomically(
        path,
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(parts)}</svg>\n",
    )


def main() -> None:
    """Run the missing cells, print the table, draw the picture."""
    parser = harness.parser("Lambda against the learning rate.")
    parser.add_argument("--teacher", type=Path, default=None, help="finished run; none: exact case")
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    folder, steps = harness.work_folder(arguments, NAME), arguments.steps
    results = harness.Results(
        harness.results_file(arguments, NAME), harness.environment(threads), arguments.redo
    )
    compute: Callable[[float, float], harness.Values]
    if arguments.teacher is None:
        rates, match = EXACT_RATES, {"teacher": "exact", "steps": steps}
        compute = lambda lam, lr: exact(lam, lr, steps)  # noqa: E731
    else:
        run = Run.open(arguments.teacher)
        teacher = run.teacher()
        rates, match = RATES, {"teacher": run.teacher_digest(), "steps": steps}
        compute = lambda lam, lr: trained(teacher, lam, lr, steps, threads)  # noqa: E731
    if arguments.quick and arguments.teacher is None:  # one real cell too: it is the slow part
        trained(quick_run(folder).teacher(), 1.0, 1e-3, 2, threads)
    if not arguments.table_only:
        for lam in LAMBDAS:
            for lr in rates:
                own = {**match, "lam": lam, "lr": lr}
                results.cell(own, lambda a=lam, b=lr: compute(a, b))
    svg = results.path.with_suffix(".svg")
    picture(results, match, rates, svg)
    about = (
        f"{steps} steps, no guard. It explodes: pixels beyond 5, a spread outside 0.1 to 3 times "
        "the data's, or no number. It drifts: the last distance is above 1.5 times the best one "
        f"(in the exact case: a width off by 15 % in the second half). The same as a picture: "
        f"{svg.name}."
    )
    harness.publish(results, "Lambda and the rate", [about, table(results, match, rates)])


if __name__ == "__main__":
    harness.run_program(main)
