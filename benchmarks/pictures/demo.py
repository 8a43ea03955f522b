"""The demo as a new user sees it: the seconds of each stage, the distances, the README's figure.

Runs `python -m noisewise.app.demo` in a new folder and reads its numbers from there. Also measures
how long the same command takes when everything is finished, and the share of copies.

    python -m benchmarks.pictures.demo
    python -m benchmarks.pictures.demo --run runs/demo        for a finished demo
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import noisewise
from benchmarks.shared import harness, ours, summaries
from noisewise.training.files.sample_sheet import sheet
from noisewise.training.settings.config import EvaluateConfig

NAME = "pictures/demo"
PICTURE = harness.FIGURES / "demo.png"
SHOWN = 48


def run_demo(folder: Path, budget: str) -> float:
    """Run the demo; returns its seconds, with the start of Python."""
    words = [sys.executable, "-m", "noisewise.app.demo", "--out", str(folder), "--budget", budget]
    start = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise harness.UsageError(
            f"The demo failed with exit code {done.returncode}: {done.stderr[-400:]}"
        )
    return time.perf_counter() - start


def measure(folder: Path, budget: str) -> harness.Values:
    """Numbers of a finished demo, and the time to run it again."""
    again = run_demo(folder, budget)
    told = json.loads((folder / "demo.json").read_text())
    values: harness.Values = {f"seconds_{k}": round(v, 1) for k, v in told["seconds"].items()}
    values |= {
        "seconds_again": round(again, 2),
        "text": told["text"].replace(str(folder), "runs/demo"),
    }
    ways = [("teacher", None, True), ("one", 1, False)]
    if ours.generator_of(folder, always_two=False).config.two_call_sigma is not None:
        ways.append(("two", 2, False))
    for who, calls, teacher in ways:
        config = EvaluateConfig(num_images=2000, teacher=teacher, calls=calls)
        found = noisewise.evaluate(folder, config=config)
        values |= {
            f"{who}_verdict": found.verdict,
            f"{who}_floors": found.floors["value"],
            f"{who}_told": None if found.told_apart is None else found.told_apart["share"],
            f"{who}_distance": found.distance,
            f"{who}_calls": found.network_calls,
            f"{who}_ms": 1000 * found.seconds_per_image,
            f"{who}_copies": None if found.copies is None else found.copies["fraction"],
            f"{who}_near": None if found.copies is None else found.copies["near"]["fraction"],
            "floor": found.floor,
        }
    return values


def draw(folder: Path, path: Path) -> None:
    """Draw real pictures, and those of every way that is offered, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    run = noisewise.Run.open(folder)
    pictures = run.pictures()
    _, held_out = pictures.split(run.info["seed"])
    teacher, generator = ours.teacher_of(folder), ours.generator_of(folder, False)
    panels = {
        "real": pictures.shown(held_out[:SHOWN]),
        f"teacher, {teacher.sampler.calls} network calls": teacher.sample(SHOWN, seed=0),
        "one call": generator.sample(SHOWN, seed=0),
    }
    if generator.config.two_call_sigma is not None:
        panels["two calls"] = generator.sample(SHOWN, seed=0, calls=2)
    size = (3.5 * len(panels), 4.7)
    figure, places = pyplot.subplots(1, len(panels), figsize=size, layout="constrained")
    for place, (title, images) in zip(places, panels.items(), strict=True):
        place.imshow(sheet(images, columns=6), cmap="gray", vmin=0, vmax=255, interpolation="none")
        place.set_title(title, fontsize=13)
        place.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot.close(figure)


def listing(cell: harness.Cell) -> list[str]:
    """The two tables."""
    stages = [
        [name.removeprefix("seconds_"), f"{value:.1f} s"]
        for name, value in cell.values.items()
        if name.startswith("seconds_") and isinstance(value, float)
    ]
    rows = []
    for who, title in (("teacher", "teacher"), ("one", "one call"), ("two", "two calls")):
        if f"{who}_floors" not in cell.values:
            continue
        names = ("floors", "told", "distance", "ms", "copies", "near")
        number = {name: cell.number(f"{who}_{name}") for name in names}
        told, copies, near = (_percent(number[name]) for name in ("told", "copies", "near"))
        calls = int(cell.number(f"{who}_calls") or 0)
        verdict = str(cell.values[f"{who}_verdict"])
        rows.append(
            [
                title,
                calls,
                verdict,
                number["floors"],
                told,
                number["distance"],
                number["ms"],
                copies,
                near,
            ]
        )
    columns = "drawn by,calls,verdict,floors,told apart,distance,ms a picture,copies,near copies"
    stages.append(["floor of the distance", summaries.figure(cell.number("floor"))])
    return [summaries.table(["stage", "time"], stages), summaries.table(columns.split(","), rows)]


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f} %"


def main() -> None:
    """Run the missing parts, print the tables, draw the figure."""
    parser = harness.parser("The demo's times, distances and figure.")
    parser.add_argument("--run", type=Path, default=None, help="folder of a finished demo")
    parser.add_argument("--budget", default="5m", help="budget of the demo")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="file for the figure")
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    budget = "10s" if arguments.quick else arguments.budget
    conditions = harness.environment(threads)
    results = harness.Results(harness.results_file(arguments, NAME), conditions, arguments.redo)
    folder = arguments.run or harness.work_folder(arguments, NAME) / f"demo-{budget}"
    if not (folder / "demo.json").is_file():
        harness.note(f"demo: {budget} in {folder}")
        harness.note(f"demo: {run_demo(folder, budget):.0f} s in all")
    cell = results.cell({"budget": budget}, lambda: measure(folder, budget))
    picture = folder / "demo.png" if arguments.quick else arguments.picture
    draw(folder, picture)
    harness.publish(
        results, "The demo", [f"2,000 pictures; picture: {picture.name}.", *listing(cell)]
    )


if __name__ == "__main__":
    harness.run_program(main)
