"""The oracle itself: against autograd, and against averages of what it draws."""

from __future__ import annotations

import torch
from torch import Tensor

from oracle import cubature, gaussian, mixture


def _points(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return x, torch.logspace(-2, 1.5, n, dtype=torch.float64)


def test_score_is_the_gradient_of_the_log_density() -> None:
    data = mixture()
    x, sigma = _points(40)
    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(data.log_density(x, sigma).sum(), x)
    torch.testing.assert_close(data.score(x, sigma), gradient, rtol=1e-9, atol=1e-9)


def test_density_integrates_to_one_and_one_sigma_blurs_it() -> None:
    data = mixture()
    axis = torch.linspace(-8, 8, 321, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    for sigma in (0.1, 1.0):
        density = data.log_density(grid, torch.full((len(grid),), sigma, dtype=torch.float64)).exp()
        assert abs(density.sum().item() * 0.05**2 - 1) < 1e-8


def test_samples_have_the_stated_moments() -> None:
    data = mixture()
    drawn = data.sample(200_000, torch.Generator().manual_seed(0))
    mean, covariance = data.moments()
    torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.01)
    torch.testing.assert_close(drawn.T.cov(), covariance, rtol=0, atol=0.01)


def test_denoiser_by_component() -> None:
    data = mixture()
    x, sigma = _points(6)
    label = torch.tensor([0, 1, 2, 0, 1, 2])
    for k in range(3):
        alone = type(data)(data.means[k : k + 1], data.covariances[k : k + 1])
        mine = label == k
        torch.testing.assert_close(data(x, sigma, label)[mine], alone(x, sigma)[mine])


def test_flow_solves_the_ode() -> None:
    data = gaussian()
    x, _ = _points(5)
    level, step = 0.7, 1e-5
    slope = (data.flow(x, level, level + step) - data.flow(x, level, level - step)) / (2 * step)
    sigma = torch.full((5,), level, dtype=torch.float64)
    torch.testing.assert_close(slope, -level * data.score(x, sigma), rtol=1e-7, atol=1e-8)


def test_cubature_averages_quadratics_exactly() -> None:
    z = cubature(3)
    matrix = torch.arange(9, dtype=torch.float64).reshape(3, 3)
    value = torch.einsum("ni,ij,nj->n", z, matrix, z).mean() + (z @ matrix[0]).mean()
    torch.testing.assert_close(value, matrix.trace())
