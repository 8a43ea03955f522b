"""Students that do not start as copies of their teachers, and the classes of a batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from noisewise.diffusion import Preconditioned
from noisewise.nets.derive import build
from noisewise.training.devices.engine import Engine
from noisewise.training.models.model_config import ModelConfig, SamplerSettings
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.models.networks import network
from noisewise.training.settings.config import DistillConfig
from noisewise.training.settings.recipes import StudentRecipe
from noisewise.training.stages.loop import Loop
from noisewise.training.stages.student import StudentStage, student_pace
from noisewise.training.stages.student_labels import in_shares
from noisewise.training.stages.student_start import own_generator

QUICK = StudentRecipe(batch=8, distance_images=64, distance_every=0.5)
NET = {"name": "unet", "channels": 1, "size": 8, "widths": [8, 8], "blocks": [1, 1]}


def small() -> Teacher:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build(NET)
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.05 * torch.randn_like(p))
    config = ModelConfig(
        kind="teacher",
        net=dict(net.config),  # pyrefly: ignore
        sigma_data=0.5,
        size=8,
        channels=1,
        noise={"name": "LogNormal", "mean": -0.4, "std": 1.4},
        sampler=SamplerSettings(sigma_min=0.05, num_steps=3),
    )
    return Teacher(Preconditioned(net, 0.5).eval().requires_grad_(False), config)


def test_by_default_it_is_a_copy_and_nothing_is_built() -> None:
    assert own_generator(small(), StudentRecipe(), 0) is None


@pytest.mark.parametrize(
    "change", [{"generator_widths": (16, 16)}, {"generator_start": "fresh"}], ids=str
)
def test_another_start_trains_and_its_model_can_be_built_again(change: dict) -> None:
    recipe = replace(QUICK, **change)
    config = DistillConfig(budget="32images", recipe=recipe)
    loop = Loop(
        StudentStage(small(), config, Engine.choose("cpu")), config.amount, student_pace(recipe)
    )
    list(loop.records())
    stage = loop.stage
    described = stage.model_config()
    again = build(described.net)
    again.load_state_dict(network(stage.best()).state_dict())
    made = Generator(Preconditioned(again, 0.5).eval(), described)
    drawn = Generator(stage.best(), described)
    assert torch.equal(made.sample(2), drawn.sample(2))


def test_the_same_weights_are_carried_over_and_fresh_ones_are_not() -> None:
    teacher = small()
    same = own_generator(teacher, StudentRecipe(generator_widths=(8, 8)), 0)
    fresh = own_generator(teacher, StudentRecipe(generator_start="fresh"), 0)
    assert same is not None
    assert fresh is not None
    x, sigma = torch.ones(2, 1, 8, 8), torch.ones(2)
    torch.testing.assert_close(same(x, sigma), teacher(x, sigma))
    assert not torch.equal(fresh(x, sigma), teacher(x, sigma))


def test_what_cannot_start_so_is_refused() -> None:
    other = Teacher(Preconditioned(torch.nn.Conv2d(1, 1, 3, padding=1), 0.5), small().config)
    other.config = replace(other.config, net={"name": "theirs"})
    with pytest.raises(ValueError, match="leave generator_widths and generator_start out"):
        own_generator(other, StudentRecipe(generator_start="fresh"), 0)
    with pytest.raises(ValueError, match="generator_start 'warm' is unknown"):
        StudentRecipe(generator_start="warm")  # pyrefly: ignore[bad-argument-type]
    pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")
    config = DistillConfig(student="lora", recipe=replace(QUICK, generator_start="fresh"))
    with pytest.raises(ValueError, match="use --student full"):
        StudentStage(small(), config, Engine.choose("cpu"))


def test_balanced_classes_are_never_off_by_more_than_one_and_right_on_average() -> None:
    counts, source = torch.tensor([5.0, 3.0, 1.0]), torch.Generator().manual_seed(0)
    shares, total = counts / counts.sum(), torch.zeros(3)
    for _ in range(300):
        drawn = in_shares(counts, 10, source).bincount(minlength=3)
        assert ((drawn - 10 * shares).abs() < 1).all()
        total += drawn
    torch.testing.assert_close(total / 3000, shares, atol=0.01, rtol=0)
    first = torch.stack([in_shares(counts, 10, source) for _ in range(300)])
    assert first[:, 0].float().std() > 0.5, "in any order"
