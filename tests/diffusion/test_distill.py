"""Score identities, exact: an affine generator's own optimal fake score is known in closed form.

With a Gaussian teacher everything inside the expectations is quadratic in (z, eps), so a cubature
of eight equally weighted points gives each expectation without error, and gradients are compared
to 1e-8. A mixture as teacher is checked by Monte Carlo.
"""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from noisewise.diffusion import (
    ScoreIdentity,
    add_noise,
    score_identity_loss,
)
from oracle import (
    AffineGenerator,
    GaussianMixture,
    affine_generator,
    cubature,
    gaussian,
    mixture,
    same_level,
)

POINTS = cubature(4)
Z, EPS = POINTS[:, :2], POINTS[:, 2:]
SIGMAS = [0.1, 0.4, 1.5, 6.0]
Weight = Literal["l1", "sigma", "none"]


def _step(
    generator: AffineGenerator,
    level: float,
    lam: float = 1.0,
    weight: Weight = "none",
    grad_through: Literal["both", "none"] = "both",
    teacher: GaussianMixture | None = None,
) -> ScoreIdentity:
    """One exact generator step, psi at its optimum and held."""
    return score_identity_loss(
        teacher or gaussian(),
        generator.law(),
        generator(Z),
        same_level(level, len(Z)),
        EPS,
        lam=lam,
        weight=weight,
        grad_through=grad_through,
        sigma_data=0.5,
    )


def _fisher(
    generator: AffineGenerator, level: float, moving_psi: bool, moving_x: bool = True
) -> Tensor:
    """L1 = E |f_phi - f_psi*|^2 (mean over pixels); either dependence on theta can be cut."""
    x = add_noise(generator(Z), same_level(level, len(Z)), EPS)
    x = x if moving_x else x.detach()
    sigma = same_level(level, len(Z))
    d = gaussian()(x, sigma) - generator.law(moving=moving_psi)(x, sigma)
    return d.square().mean()


# --- the identity -----------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.2, 1.0, 5.0])
def test_identity_behind_the_loss(level: float) -> None:
    """E <h(x), f_psi*(x)> = E <h(x), x_g> for any h of x and sigma; psi* from a mixture."""
    n, law = 100_000, mixture()
    g = torch.Generator().manual_seed(0)
    x_g, noise = law.sample(n, g), torch.randn(n, 2, generator=g, dtype=torch.float64)
    sigma = same_level(level, n)
    x = add_noise(x_g, sigma, noise)
    for h in (torch.sin(3 * x), x**3, gaussian()(x, sigma) - law(x, sigma)):
        gap = (h * (law(x, sigma) - x_g)).sum(1)
        assert abs(gap.mean()) < 4.5 * gap.std() / math.sqrt(n)
    cheat = (x_g * (law(x, sigma) - x_g)).sum(1)  # an h that knows x_g breaks it
    assert abs(cheat.mean()) > 20 * cheat.std() / math.sqrt(n)


@pytest.mark.parametrize("level", SIGMAS)
@pytest.mark.parametrize("weight", ["none", "sigma"])
def test_value_at_lambda_one_is_zero_and_says_nothing(level: float, weight: Weight) -> None:
    step = _step(affine_generator(), level, lam=1.0, weight=weight)
    assert step.fisher > 1e-5  # far from converged, and yet
    assert abs(step.loss.item()) < 1e-12


# --- the gradients ----------------------------------------------------------------------------


@pytest.mark.parametrize("level", SIGMAS)
def test_lambda_half_is_the_full_fisher_gradient(level: float) -> None:
    """FGM: grad L1 in full, psi* moving with theta, = 2 grad(L2 - L1/2) with psi held."""
    generator = affine_generator()
    full = generator.gradients(_fisher(generator, level, moving_psi=True))
    ours = 2 * generator.gradients(_step(generator, level, lam=0.5).loss)
    torch.testing.assert_close(ours, full, rtol=1e-8, atol=1e-11)


