"""A pixel model moved to a second set: adapters, full fine-tuning and new training, at equal time.

A teacher of garments (the packaged pictures) is adapted to another set of pictures, converted to
its size and to grey. The ways are `noisewise adapt` with each start and several ranks, full
fine-tuning (`--start full`), and a new teacher with a net of the same width. Each way has the same
minutes; the time that `lora-ga` needs for its start is measured first and subtracted. No model uses
kinds of pictures, because a new teacher would have other kinds.

Learning rates are swept for each way, and the grid grows if the best rate is at its edge. All are
scored by one measure: the loss on 300 other pictures of the new set, with the noise levels and the
weight of the old teacher. A run that broke down counts as infinite. `--pictures` limits each way to
this number of pictures of the new set, drawn again for each seed.

    python -m benchmarks.adapters.pixels --data FOLDER --minutes 2 --seeds 5
    python -m benchmarks.adapters.pixels --data FOLDER --minutes 1 --seeds 2 --pictures 100
"""

from __future__ import annotations

import itertools
import math
import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import noisewise
from benchmarks.shared import harness, summaries
from noisewise.sizes import written

if TYPE_CHECKING:
    from noisewise.training.run.run import Run
    from noisewise.training.settings.config import AdaptConfig, AdapterStart

NAME = "adapters/pixels"
TITLE = "Adapters of a pixel model: garments to another set, at equal time"
SETS = ("noto_emoji_32", "dungeon_tiles_32")
WIDER = 3  # how many times a grid may grow


@dataclass(frozen=True)
class Way:
    """A start of `noisewise adapt`, or "scratch"; the rank of its adapters; rates to try."""

    start: AdapterStart | Literal["scratch"]
    rank: int
    rates: tuple[float, ...]


ADAPTERS = RANDOM = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2)
WAYS = {
    "lora-ga": Way("lora-ga", 8, ADAPTERS),
    "lora-ga, rank 2": Way("lora-ga", 2, ADAPTERS),
    "lora-ga, rank 32": Way("lora-ga", 32, ADAPTERS),
    "lora": Way("lora", 8, RANDOM),
    "lora, rank 32": Way("lora", 32, RANDOM),
    "full": Way("full", 8, (3e-4, 7e-4, 1.5e-3, 3e-3, 6e-3)),
    "scratch": Way("scratch", 0, (4e-3, 8e-3, 1.5e-2, 2.5e-2, 5e-2)),  # 1.5e-2: noisewise's own
}


def teacher(place: Path, minutes: float) -> Path:
    """Return a teacher of garments, trained once."""
    from noisewise.demo import demo_path
    from noisewise.training.settings.config import TrainConfig

    folder = place / f"garments-{minutes:g}"
    config = TrainConfig(budget=f"{60 * minutes:g}s", net="unet", kinds=0)
    noisewise.train(demo_path(), out=folder, config=config)
    return folder


def start_seconds(old: Path, pictures: Path, config: AdaptConfig, place: Path) -> float:
    """Return the seconds of the start alone: the gradients of `lora-ga` and its factors."""
    from noisewise.diffusion import Preconditioned
    from noisewise.pictures.pictures import load_pictures
    from noisewise.training.adapt import adapted_net, plan_adaptation, start_gradients

    model = noisewise.Run.open(old).teacher()
    images = load_pictures(pictures, model.config.size, model.config.channels, place / "cache")
    plan = plan_adaptation(model, images, config)
    assert isinstance(model.denoiser, Preconditioned)
    began = time.perf_counter()
    full = start_gradients(model.denoiser, images, plan, config) if config.start != "lora" else None
    adapted_net(model.denoiser, config.start, config.rank, full)
    return time.perf_counter() - began


def split(whole: Path, num_pictures: int, seed: int, place: Path) -> tuple[Path, Path]:
    """Split a set into two files: pictures to learn from (0: all but 300), 300 for the score."""
    import numpy as np

    paths = tuple(
        place / f"{whole.stem}-{num_pictures}-{seed}-{part}.npz" for part in ("learnt", "judged")
    )
    if not all(path.exists() for path in paths):
        with np.load(whole) as stored:
            images = stored["images"]
        order = np.random.default_rng(seed).permutation(len(images))
        learnt = order[300:][: num_pictures or None]
        place.mkdir(parents=True, exist_ok=True)
        for path, chosen in zip(paths, (learnt, order[:300]), strict=True):
            np.savez(path, images=images[chosen])
    return paths[0], paths[1]


