"""Which noise the two losses of distillation see, and when."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from noisewise.diffusion import Extended, LogNormal, ShiftedCosine
from noisewise.nets.bands import overall
from noisewise.pictures.pictures import load_pictures
from noisewise.training.devices.engine import Engine
from noisewise.training.inspect import inspect
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import StudentRecipe
from noisewise.training.stages.noise_plan import fake_noise, generator_noise
from noisewise.training.stages.plan import plan_teacher


def test_shapes_come_first_and_detail_later() -> None:
    recipe = StudentRecipe(t_min=0.3, t_falls=(0.4, 0.8), sigma_min=0.002, sigma_max=80.0)
    lowest = [generator_noise(recipe, p).t_min for p in (0.0, 0.4, 0.6, 0.8, 1.0)]
    assert lowest == pytest.approx([0.3, 0.3, 0.15, 0.0, 0.0])
    assert generator_noise(recipe, 1.0).quantile(torch.tensor(0.0)).item() == pytest.approx(0.002)
    assert generator_noise(recipe, 0.0).quantile(torch.tensor(0.0)).item() > 0.3
    assert generator_noise(StudentRecipe(t_falls=(0.5, 0.5)), 0.0).t_min == 0


def test_the_fake_score_sees_more_noise_than_the_teacher_did() -> None:
    recipe = StudentRecipe(fake_noise_shift=0.8)
    shifted = fake_noise(recipe, LogNormal(-0.8, 1.4))
    assert isinstance(shifted, LogNormal)
    assert (shifted.mean, shifted.std) == pytest.approx((0.0, 1.4))
    median = shifted.quantile(torch.tensor(0.5)).item()
    assert median == pytest.approx(math.exp(0.8) * math.exp(-0.8))
    assert fake_noise(recipe, ShiftedCosine(64)) == ShiftedCosine(64)


def waves(count: int, size: int) -> np.ndarray:
    """Pictures so smooth that averaging 2 x 2 takes nothing from them; uint8."""
    phase = np.random.default_rng(0).uniform(0, 2 * np.pi, (count, 2, 1, 1))
    y, x = 2 * np.pi * np.mgrid[:size, :size] / size
    return (127 + 60 * (np.sin(y + phase[:, 0]) + np.sin(x + phase[:, 1]))).astype(np.uint8)


@pytest.mark.parametrize(("smooth", "gain"), [(True, 16.0), (False, 1.0)])
def test_large_pictures_shift_the_noise_as_far_as_they_survive_averaging(
    tmp_path: Path, smooth: bool, gain: float
) -> None:
    """From 128 to 32 pixels smooth pictures gain the formula's 16, white ones nothing."""
    white = np.random.default_rng(0).integers(0, 256, (24, 128, 128)).astype(np.uint8)
    np.savez(tmp_path / "set.npz", images=waves(24, 128) if smooth else white)
    pictures = load_pictures(tmp_path / "set.npz", 128)
    config = TrainConfig(budget="64images", size=128)
    plan = plan_teacher(config, pictures, Engine.choose("cpu"))
    # The draw reaches from the whole, as it is after averaging, down to the finest band.
    half = (
        math.log(plan.sigma_data * gain**0.5 / min(overall(row) for row in plan.net["detail_sd"]))
        / 2
    )
    centre = config.recipe.noise_mean + math.log(plan.sigma_data) - half
    noise = plan.noise.draw if isinstance(plan.noise, Extended) else plan.noise
    assert isinstance(noise, LogNormal)
    assert noise.mean - centre == pytest.approx(math.log(gain) / 2, abs=0.02)
    assert noise.std == pytest.approx(math.hypot(config.recipe.noise_std, half), abs=0.02)
    assert plan.noise_scale == pytest.approx(gain**0.5, abs=0.05)
    found = inspect(tmp_path / "set.npz", 128)
    assert found.to_dict()["log_shift"] == pytest.approx(-math.log(gain), abs=0.02)
    assert found.to_dict()["log_shift_by_formula"] == pytest.approx(-math.log(16))
    assert "(measured; the formula" in found.text()
