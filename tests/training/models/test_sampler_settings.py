"""SamplerSettings: what it refuses, what it counts, and its form in config.json."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import pytest
import torch

from noisewise.diffusion import SAMPLERS, karras_sigmas
from noisewise.training.models.model_config import SamplerSettings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "dpm++"}, r"unknown sampler 'dpm\+\+'; use one of heun, ddim, ddpm"),
        ({"sigma_min": 40.0}, "sigma_min is 40; it must be below its sigma_max, 40"),
        ({"sigma_max": 0.1}, "sigma_min is 0.3; it must be below its sigma_max, 0.1"),
        ({"sigma_min": 0.0}, "sigma_min is 0.0; use a finite number above 0"),
        ({"sigma_max": math.inf}, "sigma_max is inf; use a finite number above 0"),
        ({"sigma_min": math.nan}, "sigma_min is nan; use a finite number above 0"),
        ({"rho": math.nan}, "rho is nan; use a finite number above 0"),
        ({"num_steps": 0}, "num_steps is 0; use a whole number, 1 or more"),
        ({"num_steps": 2.5}, "num_steps is 2.5; use a whole number, 1 or more"),
    ],
)
def test_what_cannot_draw_is_refused_in_one_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        SamplerSettings(**values)
    assert "\n" not in str(caught.value)


def test_the_json_form_is_that_of_old_folders() -> None:
    old = {
        "name": "heun",
        "sigma_max": 40.0,
        "sigma_min": 0.18,
        "num_steps": 6,
        "rho": 7.0,
        "reason": "measured",
    }
    assert asdict(SamplerSettings(**old)) == old


def test_every_listed_sampler_can_be_a_teacher_s_own() -> None:
    for known in SAMPLERS:
        settings = SamplerSettings(name=known.name, num_steps=6)
        assert settings.sampler is known
        assert settings.calls == known.num_calls(6)
        assert settings.steps_for() == 6
        assert settings.described.startswith(
            f"{known.name}, {settings.calls} calls: 6 noise levels"
        )
    assert SamplerSettings(num_steps=1).described == "heun, 1 call: noise level 40"


def test_another_sampler_takes_as_many_calls_or_the_nearest_fewer() -> None:
    settings = SamplerSettings(num_steps=5)
    assert settings.steps_for(sampler="heun") == 5
    assert settings.steps_for(sampler="ddim") == settings.calls == 9
    assert SamplerSettings(name="ddim", num_steps=8).steps_for(sampler="heun") == 4  # 7 calls
    assert settings.steps_for(8, "ddpm") == 8
    with pytest.raises(ValueError, match="use 7 or 9"):
        settings.steps_for(8)


def test_levels_are_karras_levels_of_the_settings() -> None:
    settings = SamplerSettings(sigma_min=0.1, rho=5.0)
    assert torch.equal(settings.levels(), karras_sigmas(5, 0.1, 40.0, 5.0))
    assert torch.equal(settings.levels(8), karras_sigmas(8, 0.1, 40.0, 5.0))