def score(run: Run, old: Path, pictures: Path, seed: int) -> float:
    """Return the loss of a run's teacher, with the old teacher's noise levels and weight."""
    import numpy as np

    from noisewise.pictures.pictures import load_pictures
    from noisewise.training.adapt import plan_adaptation
    from noisewise.training.devices.engine import Engine
    from noisewise.training.settings.config import AdaptConfig
    from noisewise.training.stages.heldout_loss import HeldOutBatch

    model = noisewise.Run.open(old).teacher()
    images = load_pictures(pictures, model.config.size, model.config.channels, run.path / "scored")
    plan = plan_adaptation(model, images, AdaptConfig(seed=seed))
    held_out = HeldOutBatch(
        images.tensor(np.arange(len(images))), None, plan, Engine.choose("cpu", "float32")
    )
    return held_out.loss(run.teacher().denoiser)


def measure(
    way: Way, lr: float, seed: int, seconds: float, old: Path, sets: tuple[Path, Path], out: Path
) -> harness.Values:
    """Adapt or train within the time, and return the measured values."""
    from noisewise.training.adapt import adapt
    from noisewise.training.settings.config import AdaptConfig, TrainConfig
    from noisewise.training.stages.loop import TrainingFailed

    shutil.rmtree(out, ignore_errors=True)  # from an interrupted call: its time is not known
    pictures, judged = sets
    described, start = noisewise.Run.open(old).teacher().config, way.start
    began, started = time.perf_counter(), 0.0
    try:
        if start == "scratch":
            config = TrainConfig(
                budget=f"{seconds:g}s",
                seed=seed,
                size=written(described.size),
                channels=described.channels,
                net="unet",
                kinds=0,
                widths=tuple(described.net["widths"]),
                lr=lr,
            )
            run = noisewise.train(pictures, out=out, config=config)
        else:
            config = AdaptConfig(seed=seed, lr=lr, start=start, rank=way.rank)
            if start != "full":
                started = start_seconds(old, pictures, config, out.with_name("timing"))
                began = time.perf_counter()
            run = adapt(old, pictures, out, f"{max(1.0, seconds - started):g}s", config=config)
    except TrainingFailed as error:
        return {"broke": str(error), "seconds": time.perf_counter() - began}
    stage, wall = run.info["stages"]["teacher"], time.perf_counter() - began
    return {
        "heldout_loss": score(run, old, judged, seed),
        "distance": stage.get("distance"),
        "steps": stage["steps"],
        "start_seconds": started,
        "seconds": wall,
        "weights": sum(p.numel() for p in run.teacher().denoiser.parameters()),
        "signal": run.info.get("adapt", {}).get("gradient_signal"),
    }


# -------------------------------------------------------------------------------------- tables


def losses(cells: list[harness.Cell]) -> list[float]:
    """Return the loss of each run; infinite if it broke down."""
    found = [cell.number("heldout_loss") for cell in cells]
    return [math.inf if loss is None else loss for loss in found]


def best_rate(
    results: harness.Results, setting: harness.Setting
) -> tuple[float | None, list[float]]:
    """Return the rate with the lowest median loss, and all rates that were tried."""
    rates = sorted({cell.asked("lr") for cell in results.cells(setting)})
    at = {lr: statistics.median(losses(results.cells({**setting, "lr": lr}))) for lr in rates}
    known = {lr: loss for lr, loss in at.items() if math.isfinite(loss)}
    return (min(known, key=known.__getitem__) if known else None), rates


def shown(cells: list[harness.Cell]) -> str:
    """Return the median with its interval, or the number of runs that broke down."""
    found = losses(cells)
    broken = sum(math.isinf(loss) for loss in found)
    return f"{broken} of {len(found)} broke down" if broken else shown_of(found)


def shown_of(values: list[float]) -> str:
    """Return the median with its interval as text."""
    return str(summaries.summarise([[value] for value in values]) or "-")


def numbers(cells: list[harness.Cell], name: str) -> list[float]:
    """Return a value of each run that has it."""
    return [n for cell in cells if (n := cell.number(name)) is not None]


