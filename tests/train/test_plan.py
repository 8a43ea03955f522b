"""Which noise the two losses of distillation see, and when."""

from __future__ import annotations

import math

import pytest
import torch

from noisewise.diffusion import LogNormal, ShiftedCosine
from noisewise.train.plan import fake_noise, generator_noise
from noisewise.train.recipes import StudentRecipe


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
