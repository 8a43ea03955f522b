"""Curvature against exact Hessians: three routes, traces, and what independent halves are for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from noisewise.scaling.curvature import (
    Route,
    half_product,
    hessian_product,
    hessian_trace,
    noise_curvature,
    quadratic_form,
    sign_noise_curvature,
)
from noisewise.scaling.flat import Flat, gradient

ROUTES: list[Route] = ["double_backward", "central_difference", "three_losses"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Quadratic(nn.Module):
    """L = w'Hw / 2 - w'x of the batch's mean x: gradient Hw - x, Hessian H whatever the batch."""

    def __init__(self, hessian: Tensor) -> None:
        super().__init__()
        self.register_buffer("hessian", hessian)
        self.w = nn.Parameter(torch.ones(len(hessian), dtype=hessian.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * self.w @ self.hessian @ self.w - self.w @ x.mean(0)


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)


def random_hessian(p: int, seed: int = 0) -> Tensor:
    a = torch.randn(p, p, generator=seeded(seed), dtype=torch.float64)
    return a @ a.T / p


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_three_routes_give_one_answer_on_a_net(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Dropout(0.2), nn.Linear(7, 3)).to(dtype)
    x, y = torch.randn(32, 5, dtype=dtype), torch.randint(3, (32,))
    flat = Flat(net)

    def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    v = torch.randn(flat.num_parameters, generator=seeded(1), dtype=dtype)
    before = flat.vector()
    values = [quadratic_form(flat, cross_entropy, (x, y), v, route) for route in ROUTES]
    assert values[1:] == pytest.approx(
        [values[0]] * 2, rel=1e-5 if dtype == torch.float64 else 0.02
    )
    products = [hessian_product(flat, cross_entropy, (x, y), v, route) for route in ROUTES[:2]]
    tight = 1e-6 if dtype == torch.float64 else 0.02
    assert float((products[0] - products[1]).norm() / products[0].norm()) < tight
    assert torch.equal(flat.vector(), before)  # moved and put back, bit for bit
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_is_exact_on_a_quadratic(route: Route) -> None:
    hessian = random_hessian(6)
    model = Quadratic(hessian)
    v = torch.arange(1.0, 7.0, dtype=torch.float64)
    found = quadratic_form(Flat(model), loss, torch.zeros(2, 6, dtype=torch.float64), v, route)
    assert found == pytest.approx(float(v @ hessian @ v), rel=1e-6)


def test_traces_are_within_their_own_error() -> None:
    p, b, n = 12, 8, 200
    hessian, model = random_hessian(p), Quadratic(random_hessian(p))
    root = torch.randn(p, p, generator=seeded(2), dtype=torch.float64) / 3
    sigma = root @ root.T  # correlated noise
    noise = torch.randn(2 * n, p, generator=seeded(3), dtype=torch.float64) @ root.T / b**0.5
    pairs = list(zip(noise[:n], noise[n:], strict=True))
    flat, at = Flat(model), [torch.zeros(1, p, dtype=torch.float64)]
    scale = torch.linspace(0.5, 2.0, p, dtype=torch.float64)
    cases = [
        (hessian_trace(flat, loss, at * n, seeded(4)), hessian.trace()),
        (noise_curvature(flat, loss, pairs, at, b), (sigma @ hessian).trace()),
        (
            noise_curvature(flat, loss, pairs, at, b, scale),
            (scale.diag() @ sigma @ scale.diag() @ hessian).trace(),
        ),
    ]
    for found, truth in cases:
        assert abs(found.value - float(truth)) < 4 * found.standard_error
        assert found.standard_error < 0.2 * float(truth)
        assert found.needed(0.1) == math.ceil(n * (found.relative_error / 0.1) ** 2)


def test_sign_noise_meets_the_arcsine_of_its_correlations_not_the_trace() -> None:
    """For Gaussian noise E s_i s_j = 2/pi arcsin(rho_ij): with Sigma ~ H far above tr H."""
    p, n = 10, 400
    hessian = torch.full((p, p), 0.8, dtype=torch.float64) + 0.2 * torch.eye(p, dtype=torch.float64)
    root = torch.linalg.cholesky(hessian)
    noise = torch.randn(2 * n, p, generator=seeded(5), dtype=torch.float64) @ root.T
    found = sign_noise_curvature(
        Flat(Quadratic(hessian)),
        loss,
        list(zip(noise[:n], noise[n:], strict=True)),
        [torch.zeros(1, p, dtype=torch.float64)],
    )
    truth = float((2 / math.pi * hessian.clamp(max=1).asin() * hessian).sum())
    assert abs(found.value - truth) < 4 * found.standard_error
    assert found.low > 2 * float(hessian.trace())


def test_independent_halves_are_unbiased_and_the_same_half_twice_is_not() -> None:
    p, b, n = 8, 4, 8
    hessian, g = random_hessian(p, 6), torch.linspace(0.1, 0.5, p, dtype=torch.float64)
    flat, at = Flat(Quadratic(hessian)), [torch.zeros(1, p, dtype=torch.float64)]
    truth, found, naive, hits = float(g @ hessian @ g), [], [], 0
    for seed in range(150):
        rows = g + torch.randn(n, p, generator=seeded(seed), dtype=torch.float64) / b**0.5
        one = half_product(flat, loss, (rows[::2], rows[1::2]), at)
        found.append(one.value)
        hits += one.low <= truth <= one.high
        mean = rows.mean(0)
        naive.append(float(mean @ hessian @ mean))
    error = float(torch.tensor(found).std()) / 150**0.5
    assert abs(sum(found) / 150 - truth) < 4 * error
    extra = float(hessian.trace()) / (n * b)
    assert sum(naive) / 150 == pytest.approx(truth + extra, rel=0.15)
    assert extra > 5 * error
    assert hits >= 130


def test_the_measurement_leaves_no_trace_and_sees_one_dropout() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 1))
    x = torch.randn(16, 4)

    def square(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch).square().mean()

    flat, state = Flat(net), torch.get_rng_state()
    statistics = [b.clone() for b in net.buffers()]
    first, second = gradient(flat, square, x), gradient(flat, square, x)
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(statistics, net.buffers(), strict=True))
    assert torch.equal(state, torch.get_rng_state())


def test_bad_input_is_one_sentence() -> None:
    net, x = nn.Linear(2, 1), torch.ones(3, 2)
    flat = Flat(net)
    with pytest.raises(ValueError, match="no trainable"):
        Flat(nn.ReLU())
    with pytest.raises(ValueError, match="no graph"):
        gradient(flat, lambda m, x: m(x).mean().detach(), x)
    with pytest.raises(ValueError, match="one number"):
        gradient(flat, lambda m, x: m(x), x)
    with pytest.raises(ValueError, match="not finite"):
        gradient(flat, lambda m, x: m(x).mean() * math.nan, x)
    with pytest.raises(ValueError, match="v'Hv only"):
        hessian_product(flat, lambda m, x: m(x).square().mean(), x, flat.vector(), "three_losses")
    with pytest.raises(ValueError, match="length zero"):
        quadratic_form(
            flat, lambda m, x: m(x).square().mean(), x, torch.zeros(3), "central_difference"
        )
    with pytest.raises(ValueError, match="two micro-batches"):
        noise_curvature(flat, lambda m, x: m(x).mean(), [], [x], 1)
    assert torch.equal(
        hessian_product(flat, lambda m, x: m(x).mean(), x, flat.vector()), 0 * flat.vector()
    )
