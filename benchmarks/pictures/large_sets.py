"""Sets of large pictures, and the training and measuring of a teacher on them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import noisewise
from benchmarks.pictures import large_measures
from benchmarks.shared import harness, ours
from noisewise.pictures.pictures import load_pictures
from noisewise.quality.judge import Judge
from noisewise.training.files.atomic import load_state
from noisewise.training.models.model_folder import Build
from noisewise.training.models.models import Teacher
from noisewise.training.run.kinds_file import NAME as KINDS
from noisewise.training.settings.config import TrainConfig

HELD_OUT = 128
SETS = {
    "fluent_128": ("fluent_emoji_3d_128.npz", "3D emoji, 128 px"),
    "fluent_64": ("fluent_emoji_3d_64.npz", "3D emoji, 64 px"),
}
_JUDGED = 2000  # real pictures that the judge reads, at most


@dataclass(frozen=True)
class LargeSet:
    """A set, divided by noisewise's own split of this seed; `places`: of the held-out pictures."""

    name: str
    path: Path
    size: int
    train: Tensor
    held_out: Tensor
    real: Tensor
    places: Tensor


def load(
    name: str,
    data: str | None,
    path: Path | None = None,
    size: int | None = None,
    crops: int = 0,
) -> LargeSet:
    """Read a set of `SETS`, or any file or folder, at this size; crops: of each picture, 0: none.

    Raises:
        harness.UsageError: if the file is missing.
    """
    path = path or Path(str(harness.data_file(data, SETS[name][0])))
    found = load_pictures(path, size or _side(path), crops=crops).with_twins()
    inside, outside = found.split(0)
    places = outside[:HELD_OUT]
    chosen = np.random.default_rng(0).permutation(len(found))[:_JUDGED]
    assert isinstance(found.size, int), "these sets are read as squares"
    return LargeSet(
        name,
        path,
        found.size,
        found.shown(inside),
        found.shown(places),
        found.shown(np.sort(chosen)),
        torch.from_numpy(np.asarray(places)),
    )


def _side(path: Path) -> int | None:
    if path.suffix != ".npz":
        return None
    with np.load(path) as stored:
        return int(stored["images"].shape[1])


def train(
    which: LargeSet,
    folder: Path,
    config: TrainConfig,
    keep: bool = True,
    build: Build | None = None,
) -> Teacher:
    """Train a teacher; an interrupted training resumes, a finished one is kept.

    build: makes the net from its configuration; None: the nets of noisewise.
    """
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    if not ours.has_model(folder, "teacher"):
        noisewise.train(which.path, out=folder, config=config, build=build)
    return ours.teacher_of(folder)


def kinds(which: LargeSet, folder: Path) -> Tensor | None:
    """The kinds of the held-out pictures in a run, int64 [n]; None if it has no kinds."""
    if not (folder / KINDS).exists():
        return None
    return load_state(folder / KINDS)["labels"].long()[which.places]


def measure(
    which: LargeSet, teacher: Teacher, count: int, grid: Path | None, folder: Path | None = None
) -> harness.Values:
    """All measures of a teacher, with its own sampler; the grid of 32 pictures goes to `grid`.

    A net of kinds is told the kind of each held-out picture, from the run in `folder`. A Wiener
    filter is told nothing.
    """
    labels = None if folder is None else kinds(which, folder)
    assert labels is not None or not teacher.classes

    def denoiser(x: Tensor, sigma: Tensor, at: slice) -> Tensor:
        return teacher.denoiser(x, sigma, None if labels is None else labels[at])

    drawn = teacher.sample(count, seed=1)
    if grid is not None:
        save_grid(grid, drawn[:32])
    found = large_measures.over_wiener(denoiser, which.train, which.held_out)
    found |= large_measures.pictures(drawn, which.real)
    found["floors"] = Judge(which.real).measure(drawn).at_standard
    found["calls"] = teacher.network_calls()
    return found


def noted(folder: Path) -> dict[str, float]:
    """What a run has noted of its teacher's training."""
    return dict(noisewise.Run.open(folder).info["stages"]["teacher"])


def save_grid(path: Path, images: Tensor, columns: int = 8) -> None:
    """Write pictures side by side as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = ours.to_pixels(images)
    rows = [
        np.concatenate(list(pixels[at : at + columns]), 1)
        for at in range(0, len(pixels) - columns + 1, columns)
    ]
    whole = np.concatenate(rows, 0)
    Image.fromarray(whole[..., 0] if whole.shape[-1] == 1 else whole).save(path)
