"""Any denoiser with a description is a teacher: it is sampled, distilled, saved and loaded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import noisewise
from noisewise.diffusion import from_diffusers, from_edm, x0_from_flow
from noisewise.diffusion.other_libraries import FromDiffusers
from noisewise.training.devices.engine import Engine
from noisewise.training.models.any_teacher import as_teacher
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.settings.config import DistillConfig
from noisewise.training.settings.recipes import StudentRecipe
from noisewise.training.stages.loop import Loop
from noisewise.training.stages.student import StudentStage, student_pace

MEAN, STD = 0.3, 0.4
QUICK = StudentRecipe(
    batch=32,
    distance_images=128,
    lr=0.03,
    fake_lr=0.03,
    distance_every=0.25,
    lam=1.0,
    weight="l1",
    t_max=0.8,
    t_min=0.0,  # a Gaussian has no shapes that could come before its detail
    fake_noise_shift=0.0,
)
SIZES: dict[str, Any] = {"size": 8, "channels": 1, "sigma_data": 0.5}


class Gaussian(nn.Module):
    """Exact denoiser of pixels of N(mean, std^2), in the way that EDM's networks are called."""

    def __init__(self, num_classes: int = 0) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.full((1, 1, 1, 1), MEAN))
        self.log_std = nn.Parameter(torch.full((1, 1, 1, 1), STD).log())
        self.shift = nn.Parameter(torch.linspace(0, -0.6, num_classes)) if num_classes else None

    def x0(self, x: Tensor, sigma: Tensor, mean: Tensor) -> Tensor:
        variance, noise = (2 * self.log_std).exp(), sigma.square()[:, None, None, None]
        return (variance * x + noise * mean) / (variance + noise)

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        mean = self.mean
        if self.shift is not None:
            assert class_labels is not None
            mean = mean + (class_labels @ self.shift)[:, None, None, None]
        return self.x0(x, sigma, mean)


class FlowVelocity(nn.Module):
    """The same as a flow: it sees x_s = (1 - s) x0 + s eps and s, and gives u = eps - x0."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Gaussian()

    def forward(self, x_s: Tensor, s: Tensor) -> Tensor:
        sigma = s / (1 - s)
        x0 = self.inner(x_s * (1 + sigma)[:, None, None, None], sigma)
        return (x_s - x0) / s[:, None, None, None]


class FromFlow(nn.Module):
    """A flow net as a denoiser, in the few lines that a user would write."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.flow = net

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        velocity = self.flow(x / (1 + sigma)[:, None, None, None], sigma / (1 + sigma))
        return x0_from_flow(x, sigma, velocity)


def edm() -> nn.Module:
    return from_edm(Gaussian())


def flow() -> nn.Module:
    return FromFlow(FlowVelocity())


def distilled(teacher: Teacher, budget: str = "4800images") -> tuple[Generator, StudentStage]:
    config = DistillConfig(budget=budget, recipe=QUICK)
    stage = StudentStage(teacher, config, Engine.choose("cpu"))
    for _ in Loop(stage, config.amount, student_pace(QUICK)).records():
        pass
    return Generator(stage.best(), stage.model_config(), lambda: teacher), stage


@pytest.mark.parametrize("make", [edm, flow])
def test_a_denoiser_that_is_not_ours_is_distilled_to_its_own_law(make: Any) -> None:  # noqa: ANN401
    teacher = as_teacher(make(), **SIZES)
    drawn = teacher.sample(256)
    assert drawn.mean() == pytest.approx(MEAN, abs=0.02)
    assert drawn.std() == pytest.approx(STD, rel=0.1)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    generator, _ = distilled(teacher)
    after = generator.sample(256)
    assert after.std(0).mean() == pytest.approx(STD, rel=0.15)
    assert after.mean() == pytest.approx(MEAN, abs=0.05)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_edm_and_flow_are_one_denoiser_and_give_one_generator() -> None:
    ours, theirs = (distilled(as_teacher(make(), **SIZES), "960images")[0] for make in (edm, flow))
    torch.testing.assert_close(ours.sample(16), theirs.sample(16), atol=2e-3, rtol=0)


def test_classes_are_learnt_as_often_as_they_occur() -> None:
    teacher = as_teacher(
        from_edm(Gaussian(2), num_classes=2), **SIZES, classes=("a", "b"), label_histogram=(3, 1)
    )
    generator, _ = distilled(teacher)
    a, b = (generator.sample(128, label=name).mean().item() for name in ("a", "b"))
    assert a == pytest.approx(MEAN, abs=0.08)
    assert b == pytest.approx(MEAN - 0.6, abs=0.12)
    share = (generator.labels(0, 0, 4000, None) == 0).float().mean()  # pyrefly: ignore
    assert share == pytest.approx(0.75, abs=0.03)


