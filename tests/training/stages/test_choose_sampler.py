"""The choice of the sampler against a mixture whose denoiser is exact, or spoilt where we say."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from noisewise.diffusion import karras_sigmas
from noisewise.training.models.model_config import SamplerSettings
from noisewise.training.stages.choose_sampler import choose_sampler

SPREAD = 0.5


@dataclass(frozen=True)
class Found:
    value: float
    low: float
    high: float


class Spread:
    """Distance of the standard deviation to the data's: exact, with a narrow interval."""

    def distance(self, images: Tensor) -> Found:
        value = abs(images.std().item() - SPREAD)
        return Found(value, value, value + 1e-3)


def inputs(start: int, count: int) -> tuple[Tensor, None]:
    generator = torch.Generator().manual_seed(start)
    return torch.randn(count, 1, 8, 8, generator=generator), None


def exact(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
    """E[x0 | x] for pixels N(0, SPREAD^2)."""
    share = SPREAD**2 / (SPREAD**2 + sigma**2)
    return share.reshape(-1, 1, 1, 1) * x


def spoilt(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
    """As exact, but below 0.25 it doubles its answer: a net that knows nothing of low noise."""
    wrong = torch.where(sigma < 0.25, 2.0, 1.0).reshape(-1, 1, 1, 1)
    return exact(x, sigma) * wrong


def test_a_net_that_is_bad_at_low_noise_is_stopped_above() -> None:
    choice = choose_sampler(spoilt, Spread(), inputs, SamplerSettings(), num_images=128)
    assert choice.settings.sigma_min in (0.3, 0.5)
    found = dict(choice.by_stop)
    assert found[0.03] > 10 * min(found[stop] for stop in (0.25, 0.35, 0.5))


def test_an_exact_denoiser_is_followed_down() -> None:
    # For Gaussian pixels D(x, sigma) has too little spread at every sigma above 0.
    choice = choose_sampler(exact, Spread(), inputs, SamplerSettings(), num_images=128)
    found = dict(choice.by_stop)
    assert min(found, key=found.__getitem__) <= 0.08
    assert found[1.0] > found[0.5] > found[0.25] > found[0.12]


def test_all_that_was_tried_is_reported() -> None:
    choice = choose_sampler(exact, Spread(), inputs, SamplerSettings(), num_images=64)
    kept = next(d for n, s, d in choice.few if (n, s) == _key(choice.settings))
    assert kept <= 1.1 * min(d for _, _, d in choice.few) + 1e-3
    assert "measured on 64 pictures" in choice.settings.reason
    assert len(choice.to_dict()["few"]) == 16


class Telling:
    """Answers with rho / 100 in all pixels, read off the levels that it was asked at."""

    def __init__(self) -> None:
        self.levels: list[float] = []

    def __call__(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        level = float(sigma.flatten()[0])
        self.levels = [*(self.levels if level < 39 else []), level]
        return torch.full_like(x, self._rho() / 100)

    def _rho(self) -> float:
        few = [(steps, stop) for steps in (4, 5, 6, 8) for stop in (0.5, 0.3, 0.18, 0.08)]
        for rho in (4.0, 7.0, 10.0):
            seconds = [float(karras_sigmas(*pair, 40.0, rho)[1]) for pair in few]
            if any(abs(second - level) < 1e-3 for second in seconds for level in self.levels[1:2]):
                return rho
        return 0.0


class Wanted:
    """Distance 1, but for pictures of one spacing, which are nearer."""

    def __init__(self, rho: float, nearer: float) -> None:
        self.rho, self.nearer = rho, nearer

    def distance(self, images: Tensor) -> Found:
        value = 1.0 - self.nearer * (abs(100 * float(images.mean()) - self.rho) < 0.1)
        return Found(value, value, value)


@pytest.mark.parametrize(
    ("rho", "nearer", "chosen"), [(10.0, 0.5, 10.0), (4.0, 0.5, 4.0), (4.0, 0.05, 7.0)]
)
def test_calls_are_spread_otherwise_where_that_is_nearer_by_a_tenth(
    rho: float, nearer: float, chosen: float
) -> None:
    wanted = Wanted(rho, nearer)
    choice = choose_sampler(Telling(), wanted, inputs, SamplerSettings(), num_images=64)
    assert choice.settings.rho == chosen
    expected = {4.0: 1.0, 7.0: 1.0, 10.0: 1.0} | {rho: 1 - nearer}
    assert dict(choice.by_spread) == pytest.approx(expected)
    assert f"spread with rho {chosen:g}" in choice.settings.reason


class Negative(Spread):
    """An unbiased distance near its floor is often below 0."""

    def distance(self, images: Tensor) -> Found:
        found = super().distance(images)
        return Found(found.value - 1, found.low - 1, found.high - 1)


def test_a_distance_below_zero_still_chooses() -> None:
    below = choose_sampler(exact, Negative(), inputs, SamplerSettings(), num_images=64)
    assert min(d for _, _, d in below.few) < 0
    assert below.by_stop[0][0] == 1.0


@pytest.mark.parametrize("seconds", [1e-6, 60.0])
def test_time_decides_how_many_pictures(seconds: float) -> None:
    choice = choose_sampler(exact, Spread(), inputs, SamplerSettings(), 128, seconds)
    assert choice.num_images == (64 if seconds < 1 else 128)


def test_where_time_runs_out_what_was_measured_has_to_do() -> None:
    now = iter(range(1000))  # a second passes with every look at the clock
    choice = choose_sampler(
        exact, Spread(), inputs, SamplerSettings(), 64, 3.0, lambda: float(next(now))
    )
    assert 1 <= len(choice.few) < 16
    assert choice.by_spread == ((SamplerSettings().rho, choice.by_spread[0][1]),)
    assert _key(choice.settings) in [(n, s) for n, s, _ in choice.few]
    assert f"best of {len(choice.few)}" in choice.settings.reason
    assert "(the usual)" in choice.settings.reason


def _key(settings: SamplerSettings) -> tuple[int, float]:
    return settings.num_steps, settings.sigma_min
