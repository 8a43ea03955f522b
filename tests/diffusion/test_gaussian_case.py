"""Every formula of docs/theory.md against the loss that `distill` trains with."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from noisewise.app.plots.distill_theory import ends
from noisewise.diffusion.gaussian_case import (
    descend,
    divergence,
    full_gradient,
    gap,
    held_gradient,
    identity_error,
    widest,
)

WIDTHS, SIGMAS, LAMBDAS = (
    (0.05, 0.3, 0.7, 1.0, 1.5, 4.0),
    (0.1, 1.0, 3.0),
    (0.0, 0.5, 1.0, 1.2, 3.0),
)

CASES = list(itertools.product(WIDTHS, SIGMAS))


@pytest.mark.parametrize(("b", "sigma"), CASES)
def test_the_loss_has_the_gradient_of_the_closed_form(b: float, sigma: float) -> None:
    v, alpha = sigma**2, gap(b, sigma)
    for lam in LAMBDAS:
        exact = -2 * b * alpha * (v / (1 + v) + lam * alpha)
        assert held_gradient(b, sigma, lam) == pytest.approx(exact, abs=1e-12)
    only = held_gradient(b, sigma, 0, only_l1=True)
    assert only == pytest.approx(2 * b * alpha**2, abs=1e-12)
    assert only >= -1e-15  # L1 alone makes every generator narrower


@pytest.mark.parametrize(("b", "sigma"), CASES)
def test_lambda_a_half_and_no_other_is_the_whole_gradient(b: float, sigma: float) -> None:
    whole, step = full_gradient(b, sigma), 1e-6
    slope = (divergence(b + step, sigma) - divergence(b - step, sigma)) / (2 * step)
    assert whole == pytest.approx(slope, abs=1e-6)
    assert 2 * held_gradient(b, sigma, 0.5) == pytest.approx(whole, abs=1e-12)
    if b != 1:
        for lam in (0.0, 1.0, 1.2):
            assert 2 * held_gradient(b, sigma, lam) != pytest.approx(whole, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize(("lam", "sigma"), list(itertools.product((1.1, 1.2, 1.5, 2.5), SIGMAS)))
def test_at_the_point_of_no_return_the_gradient_changes_its_sign(lam: float, sigma: float) -> None:
    edge = widest(lam, sigma)
    assert held_gradient(edge, sigma, lam) == pytest.approx(0, abs=1e-12)
    assert held_gradient(0.99 * edge, sigma, lam) > 0 > held_gradient(1.01 * edge, sigma, lam)


def test_descents_end_where_the_point_of_no_return_says() -> None:
    found = ends()
    assert all(one.converged == (one.width < widest(one.lam, 1.0)) for one in found)
    assert {one.lam for one in found if not one.converged} == {1.2, 1.5, 2.0, 2.5}
    assert math.isinf(widest(1.0, 0.1))


def test_l1_alone_collapses_from_below_and_no_lambda_does() -> None:
    assert descend(0.3, 1.0, 0, lr=0.2, only_l1=True)[-1] < 1e-3
    for lam in (0.5, 1.0, 1.2):
        assert descend(0.01, 1.0, lam, lr=0.2)[-1] == pytest.approx(1, abs=1e-3)
    steps = [
        next(i for i, b in enumerate(descend(0.05, 1.0, lam, lr=0.2)) if b > 0.9)
        for lam in (0.5, 1.0, 1.2)
    ]
    assert steps == sorted(steps, reverse=True)  # a larger lambda leaves a collapse sooner


def test_a_fake_score_that_lags_overshoots_and_then_a_large_lambda_runs_away() -> None:
    for lam in (0.5, 1.0, 1.2, 2.0):
        assert max(descend(0.5, 1.0, lam, lr=0.2)) <= 1 + 1e-9
        assert max(descend(0.5, 1.0, lam, lr=0.2, fake_share=0.05)) > 1.4
    for lam, top in ((0.5, 2.2), (1.2, 2.4), (2.0, 2.7)):  # the figures of docs/theory.md
        path = descend(0.5, 1.0, lam, lr=0.2, fake_share=0.02)[:60]
        assert max(path) == pytest.approx(top, abs=0.06)
    assert descend(0.5, 1.0, 1.2, lr=0.2, fake_share=0.02)[-1] == pytest.approx(1, abs=0.1)
    assert descend(0.5, 1.0, 2.0, lr=0.2, fake_share=0.02)[-1] > 50


def test_both_sides_of_the_identity_differ_by_noise_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    for count in (10**3, 10**5):
        for error in identity_error(count, generator).values():
            assert error < 4 / math.sqrt(count)
