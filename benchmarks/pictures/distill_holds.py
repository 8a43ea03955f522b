"""Do the defaults of a distillation hold, on small and large sets, after short and long teachers?

Each cell trains a teacher and distils it, with nothing set but the time and the seed. It holds if
the generator's pictures are varied (see `noisewise.quality.variety`) and no more than twice as far
from real ones as its teacher's. Two grids show the teacher's pictures and the generator's.

    python -m benchmarks.pictures.distill_holds --data FOLDER --minutes 2.5,12 --seeds 0,1

An interrupted program goes on with the next cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.shared import harness, ours, summaries
from noisewise.pictures.pictures import load_pictures
from noisewise.quality import Judge, variety
from noisewise.training.files.sample_sheet import sheet
from noisewise.training.run.log import Log
from noisewise.training.stages.loop import TrainingFailed

NAME = "pictures/distill_holds"
DRAWN = 500
ALIKE, FAR = 0.5, 2.0  # lowest variety, largest distance over the teacher's


@dataclass(frozen=True)
class Set:
    """A set of pictures: `count` of a file (0: all), of some categories, reduced to `side`."""

    file: str
    count: int = 0
    side: int = 0
    categories: tuple[str, ...] = ()


SETS = {
    "garments": Set("fashion_mnist_6k.npz"),
    "garments_300": Set("fashion_mnist_6k.npz", 300),
    "tiles": Set("dungeon_tiles_32.npz"),
    "monsters_150": Set("dungeon_tiles_32.npz", 150, categories=("monster",)),
    "people": Set("noto_emoji_32.npz", categories=("Smileys & Emotion", "People & Body")),
    "emoji": Set("noto_emoji_32.npz"),
    "fluent_48_400": Set("fluent_emoji_3d_128.npz", 400, 48),
    "fluent_64": Set("fluent_emoji_3d_64.npz"),
}


def prepared(name: str, data: str | None, folder: Path) -> Path:
    """The pictures of a set as an .npz without labels, written once.

    Raises:
        harness.UsageError: if the file is missing.
    """
    which, target = SETS[name], folder / f"{name}.npz"
    if target.is_file():
        return target
    with np.load(harness.data_file(data, which.file)) as stored:
        images = stored["images"]
        if which.categories:
            names = [str(one) for one in stored["categories"]]
            wanted = [names.index(one) for one in which.categories]
            images = images[np.isin(stored["labels"], wanted)]
    if which.count:
        images = images[np.random.default_rng(0).permutation(len(images))[: which.count]]
    if which.side:
        images = np.stack([_reduced(image, which.side) for image in images])
    return ours.prepare(target, images)


def _reduced(image: np.ndarray, side: int) -> np.ndarray:
    small = Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(small)


def compute(data: Path, folder: Path, seconds: float, seed: int, threads: int) -> harness.Values:
    """Train, distil and measure one cell."""
    found = {f"train_{k}": v for k, v in _trained(data, folder, seconds, seed, threads).items()}
    try:
        found |= ours.distill(folder, seconds, seed, threads)
    except TrainingFailed as failure:  # the best generator so far is kept
        found |= {"failed": str(failure)}
    return found | measure(data, folder)


def _trained(data: Path, folder: Path, seconds: float, seed: int, threads: int) -> harness.Values:
    if ours.has_model(folder, "teacher"):
        return {}
    return ours.train(data, folder, seconds, seed, threads)


def measure(data: Path, folder: Path) -> harness.Values:
    """Variety and floors of teacher and generator, what the guards did, and two grids."""
    teacher, generator = ours.teacher_of(folder), ours.generator_of(folder)
    pictures = load_pictures(data)
    chosen = np.random.default_rng(0).permutation(len(pictures))[:2000]
    judge = Judge(pictures.shown(np.sort(chosen)))
    theirs, drawn = teacher.sample(DRAWN, seed=1), generator.sample(DRAWN, seed=1)
    labels = teacher.labels(1, 0, DRAWN, None)
    varied = variety(drawn, theirs, labels, labels)
    for name, images in (("teacher", theirs), ("generator", drawn)):
        Image.fromarray(sheet(images[:64])).save(folder / f"{name}.png")
    records = [r for r in Log(folder / "log.jsonl").read() if r.stage == "generator"]
    return {
        "num_pictures": len(pictures),
        "variety": varied.value,
        "variety_overall": varied.overall,
        "teacher_floors": judge.measure(theirs).at_standard,
        "floors": judge.measure(drawn).at_standard,
        "went_back": sum(record.kind == "went_back" for record in records),
        "why": "; ".join(r.event or "" for r in records if r.kind in ("went_back", "failed")),
        "varieties": [r.variety for r in records if r.variety is not None],
        "distances": [r.floors for r in records if r.floors is not None],
    }


def table(results: harness.Results, match: dict[str, object]) -> str:
    """A row for each set, time and seed."""
    rows = []
    for cell in results.cells(match):
        ratio = (cell.number("floors") or 0.0) / max(cell.number("teacher_floors") or 0.0, 1e-9)
        varied = cell.number("variety") or 0.0
        rows.append(
            [
                cell.setting["set"],
                f"{cell.asked('minutes'):g}",
                cell.setting["seed"],
                *(summaries.figure(cell.number(k)) for k in ("teacher_floors", "floors")),
                summaries.figure(ratio),
                summaries.figure(varied),
                cell.values["went_back"],
                _verdict(cell, varied, ratio),
            ]
        )
    titles = ["set", "minutes a stage", "seed", "teacher, floors", "one call, floors", "ratio"]
    return summaries.table([*titles, "variety", "went back", ""], rows)


def _verdict(cell: harness.Cell, varied: float, ratio: float) -> str:
    if "failed" in cell.values:
        return "gave up"
    return "holds" if varied >= ALIKE and ratio <= FAR else "does not hold"


def main() -> None:
    """Run the missing cells and print the table."""
    parser = harness.parser("Do the defaults of a distillation hold?")
    parser.add_argument("--sets", default=",".join(SETS), help="comma-separated names")
    parser.add_argument("--minutes", type=harness.numbers(float), default=[2.5, 12.0])
    parser.add_argument("--seeds", type=harness.numbers(int), default=[0, 1])
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    results = harness.Results(
        harness.results_file(arguments, NAME), harness.environment(threads), arguments.redo
    )
    names = harness.names(arguments.sets, SETS, "set")
    names, seeds = (names[:1], [0]) if arguments.quick else (names, arguments.seeds)
    minutes = [0.2] if arguments.quick else arguments.minutes
    match: dict[str, object] = {"threads": threads}
    if not arguments.table_only:
        work = harness.work_folder(arguments, NAME)
        for count in minutes:
            for seed in seeds:
                for name in names:
                    data = prepared(name, arguments.data, work / "data")
                    folder = work / f"{name}_{count:g}m_{seed}"
                    results.cell(
                        {**match, "set": name, "minutes": count, "seed": seed},
                        lambda d=data, f=folder, m=count, s=seed: compute(d, f, 60 * m, s, threads),
                    )
    about = (
        "Nothing is set but the time of each stage. Floors are by the frozen features against real "
        "pictures; variety is that of the least varied kind, over the teacher's pictures. It "
        f"holds: variety of {ALIKE:g} or more, and at most {FAR:g} times as far as the teacher. "
        "Each cell's folder has teacher.png and generator.png, 64 pictures each."
    )
    harness.publish(results, "Distillation holds", [about, table(results, match)])


if __name__ == "__main__":
    harness.run_program(main)
