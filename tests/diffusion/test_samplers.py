"""Samplers against the exact flow of a Gaussian, EDM's algorithm, and the exact moments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from noisewise.diffusion import (
    State,
    ddim,
    ddpm,
    dpmpp_2m,
    dpmpp_2m_sde,
    heun,
    karras_sigmas,
    sample,
)
from oracle import GaussianMixture, gaussian, mixture

SIGMA_MIN, SIGMA_MAX = 0.05, 8.0


def _noise(n: int, seed: int = 0, d: int = 2) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _level(sigma: float, n: int) -> Tensor:
    return torch.full((n,), sigma, dtype=torch.float64)


def _sigmas(n: int, low: float = SIGMA_MIN, high: float = SIGMA_MAX) -> Tensor:
    return karras_sigmas(n, low, high, dtype=torch.float64)


def _seeded(sampler: Callable[..., Iterator[State]]) -> Callable[..., Iterator[State]]:
    """Give a stochastic sampler a fresh seed at every start, so that all look alike."""

    def start(denoiser: GaussianMixture, noise: Tensor, sigmas: Tensor) -> Iterator[State]:
        return sampler(denoiser, noise, sigmas, generator=torch.Generator().manual_seed(1))

    return start


ALL = {"heun": heun, "ddim": ddim, "ddpm": _seeded(ddpm), "dpmpp_2m": dpmpp_2m}
ALL["dpmpp_2m_sde"] = _seeded(dpmpp_2m_sde)
ALL["churn"] = _seeded(lambda *a, **k: heun(*a, churn=10.0, **k))


# --- laws of every sampler --------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_states(name: str) -> None:
    data, noise, sigmas = mixture(), _noise(16), _sigmas(7)
    states = list(ALL[name](data, noise, sigmas))
    assert [s.step for s in states] == [1, 2, 3, 4, 5, 6, 7]
    assert {s.num_steps for s in states} == {7}
    each = 2 if name in ("heun", "churn") else 1
    assert [s.calls for s in states] == [each * i + 1 for i in range(7)]
    assert states[-1].sigma == sigmas[-1]  # the last denoise is a plain one
    if name != "churn":
        assert torch.equal(states[0].x, noise * sigmas[0])
        assert [s.sigma for s in states] == sigmas.tolist()
    for s in states:
        torch.testing.assert_close(s.x0, data(s.x, _level(s.sigma, 16)))


@pytest.mark.parametrize("name", ALL)
def test_calls_are_counted_truly(name: str) -> None:
    calls = []

    def counting(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        assert sigma.shape == (4,)
        assert not torch.is_grad_enabled()
        calls.append(sigma)
        return mixture()(x, sigma)

    for state in ALL[name](counting, _noise(4), _sigmas(5)):
        assert state.calls == len(calls)
        assert torch.is_grad_enabled()  # the caller's own mode is left alone between steps


@pytest.mark.parametrize("name", ALL)
def test_one_level_is_one_call(name: str) -> None:
    noise = _noise(5)
    out = sample(ALL[name](mixture(), noise, torch.tensor([2.5], dtype=torch.float64)))
    torch.testing.assert_close(out, mixture()(2.5 * noise, _level(2.5, 5)))


@pytest.mark.parametrize("name", ALL)
def test_same_seed_same_pictures_and_inputs_stay_untouched(name: str) -> None:
    noise = _noise(8)
    before = noise.clone()
    first, second = (sample(ALL[name](mixture(), noise, _sigmas(9))) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(noise, before)
    states = list(ALL[name](mixture(), noise, _sigmas(9)))
    kept = [s.x.clone() for s in ALL[name](mixture(), noise, _sigmas(9))]
    assert all(torch.equal(s.x, x) for s, x in zip(states, kept, strict=True))  # none overwritten


def test_condition_reaches_the_denoiser() -> None:
    data, label = mixture(), torch.arange(3).repeat(200)
    noise = _noise(600)
    for states in (
        heun(data, noise, _sigmas(12), label),
        ddim(data, noise, _sigmas(40), label),
        dpmpp_2m(data, noise, _sigmas(24), label),
        ddpm(data, noise, _sigmas(40), label, generator=torch.Generator().manual_seed(0)),
    ):
        pictures = sample(states)
        for k in range(3):
            torch.testing.assert_close(
                pictures[label == k].mean(0), data.means[k], rtol=0, atol=0.08
            )


def test_bad_input_is_refused_at_once() -> None:
    for bad in ([1.0, 2.0], [1.0, 1.0], [1.0, 0.0], []):
        with pytest.raises(ValueError, match="falling"):
            heun(mixture(), _noise(1), torch.tensor(bad))
    with pytest.raises(ValueError, match="generator"):
        heun(mixture(), _noise(1), _sigmas(3), churn=5.0)
    states = ddim(mixture(), _noise(1), _sigmas(3))
    sample(states)
    with pytest.raises(ValueError, match="already used"):
        sample(states)


# --- order of convergence ---------------------------------------------------------------------


def _slope(sampler: Callable[..., Iterator[State]], steps: list[int]) -> float:
    """Fit of -d log(error) / d log(steps) against the exact solution at sigma_min."""
    data, noise = gaussian(), _noise(64)
    x = data.flow(noise * SIGMA_MAX, SIGMA_MAX, SIGMA_MIN)
    exact = data(x, _level(SIGMA_MIN, 64))
    log_errors = [
        (sample(sampler(data, noise, _sigmas(n + 1))) - exact).square().mean().sqrt().log()
        for n in steps
    ]
    n = torch.tensor(steps, dtype=torch.float64).log()
    centred = n - n.mean()
    return -(centred @ torch.stack(log_errors) / centred.square().sum()).item()


def test_heun_is_of_second_order() -> None:
    assert _slope(heun, [64, 128, 256, 512]) == pytest.approx(2.0, abs=0.05)


def test_dpmpp_2m_is_of_second_order() -> None:
    assert _slope(dpmpp_2m, [64, 128, 256, 512]) == pytest.approx(2.0, abs=0.05)


def test_ddim_is_of_first_order() -> None:
    assert _slope(ddim, [64, 128, 256, 512]) == pytest.approx(1.0, abs=0.05)


def test_dpmpp_2m_is_of_second_order_on_a_mixture_and_beats_ddim_in_equal_calls() -> None:
    """The truth of a mixture, which has no closed form, is 2,000 levels of Heun."""
    noise = _noise(64)
    fine = sample(heun(mixture(), noise, _sigmas(2000)))
    error = {
        (name, n): (sample(ALL[name](mixture(), noise, _sigmas(n))) - fine).norm().item()
        for name in ("dpmpp_2m", "ddim")
        for n in (101, 201, 401)
    }
    slopes = [math.log2(error["dpmpp_2m", n] / error["dpmpp_2m", 2 * n - 1]) for n in (101, 201)]
    assert slopes == pytest.approx([2, 2], abs=0.25)
    assert all(error["dpmpp_2m", n] < 0.1 * error["ddim", n] for n in (101, 201, 401))


def test_ddim_and_heun_meet_on_a_mixture() -> None:
    noise = _noise(100)
    fine = sample(heun(mixture(), noise, _sigmas(400)))
    torch.testing.assert_close(
        sample(heun(mixture(), noise, _sigmas(100))), fine, rtol=0, atol=2e-3
    )
    torch.testing.assert_close(
        sample(ddim(mixture(), noise, _sigmas(1000))), fine, rtol=0, atol=5e-2
    )


def test_heun_is_edm_s_algorithm() -> None:
    """Karras et al. 2022, algorithm 1, with t_N = 0 where no correction is made."""
    data, noise, sigmas = mixture(), _noise(10), _sigmas(8, 0.01, 20.0)
    t = [*sigmas.tolist(), 0.0]
    x = noise * t[0]
    for now, after in pairwise(t):
        d = (x - data(x, _level(now, 10))) / now
        step = x + (after - now) * d
        if after > 0:
            d2 = (step - data(step, _level(after, 10))) / after
            step = x + (after - now) * (d + d2) / 2
        x = step
    torch.testing.assert_close(sample(heun(data, noise, sigmas)), x, rtol=1e-6, atol=1e-8)


def test_the_first_step_of_dpmpp_2m_is_ddim_s_and_later_ones_are_not() -> None:
    noise, sigmas = _noise(16), _sigmas(4)
    own, other = (list(s(mixture(), noise, sigmas)) for s in (dpmpp_2m, ddim))
    torch.testing.assert_close(own[1].x, other[1].x, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(own[2].x, other[2].x, rtol=1e-2, atol=1e-2)
    assert torch.equal(
        sample(dpmpp_2m(mixture(), noise, sigmas[:2])), sample(ddim(mixture(), noise, sigmas[:2]))
    )


@pytest.mark.filterwarnings("ignore:__array__")  # inside diffusers, with a new numpy
@pytest.mark.parametrize("steps", [2, 3, 9, 20])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [("dpmpp_2m", "dpmsolver++"), ("dpmpp_2m_sde", "sde-dpmsolver++"), ("ddpm", "sde-dpmsolver++")],
)
def test_steps_are_those_of_diffusers(name: str, theirs: str, steps: int) -> None:
    """With the same noise. Its scheduler is variance-preserving and ends with a step to sigma 0."""
    diffusers = pytest.importorskip("diffusers")
    data, noise, sigmas = mixture(), _noise(10), _sigmas(steps)
    scheduler = diffusers.DPMSolverMultistepScheduler(
        algorithm_type=theirs,
        solver_order=1 if name == "ddpm" else 2,
        prediction_type="sample",
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(steps)
    scheduler.sigmas = torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)])
    scheduler.timesteps = torch.arange(steps)
    generator = torch.Generator().manual_seed(1)  # the seed of `_seeded`
    x = noise * sigmas[0] / (1 + sigmas[0] ** 2).sqrt()
    for t, sigma in zip(scheduler.timesteps, sigmas.tolist(), strict=True):
        x0 = data(x * math.sqrt(1 + sigma**2), _level(sigma, 10))
        fresh = torch.randn(noise.shape, generator=generator, dtype=noise.dtype)
        x = scheduler.step(x0, t, x, variance_noise=fresh).prev_sample
    torch.testing.assert_close(sample(ALL[name](data, noise, sigmas)), x, rtol=1e-6, atol=1e-6)


# --- stochastic samplers ----------------------------------------------------------------------


def _start(data: GaussianMixture, n: int, sigma: float) -> Tensor:
    """Noise whose multiple by sigma is an exact draw from p_sigma, not only nearly so."""
    return data.sample(n, torch.Generator().manual_seed(7)) / sigma + _noise(
        n, seed=8, d=data.means.shape[1]
    )


def test_ddpm_on_one_picture_is_exactly_stationary() -> None:
    """Data of one point: x stays distributed as N(x0, sigma^2), however coarse the steps."""
    n, x0 = 100_000, torch.tensor([0.3, -0.2], dtype=torch.float64)
    states = ddpm(
        lambda x, sigma, c=None: x0.expand_as(x),
        x0 / 4 + _noise(n),
        torch.tensor([4.0, 1.0, 0.3], dtype=torch.float64),
        generator=torch.Generator().manual_seed(1),
    )
    for state in states:
        standard = (state.x - x0) / state.sigma
        torch.testing.assert_close(standard.mean(0), torch.zeros_like(x0), rtol=0, atol=0.015)
        torch.testing.assert_close(standard.T.cov(), torch.eye(2).double(), rtol=0, atol=0.02)


def _ancestral_variance(c: float, sigmas: list[float]) -> float:
    """Variance of x at the last level for data N(m, c): each step is linear in x."""
    v = c + sigmas[0] ** 2
    for sigma, lower in pairwise(sigmas):
        shrink, ratio = c / (c + sigma**2), (lower / sigma) ** 2
        v = (shrink + ratio * (1 - shrink)) ** 2 * v + lower**2 * (1 - ratio)
    return v


def test_ddpm_has_the_variance_of_its_own_recursion() -> None:
    n, c = 200_000, 0.25
    data = GaussianMixture(torch.zeros(1, 1).double(), torch.full((1,), c).double())
    sigmas = _sigmas(6)
    *_, last = ddpm(
        data, _start(data, n, SIGMA_MAX), sigmas, generator=torch.Generator().manual_seed(0)
    )
    assert last.x.var().item() == pytest.approx(_ancestral_variance(c, sigmas.tolist()), rel=0.015)


def test_ddpm_recursion_is_stationary_in_the_limit_and_of_first_order() -> None:
    c, truth = 0.25, 0.25 + SIGMA_MIN**2
    errors = [abs(_ancestral_variance(c, _sigmas(n + 1).tolist()) - truth) for n in (200, 400, 800)]
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert slopes == pytest.approx([1, 1], abs=0.05)
    assert errors[-1] < 1e-2 * truth


@pytest.mark.parametrize("name", ["ddpm", "churn", "heun", "dpmpp_2m", "dpmpp_2m_sde"])
def test_samplers_reach_the_moments_of_a_mixture(name: str) -> None:
    data, n, level = mixture(), 8_000, 0.03
    steps = {"ddpm": 120, "churn": 40, "heun": 30, "dpmpp_2m": 40, "dpmpp_2m_sde": 60}[name]
    pictures = sample(ALL[name](data, _start(data, n, SIGMA_MAX), _sigmas(steps, level)))
    mean, covariance = data.moments()
    torch.testing.assert_close(pictures.mean(0), mean, rtol=0, atol=0.03)
    torch.testing.assert_close(pictures.T.cov(), covariance, rtol=0, atol=0.03)
    shares = torch.cdist(pictures, data.means).argmin(1).bincount(minlength=3) / n
    truth = torch.cdist(data.sample(100_000, torch.Generator().manual_seed(2)), data.means)
    truth = truth.argmin(1).bincount(minlength=3) / 100_000
    torch.testing.assert_close(shares, truth, rtol=0, atol=0.025)


def test_noise_repairs_errors_of_the_denoiser_that_a_walk_without_it_keeps() -> None:
    """A denoiser that is wrong above sigma 1 alone: below, the fresh noise forgets it."""
    point = torch.full((1, 2), 0.4).double()
    data = GaussianMixture(point, torch.full((1,), 0.01).double())
    n, sigmas = 20_000, _sigmas(60, 0.02)

    def wrong(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        return data(x, sigma) + 0.5 * (sigma > 1).to(x).view(-1, 1)

    plain, repaired = (
        sample(ALL[name](wrong, _start(data, n, SIGMA_MAX), sigmas)).mean(0) - point
        for name in ("dpmpp_2m", "dpmpp_2m_sde")
    )
    assert repaired.norm() < 0.3 * plain.norm()


def test_churn_repairs_a_wrong_start() -> None:
    """Half the noise at the start stays wrong along the flow; churn forgets part of it."""
    data, n = gaussian(), 20_000
    noise, sigmas = 0.5 * _noise(n), _sigmas(40)
    truth = data.moments()[1].trace()
    plain = sample(heun(data, noise, sigmas)).T.cov().trace()
    generator = torch.Generator().manual_seed(0)
    churned = sample(heun(data, noise, sigmas, churn=40.0, generator=generator)).T.cov().trace()
    assert abs(churned / truth - 1) < 0.1 < 0.5 < abs(plain / truth - 1)


def test_churn_raises_the_level_by_edm_s_rule() -> None:
    sigmas, generator = _sigmas(10), torch.Generator().manual_seed(0)
    for churn, gain in ((2.0, 1.2), (100.0, math.sqrt(2))):
        states = list(heun(mixture(), _noise(4), sigmas, churn=churn, generator=generator))
        raised = torch.tensor([s.sigma for s in states[:-1]], dtype=torch.float64)
        torch.testing.assert_close(raised, sigmas[:-1] * gain)
