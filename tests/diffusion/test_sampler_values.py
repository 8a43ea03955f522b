"""Samplers as values: chosen by name, counted in calls, and defined outside the package."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from noisewise.diffusion import (
    DDIM,
    DDPM,
    DPMPP_2M,
    DPMPP_2M_SDE,
    HEUN,
    SAMPLERS,
    Sampler,
    churned_heun,
    ddim,
    ddpm,
    dpmpp_2m,
    dpmpp_2m_sde,
    heun,
    karras_sigmas,
    sample,
    sampler_named,
)
from noisewise.diffusion.samplers import Denoise, Normal
from oracle import gaussian, mixture, same_level

NOISE = torch.randn(16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SIGMAS = karras_sigmas(7, 0.05, 8.0, dtype=torch.float64)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _normal() -> Normal:
    generator = _seeded()
    return lambda: torch.randn(NOISE.shape, generator=generator, dtype=torch.float64)


def adams(
    denoise: Denoise, x: Tensor, levels: list[float], _: Normal
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Two-step Adams-Bashforth: it remembers the slope at the level before."""
    before: tuple[float, Tensor] | None = None
    for sigma, lower in pairwise(levels):
        x0 = denoise(x, sigma)
        yield sigma, x, x0
        slope, h = (x - x0) / sigma, lower - sigma
        x = x + h * slope
        if before is not None:
            x = x + h**2 / (2 * before[0]) * (slope - before[1])
        before = h, slope
    yield levels[-1], x, denoise(x, levels[-1])


# --- the list --------------------------------------------------------------------------------


def test_a_name_finds_its_sampler_and_an_unknown_name_lists_all() -> None:
    for known in SAMPLERS:
        assert sampler_named(known.name) is known
    assert len({known.name for known in SAMPLERS}) == len(SAMPLERS)
    own = Sampler("adams", adams)
    assert sampler_named(own) is own
    for name in ("dpm++", "", "HEUN"):
        with pytest.raises(
            ValueError, match=r"unknown sampler .*; use one of heun, ddim, ddpm, dpmpp_2m"
        ):
            sampler_named(name)


def test_a_value_walks_as_its_function_does() -> None:
    data = mixture()
    for value, states in (
        (HEUN, heun(data, NOISE, SIGMAS)),
        (DDIM, ddim(data, NOISE, SIGMAS)),
        (DPMPP_2M, dpmpp_2m(data, NOISE, SIGMAS)),
        (DDPM, ddpm(data, NOISE, SIGMAS, generator=_seeded())),
        (DPMPP_2M_SDE, dpmpp_2m_sde(data, NOISE, SIGMAS, generator=_seeded())),
        (churned_heun(10.0), heun(data, NOISE, SIGMAS, churn=10.0, generator=_seeded())),
    ):
        assert torch.equal(
            sample(value.states(data, NOISE, SIGMAS, None, _normal())), sample(states)
        )


# --- counting calls --------------------------------------------------------------------------


@pytest.mark.parametrize("known", SAMPLERS, ids=lambda known: known.name)
def test_calls_are_what_a_walk_takes(known: Sampler) -> None:
    for n in (1, 2, 5):
        *_, last = known.states(mixture(), NOISE, SIGMAS[:n], None, _normal())
        assert last.calls == known.num_calls(n)
        assert known.steps_for(last.calls) == known.most_steps(last.calls) == n


def test_calls_that_a_sampler_cannot_take_are_refused_with_the_nearest() -> None:
    three = Sampler("three", adams, calls_each=3)
    assert [three.most_steps(calls) for calls in (1, 3, 4, 6, 7)] == [1, 1, 2, 2, 3]
    for asked, message in (
        (
            lambda: HEUN.steps_for(8),
            "heun takes 1, 3, 5, ... network calls; use 7 or 9 instead of 8",
        ),
        (lambda: three.steps_for(6), "three takes 1, 4, 7, ... network calls; use 4 or 7"),
        (lambda: DDIM.steps_for(0), "0 network calls draw nothing"),
        (lambda: DDIM.num_calls(0), "at least 1 noise level"),
        (lambda: Sampler("none", adams, calls_each=0), "calls_each is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            asked()


# --- a sampler that the package does not know --------------------------------------------------


def test_a_sampler_with_memory_is_of_second_order() -> None:
    data, low, high = gaussian(), 0.05, 8.0
    exact = data(data.flow(NOISE * high, high, low), same_level(low, len(NOISE)))
    errors = [
        (sample(Sampler("adams", adams).states(data, NOISE, sigmas)) - exact).norm()
        for n in (128, 256, 512)
        for sigmas in [karras_sigmas(n + 1, low, high, dtype=torch.float64)]
    ]
    slopes = [torch.log2(a / b).item() for a, b in pairwise(errors)]
    assert slopes == pytest.approx([2, 2], abs=0.1)


def test_states_of_any_sampler_are_counted_and_can_be_stopped() -> None:
    states = list(Sampler("adams", adams).states(mixture(), NOISE, SIGMAS))
    assert [(s.step, s.num_steps, s.calls) for s in states] == [(i, 7, i) for i in range(1, 8)]
    assert [s.sigma for s in states] == SIGMAS.tolist()
    first = next(Sampler("adams", adams, calls_each=5).states(mixture(), NOISE, SIGMAS))
    assert torch.equal(first.x, NOISE * SIGMAS[0])


def test_a_stochastic_sampler_needs_a_source_of_noise() -> None:
    with pytest.raises(ValueError, match="ddpm adds noise at each level"):
        DDPM.states(mixture(), NOISE, SIGMAS)
    hidden = Sampler("hidden", DDPM.walk)  # adds noise and does not say so
    with pytest.raises(ValueError, match="hidden adds noise; define it with stochastic=True"):
        sample(hidden.states(mixture(), NOISE, SIGMAS, None, _normal()))
    with pytest.raises(ValueError, match="churn is -1"):
        churned_heun(-1.0)


def test_a_walk_that_breaks_the_contract_is_named() -> None:
    def forgetful(
        denoise: Denoise, x: Tensor, levels: list[float], _: Normal
    ) -> Iterator[tuple[float, Tensor, Tensor]]:
        for sigma in levels[:-1]:
            yield sigma, x, denoise(x, sigma)

    for wrong, message in (
        (Sampler("short", forgetful), "short gave 6 states in 6 network calls; .* give 7 in 7"),
        (Sampler("dear", HEUN.walk), "dear gave 7 states in 13 network calls; .* give 7 in 7"),
    ):
        with pytest.raises(ValueError, match=message):
            sample(wrong.states(mixture(), NOISE, SIGMAS))