def test_lambda_half_against_finite_differences() -> None:
    generator, h = affine_generator(), 1e-5
    ours = 2 * generator.gradients(_step(generator, 0.4, lam=0.5).loss)
    theta = nn.utils.parameters_to_vector(generator.parameters()).detach()
    for i in range(len(theta)):
        values = []
        for sign in (1, -1):
            moved = theta.clone()
            moved[i] += sign * h
            nn.utils.vector_to_parameters(moved, generator.parameters())
            values.append(_fisher(generator, 0.4, moving_psi=True).item())
        assert ours[i].item() == pytest.approx(
            (values[0] - values[1]) / (2 * h), rel=1e-5, abs=1e-9
        )


@pytest.mark.parametrize("level", SIGMAS)
def test_lambda_one_holds_the_outer_expectation(level: float) -> None:
    """Su: the gradient of E_{x ~ sg(p_theta)} |f_phi - f_psi*(theta)|^2 = 2 grad(L2 - L1)."""
    generator = affine_generator()
    stopped = generator.gradients(_fisher(generator, level, moving_psi=True, moving_x=False))
    ours = 2 * generator.gradients(_step(generator, level, lam=1.0).loss)
    torch.testing.assert_close(ours, stopped, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("level", SIGMAS)
def test_l1_alone_is_biased(level: float) -> None:
    """L1 = L_0 - L_1 with psi held misses how psi* moves: here it points the opposite way."""
    narrow = AffineGenerator(
        0.5 * torch.linalg.cholesky(gaussian().covariances[0]), gaussian().means[0]
    )
    held_l1 = _step(narrow, level, lam=0.0).loss - _step(narrow, level, lam=1.0).loss
    torch.testing.assert_close(held_l1, _fisher(narrow, level, moving_psi=False))
    growth = torch.cat([narrow.matrix.detach().flatten(), torch.zeros(2)])
    biased = narrow.gradients(held_l1) @ growth
    full = narrow.gradients(_fisher(narrow, level, moving_psi=True)) @ growth
    right = narrow.gradients(_step(narrow, level, lam=0.5).loss) @ growth
    assert biased > 0  # a narrow generator is told to shrink
    assert full < 0
    assert right < 0  # and grows, as it should


def test_lambda_half_and_one_on_a_mixture_by_monte_carlo() -> None:
    """Both identities with a teacher that is no Gaussian; error bars from independent batches."""
    generator, teacher, level, n = affine_generator(), mixture(), 0.4, 20_000
    for lam, moving_x in ((0.5, True), (1.0, False)):
        gaps = []
        for seed in range(12):
            g = torch.Generator().manual_seed(seed)
            z, eps = torch.randn(2, n, 2, generator=g, dtype=torch.float64)
            sigma = same_level(level, n)
            x_g = generator(z)
            x = add_noise(x_g, sigma, eps)
            x = x if moving_x else x.detach()
            d = teacher(x, sigma) - generator.law(moving=True)(x, sigma)
            truth = generator.gradients(d.square().mean())
            step = score_identity_loss(
                teacher, generator.law(), generator(z), sigma, eps, lam=lam, weight="none"
            )
            gaps.append(2 * generator.gradients(step.loss) - truth)
        gap = torch.stack(gaps)
        error = gap.std(0) / math.sqrt(len(gaps))
        assert (gap.mean(0).abs() < 5 * error).all()
        assert (error < 0.1 * truth.abs().max()).all()


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0, 1.2])
@pytest.mark.parametrize("weight", ["none", "l1", "sigma"])
def test_detached_nets_are_dmd_at_every_lambda(lam: float, weight: Weight) -> None:
    """The gradient is w (f_psi - f_phi) dx_g/dtheta, whatever lambda."""
    generator, level = affine_generator(), 0.4
    ours = generator.gradients(_step(generator, level, lam, weight, "none").loss)
    x_g = generator(Z)
    sigma = same_level(level, len(Z))
    x = add_noise(x_g.detach(), sigma, EPS)
    f_phi, f_psi = gaussian()(x, sigma), generator.law()(x, sigma)
    w = {
        "none": torch.ones(len(Z)).double(),
        "l1": 1 / (x_g - f_phi).abs().mean(1).clamp(min=1e-5),
        "sigma": torch.full((len(Z),), math.hypot(level, 0.5) / (level * 0.5)).double(),
    }[weight].detach()
    dmd = generator.gradients((w[:, None] * (f_psi - f_phi) * x_g).mean())
    torch.testing.assert_close(ours, dmd)


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0, 1.2])
@pytest.mark.parametrize("weight", ["none", "l1", "sigma"])
def test_loss_by_its_definition(lam: float, weight: Weight) -> None:
    """Gradient through both nets and x_g, weights held, against the formula written out."""
    generator = affine_generator()
    g = torch.Generator().manual_seed(0)
    z, eps = torch.randn(2, 50, 2, generator=g, dtype=torch.float64)
    sigma = torch.logspace(-3, 1, 50, dtype=torch.float64)
    x_g = generator(z)
    x = x_g + sigma[:, None] * eps
    f_phi, f_psi = mixture()(x, sigma), generator.law()(x, sigma)
    w = {
        "none": lambda: torch.ones(50).double(),
        "l1": lambda: 1 / (x_g - f_phi).abs().mean(1).clamp(min=1e-5),
        "sigma": lambda: 1 / (sigma * 0.7 / (sigma**2 + 0.49).sqrt()).clamp(min=0.01),
    }[weight]().detach()
    l1 = (w[:, None] * (f_phi - f_psi) ** 2).mean()
    l2 = (w[:, None] * (f_phi - f_psi) * (f_phi - x_g)).mean()
    truth = l2 - lam * l1
    ours = score_identity_loss(
        mixture(), generator.law(), generator(z), sigma, eps, None, lam, weight, sigma_data=0.7
    )
    torch.testing.assert_close(ours.loss, truth)
    torch.testing.assert_close(generator.gradients(ours.loss), generator.gradients(truth))
    torch.testing.assert_close(ours.fisher, (f_phi - f_psi).square().mean())


