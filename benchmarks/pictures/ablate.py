"""Ablations: change one constant of a recipe at a time, with the same number of pictures seen.

Budgets are in pictures, not in seconds, so a busy machine does not change the results; the table
also shows the seconds. One seed is not enough: distillation differs by 0.5 and more from seed to
seed. So every variant runs with the same several seeds, and the table gives the range.

    python -m benchmarks.pictures.ablate --data FOLDER --stage teacher --seeds 0,1
    python -m benchmarks.pictures.ablate --data FOLDER --stage student --variants "recipe,t_min 0"
"""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import noisewise
from benchmarks.shared import harness, judge, ours, summaries
from noisewise.training.settings.config import DistillConfig, TrainConfig
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe

NAME = "pictures/ablate"
IMAGES = {"teacher": 48_000, "student": 12_800}
SAMPLER = (5, 0.3)  # Heun steps and last noise level, the same for every teacher
SECOND_SIGMA = 0.3  # the same for every generator
TEACHERS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "labels": {"classes": True},
    "Adam beside Muon 0.0045": {"adam_lr": 0.0045},
    "Adam beside Muon 0.03": {"adam_lr": 0.03},
    "Muon 0.0075": {"lr": 0.0075},
    "Muon 0.03": {"lr": 0.03},
    "AdamW alone 0.003": {"optimizer": "adamw"},
    "batch 32": {"batch": 32},
    "batch 128": {"batch": 128},
    "noise mean 0": {"noise_mean": 0.0},
    "noise mean -0.8": {"noise_mean": -0.8},
    "width 24": {"widths": (24, 48, 96)},
    "width 48": {"widths": (48, 96, 192)},
}
STUDENTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "lambda 0.5": {"lam": 0.5},
    "lambda 1": {"lam": 1.0},
    "DMD": {"grad_through": "none"},
    "weight l1": {"weight": "l1"},
    "lr 1e-4": {"lr": 1e-4, "fake_lr": 1e-4},
    "lr 6e-4": {"lr": 6e-4, "fake_lr": 6e-4},
    "fake lr 6e-4": {"fake_lr": 6e-4},
    "beta2 0.99": {"betas": (0.0, 0.99)},
    "betas 0.9 and 0.99": {"betas": (0.9, 0.99)},
    "betas 0.9 and 0.99 lr 6e-4": {"betas": (0.9, 0.99), "lr": 6e-4, "fake_lr": 6e-4},
    "batch 32": {"batch": 32},
    "fake noise as the teacher's": {"fake_noise_shift": 0.0},
    "fake noise +1.4": {"fake_noise_shift": 1.4},
    "t_min 0": {"t_min": 0.0},
    "t_min 0.3 to the end": {"t_falls": (1.0, 2.0)},
    "t_min falls from the start": {"t_falls": (0.0, 0.7)},
    "both as before": {"t_min": 0.0, "fake_noise_shift": 0.0},
    "sigma_init 3 sd": {"sigma_init_scale": 3.0},
    "sigma_init 10 sd": {"sigma_init_scale": 10.0},
    "2 fake steps": {"fake_steps": 2},
    "5 fake steps": {"fake_steps": 5},
    "batch 128": {"batch": 128},
    "no clipping": {"clip": 1e6},
    "t_max 0.8": {"t_max": 0.8},
    "EMA 0.05 alone": {"ema_shares": (0.05,)},
    "EMA 0.5 alone": {"ema_shares": (0.5,)},
    "classes balanced": {"balanced": True},
    "generator half as wide": {"generator_widths": 0.5},
    "generator twice as wide": {"generator_widths": 2.0},
    "generator from nothing": {"generator_start": "fresh"},
}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {"teacher": TEACHERS, "student": STUDENTS}


@dataclass(frozen=True)
class Bench:
    """Judges, data and folders; the same for all variants."""

    judges: judge.Bench
    offline: ours.Offline
    data: Path
    folder: Path
    threads: int
    num_images: int


def fixed(bench: Bench, seed: int, images: int) -> dict[str, Any]:
    """Settings that no variant changes, for both stages."""
    return {
        "budget": f"{images}images",
        "seed": seed,
        "device": "cpu",
        "precision": "bfloat16",
        "threads": bench.threads,
    }


def train(bench: Bench, name: str, seed: int, images: int, folder: Path) -> harness.Values:
    """Train a teacher with one constant changed, and measure it."""
    changed = dict(TEACHERS[name])
    config = TrainConfig(
        **fixed(bench, seed, images),
        classes=bool(changed.pop("classes", False)),
        widths=changed.pop("widths", ()),  # pyrefly: ignore[bad-argument-type]
        recipe=dataclasses.replace(
            TeacherRecipe(sampler_images=0, distance_images=0),
            **changed,  # pyrefly: ignore[bad-argument-type]
        ),
    )
    shutil.rmtree(folder, ignore_errors=True)
    run = noisewise.train(bench.data, out=folder, config=config)
    teacher = ours.with_sampler(run.teacher(), *SAMPLER)
    pictures = teacher.sample(bench.num_images, seed=1)
    noted = run.info["stages"]["teacher"]
    own = {"seconds": noted["seconds"], "heldout_loss": noted["heldout_loss"]}
    return own | measure(bench, pictures)


