"""The laws against exact quadratics: where closed forms hold and fail, what momentum does.

Everything is deterministic or seeded; "swept" means the minimum of the exact expected loss.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, special
from torch import Tensor

from noisewise.scaling.exact_laws import GaussianSoftSign
from noisewise.scaling.laws import (
    SGD,
    Constant,
    Frontier,
    Law,
    Linear,
    Momentum,
    Muon,
    SquareRoot,
    VarianceRule,
)
from noisewise.scaling.moments import sign_mean, soft_sign_moments
from noisewise.scaling.preconditioned import Preconditioned, second_moment_at
from noisewise.scaling.sign_laws import SignDescent, SoftSign

BATCHES = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536]
P = 24


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------- exact moments
@pytest.mark.parametrize("b", [0.0, 0.003, 0.1, 0.63, 3.0, 40.0, 5e3])
@pytest.mark.parametrize("a", [0.0, 0.2, 1.3, 8.0, 300.0])
def test_moments_equal_adaptive_quadrature(a: float, b: float) -> None:
    first, second = soft_sign_moments(*torch.tensor([a, b], dtype=torch.float64))

    def of(power: int) -> float:
        def density(x: float) -> float:
            root = math.hypot(x, b) if b else abs(x)
            phi = x / root if root else 0.0
            return phi**power * math.exp(-0.5 * (x - a) ** 2) / math.sqrt(2 * math.pi)

        points = [x for x in (0.0, -b, b, -10 * b, 10 * b) if a - 12 < x < a + 12]
        return integrate.quad(
            density, a - 12, a + 12, points=points or None, limit=800, epsabs=1e-13
        )[0]

    assert float(first) == pytest.approx(of(1), abs=2e-6, rel=2e-6)
    assert float(second) == pytest.approx(of(2), abs=2e-6, rel=2e-6)


def test_second_moment_equals_faddeeva_and_the_sign_is_its_limit() -> None:
    a = torch.linspace(0, 10, 41, dtype=torch.float64)
    for b in (0.05, 0.5, 2.0):
        exact = 1 - b * math.sqrt(math.pi / 2) * special.wofz((a.numpy() + 1j * b) / 2**0.5).real
        _, second = soft_sign_moments(a, torch.tensor(b, dtype=torch.float64))
        assert np.abs(second.numpy() - exact).max() < 1e-6
    first, second = soft_sign_moments(a, torch.tensor(0.0, dtype=torch.float64))
    assert float((first - sign_mean(a)).abs().max()) < 1e-6
    assert float((second - 1).abs().max()) < 1e-6
    with pytest.raises(ValueError, match="not be negative"):
        soft_sign_moments(a, torch.tensor(-1.0))


def test_monte_carlo_of_a_million_draws_agrees_within_a_percent() -> None:
    x = torch.randn(1_000_000, generator=seeded(), dtype=torch.float64)
    for a, b in ((0.3, 0.2), (1.0, 1.0), (2.0, 0.05)):
        phi = (x + a) / torch.hypot(x + a, torch.tensor(b, dtype=torch.float64))
        first, second = soft_sign_moments(*torch.tensor([a, b], dtype=torch.float64))
        assert float(phi.mean()) == pytest.approx(float(first), rel=0.01)
        assert float(phi.square().mean()) == pytest.approx(float(second), rel=0.01)


# ------------------------------------------------------- exact quadratics: swept against predicted
def hessian_of(kind: str) -> Tensor:
    if kind == "diagonal":
        return torch.linspace(0.2, 2.0, P, dtype=torch.float64).diag()
    if kind == "aligned":  # one direction of curvature, where every sign points: the surge's case
        ones = torch.ones(P, dtype=torch.float64)
        return torch.outer(ones, ones) + 0.02 * torch.eye(P, dtype=torch.float64)
    root = torch.randn(P, P, generator=seeded(1), dtype=torch.float64)
    return root @ root.T / P + 0.1 * torch.eye(P, dtype=torch.float64)


def signal(heterogeneous: bool) -> tuple[Tensor, Tensor]:
    g = 0.02 * (1 + torch.rand(P, generator=seeded(2), dtype=torch.float64))
    spread = torch.randn(P, generator=seeded(3), dtype=torch.float64) if heterogeneous else 0 * g
    return g, spread.exp()


def soft_sign(x: Tensor, epsilon: float) -> Tensor:
    return x / torch.hypot(x, torch.tensor(epsilon or 1e-300, dtype=x.dtype))


@pytest.mark.parametrize("epsilon", [0.0, 0.003, 0.03, 0.3])
@pytest.mark.parametrize("heterogeneous", [False, True])
@pytest.mark.parametrize("kind", ["diagonal", "aligned", "random"])
def test_predicted_optimum_is_the_swept_one(kind: str, heterogeneous: bool, epsilon: float) -> None:
    """24 settings by 9 batches, 16,000 antithetic draws each; the sweep reads a parabola's foot."""
    (g, sigma), hessian = signal(heterogeneous), hessian_of(kind)
    law = GaussianSoftSign(g, sigma, hessian, epsilon=epsilon)
    noise = torch.randn(8000, P, generator=seeded(4), dtype=torch.float64)
    noise = torch.cat([noise, -noise])
    for batch in BATCHES:
        phi = soft_sign(g + sigma * noise / batch**0.5, epsilon)
        slope, curved = phi @ g, ((phi @ hessian) * phi).sum(1)
        found = float(slope.mean() / curved.mean())
        error = float((slope / slope.mean() - curved / curved.mean()).std()) / 16000**0.5
        assert law.lr(batch) == pytest.approx(found, rel=max(0.005, 5 * error))
        # and it is the minimum of the exact expected loss, not merely a ratio
        slope_exact, curvature = law.moments(batch)
        best = law.lr(batch)
        falls = [
            lr * slope_exact - 0.5 * lr**2 * curvature for lr in (0.98 * best, best, 1.02 * best)
        ]
        assert falls[1] == max(falls) == pytest.approx(law.gain(batch))


