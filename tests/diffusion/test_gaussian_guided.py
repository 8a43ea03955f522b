"""Guidance in a distillation: the fixed point, and the fake score that is trained inside it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from noisewise.diffusion import GuidedByShares, fake_score_loss, guided, held, with_shares
from noisewise.diffusion.gaussian_case import normal_pairs
from noisewise.diffusion.gaussian_guided import GuidedCase

CASES = [GuidedCase(1.0, 1.0, 1.5), GuidedCase(-0.4, 3.0, 2.0), GuidedCase(0.7, 0.5, 4.5)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.2])
def test_the_gradient_is_zero_where_the_formula_says(case: GuidedCase, lam: float) -> None:
    mean, b = case.ends_at(0.4)
    assert max(map(abs, case.gradient(mean, b, 0.4, lam))) < 1e-10
    assert abs(mean) > abs(case.m), "further from the other classes"
    assert b < 1, "narrower than its class"


@pytest.mark.parametrize("lam", [0.5, 1.0, 1.2])
def test_a_descent_ends_there(lam: float) -> None:
    case = CASES[0]
    mean, b = 0.2, 0.6
    for _ in range(300):
        by_mean, by_b = case.gradient(mean, b, 0.8, lam)
        mean, b = mean - 0.5 * by_mean, b - 0.5 * by_b
    assert (mean, b) == pytest.approx(case.ends_at(0.8), abs=1e-3)


def test_the_density_is_that_of_the_class_sharpened_by_all() -> None:
    """p_c^w / p_all^(w - 1), integrated on a grid, has the mean and width of the formula."""
    case, sigma = CASES[0], 0.5
    x = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    v, whole = sigma**2, 1 + case.spread**2
    log = -case.weight * (x - case.m) ** 2 / (2 * (1 + v))
    log = log + (case.weight - 1) * x**2 / (2 * (whole + v))
    density = (log - log.max()).exp()
    density = density / density.sum()
    mean = float((density * x).sum())
    noised = float((density * (x - mean) ** 2).sum())
    assert (mean, (noised - v) ** 0.5) == pytest.approx(case.ends_at(sigma), abs=1e-6)


def test_too_much_guidance_has_no_generator() -> None:
    with pytest.raises(ValueError, match="use less of one of them"):
        GuidedCase(1.0, 3.0, 5.0).ends_at(3.0)


class OfClasses(nn.Module):
    """The denoiser of two classes N(m_c, 1), asked by shares: a straight line in both."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.tensor([[-0.5], [1.0]], dtype=torch.float64))
        self.slopes = nn.Parameter(torch.tensor([[0.6], [0.7]], dtype=torch.float64))

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        assert condition is not None
        shares = condition if condition.is_floating_point() else torch.eye(2).double()[condition]
        return shares.to(x.dtype) @ self.places + (shares.to(x.dtype) @ self.slopes) * x


SHARES = torch.tensor([0.25, 0.75], dtype=torch.float64)


def test_the_module_is_the_function_and_lets_gradients_through() -> None:
    net, x = OfClasses(), torch.linspace(-2, 2, 6, dtype=torch.float64)[:, None]
    sigma, labels = torch.tensor([0.1, 0.2, 0.3, 1.0, 1.1, 5.0]).double(), torch.tensor([0, 1] * 3)
    module = GuidedByShares(net, SHARES, 2.5, (0.2, 1.0))
    function = guided(net, with_shares(net, SHARES), 2.5, (0.2, 1.0))
    torch.testing.assert_close(module(x, sigma, labels), function(x, sigma, labels))
    x.requires_grad_()
    with held(module):
        total = module(x, sigma, labels).sum()
    total.backward()
    assert all(p.grad is None for p in net.parameters())
    assert x.grad is not None
    slopes = net.slopes.detach()[labels, 0]
    mean = (SHARES @ net.slopes.detach())[0]
    inside = ((sigma > 0.2) & (sigma <= 1.0)).double()
    torch.testing.assert_close(x.grad[:, 0], slopes + 1.5 * inside * (slopes - mean))


def test_a_fake_score_inside_guidance_learns_the_pictures_as_a_plain_one_does() -> None:
    """At its optimum the guided fake score is E[x_g | x, c]: its gradient is 0 just there."""
    z, noise = normal_pairs(16)
    sigma = torch.full((len(z),), 0.8, dtype=torch.float64)
    mean, b, weight = 0.4, 0.9, 2.0
    x_g, v = mean + b * z, 0.64
    labels = torch.ones(len(z), dtype=torch.int64)
    net = OfClasses()
    slope, place = b**2 / (b**2 + v), v * mean / (b**2 + v)

    def to_the_optimum() -> None:
        """Of the two classes the second is drawn: its guided line must be the plain answer."""
        with torch.no_grad():
            for lines, aim in ((net.slopes, slope), (net.places, place)):
                all_but = SHARES[0] * lines[0]
                # weight * own - (weight - 1) (all_but + 0.75 own) = aim
                lines[1] = (aim + (weight - 1) * all_but) / (weight - (weight - 1) * SHARES[1])

    to_the_optimum()
    module = GuidedByShares(net, SHARES, weight, (0.0, 10.0))
    torch.testing.assert_close(
        module(x_g + 0.8 * noise, sigma, labels), place + slope * (x_g + 0.8 * noise)
    )
    fake_score_loss(
        module, x_g, sigma, noise, lambda s: torch.ones_like(s), labels
    ).mean().backward()
    for lines in (net.slopes, net.places):
        assert lines.grad is not None
        assert lines.grad.abs().max() < 1e-10
