"""Several calls, and real pictures, where every number is known (docs/theory.md)."""

from __future__ import annotations

import math

import pytest
import torch

from noisewise.diffusion import DataTerm, fake_loss_with_data, in_calls
from noisewise.diffusion.gaussian_calls import (
    descend_calls,
    gain_gradients,
    mixture_denoiser,
    right_gains,
    teachers_gains,
    widths_of,
)
from noisewise.diffusion.gaussian_case import held_gradient, line_denoiser
from noisewise.diffusion.gaussian_data import data_fake, data_gradient, ends_at

LEVELS: dict[int, tuple[float, ...]] = {1: (2.5,), 2: (2.5, 0.5), 4: (2.5, 1.3, 0.6, 0.2)}


@pytest.mark.parametrize("calls", LEVELS)
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.2])
def test_the_data_are_a_fixed_point_for_every_number_of_calls(
    calls: int, told: bool, lam: float
) -> None:
    sigmas = LEVELS[calls]
    for level in (0.1, 1.0):
        found = gain_gradients(right_gains(sigmas), sigmas, level, lam, told)
        assert found == pytest.approx([0.0] * calls, abs=1e-14)


@pytest.mark.parametrize("calls", LEVELS)
@pytest.mark.parametrize("lam", [0.5, 1.0, 1.2])
def test_every_call_comes_to_the_data(calls: int, lam: float) -> None:
    start = widths_of(teachers_gains(LEVELS[calls]), LEVELS[calls])
    assert max(start) < 0.9
    found = descend_calls(LEVELS[calls], 0.5, lam, lr=1.0, steps=80)
    assert found == pytest.approx([1.0] * calls, abs=1e-2)


def test_one_call_is_the_case_of_one_call() -> None:
    for lam in (0.5, 1.2):
        found = gain_gradients([0.2], (2.5,), 0.7, lam)
        assert found[0] == pytest.approx(2.5 * held_gradient(0.5, 0.7, lam), rel=1e-9)


def test_the_gradient_of_a_call_depends_on_lambda_as_in_one_call() -> None:
    """Given the calls before it, call k is a case of one call, with its own width."""
    sigmas, gains = LEVELS[2], [0.3, 0.7]
    first, second = widths_of(gains, sigmas)
    given = math.hypot(first, sigmas[1])
    for lam in (0.0, 0.5, 1.0, 1.2):
        found = gain_gradients(gains, sigmas, 0.7, lam)
        exact = [2.5 * held_gradient(first, 0.7, lam), given * held_gradient(second, 0.7, lam)]
        assert found == pytest.approx([value / 2 for value in exact], rel=1e-9)


def test_a_mixture_hides_what_one_call_has_too_much_and_another_too_little() -> None:
    """Told, both calls are drawn back in proportion to the error; not told, to its third power."""
    sigmas = LEVELS[2]

    def apart(e: float, told: bool) -> float:
        first = 1 - e
        gains = [first / sigmas[0], (1 + e) / math.hypot(first, sigmas[1])]
        one, two = gain_gradients(gains, sigmas, 0.5, 1.0, told)
        return two / math.hypot(first, sigmas[1]) - one / sigmas[0]

    assert apart(0.1, True) / apart(0.05, True) == pytest.approx(2, rel=0.2)
    assert apart(0.1, False) / apart(0.05, False) == pytest.approx(8, rel=0.3)
    told, not_told = (descend_calls(sigmas, 0.5, 1.0, told=t) for t in (True, False))
    assert told == pytest.approx([1.0, 1.0], abs=6e-3)
    assert not_told == pytest.approx([0.87, 1.15], abs=0.01)  # as docs/theory.md says


