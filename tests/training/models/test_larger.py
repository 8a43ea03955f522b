"""A teacher draws larger pictures: the same laws as for its own size, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from noisewise.diffusion import SAMPLERS
from noisewise.training.models.any_teacher import as_teacher
from noisewise.training.models.model_config import Flats, ModelConfig
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.settings.config import SampleConfig
from noisewise.training.settings.larger import parse_larger
from tiny import TWO_CLASSES, TinyNet, tiny_denoiser


def teacher(config: ModelConfig = TWO_CLASSES) -> Teacher:
    denoiser = tiny_denoiser(num_classes=2)
    net = denoiser.net
    assert isinstance(net, TinyNet)
    with torch.no_grad():
        net.out.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    return Teacher(denoiser.eval(), config)


@pytest.mark.parametrize("sampler", [sampler.name for sampler in SAMPLERS])
def test_at_its_own_size_it_draws_its_own_pictures(sampler: str) -> None:
    model = teacher()
    own = model.sample(3, seed=5, sampler=sampler)
    torch.testing.assert_close(model.sample(3, seed=5, sampler=sampler, larger=(8, 8)), own)
    large = model.sample(2, seed=5, sampler=sampler, larger=(21, 13))
    assert large.shape == (2, 1, 21, 13)
    assert large.isfinite().all()
    assert large.abs().max() <= 1


@pytest.mark.parametrize("sampler", ["heun", "ddpm"])
def test_a_larger_picture_depends_on_its_seed_and_number_alone(sampler: str) -> None:
    """Not on how many are drawn at once, though all windows move together."""
    model = teacher()
    four = model.sample(4, seed=3, sampler=sampler, larger=(17, 30))
    torch.testing.assert_close(model.sample(2, seed=3, sampler=sampler, larger=(17, 30)), four[:2])
    alone = model.draw(3, 2, 1, sampler=sampler, larger=(17, 30))
    torch.testing.assert_close(alone, four[2:3])
    assert not torch.allclose(model.sample(1, seed=4, sampler=sampler, larger=(17, 30)), four[:1])


def test_all_windows_have_the_class_of_the_picture() -> None:
    seen: list[torch.Tensor] = []
    model = teacher()
    model.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    model.sample(2, label="right", larger=(20, 20))
    assert all((labels == 1).all() for labels in seen)
    assert len(seen) == 5, "heun with 3 levels: a batch of windows for each call"
    assert len(seen[0]) > 8


def test_flat_values_are_exact_at_every_size() -> None:
    flats = Flats(values=((0,), (255,)), share=0.9, level=128.0, reason="test")
    found = teacher(replace(TWO_CLASSES, flats=flats)).sample(1, larger=(24, 19))
    assert set(found.unique().tolist()) == {-1.0, 1.0}


def test_a_borrowed_teacher_draws_larger_and_counts_calls_a_window() -> None:
    denoiser = tiny_denoiser()
    model = as_teacher(denoiser, size=8, channels=1, sigma_data=0.5, sigma_range=(0.1, 20.0))
    assert model.sample(1, calls=5, larger=(16, 9)).shape == (1, 1, 16, 9)
    assert model.network_calls(5) == 5


def test_what_cannot_be_drawn_larger_is_refused() -> None:
    model = teacher()
    with pytest.raises(ValueError, match="20 x 7 pixels are fewer than the model draws: use at l"):
        model.sample(1, larger=(7, 20))
    with pytest.raises(ValueError, match=r"1 picture of 8000 x 8000 pixels .* 4096 x 4096"):
        model.sample(1, larger=(8000, 8000))
    with pytest.raises(ValueError, match=r"20 pictures of 1024 x 1024 .* draw 16 at most"):
        model.sample(20, larger=(1024, 1024))
    student = Generator(
        model.denoiser, replace(TWO_CLASSES, kind="generator", sigma_init=2.5, two_call_sigma=0.3)
    )
    with pytest.raises(ValueError, match="a generator draws in one call, in which windows cannot"):
        student.sample(1, larger=(16, 16))


@pytest.mark.parametrize("text", ["0", "x", "512x", "-1x5", "5.5x5", "", "1e3x5", "512 768", "٣x٣"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size; write a side in pixels or WIDTHxHEIGHT"):
        SampleConfig(larger=text)


def test_one_larger_picture_is_drawn_unless_more_are_asked_for() -> None:
    assert SampleConfig().count == 64
    assert SampleConfig(larger="512X300").count == 1
    assert SampleConfig(larger="512x300", num_images=3).count == 3
    assert parse_larger(" 512 × 300 ") == (300, 512)
    with pytest.raises(ValueError, match="0 pictures cannot be drawn"):
        SampleConfig(larger="512x300", num_images=0)