def test_large_epsilon_is_sgd_with_tr_sigma_h_and_no_half_pi() -> None:
    g, sigma = signal(True)
    hessian, epsilon = hessian_of("random"), 1e5
    law = GaussianSoftSign(g, sigma, hessian, epsilon=epsilon)
    noise = float((sigma.square() * hessian.diagonal()).sum())
    drift = float(g @ hessian @ g)
    sgd = SGD(float(g @ g) / drift, noise / drift)
    for batch in BATCHES:
        assert law.lr(batch) / epsilon == pytest.approx(sgd.lr(batch), rel=1e-6)
    wrong = SGD(sgd.lr_max, sgd.b_noise * math.pi / 2)
    assert abs(law.lr(1) / epsilon / wrong.lr(1) - 1) > 0.3


def test_the_surge_appears_and_epsilon_takes_it_away() -> None:
    g, sigma = signal(False)
    g = 0 * g + 0.03
    end = {}
    for epsilon in (0.0, 0.003, 0.03, 0.3):
        law = GaussianSoftSign(g, sigma, hessian_of("aligned"), epsilon=epsilon)
        rates = [law.lr(2.0**k) for k in range(26)]
        end[epsilon] = rates[-1] / max(rates)
        falls = law.mean_field().surges
        assert falls == (end[epsilon] < 0.95), (epsilon, end)
    assert end[0.0] < 0.5
    assert end[0.0] < 1.02 * end[0.003] < 0.9 * end[0.03]
    assert end[0.3] > 0.99
    flat = GaussianSoftSign(g, sigma, hessian_of("diagonal"))
    rates = [flat.lr(2.0**k) for k in range(26)]
    assert all(b > a * (1 - 1e-6) for a, b in pairwise(rates))
    assert flat.mean_field().batch_peak == math.inf


def test_the_gain_never_surges() -> None:
    g, sigma = signal(False)
    law = GaussianSoftSign(0 * g + 0.03, sigma, hessian_of("aligned"))
    gains = [law.gain(2.0**k) for k in range(26)]
    assert all(b > a * (1 - 1e-6) for a, b in pairwise(gains))


def test_the_mean_field_is_good_for_like_coordinates_and_bad_for_unlike_ones() -> None:
    worst = {}
    for heterogeneous in (False, True):
        g, sigma = signal(heterogeneous)
        law = GaussianSoftSign(0 * g + 0.03, sigma, hessian_of("aligned"))
        # c = pi/2 is the right constant for a pure sign of one batch
        mean = law.mean_field()
        mean = SoftSign(mean.slope, mean.quadratic, mean.diagonal, mean.noise_batch * math.pi / 2)
        worst[heterogeneous] = max(abs(mean.lr(b) / law.lr(b) - 1) for b in BATCHES)
    assert worst[False] < 0.15
    assert worst[True] > 0.3


