"""A Teacher draws with the sampler asked for: each picture on its own, and with the right law."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from noisewise.diffusion import DDPM, SAMPLERS, Sampler, ddim, karras_sigmas, sample
from noisewise.diffusion.samplers import Denoise, Normal
from noisewise.training.models.model_config import ModelConfig, SamplerSettings
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.models.seeded_noise import picture_noise
from oracle import GaussianMixture

CONFIG = ModelConfig(
    kind="teacher",
    net={},
    sigma_data=0.5,
    size=2,
    channels=1,
    noise={},
    sampler=SamplerSettings(sigma_min=0.02, num_steps=5),
)


class Exact(nn.Module):
    """The exact denoiser of a mixture of two kinds of pictures, [1, 2, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1))
        means = torch.tensor([[[[-0.4, 0.2], [0.1, -0.2]]], [[[0.3, -0.1], [0.0, 0.4]]]])
        self.data = GaussianMixture(means, torch.tensor([0.01, 0.02]), torch.tensor([0.3, 0.7]))

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.data(x, sigma, condition)


def euler_after_noise(
    denoise: Denoise, x: Tensor, levels: list[float], normal: Normal
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Raise the noise by a tenth, then Euler's step: a sampler that the package does not know."""
    for level, lower in pairwise(levels):
        sigma = 1.1 * level
        x = x + (sigma**2 - level**2) ** 0.5 * normal()
        x0 = denoise(x, sigma)
        yield sigma, x, x0
        x = x0 + lower / sigma * (x - x0)
    yield levels[-1], x, denoise(x, levels[-1])


OWN = Sampler("euler after noise", euler_after_noise, stochastic=True)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher(Exact(), CONFIG).eval()


@pytest.mark.parametrize("sampler", [*SAMPLERS, OWN], ids=lambda sampler: sampler.name)
def test_picture_i_depends_on_the_seed_and_i_alone(teacher: Teacher, sampler: Sampler) -> None:
    eight = teacher.sample(8, seed=3, sampler=sampler)
    again = teacher.draw(3, start=3, count=2, sampler=sampler)
    torch.testing.assert_close(eight[3:5], again, rtol=0, atol=1e-5)
    assert not torch.allclose(eight, teacher.sample(8, seed=4, sampler=sampler), atol=1e-2)


def test_pictures_do_not_depend_on_the_chunk(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = teacher.sample(7, sampler="ddpm")
    monkeypatch.setattr(teacher, "_chunks", lambda n, *_: ((i, 1) for i in range(n)))
    torch.testing.assert_close(teacher.sample(7, sampler="ddpm"), whole, rtol=0, atol=1e-5)


def test_the_noise_of_ddpm_is_fresh_at_each_level_and_for_each_picture(teacher: Teacher) -> None:
    added: list[Tensor] = []

    def watched(
        denoise: Denoise, x: Tensor, levels: list[float], normal: Normal
    ) -> Iterator[tuple[float, Tensor, Tensor]]:
        def kept() -> Tensor:
            added.append(normal())
            return added[-1]

        return DDPM.walk(denoise, x, levels, kept)

    teacher.draw(0, 0, 500, calls=6, sampler=Sampler("watched", watched, stochastic=True))
    start = picture_noise(0, 0, 500, (1, 2, 2))
    second_call = picture_noise(0, 0, 500, (1, 2, 2), stream=1)
    streams = torch.stack([start, second_call, *added]).flatten(1)
    assert len(streams) == 2 + 5
    assert (streams.corrcoef() - torch.eye(7)).abs().max() < 0.08
    assert streams.std() == pytest.approx(1, abs=0.03)


def test_another_sampler_keeps_the_range_and_spacing_of_the_teacher(teacher: Teacher) -> None:
    noise = picture_noise(0, 0, 4, (1, 2, 2))
    for calls, steps in ((None, 9), (6, 6)):
        expected = sample(ddim(teacher, noise, karras_sigmas(steps, 0.02, 40.0, 7.0)))
        found = teacher.sample(4, calls=calls, sampler="ddim")
        assert torch.equal(found, expected.clamp(-1, 1))
        assert teacher.network_calls(calls, "ddim") == steps
    assert teacher.network_calls() == 9
    assert torch.equal(teacher.sample(4, sampler="heun"), teacher.sample(4))


def test_ddpm_of_a_teacher_gives_the_mean_and_covariance_of_the_data(teacher: Teacher) -> None:
    pictures = teacher.sample(1500, seed=1, calls=80, sampler="ddpm").flatten(1)
    mean, covariance = Exact().data.moments()
    # Three standard errors of 1500 pictures; the variances of the data are 0.02 to 0.12.
    torch.testing.assert_close(pictures.mean(0), mean, rtol=0, atol=0.025)
    torch.testing.assert_close(pictures.T.cov(), covariance, rtol=0, atol=0.014)


def test_a_teacher_may_have_ddpm_as_its_own_sampler() -> None:
    config = replace(CONFIG, sampler=replace(CONFIG.sampler, name="ddpm"))
    teacher = Teacher(Exact(), config).eval()
    assert teacher.network_calls() == 5
    assert torch.equal(teacher.sample(3), Teacher(Exact(), CONFIG).sample(3, calls=5, sampler=DDPM))


def test_what_cannot_draw_is_refused_with_advice(teacher: Teacher) -> None:
    generator = Generator(Exact(), replace(CONFIG, kind="generator", sigma_init=2.5))
    for asked, message in (
        (lambda: teacher.sample(1, sampler="dpm++"), "unknown sampler .* heun, ddim, ddpm"),
        (lambda: teacher.sample(1, sampler=""), "unknown sampler ''"),
        (lambda: teacher.sample(1, calls=4, sampler="heun"), "use 3 or 5"),
        (lambda: generator.sample(1, sampler="ddim"), "has no sampler; use the teacher"),
        (lambda: generator.network_calls(3), "1 or 2"),
        (lambda: generator.network_calls(2), "two calls are not offered"),
    ):
        with pytest.raises(ValueError, match=message):
            asked()
    assert [generator.network_calls(calls) for calls in (None, 1)] == [1, 1]
