"""How the benchmarks use noisewise: train and distill for a given time, draw with any sampler.

The wall-clock time is that of the public call, from reading the pictures to the model on disk. An
interrupted training starts again from zero, because a resumed one would show a wrong time.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import noisewise
from benchmarks.shared import harness
from noisewise.diffusion import HEUN
from noisewise.quality import Judge, Reference
from noisewise.training.look import RealPictures
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.settings.config import DistillConfig, TrainConfig

LONG_STEPS, LONG_STOP = 18, 0.002  # EDM's own sampler, 35 calls
TRIAL = "128images"  # the budget that tries a program
MOST_REAL = 2000  # pictures that the judge reads


def prepare(path: Path, images: np.ndarray, labels: np.ndarray | None = None) -> Path:
    """Write uint8 pictures [n, h, w, c], and labels, as the .npz to train on; only once."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp.npz")
        if labels is None:
            np.savez(temporary, images=images)
        else:
            np.savez(temporary, images=images, labels=labels)
        temporary.replace(path)
    return path


def to_pixels(images: Tensor) -> np.ndarray:
    """Float NCHW in [-1, 1] -> uint8 NHWC."""
    pixels = images.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().numpy()


def to_images(pixels: np.ndarray) -> Tensor:
    """Convert uint8 NHWC to float NCHW in [-1, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    return tensor.float().div(127.5).sub(1)


@dataclass(frozen=True)
class Clock:
    """Wall-clock and processor time; if far fewer cores than threads are used, it was busy."""

    wall: float
    processor: float

    @classmethod
    def start(cls) -> Clock:
        """Start the clock."""
        return cls(time.perf_counter(), time.process_time())

    def passed(self) -> tuple[float, float]:
        """Wall-clock seconds, and cores used on average."""
        wall = time.perf_counter() - self.wall
        return wall, (time.process_time() - self.processor) / max(wall, 1e-9)


def _stage(folder: Path, name: str, clock: Clock) -> harness.Values:
    """The run's numbers of a stage, and the wall-clock time of the call."""
    seconds, cores = clock.passed()
    noted = noisewise.Run.open(folder).info["stages"][name]
    images, own = noted["images"], noted["seconds"]
    return {
        "wall_seconds": round(seconds, 2),
        "cores_used": round(cores, 2),
        "seconds": own,
        "images": images,
        "train_steps": noted["steps"],
        "images_per_second": round(images / max(own, 1e-9), 2),
    }


def budget(seconds: float) -> str:
    """A budget of time; 0 seconds: a few pictures, which a busy machine can train on too.

    Example:
        >>> budget(90), budget(0)
        ('90s', '128images')
    """
    return f"{seconds:g}s" if seconds else TRIAL


def train(
    data: Path,
    folder: Path,
    seconds: float,
    seed: int,
    threads: int,
    classes: bool = False,
    kinds: int | None = None,
    start_from: str | None = None,
) -> harness.Values:
    """Train a teacher for a wall-clock time; noisewise derives everything else."""
    shutil.rmtree(folder, ignore_errors=True)
    config = TrainConfig(
        budget=budget(seconds),
        seed=seed,
        threads=threads,
        device="cpu",
        classes=classes,
        kinds=kinds,
        start_from=start_from,
    )
    clock = Clock.start()
    run = noisewise.train(data, out=folder, config=config)
    noted = _stage(folder, "teacher", clock)
    teacher = run.teacher()
    return (
        noted
        | {
            "parameters": parameters(teacher),
            "sampler": dataclasses.asdict(teacher.sampler),
            "net": dict(teacher.config.net),
        }
        | ({} if start_from is None else {"start": run.info.get("start", {})})
    )


def distill(folder: Path, seconds: float, seed: int, threads: int) -> harness.Values:
    """Distil the folder's teacher for a wall-clock time."""
    shutil.rmtree(folder / "generator", ignore_errors=True)
    for old in (folder / "checkpoints").glob("generator*"):
        old.unlink()
    config = DistillConfig(budget=budget(seconds), seed=seed, threads=threads, device="cpu")
    clock = Clock.start()
    generator = noisewise.distill(folder, config=config)
    return _stage(folder, "generator", clock) | {
        "parameters": parameters(generator),
        "sigma_init": generator.sigma_init,
        "two_call_sigma": generator.config.two_call_sigma,  # None: not offered
    }


@dataclass(frozen=True)
class Chain:
    """A total of seconds, and the teacher's share of it; with 1 there is no generator.

    0 seconds only try the program: each stage sees a few pictures, however busy the machine is.

    With classes, both models learn the labels and draw them as often as the data has them. Without
    classes, they learn kinds that noisewise finds itself, unless their number is set to 0. With
    `start_from`, the teacher starts from another teacher's weights.
    """

    data: Path
    folder: Path
    seconds: float
    share: float
    seed: int
    threads: int
    classes: bool = False
    kinds: int | None = None
    start_from: str | None = None


