"""SamplerSettings: what it refuses, what it counts, and its form in config.json."""

from __future__ import annotations

import json
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
        ({"guidance": 0.5}, "guidance of 0.5 does not work; use 1 for none, or more, such as 1.5"),
        ({"guidance": math.nan}, "guidance of nan does not work"),
        ({"guidance": math.inf}, "guidance of inf does not work"),
        ({"guidance_interval": (3.0, 0.2)}, "between the noise levels 3 and 0.2 does not work"),
        ({"guidance_interval": (-1.0, 2.0)}, "between the noise levels -1 and 2 does not work"),
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
    newer = {"guidance": 1.0, "guidance_interval": (0.2, 3.0)}
    assert asdict(SamplerSettings(**old)) == {**old, **newer}
    again = json.loads(json.dumps(asdict(SamplerSettings(**old, guidance=1.5))))
    assert SamplerSettings(**again) == SamplerSettings(**old, guidance=1.5)


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


def test_guidance_is_counted_and_described() -> None:
    levels = SamplerSettings().levels()
    inside = ((levels > 0.2) & (levels <= 3)).sum().item()
    for known in SAMPLERS:
        settings = SamplerSettings(name=known.name, guidance=1.5)
        assert settings.calls == known.num_calls(5) + known.calls_each * inside
        assert settings.steps_for() == 5  # guidance costs calls, not noise levels
        assert settings.calls_for(5, guidance=1.0) == known.num_calls(5)
    assert SamplerSettings(guidance=1.5).described == (
        "heun, 13 calls: 5 noise levels from 40 to 0.3, rho 7, guidance 1.5 from 3 to 0.2"
    )
    one = SamplerSettings(num_steps=1, guidance=2.0, guidance_interval=(1.0, 50.0))
    assert one.described == "heun, 2 calls: noise level 40, guidance 2 from 50 to 1"


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
