"""Where the gradients of the generator step go, and where they must not, with real modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from noisewise.diffusion import (
    EDMWeight,
    Preconditioned,
    Prediction,
    denoising_loss,
    eps_from_x0,
    fake_score_loss,
    held,
    score_identity_loss,
    v_from_x0,
)
from oracle import (
    affine_generator,
    cubature,
    gaussian,
    mixture,
    same_level,
)

POINTS = cubature(4)
Z, EPS = POINTS[:, :2], POINTS[:, 2:]


class Net(nn.Module):
    """A small net with parameters everywhere."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(2, 2, generator=g, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.randn(2, generator=g).double(), requires_grad=False)
        self.calls = 0

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor | None = None) -> Tensor:
        self.calls += 1
        return torch.tanh(x @ self.weight + noise_level[:, None] + self.frozen)


@pytest.mark.parametrize("grad_through", ["both", "none"])
def test_no_gradient_lands_in_teacher_or_fake(grad_through: Literal["both", "none"]) -> None:
    teacher, fake = (Preconditioned(Net(seed), 0.5) for seed in (1, 2))
    generator = affine_generator()
    step = score_identity_loss(
        teacher, fake, generator(Z), same_level(0.4, len(Z)), EPS, grad_through=grad_through
    )
    net = fake.net
    assert isinstance(net, Net)
    assert net.weight.requires_grad  # given back at once, so the fake step can follow
    assert not net.frozen.requires_grad  # and what was frozen before stays so
    step.loss.backward()
    assert generator.matrix.grad is not None
    assert generator.matrix.grad.abs().sum() > 0
    for module in (teacher, fake):
        assert all(p.grad is None for p in module.parameters())
    assert net.calls == 1
    assert not step.fisher.requires_grad
    assert not step.x_g.requires_grad


def test_gradient_goes_through_each_of_the_two_nets() -> None:
    generator = affine_generator()
    teacher, fake = (Preconditioned(Net(seed), 0.5) for seed in (1, 2))
    cut = lambda d: lambda x, s, c: d(x, s, c).detach()  # noqa: E731

    def gradients(a: Callable[..., Tensor], b: Callable[..., Tensor]) -> Tensor:
        sigma = same_level(0.4, len(Z))
        step = score_identity_loss(a, b, generator(Z), sigma, EPS, weight="none")
        return generator.gradients(step.loss)

    whole = gradients(teacher, fake)
    for a, b in ((cut(teacher), fake), (teacher, cut(fake)), (cut(teacher), cut(fake))):
        assert (gradients(a, b) - whole).abs().max() > 1e-3


def test_held_gives_back_after_an_error() -> None:
    net = Net(0)

    def fail() -> None:
        with held(net):
            assert not net.weight.requires_grad
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="middle"):
        fail()
    assert net.weight.requires_grad


@pytest.mark.parametrize("prediction", ["edm", "v", "eps"])
def test_same_gradient_whatever_the_teacher_predicts(prediction: Prediction) -> None:
    """An exact Gaussian teacher behind an EDM, a v or an eps net."""
    sd = 0.5

    class Exact(nn.Module):
        def forward(self, x_in: Tensor, noise_level: Tensor, condition: Tensor | None) -> Tensor:
            sigma = noise_level.exp()
            x = x_in * (sigma**2 + sd**2).sqrt()[:, None]
            x0 = gaussian()(x, sigma)
            if prediction == "edm":
                total = (sigma**2 + sd**2)[:, None]
                return (x0 - sd**2 / total * x) * total.sqrt() / (sigma[:, None] * sd)
            return {"v": v_from_x0, "eps": eps_from_x0}[prediction](x, sigma, x0)

    generator = affine_generator()
    sigma = same_level(0.4, len(Z))
    plain = score_identity_loss(gaussian(), generator.law(), generator(Z), sigma, EPS)
    truth = generator.gradients(plain.loss)
    step = score_identity_loss(
        Preconditioned(Exact(), sd, prediction), generator.law(), generator(Z), sigma, EPS
    )
    torch.testing.assert_close(generator.gradients(step.loss), truth, rtol=1e-7, atol=1e-10)


def test_condition_reaches_both_nets() -> None:
    seen = []

    def spy(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        seen.append(condition)
        return mixture()(x, sigma, condition)

    label = torch.arange(len(Z)) % 3
    score_identity_loss(spy, spy, affine_generator()(Z), same_level(1.0, len(Z)), EPS, label)
    assert [s is label for s in seen] == [True, True]


def test_images_in_channels_last_give_the_same_answer() -> None:
    g = torch.Generator().manual_seed(0)
    x_g, noise = torch.randn(2, 4, 3, 8, 8, generator=g)
    sigma = torch.logspace(-2, 1, 4)
    shrink = lambda x, s, c=None: x / (1 + s.reshape(-1, 1, 1, 1))  # noqa: E731
    other = lambda x, s, c=None: torch.tanh(x)  # noqa: E731
    plain = score_identity_loss(shrink, other, x_g, sigma, noise)
    last = [t.to(memory_format=torch.channels_last) for t in (x_g, noise)]
    torch.testing.assert_close(
        score_identity_loss(shrink, other, last[0], sigma, last[1]).loss, plain.loss
    )


def test_guards_and_refusals() -> None:
    x_g, sigma = affine_generator()(Z), same_level(1.0, len(Z))
    step = score_identity_loss(gaussian(), mixture(), x_g, sigma, EPS)
    assert step.x_g_std == pytest.approx(x_g.std(correction=0).item())
    assert step.x_g_absmax == pytest.approx(x_g.abs().max().item())
    with pytest.raises(ValueError, match="'edm'"):
        score_identity_loss(gaussian(), mixture(), x_g, sigma, EPS, weight="edm")  # pyrefly: ignore
    with pytest.raises(ValueError, match="'teacher'"):
        score_identity_loss(
            gaussian(),
            mixture(),
            x_g,
            sigma,
            EPS,
            grad_through="teacher",  # pyrefly: ignore
        )


def test_fake_score_loss_trains_the_fake_alone() -> None:
    generator, fake = affine_generator(), Preconditioned(Net(2), 0.5)
    loss = fake_score_loss(fake, generator(Z), same_level(0.4, len(Z)), EPS, EDMWeight(0.5))
    truth = denoising_loss(fake, generator(Z), same_level(0.4, len(Z)), EPS, EDMWeight(0.5))
    torch.testing.assert_close(loss, truth)
    loss.mean().backward()
    assert generator.matrix.grad is None
    assert isinstance(fake.net, Net)
    assert fake.net.weight.grad is not None