def run_chain(results: harness.Results, own: harness.Setting, chain: Chain) -> None:
    """Train and distil missing models, as the cells `own` with a stage each.

    If a model is trained again, the measurements of the old one are dropped first.

    Args:
        results: gets the cells "train" and "distill".
        own: setting that names the run.
        chain: times, data and folder.
    """
    train_cell, seed, threads = {**own, "stage": "train"}, chain.seed, chain.threads
    found = results.find(train_cell)
    if found is None or not has_model(chain.folder, "teacher"):
        results.forget(own)
        length = chain.seconds * chain.share
        found = results.run(
            train_cell,
            lambda: train(
                chain.data,
                chain.folder,
                length,
                seed,
                threads,
                chain.classes,
                chain.kinds,
                chain.start_from,
            ),
        )
    distill_cell = {**own, "stage": "distill"}
    done = results.find(distill_cell) is not None and has_model(chain.folder, "generator")
    if chain.share < 1 and not done:
        for stage in ("one call", "two calls"):
            results.forget({**own, "stage": stage})
        rest = chain.seconds - (found.number("wall_seconds") or 0.0)
        rest = max(1.0, rest) if chain.seconds else 0.0
        results.run(distill_cell, lambda: distill(chain.folder, rest, seed, threads))


def parameters(model: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())


def has_model(folder: Path, which: str) -> bool:
    """Whether a run folder has a finished model, "teacher" or "generator"."""
    return (folder / which / "config.json").is_file()


def teacher_of(folder: Path) -> Teacher:
    """The run's teacher."""
    model = noisewise.load(folder, which="teacher")
    assert isinstance(model, Teacher)
    return model


def generator_of(folder: Path, always_two: bool = True) -> Generator:
    """The run's generator.

    Args:
        folder: of the run.
        always_two: it can make a second call even where noisewise does not offer one, with the
            best of the noise levels that were tried: the benchmarks compare both.
    """
    model = noisewise.load(folder, which="generator")
    assert isinstance(model, Generator)
    tried = model.config.stats.get("two_call_floors", {})
    if always_two and model.config.two_call_sigma is None and tried:
        best = float(min(tried, key=tried.__getitem__))
        model.config = dataclasses.replace(model.config, two_call_sigma=best)
    return model


def with_sampler(
    teacher: Teacher,
    num_steps: int | None = None,
    sigma_min: float | None = None,
    rho: float | None = None,
) -> Teacher:
    """The same teacher with another number of Heun steps, last noise level or spacing of levels.

    It draws without guidance, so that `sampler.calls` is what it costs.
    """
    old = teacher.sampler
    new = dataclasses.replace(
        old,
        name=HEUN.name,
        num_steps=num_steps or old.num_steps,
        sigma_min=sigma_min or old.sigma_min,
        rho=rho or old.rho,
        guidance=1.0,
        reason="set by a benchmark",
    )
    return Teacher(teacher.denoiser, dataclasses.replace(teacher.config, sampler=new)).eval()


@dataclass(frozen=True)
class Drawn:
    """Pictures, float NCHW in [-1, 1], and the time for one of them."""

    images: Tensor
    ms_per_image: float


def draw(sample: Callable[[int, int], Tensor], num_images: int, seed: int) -> Drawn:
    """Draw pictures and time them, after a small warm-up.

    Args:
        sample: (number of pictures, seed) -> float NCHW.
        num_images: number of pictures.
        seed: seed of the noise.
    """
    sample(min(8, num_images), seed)
    start = time.perf_counter()
    images = sample(num_images, seed)
    seconds = time.perf_counter() - start
    return Drawn(images, 1000 * seconds / num_images)


class Offline:
    """noisewise's own numbers, without a download, against a fixed set of real pictures."""

    def __init__(self, real: Tensor) -> None:
        """Measure the real pictures once; float NCHW in [-1, 1]."""
        self.real = real
        self.reference = Reference(real)
        self._judges: dict[int, tuple[Teacher, Judge]] = {}

    def distance(self, images: Tensor) -> float:
        """Distance of pictures to the real ones."""
        return float(self.reference.distance(images).value)

    def floors(self, images: Tensor, teacher: Teacher) -> float:
        """The judge's number, for 500 pictures on each side; a teacher's features are read too.

        Args:
            images: generated pictures, float NCHW in [-1, 1].
            teacher: the one that drew them, or that of the generator that did.
        """
        if id(teacher) not in self._judges:
            real = RealPictures(self.real[:MOST_REAL], "real", teacher)
            self._judges = {id(teacher): (teacher, real.judge)}
        return self._judges[id(teacher)][1].measure(images).at_standard