class Recorded(nn.Module):
    """A denoiser that notes the noise levels it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Gaussian()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        self.seen.append(sigma.detach())
        return self.inner(x, sigma)

    def __deepcopy__(self, memo: dict[int, Any]) -> Recorded:
        copied = Recorded()
        copied.load_state_dict(self.state_dict())
        copied.seen = self.seen  # all copies write into one list
        return copied


@pytest.mark.parametrize("known", [(0.02, 1.5), (0.1, 30.0)])
def test_no_net_is_asked_outside_the_teachers_range(known: tuple[float, float]) -> None:
    denoiser = Recorded()
    generator, stage = distilled(as_teacher(denoiser, **SIZES, sigma_range=known), "640images")
    generator.sample(8)
    asked = torch.cat(denoiser.seen)
    low, high = known
    assert asked.min() >= low * (1 - 1e-5)
    assert asked.max() <= high * (1 + 1e-5)
    assert stage.sigma_init <= high


def diffusers_style() -> FromDiffusers:
    """A diffusers-style net that predicts noise at 1,000 discrete steps."""

    class Net(nn.Module):
        def __init__(self, table: Tensor) -> None:
            super().__init__()
            self.inner, self.table = Gaussian(), table

        def forward(self, x_t: Tensor, timestep: Tensor) -> Any:  # noqa: ANN401
            log_sigma = 0.5 * ((1 - self.table) / self.table).log()
            below = timestep.floor().long().clamp(0, len(log_sigma) - 2)
            share = timestep - below
            sigma = (log_sigma[below] * (1 - share) + log_sigma[below + 1] * share).exp()
            x = x_t * (1 + sigma.square()).sqrt()[:, None, None, None]
            x0 = self.inner(x, sigma)

            class Out:
                sample = (x - x0) / sigma[:, None, None, None]

            return Out

    table = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    return from_diffusers(Net(table), table, "epsilon")


def test_a_net_of_discrete_steps_is_distilled_inside_its_range() -> None:
    denoiser = diffusers_style()
    known = (denoiser.sigma_min, denoiser.sigma_max)
    generator, _ = distilled(as_teacher(denoiser, **SIZES, sigma_range=known))
    assert generator.sample(256).std(0).mean() == pytest.approx(STD, rel=0.15)


# ---------------------------------------------------------------------- with a run
@pytest.fixture
def given() -> Teacher:
    return as_teacher(edm(), **SIZES)


CONFIG = DistillConfig(budget="320images", recipe=QUICK)


def test_a_run_keeps_a_model_that_was_given_and_resumes_with_it(
    given: Teacher, tmp_path: Path
) -> None:
    stop = iter([False] * 4 + [True] * 9)
    noisewise.distill(tmp_path / "a", teacher=given, config=CONFIG, stop=lambda: next(stop))
    run = noisewise.Run(tmp_path / "a")
    assert not run.finished("generator")
    assert run.stage("generator").stopped
    generator = noisewise.distill(tmp_path / "a", teacher=given, config=CONFIG)
    straight = noisewise.distill(tmp_path / "b", teacher=given, config=CONFIG)
    assert torch.equal(generator.sample(4), straight.sample(4))
    assert generator.sample(2, calls=2).shape == (2, 1, 8, 8)
    assert noisewise.Run(tmp_path / "a").finished("generator")

    loaded = noisewise.load(tmp_path / "a", build=lambda _: edm())
    assert torch.equal(loaded.sample(4), generator.sample(4))
    with pytest.raises(ValueError, match=r"not part of noisewise.*build="):
        noisewise.load(tmp_path / "a")


def test_another_model_needs_another_folder(given: Teacher, tmp_path: Path) -> None:
    noisewise.distill(tmp_path / "a", teacher=given, config=CONFIG, stop=lambda: True)
    other = edm()
    with torch.no_grad():
        next(other.parameters()).add_(0.1)
    with pytest.raises(ValueError, match="has another teacher than the one given"):
        noisewise.distill(tmp_path / "a", teacher=as_teacher(other, **SIZES), config=CONFIG)


# ---------------------------------------------------------------------- what is refused
class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        return (self.weight * x).flatten(1)


@pytest.mark.parametrize(
    ("denoiser", "more", "said"),
    [
        (from_edm(lambda x, sigma: x), {}, "no parameters"),
        (Flat(), {}, r"returned \(2, 64\) for pictures of shape \(2, 1, 8, 8\)"),
        (nn.Linear(3, 3), {}, "calling the denoiser with pictures of shape"),
        (edm(), {"sigma_data": 0.0}, "sigma_data is 0.0"),
        (edm(), {"noise_scale": float("nan")}, "noise_scale is nan"),
        (edm(), {"sigma_range": (2.0, 1.0)}, "lowest and the highest noise level"),
        (edm(), {"classes": ("a", "b"), "label_histogram": (1,)}, "for each of the 2 classes"),
    ],
)
def test_what_cannot_be_a_teacher_is_refused_at_once(
    denoiser: nn.Module,
    more: dict[str, Any],
    said: str,
) -> None:
    with pytest.raises(ValueError, match=said):
        as_teacher(denoiser, **{**SIZES, **more})


def test_its_pictures_need_not_be_square() -> None:
    sizes: tuple[Any, ...] = ("12x8", (8, 12))
    for size in sizes:
        more: dict[str, Any] = {**SIZES, "size": size}
        teacher = as_teacher(edm(), **more)
        assert teacher.size == (8, 12)
        assert teacher.sample(2).shape == (2, 1, 8, 12)
    half: dict[str, Any] = {**SIZES, "size": "12x"}
    with pytest.raises(ValueError, match="WIDTHxHEIGHT"):
        as_teacher(edm(), **half)


def test_the_factor_of_a_large_teacher_moves_its_noise() -> None:
    usual, large = as_teacher(edm(), **SIZES), as_teacher(edm(), **SIZES, noise_scale=4.0)
    assert (usual.config.noise_scale, large.config.noise_scale) == (1.0, 4.0)
    moved = large.config.noise["mean"] - usual.config.noise["mean"]
    assert moved == pytest.approx(math.log(4), rel=1e-6)