def test_both_closed_forms_are_one_when_epsilon_is_zero() -> None:
    soft = SoftSign(slope=3.0, quadratic=5.0, diagonal=1.0, noise_batch=80.0)
    sign = SignDescent.from_sums(3.0, 1.0, 4.0, 80.0)
    for batch in BATCHES:
        assert sign.lr(batch) == pytest.approx(soft.lr(batch))
        assert sign.gain(batch) == pytest.approx(soft.gain(batch))
    assert sign.batch_peak == pytest.approx(soft.batch_peak)
    assert sign.lr(sign.batch_peak) == pytest.approx(sign.lr_max)
    assert SoftSign.from_kappa2(1.0, 1.0, 1.0, 2.0).noise_batch == pytest.approx(math.pi)
    small = sign.lr(2e-3) / sign.lr(1e-3)  # far below the noise: the square root
    assert small == pytest.approx(math.sqrt(2), rel=1e-3)
    with pytest.raises(ValueError, match="SoftSign"):
        SignDescent.from_sums(1.0, 1.0, -0.5, 10.0)


# ---------------------------------------------------------------------- momentum, long runs
def best_constant_lr(
    beta: float, batch: float, steps: int, sums: bool = False
) -> tuple[float, float]:
    """The lr of the smallest final loss, by the exact recursion of second moments, (w, m) a mode.

    Noise per step Sigma / batch on a diagonal quadratic; m = beta m + (1 - beta) g, or with `sums`
    m = beta m + g as PyTorch's SGD. Also B_noise = tr(Sigma H) / E g'Hg at the end, Sigma = 1.
    """
    modes = np.array([0.05, 0.3, 1.0])
    gain = 1.0 if sums else 1 - beta
    rates = np.geomspace(1e-4, 3.0, 500) * (1 - beta if sums else 1.0)
    lr, lam = np.meshgrid(rates, modes)
    ww, wm, mm = np.ones_like(lr), np.zeros_like(lr), np.zeros_like(lr)
    for _ in range(steps):
        # m' = beta m + gain (lam w + xi), w' = w - lr m'
        mm2 = beta**2 * mm + 2 * beta * gain * lam * wm + gain**2 * (lam**2 * ww + 1 / batch)
        wm2 = beta * wm + gain * lam * ww
        ww = ww - 2 * lr * wm2 + lr**2 * mm2
        wm, mm = wm2 - lr * mm2, mm2
    loss = np.nan_to_num((lam * ww).sum(0), nan=np.inf)
    i = loss.argmin()
    return float(rates[i]), float(modes.sum() / (modes**3 * ww[:, i]).sum())


def test_momentum_does_not_multiply_the_batch_over_200_steps() -> None:
    for batch in (1.0, 16.0, 256.0):
        plain, scale = best_constant_lr(0.0, batch, 200)
        law = SGD(1.0, scale)
        for sums in (False, True):
            swept = best_constant_lr(0.9, batch, 200, sums)[0] / plain
            ours = Momentum(law, 0.9, accumulates=sums)
            assert ours.lr(batch) / law.lr(batch) == pytest.approx(swept, rel=0.2), (batch, sums)
            # The multiplier would have the law asked at 19 times the batch.
            claimed = law.lr(ours.claimed_multiplier * batch) / law.lr(batch)
            assert claimed * (0.1 if sums else 1.0) > 1.5 * swept, (batch, sums)
    law = Momentum(Linear(0.1, 64), 0.9)
    assert law.claimed_multiplier == pytest.approx(19)
    assert law.lr(64) == 0.1
    assert law.gain(128) == 2
    assert Momentum(law.law, 0.9, accumulates=True).lr(64) == pytest.approx(0.01)
    with pytest.raises(ValueError, match="from 0 to below 1"):
        Momentum(law.law, 1.0)