def table(results: harness.Results, sets: tuple[str, ...], kept: dict[str, float]) -> list[str]:
    """Return each way at its best rate, by the held-out loss, and the whole grid."""
    parts = []
    for name in sets:
        rows, grid = [], []
        for way in WAYS:
            setting = {**kept, "set": name, "way": way}
            best, rates = best_rate(results, setting)
            grid += [(way, f"{lr:g}", shown(results.cells({**setting, "lr": lr}))) for lr in rates]
            if best is None:
                continue
            cells = results.cells({**setting, "lr": best})
            edge = " (edge)" if best in (rates[0], rates[-1]) else ""
            rows.append(
                (
                    way,
                    f"{best:g}{edge}",
                    shown(cells),
                    shown_of(numbers(cells, "distance")),
                    *(
                        statistics.median(numbers(cells, value) or [math.nan])
                        for value in ("steps", "start_seconds", "seconds")
                    ),
                )
            )
        head = ["way", "best rate", "held-out loss", "distance", "steps", "start, s", "total, s"]
        parts.append(f"{name}, each way at its best rate:\n\n" + summaries.table(head, rows))
        parts.append(f"{name}, held-out loss:\n\n" + summaries.table(["way", "rate", "loss"], grid))
    return parts


def main() -> None:
    """Run the missing cells, widen grids, and print the tables."""
    parser = harness.parser(__doc__ or "")
    parser.add_argument("--minutes", type=float, default=2.0, help="training time of each way")
    parser.add_argument(
        "--teacher-minutes", type=float, default=5.0, help="training time of the first teacher"
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument(
        "--sets", default=",".join(SETS), help="names of .npz files, separated by commas"
    )
    parser.add_argument(
        "--pictures", type=int, default=0, help="pictures of the new set; 0: all but 300"
    )
    parser.add_argument("--ways", default="", help="names separated by semicolons; empty: all")
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    names = ("noisewise", "torch", "peft", "transformers")
    conditions = harness.environment(threads, names)
    if harness.version_of("peft") is None:
        raise harness.UsageError("This benchmark needs PEFT: pip install noisewise[adapters].")
    results = harness.Results(harness.results_file(arguments, NAME), conditions, arguments.redo)
    sets = tuple(arguments.sets.split(","))
    ways = harness.names(arguments.ways, WAYS, "way", ";") if arguments.ways else list(WAYS)
    minutes = 0.1 if arguments.quick else arguments.minutes
    kept = {"minutes": minutes, "pictures": arguments.pictures}
    if not arguments.table_only:
        place = harness.work_folder(arguments, NAME)
        old = teacher(place, 0.2 if arguments.quick else arguments.teacher_minutes)

        seeds = range(1 if arguments.quick else arguments.seeds)

        def cell(name: str, way: str, lr: float, seed: int) -> None:
            pictures = harness.data_file(arguments.data, f"{name}.npz")
            setting = {**kept, "set": name, "way": way, "lr": lr, "seed": seed}
            sets = split(pictures, arguments.pictures, seed, place / "sets")
            plain = way.replace(", ", "-").replace(" ", "")
            out = place / f"{name}-{arguments.pictures}-{plain}-{lr:g}-{seed}"
            results.cell(
                setting, lambda: measure(WAYS[way], lr, seed, 60 * minutes, old, sets, out)
            )

        for name in sets[:1] if arguments.quick else sets:
            for seed, way in itertools.product(
                seeds, ways
            ):  # all ways of one seed, then of the next
                for lr in WAYS[way].rates[1:2] if arguments.quick else WAYS[way].rates:
                    cell(name, way, lr, seed)
            for way in ways:
                for _ in range(0 if arguments.quick else WIDER):
                    setting = {**kept, "set": name, "way": way}
                    best, rates = best_rate(results, setting)
                    if best is None or best not in (rates[0], rates[-1]):
                        break
                    for seed in seeds:
                        wider = rounded(best / 3 if best == rates[0] else best * 3)
                        cell(name, way, wider, seed)
    harness.publish(results, TITLE, table(results, sets, kept))


def rounded(lr: float) -> float:
    """Round a rate to two digits, so that the next call finds the same cell."""
    return float(f"{lr:.1e}")


if __name__ == "__main__":
    harness.run_program(main)
