"""The runs of the judge's panel, and the pictures that their models draw.

The runs are trained with the commands of noisewise, so an interrupted training resumes. Drawn
pictures are kept as 8-bit values in one file for each model and sampler, with the digest of the
model: pictures of another model are drawn again.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.shared import harness, ours
from noisewise.training.models.models import Teacher

SEED = 7  # of the noise that every drawing starts from
LONG = (18, 0.05)  # Heun steps and last noise level of the long sampler, 35 calls


@dataclass(frozen=True)
class Training:
    """A run of the panel.

    Attributes:
        file: the pictures; None: no training of its own.
        budget: of the teacher.
        distill: budget of the generator; None: no generator.
        teacher: another run whose teacher is distilled.
        set_aside: not part of a usual run.
    """

    file: str | None = None
    budget: str | None = None
    distill: str | None = None
    teacher: str | None = None
    set_aside: bool = False


RUNS = {
    "garments": Training("fashion_mnist_6k.npz", "8m", "8m"),
    "garments_early": Training("fashion_mnist_6k.npz", "2m"),
    "garments_short": Training(distill="2m", teacher="garments"),
    "garments_long2": Training(distill="20m", teacher="garments"),
    "tiles_15": Training("dungeon_tiles_32.npz", "15m"),
    "tiles_60": Training("dungeon_tiles_32.npz", "60m"),
    "fluent": Training("fluent_emoji_3d_64.npz", "10m", "5m"),
    "fluent_early": Training("fluent_emoji_3d_64.npz", "150s", set_aside=True),
    "emoji": Training("noto_emoji_32.npz", "10m", "5m", set_aside=True),
    "emoji_early": Training("noto_emoji_32.npz", "150s", set_aside=True),
}


@dataclass(frozen=True)
class Output:
    """Pictures of a model.

    Attributes:
        set: the picture set that it learnt.
        name: name in results, and of its file.
        run: the run with the model.
        sampler: (Heun steps, last noise level) of a teacher; None: its own sampler.
        calls: of a generator; None: the teacher draws.
        set_aside: not part of a usual run.
    """

    set: str
    name: str
    run: str
    sampler: tuple[int, float] | None = None
    calls: int | None = None
    set_aside: bool = False

    @property
    def model(self) -> str:
        """Which model of the run draws."""
        return "teacher" if self.calls is None else "generator"


SAMPLERS = {
    f"h{2 * steps - 1}_{stop:g}": (steps, stop)
    for steps, stop in (
        (18, 0.002), (18, 0.05), (18, 0.02), (8, 0.05), (8, 0.1), (8, 0.18), (8, 0.3),
        (5, 0.08), (5, 0.18), (5, 0.3), (5, 0.5), (4, 0.3), (4, 0.5),
    )
}  # fmt: skip


def _teacher_outputs(which: str, run: str, set_aside: bool = False) -> list[Output]:
    return [
        Output(which, f"{run}_own", run, set_aside=set_aside),
        Output(which, f"{run}_h35", run, LONG, set_aside=set_aside),
    ]


def _generator_outputs(which: str, run: str, set_aside: bool = False) -> list[Output]:
    return [
        Output(which, f"{run}_one", run, calls=1, set_aside=set_aside),
        Output(which, f"{run}_two", run, calls=2, set_aside=set_aside),
    ]


OUTPUTS = (
    *(Output("garments", name, "garments", sampler) for name, sampler in SAMPLERS.items()),
    Output("garments", "garments_own", "garments"),
    *_teacher_outputs("garments", "garments_early"),
    *_generator_outputs("garments", "garments_short"),
    *_generator_outputs("garments", "garments"),
    *_generator_outputs("garments", "garments_long2"),
    *_teacher_outputs("tiles", "tiles_15"),
    *_teacher_outputs("tiles", "tiles_60"),
    *_teacher_outputs("fluent", "fluent"),
    *_generator_outputs("fluent", "fluent"),
    *_teacher_outputs("fluent", "fluent_early", set_aside=True),
    *_teacher_outputs("emoji", "emoji", set_aside=True),
    *_teacher_outputs("emoji", "emoji_early", set_aside=True),
    *_generator_outputs("emoji", "emoji", set_aside=True),
)


def outputs(set_aside: bool) -> list[Output]:
    """The outputs of a usual run, or those that are set aside with the finished ones beside."""
    if not set_aside:
        return [output for output in OUTPUTS if not output.set_aside]
    beside = {output.set for output in OUTPUTS if output.set_aside}
    return [o for o in OUTPUTS if o.set in beside and (o.set_aside or o.run == o.set)]


# ---------------------------------------------------------------------------------------- training


def commands(name: str, folder: Path, data: str | None) -> dict[str, list[str]]:
    """The commands that make a run, by the model that they make."""
    training, run = RUNS[name], str(folder / name)
    found = {}
    if training.file is not None and training.budget is not None:
        file = str(harness.data_file(data, training.file))
        found["teacher"] = ["train", file, "--out", run, "--budget", training.budget]
    if training.distill is not None:
        found["generator"] = ["distill", run, "--budget", training.distill]
        if training.teacher is not None:
            found["generator"] += ["--teacher", str(folder / training.teacher)]
    return found


def train(folder: Path, data: str | None, set_aside: bool) -> None:
    """Train the missing models; a second call resumes.

    Raises:
        harness.UsageError: if a command fails.
    """
    for name, training in RUNS.items():
        if training.set_aside != set_aside:
            continue
        for model, words in commands(name, folder, data).items():
            if ours.has_model(folder / name, model):
                harness.note(f"[kept] {name}: {model}")
                continue
            harness.note(f"[runs] noisewise {' '.join(words)}")
            done = subprocess.run([sys.executable, "-m", "noisewise", *words], check=False)
            if done.returncode:
                raise harness.UsageError(
                    f"noisewise {' '.join(words)} ended with exit code {done.returncode}."
                )


# ---------------------------------------------------------------------------------------- drawing


def digest(folder: Path, model: str) -> str | None:
    """First digits of the SHA-256 of a run's weights; None without the model."""
    path = folder / model / "model.safetensors"
    if not ours.has_model(folder, model) or not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def teacher(folder: Path, name: str) -> Teacher | None:
    """The finished teacher of a run; None if there is none."""
    path = folder / name
    return ours.teacher_of(path) if ours.has_model(path, "teacher") else None


