"""Models with guidance: exact denoisers, old folders, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from noisewise import as_teacher
from noisewise.diffusion import SAMPLERS, Sampler, guided, sample, with_shares
from noisewise.training.models.model_config import ModelConfig, SamplerSettings
from noisewise.training.models.model_folder import load_model
from noisewise.training.models.models import Generator, Teacher
from oracle import GaussianMixture

SHARES = torch.tensor([0.3, 0.7])
CONFIG = ModelConfig(
    kind="teacher",
    net={},
    sigma_data=0.5,
    size=2,
    channels=1,
    noise={},
    classes=("left", "right"),
    label_histogram=(3, 7),
    sampler=SamplerSettings(sigma_min=0.05, num_steps=6),
)


class Exact(nn.Module):
    """E[x0 | x, class] of two classes of pictures [1, 2, 2], and E[x0 | x] for their shares."""

    takes_shares = True

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1))
        means = torch.tensor([[[[-0.4, 0.2], [0.1, -0.2]]], [[[0.3, -0.1], [0.0, 0.4]]]])
        self.data = GaussianMixture(means, torch.tensor([0.03, 0.04]), torch.tensor([0.3, 0.7]))
        self.pictures = 0

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        assert condition is not None
        self.pictures += len(x)
        if not condition.is_floating_point():
            return self.data(x, sigma, condition)
        torch.testing.assert_close(condition, SHARES.expand(len(x), 2))
        return self.data(x, sigma)


class Whole(Exact):
    """A net that takes one class a picture, and no shares."""

    takes_shares = False


def teacher(sampler: SamplerSettings = CONFIG.sampler, known: ModelConfig = CONFIG) -> Teacher:
    return Teacher(Exact(), replace(known, sampler=sampler)).eval()


def test_it_draws_what_the_guided_denoiser_draws() -> None:
    own, exact = teacher(), Exact()
    settings = own.sampler
    labels = own.labels(0, 0, 8, None)
    weak = with_shares(exact, SHARES)
    denoiser = guided(exact, weak, 2.0, settings.guidance_interval)
    states = settings.sampler.states(denoiser, own.noise(0, 0, 8), settings.levels(), labels)
    expected = sample(states).clamp(-1, 1)
    assert torch.equal(own.sample(8, guidance=2.0), expected)
    always = replace(settings, guidance=2.0)
    assert torch.equal(teacher(sampler=always).sample(8), expected)
    assert not torch.allclose(expected, own.sample(8), atol=1e-3)


def test_guidance_of_one_is_exactly_none() -> None:
    assert torch.equal(teacher().sample(8, guidance=1.0), teacher().sample(8))
    always = replace(CONFIG.sampler, guidance=2.0)
    assert torch.equal(teacher(sampler=always).sample(8, guidance=1.0), teacher().sample(8))
    alone = Teacher(Whole(), CONFIG).eval()
    assert torch.equal(alone.sample(8, guidance=1.0), alone.sample(8))


@pytest.mark.parametrize("known", SAMPLERS, ids=lambda known: known.name)
@pytest.mark.parametrize("guidance", [None, 1.0, 1.5])
def test_network_calls_are_those_that_are_made(known: Sampler, guidance: float | None) -> None:
    own = teacher()
    assert isinstance(own.denoiser, Exact)
    for calls in (None, known.num_calls(4)):
        own.denoiser.pictures = 0
        own.sample(3, calls=calls, sampler=known, guidance=guidance)
        made = own.denoiser.pictures / 3
        assert own.network_calls(calls, known, guidance) == made
        plain = own.network_calls(calls, known)
        assert plain < made < 2 * plain if guidance == 1.5 else plain == made
    always = teacher(sampler=replace(CONFIG.sampler, guidance=1.5))
    assert always.network_calls() == always.sampler.calls == own.network_calls(guidance=1.5)
    assert f"{always.sampler.calls} calls by heun" in repr(always)


@pytest.mark.parametrize("known", SAMPLERS, ids=lambda known: known.name)
def test_picture_i_depends_on_the_seed_and_i_alone(known: Sampler) -> None:
    own = teacher()
    eight = own.sample(8, seed=3, sampler=known, guidance=1.7)
    again = own.draw(3, 3, 2, sampler=known, guidance=1.7)
    torch.testing.assert_close(eight[3:5], again, rtol=0, atol=1e-5)


def test_a_guided_picture_looks_less_like_another_class() -> None:
    own = teacher()
    data = Exact().data
    doubts = []
    for weight in (1.0, 2.5):
        pictures = own.sample(400, label="left", guidance=weight)
        _, log_joint = data._solve(pictures, torch.full((400,), 0.01))
        doubts.append(log_joint.softmax(1)[:, 1].mean())  # how far they look like the other class
    assert doubts[1] < 0.7 * doubts[0]


def test_what_cannot_be_guided_is_refused_in_one_sentence() -> None:
    plain = teacher(known=replace(CONFIG, classes=(), label_histogram=()))
    generator = Generator(Exact(), replace(CONFIG, kind="generator", sigma_init=2.5))
    for model, guidance, message in (
        (plain, 1.5, "trained without classes, and guidance needs them; leave it out"),
        (Teacher(Whole(), CONFIG), 1.5, "one class a picture and no shares of all classes"),
        (teacher(), 0.9, "guidance of 0.9 does not work; use 1 for none, or more, such as 1.5"),
        (teacher(), 0.0, "guidance of 0 does not work"),
        (teacher(), math.nan, "guidance of nan does not work"),
        (teacher(), math.inf, "guidance of inf does not work"),
        (plain, -1.0, "does not work|without classes"),
        (generator, 1.5, "a generator draws in one call and cannot be guided; use the teacher"),
        (generator, 1.0, "a generator draws in one call and cannot be guided; use the teacher"),
    ):
        for ask in (
            lambda m=model, g=guidance: m.sample(1, guidance=g),
            lambda m=model, g=guidance: m.network_calls(guidance=g),
        ):
            with pytest.raises(ValueError, match=message) as caught:
                ask()
            assert "\n" not in str(caught.value)


def test_a_config_of_an_older_version_is_read_and_draws_as_before() -> None:
    values = json.loads(json.dumps(CONFIG.to_dict()))
    again = ModelConfig.from_dict(values)
    assert again == CONFIG
    del values["sampler"]["guidance"], values["sampler"]["guidance_interval"]
    old = ModelConfig.from_dict(values)
    assert old == CONFIG
    assert torch.equal(Teacher(Exact(), old).sample(4), teacher().sample(4))
    values["sampler"]["guidance"] = 0.5
    with pytest.raises(ValueError, match=r"guidance of 0\.5 does not work"):
        ModelConfig.from_dict(values)


def test_a_teacher_from_elsewhere_is_guided_if_it_takes_shares() -> None:
    described = {"size": 2, "channels": 1, "sigma_data": 0.25, "classes": ("left", "right")}
    own = as_teacher(Exact(), **described, label_histogram=(3, 7))
    assert own.sampler.guidance_interval == pytest.approx((0.1, 1.5))
    assert own.network_calls(guidance=1.5) > own.network_calls()
    assert own.sample(2, guidance=1.5).shape == (2, 1, 2, 2)
    with pytest.raises(ValueError, match="no shares of all classes"):
        as_teacher(Whole(), **described).sample(1, guidance=1.5)


def test_a_run_of_an_older_version_can_be_guided() -> None:
    """Guidance asks nothing of the training."""
    for frozen in sorted((Path(__file__).parents[2] / "frozen").glob("*/run/teacher")):
        model = load_model(frozen)
        assert isinstance(model, Teacher)
        plain, pushed = (model.sample(4, guidance=weight) for weight in (1.0, 2.0))
        assert torch.equal(plain, model.sample(4))
        assert torch.isfinite(pushed).all()
        assert not torch.allclose(plain, pushed, atol=1e-3)