# ------------------------------------------------------------------- correlated noise, frontier
def test_correlated_noise_breaks_the_diagonal_law_and_not_the_measured_one() -> None:
    """Sigma ~ H, as on real nets: preconditioned descent swept by Monte Carlo."""
    p, epsilon, b = 16, 1e-8, 64.0
    hessian = 0.9 * torch.ones(p, p, dtype=torch.float64) + 0.1 * torch.eye(p, dtype=torch.float64)
    root, g = torch.linalg.cholesky(hessian), torch.full((p,), 0.02, dtype=torch.float64)
    sigma2 = (root @ root.T).diagonal()
    noise = torch.randn(6000, p, generator=seeded(7), dtype=torch.float64) @ root.T
    noise = torch.cat([noise, -noise])
    diagonal = GaussianSoftSign(g, sigma2.sqrt(), hessian)
    table: dict[str, list[float]] = {"slope": [], "drift": [], "diffusion": []}
    v_b, grid = g**2 + sigma2 / b, [8.0, 64.0, 512.0, 4096.0]
    for batch in grid:
        scale = 1 / (second_moment_at(v_b, g**2, sigma2, b, batch).sqrt() + epsilon)
        probes = noise[:40] * scale / batch**0.5  # forty probes, all that is measured
        table["slope"].append(float(g @ (scale * g)))
        table["drift"].append(float((scale * g) @ hessian @ (scale * g)))
        table["diffusion"].append(float(((probes @ hessian) * probes).sum(1).mean()))
    law = Preconditioned(
        tuple(grid), tuple(table["slope"]), tuple(table["drift"]), tuple(table["diffusion"])
    )
    for batch in grid:
        scale = 1 / ((g**2 + sigma2 / batch).sqrt() + epsilon)
        u = (g + noise / batch**0.5) * scale
        swept = float((u @ g).mean() / ((u @ hessian) * u).sum(1).mean())
        assert law.lr(batch) == pytest.approx(swept, rel=0.3)
        assert law.gain(batch) > 0
    scale = 1 / ((g**2 + sigma2 / 8).sqrt() + epsilon)
    u = (g + noise / 8**0.5) * scale
    swept = float((u @ g).mean() / ((u @ hessian) * u).sum(1).mean())
    assert diagonal.lr(8) > 4 * swept


def test_second_moment_follows_the_batch() -> None:
    g2 = torch.tensor([0.0, 1.0, -0.1], dtype=torch.float64)
    sigma2 = torch.tensor([4.0, 4.0, 4.0], dtype=torch.float64)
    v = g2.clamp_min(0) + sigma2 / 16
    found = second_moment_at(v, g2, sigma2, 16, 4)
    torch.testing.assert_close(found, g2.clamp_min(0) + sigma2 / 4)
    assert torch.equal(second_moment_at(v, g2, sigma2, 16, 16), v)


def test_a_table_of_sgd_is_the_law_of_sgd_between_its_batches() -> None:
    grid = tuple(4.0**k for k in range(7))
    table = Preconditioned(grid, (2.0,) * 7, (4.0,) * 7, tuple(400.0 / b for b in grid))
    law = SGD(0.5, 100.0, 0.5)
    for batch in (0.5, 1.0, 7.0, 100.0, 3000.0, 20_000.0):
        assert table.lr(batch) == pytest.approx(law.lr(batch))
        assert table.gain(batch) == pytest.approx(law.gain(batch))
    assert table.covers(100)
    assert not table.covers(5000)
    with pytest.raises(ValueError, match="ascend"):
        Preconditioned((2.0, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0))


def test_frontier_and_limits() -> None:
    frontier, law = Frontier(120.0, 10.0), SGD(1.0, 120.0)
    for batch in BATCHES:
        steps, examples = frontier.steps(batch), frontier.examples(batch)
        assert (steps / 10 - 1) * (examples / 1200 - 1) == pytest.approx(1)
        assert examples == pytest.approx(steps * batch)
    assert law.lr(2e-3) / law.lr(1e-3) == pytest.approx(Linear(1.0, 1.0).lr(2.0), rel=1e-4)
    assert Muon(1.0, 120.0).lr(2e-3) / Muon(1.0, 120.0).lr(1e-3) == pytest.approx(2**0.5, rel=1e-4)
    assert VarianceRule(1.0, 4.0).lr(16) == SquareRoot(1.0, 4.0).lr(16) == 2
    assert VarianceRule(1.0, 4.0, b_epsilon=1e6).lr(16) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(
    "law",
    [
        Constant(0.1),
        Linear(0.1, 8),
        SquareRoot(0.1, 8),
        VarianceRule(0.1, 8),
        SGD(0.1, 8),
        Muon(0.1, 8),
        SoftSign(1, 1, 1, 1),
        SignDescent(1, 1, 1),
        Preconditioned((1.0, 2.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0)),
        Momentum(Constant(0.1), 0.9),
    ],
    ids=lambda law: type(law).__name__,
)
@pytest.mark.parametrize("batch", [0, -3, math.nan, math.inf])
def test_no_law_takes_a_batch_that_is_none(law: Law, batch: float) -> None:
    for ask in (law.lr, law.gain):
        with pytest.raises(ValueError, match="number above 0"):
            ask(batch)