@dataclass(frozen=True)
class Drawn:
    """Pictures of an output, float [n, c, h, w] with 8-bit values, and the model's digest."""

    images: Tensor
    model: str


def drawn(output: Output, runs: Path, folder: Path, count: int) -> Drawn | None:
    """Pictures of an output: from its file, or else drawn now.

    A file that holds a tensor alone is taken as it is.

    Args:
        output: what to draw.
        runs: folder of the runs.
        folder: folder of drawn pictures.
        count: pictures to draw; a file with fewer of the same model is drawn again.

    Returns:
        None if there are no pictures and no model.
    """
    path, model = folder / output.set / f"{output.name}.pt", digest(runs / output.run, output.model)
    if path.is_file():
        stored = torch.load(path, weights_only=True)
        if isinstance(stored, Tensor):
            return Drawn(_images(stored), "given")
        enough = len(stored["pixels"]) >= count
        if model is None or (stored["model"] == model and enough):
            return Drawn(_images(stored["pixels"]), stored["model"])
    if model is None:
        return None
    harness.note(f"[runs] draws {count} pictures: {output.name}")
    images = _draw(output, runs / output.run, count)
    pixels = torch.from_numpy(ours.to_pixels(images)).permute(0, 3, 1, 2).contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save({"pixels": pixels, "model": model}, temporary)
    temporary.replace(path)
    return Drawn(_images(pixels), model)


def _images(pixels: Tensor) -> Tensor:
    return pixels.float().div(127.5).sub(1)


def _draw(output: Output, run: Path, count: int) -> Tensor:
    if output.calls is not None:
        return ours.generator_of(run).sample(count, SEED, calls=output.calls)
    model = ours.teacher_of(run)
    if output.sampler is not None:
        model = ours.with_sampler(model, *output.sampler, rho=7.0)
    return model.sample(count, SEED)
