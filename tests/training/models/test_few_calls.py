"""A generator of several calls: how it draws, what it refuses, and its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from export_models import CLASSES, FLATS, UNET, models
from noisewise.diffusion import in_calls
from noisewise.training.models.model_card import model_card
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.model_folder import load_model, save_model
from noisewise.training.models.models import Generator
from noisewise.training.models.seeded_noise import picture_noise

LATER = (1.0, 0.3)


def generator(**more: Any) -> Generator:  # noqa: ANN401
    made = models({**UNET, "num_classes": 3}, **more)[1]
    return Generator(made.denoiser, replace(made.config, later_sigmas=LATER)).eval()


def test_it_draws_in_all_its_calls_and_in_fewer_if_asked() -> None:
    few = generator()
    z, labels = few.noise(3, 0, 5), few.labels(3, 0, 5)
    later = [picture_noise(3, 0, 5, (1, 8, 8), 3 + i) for i in range(2)]
    for calls in (1, 2, 3):
        expected = in_calls(few.denoiser, z, (2.5, *LATER)[:calls], later[: calls - 1], labels)
        assert torch.equal(few.sample(5, seed=3, calls=calls), expected.clamp(-1, 1))
        assert few.network_calls(calls) == calls
    assert torch.equal(few.sample(5, seed=3), few.sample(5, seed=3, calls=3))
    assert few.network_calls() == 3
    assert "3 calls" in repr(few)


def test_a_picture_depends_on_its_seed_and_number_alone() -> None:
    few = generator(flats=FLATS)
    many = few.sample(300, seed=1)
    assert torch.allclose(few.sample(2, seed=1), many[:2], atol=1e-6)
    assert torch.equal(
        few.later_noise(1, 7, 1), torch.stack([few.noise(1, 7, 1, 3), few.noise(1, 7, 1, 4)], 1)
    )


def test_with_its_own_calls_one_call_is_the_model_without_them() -> None:
    few, one = generator(), models({**UNET, "num_classes": 3})[1]
    assert torch.equal(few.sample(4, calls=1), one.sample(4))


@pytest.mark.parametrize("calls", [0, 4, -1])
def test_other_numbers_of_calls_are_refused(calls: int) -> None:
    with pytest.raises(ValueError, match=r"trained for 3 network calls and takes 1 to 3"):
        generator().sample(1, calls=calls)


def test_the_noise_of_later_calls_has_to_be_given_and_to_fit() -> None:
    few = generator()
    z, label = few.noise(0, 0, 2), torch.zeros(2, dtype=torch.int64)
    assert few(z, label, few.later_noise(0, 0, 2)).shape == z.shape
    for noise in (None, z, few.later_noise(0, 0, 3), torch.zeros(2, 3, 1, 8, 8)):
        with pytest.raises(ValueError, match=r"takes \(2, 2, 1, 8, 8\)"):
            few(z, label, noise)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"later_sigmas": (3.0,)}, "each must be lower"),
        ({"later_sigmas": (1.0, 1.0)}, "each must be lower"),
        ({"later_sigmas": (1.0, -0.1)}, "each must be lower"),
        ({"later_sigmas": (1.0,), "two_call_sigma": 0.3}, "has no two_call_sigma"),
        ({"later_sigmas": (1.0,), "sigma_init": None}, "each must be lower"),
    ],
)
def test_levels_that_cannot_be_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(models(UNET)[1].config, **wrong)


@pytest.mark.parametrize("later", ["1", [1.0, "a"], [0.5] * 100, [float("nan")], {"a": 1}])
def test_a_folder_of_somebody_else_cannot_say_anything(later: object) -> None:
    values = {**models(UNET)[1].config.to_dict(), "later_sigmas": later}
    with pytest.raises(ValueError, match="later_sigmas"):
        ModelConfig.from_dict(values)


def test_a_folder_keeps_the_calls_and_older_folders_have_one(tmp_path: Path) -> None:
    few = generator()
    save_model(tmp_path / "few", few.denoiser, few.config)
    again = load_model(tmp_path / "few")
    assert isinstance(again, Generator)
    assert again.sigmas == (2.5, *LATER)
    assert torch.equal(again.sample(3), few.sample(3))
    old = {k: v for k, v in few.config.to_dict().items() if k != "later_sigmas"}
    assert ModelConfig.from_dict(old).call_sigmas == (2.5,)


def test_the_card_says_how_many_calls() -> None:
    card = model_card("mine", generator().config, {"data": {}, "stages": {}})
    assert "in 3 network calls" in card
    assert "generator, 3 calls" in card
    assert "calls=2" not in card
    assert CLASSES[0] in card
