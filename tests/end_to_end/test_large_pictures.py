"""After three minutes, a default net must know more of large pictures than their spectrum."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

import noisewise
from benchmarks.pictures.large_measures import LEVELS, over_wiener
from noisewise.pictures.pictures import load_pictures
from noisewise.training.models.models import Teacher
from noisewise.training.settings.config import TrainConfig

MINUTES = 3


def drawings(count: int, size: int) -> np.ndarray:
    """Discs and bars in flat colours with a fine grain, on white; uint8 [n, size, size, 3]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    found = np.full((count, size, size, 3), 250.0)
    for picture in found:
        for _ in range(3):
            cx, cy, r, angle = *rng.uniform(0.2, 0.8, 2), rng.uniform(0.08, 0.25), rng.uniform(0, 3)
            along = (x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)
            across = (y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)
            disc = along**2 + across**2 < r**2
            bar = (abs(along) < r) & (abs(across) < r / 4)
            inside = disc if rng.random() < 0.5 else bar
            grain = 25 * np.sin(2 * math.pi * rng.uniform(8, 20) * along)[..., None]
            picture[inside] = (rng.uniform(20, 220, 3) + grain)[inside]
    return found.clip(0, 255).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, 128, 256])
def test_the_default_beats_the_spectrum_in_three_minutes(tmp_path: Path, size: int) -> None:
    np.savez(tmp_path / "set.npz", images=drawings(600, size))
    config = TrainConfig(budget=f"{MINUTES}m", size=size, kinds=0)
    run = noisewise.train(tmp_path / "set.npz", out=tmp_path / "run", config=config)
    pictures = load_pictures(tmp_path / "set.npz", size)
    inside, outside = pictures.split(0)
    teacher = run.teacher()
    assert isinstance(teacher, Teacher)
    train, held_out = pictures.tensor(inside), pictures.tensor(outside[:32])

    def denoiser(x: Tensor, sigma: Tensor, at: slice) -> Tensor:
        return teacher.denoiser(x, sigma, None)

    ratios = over_wiener(denoiser, train, held_out)["over_wiener"]
    assert isinstance(ratios, list)
    for level, ratio in zip(LEVELS, ratios, strict=True):
        assert ratio < (1.2 if level > 2 else 1.0), (level, ratios)