# --- where it leads ---------------------------------------------------------------------------


def _descend(lams: dict[float, float], num_steps: int) -> GaussianMixture:
    """Follow sum_i factor_i L_lambda_i at three noise levels together; the law it ends at."""
    generator = affine_generator(0.3)
    sigma = torch.tensor([0.1, 0.4, 1.5], dtype=torch.float64).repeat_interleave(len(Z))
    z, eps = Z.repeat(3, 1), EPS.repeat(3, 1)
    optimiser = torch.optim.Adam(generator.parameters(), lr=0.02, betas=(0.0, 0.999))
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0, total_iters=num_steps)
    for _ in range(num_steps):
        optimiser.zero_grad()
        for lam, factor in lams.items():
            step = score_identity_loss(
                gaussian(), generator.law(), generator(z), sigma, eps, lam=lam, weight="sigma"
            )
            (factor * step.loss).backward()
        optimiser.step()
        schedule.step()
    return generator.law()


@pytest.mark.parametrize("lam", [0.5, 1.0, 1.2])
def test_affine_generator_finds_the_data(lam: float) -> None:
    law = _descend({lam: 1.0}, num_steps=500)
    torch.testing.assert_close(law.means, gaussian().means, rtol=0, atol=0.01)
    torch.testing.assert_close(law.covariances, gaussian().covariances, rtol=0, atol=0.02)


def test_l1_alone_does_not_find_the_data() -> None:
    """L1 = L_0 - L_1. It collapses: psi held, the cheapest x is one where both scores agree."""
    law = _descend({0.0: 1.0, 1.0: -1.0}, num_steps=250)
    assert law.covariances[0].trace() < 0.2 * gaussian().covariances[0].trace()


@pytest.mark.parametrize(("lam", "comes_back"), [(0.5, True), (1.0, True), (1.2, False)])
def test_only_above_one_a_much_too_wide_generator_runs_away(lam: float, comes_back: bool) -> None:
    """Why lambda > 1 can explode, and lambda <= 1 cannot.

    For variances c of the data and g > c of the generator, d L_lambda / dg has the sign of
    1 - c_phi - lambda (c_psi - c_phi), with c_phi = c / (c + sigma^2), c_psi = g / (g + sigma^2):
    as g -> infinity that of 1 - lambda.
    """
    generator, level = affine_generator(scale=100.0), 1.5
    grads = generator.gradients(_step(generator, level, lam).loss)
    outward = grads[:4] @ generator.matrix.detach().flatten()
    assert bool(outward > 0) is comes_back  # downhill is inwards