def test_the_right_gains_draw_the_data_in_fact() -> None:
    sigmas, n = LEVELS[4], 200_000
    source = torch.Generator().manual_seed(0)
    z, *later = torch.randn(4, n, 1, generator=source, dtype=torch.float64)
    gains = dict(zip(sigmas, right_gains(sigmas), strict=True))

    def denoise(x: torch.Tensor, sigma: torch.Tensor, _: object) -> torch.Tensor:
        return x * gains[min(gains, key=lambda s: abs(s - float(sigma[0])))]

    for calls in (1, 2, 4):
        drawn = in_calls(denoise, z, sigmas[:calls], later[: calls - 1])
        assert drawn.std() == pytest.approx(1, abs=0.01)


def test_the_mixtures_denoiser_is_its_mean_by_counting() -> None:
    source = torch.Generator().manual_seed(0)
    widths, n = torch.tensor([0.5, 2.0]).double(), 2_000_000
    x0 = widths[torch.arange(n) % 2] * torch.randn(n, generator=source, dtype=torch.float64)
    x = x0 + 0.7 * torch.randn(n, generator=source, dtype=torch.float64)
    for at in (0.3, 1.5, -2.5):
        near = (x - at).abs() < 0.05
        exact = mixture_denoiser([0.5, 2.0])(torch.tensor([[at]]).double(), torch.tensor([0.7]))
        assert x0[near].mean() == pytest.approx(exact.item(), abs=0.03)


# ---------------------------------------------------------------------- real pictures
TERMS = (DataTerm(), DataTerm(0.06), DataTerm(0.3), DataTerm(0.3, 1.0), DataTerm(0.3, 0.0))


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0, 1.2])
def test_the_gradient_with_data_vanishes_at_the_truth(term: DataTerm, lam: float) -> None:
    for sigma in (0.1, 0.5, 2.0):
        assert data_gradient(1.0, sigma, lam, term) == pytest.approx(0, abs=1e-12)
        assert data_gradient(0.8, sigma, lam, term) < 0 < data_gradient(1.25, sigma, lam, term)


def test_without_weight_it_is_the_case_without_data() -> None:
    for b in (0.5, 1.5):
        exact = held_gradient(b, 0.7, 1.0)
        assert data_gradient(b, 0.7, 1.0, DataTerm()) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("teacher_width", [0.85, 1.15])
def test_data_correct_a_teacher_and_a_plain_mixture_does_not(teacher_width: float) -> None:
    """A target below 1 moves the end towards the data; at 1, away from them."""

    def end(term: DataTerm) -> float:
        return ends_at(0.3, 0.5, term, teacher_width, 0.5, 2.0)

    assert end(DataTerm()) == pytest.approx(teacher_width, abs=1e-6)
    wrong = abs(teacher_width - 1)
    assert abs(end(DataTerm(0.06)) - 1) < 0.95 * wrong
    assert abs(end(DataTerm(0.3)) - 1) < abs(end(DataTerm(0.06)) - 1)
    assert abs(end(DataTerm(0.3, 1.0)) - 1) > wrong


def test_the_fake_score_at_its_optimum_is_the_least_of_its_loss() -> None:
    """Slopes around it lose, on samples; and it is a line only where the generator is right."""
    n, b, term = 400_000, 0.6, DataTerm(0.3)
    source = torch.Generator().manual_seed(0)
    drawn, real, *noise = torch.randn(4, n, 1, generator=source, dtype=torch.float64)
    levels, best = torch.full((2 * n,), 0.5).double(), data_fake(b, term)

    def loss(of: float, more: float) -> float:
        def fake(
            x: torch.Tensor, sigma: torch.Tensor, condition: torch.Tensor | None = None
        ) -> torch.Tensor:
            return of * best(x, sigma, condition) + more * x.pow(3)

        args = (b * drawn, real, levels, torch.cat(noise), lambda s: torch.ones_like(s), term)
        return float(fake_loss_with_data(fake, *args))

    least = loss(1.0, 0.0)
    assert least < min(loss(1.05, 0.0), loss(0.95, 0.0), loss(1.0, 0.01), loss(1.0, -0.01))
    x, s = torch.linspace(-3, 3, 7).double()[:, None], torch.full((7,), 0.5).double()
    torch.testing.assert_close(data_fake(1.0, term)(x, s, None), line_denoiser(1.0)(x, s, None))