def distill(bench: Bench, name: str, seed: int, images: int, teacher: Path) -> harness.Values:
    """Distil a generator with one constant changed, always from the same teacher; measure it."""
    folder = bench.folder / "student"
    shutil.rmtree(folder, ignore_errors=True)
    changed = dict(STUDENTS[name])
    if factor := changed.get("generator_widths"):
        widths = ours.teacher_of(teacher).config.net["widths"]
        # Nets that have widths take multiples of 8.
        changed["generator_widths"] = tuple(
            max(8, round(factor * width / 8) * 8) if width else 0 for width in widths
        )
    recipe = dataclasses.replace(StudentRecipe(distance_images=512), **changed)  # pyrefly: ignore[bad-argument-type]
    config = DistillConfig(**fixed(bench, seed, images), recipe=recipe)
    generator = noisewise.distill(folder, teacher=teacher, config=config)
    one = generator.sample(bench.num_images, seed=1)
    two = second_call(ours.teacher_of(folder), one)
    noted = noisewise.Run.open(folder).info["stages"]["generator"]
    second = {f"two_{key}": value for key, value in measure(bench, two).items()}
    return {"seconds": noted["seconds"]} | measure(bench, one) | second


@torch.no_grad()
def second_call(teacher: ours.Teacher, pictures: Tensor) -> Tensor:
    """The second call, by the teacher, at one noise level for all generators."""
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(3))
    noised = (pictures + SECOND_SIGMA * noise).split(250)
    labels = teacher.labels(1, 0, len(pictures), None)
    parts = labels.split(250) if labels is not None else [None] * len(noised)
    found = [
        teacher(x, torch.full((len(x),), SECOND_SIGMA), y)
        for x, y in zip(noised, parts, strict=True)
    ]
    return torch.cat(found).clamp(-1, 1)


def measure(bench: Bench, pictures: Tensor) -> harness.Values:
    """Distances by both judges and by our own measure, and the brightness of the pictures."""
    return {
        "distance": bench.judges.distance(pictures),
        "severe": bench.judges.severe(pictures),
        "offline": bench.offline.distance(pictures),
        "entropy": bench.judges.entropy(pictures),
        "mean": float(pictures.mean()),
    }


def listing(results: harness.Results, match: dict[str, object], stage: str) -> str:
    """Table of the variants, smallest distance first."""
    found = {name: results.cells({**match, "variant": name}) for name in VARIANTS[stage]}
    columns = ["distance", "severe", "offline", "entropy", "mean"]
    columns += ["two_distance", "two_severe"] if stage == "student" else ["heldout_loss"]
    rows = []
    for name, cells in found.items():
        if not cells:
            continue
        shown = []
        for column in [*columns, "seconds"]:
            values = [v for cell in cells if (v := cell.number(column)) is not None]
            spread = f"{summaries.figure(min(values))} to {summaries.figure(max(values))}"
            shown.append(spread if len(values) > 1 else summaries.figure(values[0]))
        rows.append([name, *shown, len(cells)])
    rows.sort(key=lambda row: float(str(row[1]).split()[0]))
    titles = ["plain judge", "severe judge", "offline distance", "class entropy", "mean pixel"]
    titles += ["two calls, plain", "two calls, severe"] if stage == "student" else ["held-out loss"]
    return summaries.table(["variant", *titles, "seconds", "seeds"], rows)


def main() -> None:
    """Run the missing cells and print the table of the stage."""
    parser = harness.parser("Change one constant of a recipe at a time.")
    judge.add_options(parser)
    parser.add_argument("--stage", choices=("teacher", "student"), default="student")
    parser.add_argument("--variants", default="", help="comma-separated names; none: all")
    parser.add_argument("--seeds", type=harness.numbers(int), default=[0, 1])
    parser.add_argument("--images", type=int, default=0, help="pictures seen; 0: the usual number")
    parser.add_argument("--teacher", type=Path, default=None, help="run to distil; none: train one")
    arguments = parser.parse_args()
    stage = arguments.stage
    given, known = arguments.variants, VARIANTS[stage]
    names = harness.names(given, known, "variant") if given else []
    threads = harness.use_threads(arguments.threads)
    judges = judge.bench_from(arguments)
    folder = harness.work_folder(arguments, NAME)
    bench = Bench(
        judges,
        ours.Offline(judges.data.test_images[: 500 if arguments.quick else 10_000]),
        judge.training_file(judges.data, folder.parent / "data", classes=True),
        folder,
        threads,
        64 if arguments.quick else 2000,
    )
    conditions = harness.environment(threads) | judges.conditions()
    results = harness.Results(
        harness.results_file(arguments, f"{NAME}_{stage}"), conditions, arguments.redo
    )
    images = 640 if arguments.quick else arguments.images or IMAGES[stage]
    match: dict[str, object] = {"images": images, "judge": judges.fingerprint}
    teacher = arguments.teacher or folder / "teacher"
    if stage == "student":
        if not ours.has_model(teacher, "teacher"):
            train(bench, "recipe", 0, 640 if arguments.quick else 3 * IMAGES["teacher"], teacher)
        # Never put cells of two teachers into one table.
        match["teacher"] = noisewise.Run.open(teacher).teacher_digest()
    if not arguments.table_only:
        for name in names or (["recipe"] if arguments.quick else VARIANTS[stage]):
            for seed in [0] if arguments.quick else arguments.seeds:
                results.cell(
                    {**match, "variant": name, "seed": seed},
                    lambda n=name, s=seed: (
                        train(bench, n, s, images, folder / "run")
                        if stage == "teacher"
                        else distill(bench, n, s, images, teacher)
                    ),
                )
    about = (
        f"{images:,} pictures seen, bfloat16, {bench.num_images:,} drawn; the range over seeds. "
        f"Teachers are drawn with {2 * SAMPLER[0] - 1} calls that stop at {SAMPLER[1]}; the second "
        f"call has noise {SECOND_SIGMA}. Judges {judges.fingerprint}."
        + (f" Distilled from {match['teacher']}." if "teacher" in match else "")
    )
    harness.publish(results, f"Ablations: {stage}", [about, listing(results, match, stage)])


if __name__ == "__main__":
    harness.run_program(main)
