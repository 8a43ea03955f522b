"""A pixel model moved to a second set: adapters, full fine-tuning and from scratch, at equal time.

A teacher of garments (the packaged pictures) is adapted to another set of pictures, brought to its
size and to grey: by `noisewise adapt` with each start, by full fine-tuning (`--start full`), and a
new teacher is trained from nothing with the same net, each within the same minutes. Held-out loss
of the new set at the end, noisewise's own distance to its held-out pictures, and the weights
trained. Learning rates are swept for each.

    python benchmarks/adapters_pixels.py --data FOLDER --minutes 2 --seeds 5
"""

from __future__ import annotations

from pathlib import Path

import harness
import noisewise
import summaries

NAME = "adapters_pixels"
TITLE = "Adapters of a pixel model: garments to another set, at equal time"
SETS = ("noto_emoji_32", "dungeon_tiles_32")
WAYS = ("lora-ga", "lora", "full", "scratch")
RATES = {
    "lora-ga": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "lora": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "full": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "scratch": (1.5e-2,),  # noisewise's own, which was swept before
}


def teacher(place: Path, minutes: float) -> Path:
    """A teacher of garments, trained once."""
    from noisewise.demo import demo_path

    folder = place / f"garments-{minutes:g}"
    noisewise.train(demo_path(), out=folder, budget=f"{60 * minutes:g}s")
    return folder


def measure(
    way: str, lr: float, seed: int, seconds: float, old: Path, pictures: Path, place: Path
) -> harness.Values:
    """Adapt or train within the time; what the run says of itself."""
    from noisewise.train.adapt_config import AdaptConfig
    from noisewise.train.adaptation import adapt
    from noisewise.train.config import TrainConfig

    out = place / f"{pictures.stem}-{way}-{lr:g}-{seed}"
    budget = f"{seconds:g}s"
    described = noisewise.load(old, "teacher").config
    if way == "scratch":
        config = TrainConfig(
            budget=budget,
            seed=seed,
            size=described.size,
            channels=described.channels,
            widths=tuple(described.net["widths"]),
            lr=lr,
        )
        run = noisewise.train(pictures, out=out, config=config)
    else:
        config = AdaptConfig(budget=budget, seed=seed, lr=lr, start=way, rank=8)  # pyrefly: ignore
        run = adapt(old, pictures, out, config=config)
    stage = run.info["stages"]["teacher"]
    return {
        "heldout_loss": stage["heldout_loss"],
        "distance": stage.get("distance"),
        "steps": stage["steps"],
        "seconds": stage["seconds"],
        "signal": run.info.get("adapt", {}).get("gradient_signal"),
    }


def table(results: harness.Results, sets: tuple[str, ...]) -> list[str]:
    """Each way at its best rate, by the held-out loss, and the whole grid."""
    parts = []
    for name in sets:
        rows, grid = [], []
        for way in WAYS:
            rates = sorted({c.asked("lr") for c in results.cells({"set": name, "way": way})})
            found = {}
            for lr in rates:
                cells = results.cells({"set": name, "way": way, "lr": lr})
                found[lr] = summaries.summarise(
                    [[n] for c in cells if (n := c.number("heldout_loss"))]
                )
                grid.append((way, f"{lr:g}", found[lr]))
            known = {lr: s.median for lr, s in found.items() if s is not None}
            if not known:
                continue
            best = min(known, key=known.__getitem__)
            cells = results.cells({"set": name, "way": way, "lr": best})
            away = summaries.summarise(
                [[n] for c in cells if (n := c.number("distance")) is not None]
            )
            steps = summaries.summarise([[n] for c in cells if (n := c.number("steps"))])
            rows.append((way, f"{best:g}", found[best], away, steps.median if steps else None))
        head = ["way", "best rate", "held-out loss", "distance", "steps"]
        parts.append(f"{name}, each way at its best rate:\n\n" + summaries.table(head, rows))
        parts.append(f"{name}, held-out loss:\n\n" + summaries.table(["way", "rate", "loss"], grid))
    return parts


def main() -> None:
    """Run the cells that are missing, and print the tables."""
    parser = harness.parser(__doc__ or "")
    parser.add_argument("--minutes", type=float, default=2.0, help="for each way")
    parser.add_argument("--teacher-minutes", type=float, default=5.0, help="for the first teacher")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds")
    parser.add_argument("--sets", default=",".join(SETS), help="names of .npz files, with commas")
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    names = ("noisewise", "torch", "peft", "transformers")
    conditions = harness.environment(threads, names)
    if harness.version_of("peft") is None:
        raise harness.UsageError("This benchmark needs PEFT: pip install noisewise[adapters].")
    results = harness.Results(harness.results_file(arguments, NAME), conditions, arguments.redo)
    sets = tuple(arguments.sets.split(","))
    if not arguments.table_only:
        place = harness.work_folder(arguments, NAME)
        minutes = 0.1 if arguments.quick else arguments.minutes
        old = teacher(place, 0.2 if arguments.quick else arguments.teacher_minutes)
        for seed in range(1 if arguments.quick else arguments.seeds):
            for name in sets[:1] if arguments.quick else sets:
                pictures = harness.data_file(arguments.data, f"{name}.npz")
                for way in WAYS:
                    for lr in RATES[way][:1] if arguments.quick else RATES[way]:
                        setting = {
                            "set": name, "way": way, "lr": lr, "seed": seed, "minutes": minutes,
                        }  # fmt: skip
                        results.cell(
                            setting,
                            lambda w=way, x=lr, n=seed, p=pictures: measure(
                                w, x, n, 60 * minutes, old, p, place
                            ),
                        )
    harness.publish(results, TITLE, table(results, sets))


if __name__ == "__main__":
    harness.run_program(main)
