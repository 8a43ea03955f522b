"""The choice of the sampler against a mixture whose denoiser is exact, or spoilt where we say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from noisewise.diffusion import Denoiser, karras_sigmas
from noisewise.quality import Floors
from noisewise.training.models.model_config import SamplerSettings
from noisewise.training.stages.choose_sampler import SamplerChoice, choose_sampler

SPREAD = 0.5


def found(value: float, images: Tensor, half: float = 1e-3) -> Floors:
    """Floors with a known value and a known interval."""
    resamples = value + torch.linspace(-half, half, 200, dtype=torch.float64)
    return Floors(
        value, value - half, value + half, (), "known", 1.0, len(images), 100, 0.0, resamples
    )


class Spread:
    """Distance of the standard deviation to the data's: exact, with a narrow interval."""

    def measure(self, images: Tensor) -> Floors:
        return found(abs(images.std().item() - SPREAD), images)


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
    assert choice.settings.sigma_min >= 0.3
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
    assert kept <= min(d for _, _, d in choice.few) + 0.1 + 2e-3
    assert "measured on 64 pictures" in choice.settings.reason
    assert {(5, 0.3), (4, 0.5), (6, 0.18), (8, 0.08)} <= {(n, s) for n, s, _ in choice.few}


class At:
    """The judge wants the sampler that ends at one level after so many levels."""

    def __init__(self, steps: int, stop: float) -> None:
        self.wanted, self.levels = (steps, stop), set[float]()

    def denoiser(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        level = round(float(sigma.flatten()[0]), 4)
        self.levels = {level} if level == 40.0 else self.levels | {level}
        return torch.zeros_like(x)

    def measure(self, images: Tensor) -> Floors:
        steps, stop = len(self.levels), min(self.levels)
        ends = (1.0, 0.7, 0.5, 0.3, 0.18, 0.08, 0.05)
        far = abs(steps - self.wanted[0]) + abs(
            ends.index(min(ends, key=lambda e: abs(e - stop))) - ends.index(self.wanted[1])
        )
        return found(float(far) + 2, images)


@pytest.mark.parametrize("wanted", [(4, 1.0), (3, 0.7), (8, 0.05), (6, 0.3)])
def test_the_search_walks_to_the_best_one_beyond_its_first_tries(wanted: tuple[int, float]) -> None:
    judge = At(*wanted)
    choice = choose_sampler(judge.denoiser, judge, inputs, SamplerSettings(), num_images=64)
    assert _key(choice.settings) == wanted
    assert len(choice.few) < 30  # of 42


class ByCalls:
    """Samplers of more levels are nearer, by a known share for each level."""

    def __init__(self, share: float) -> None:
        self.share, self.levels = share, set[float]()

    def denoiser(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        level = round(float(sigma.flatten()[0]), 4)
        self.levels = {level} if level == 40.0 else self.levels | {level}
        return torch.zeros_like(x)

    def measure(self, images: Tensor) -> Floors:
        return found(10.0 * (1 - self.share * len(self.levels)), images, half=3.0)


def test_fewer_calls_are_taken_within_a_tenth_of_the_best_and_not_beyond() -> None:
    flat, steep = ByCalls(0.002), ByCalls(0.05)
    equal = choose_sampler(flat.denoiser, flat, inputs, SamplerSettings(), num_images=64)
    assert equal.settings.calls == min(calls for calls, _ in calls_and_floors(equal))
    # The intervals are wide; they must not make a tenth of a floor more of it.
    better = choose_sampler(steep.denoiser, steep, inputs, SamplerSettings(), num_images=64)
    rows = calls_and_floors(better)
    best = min(floors for _, floors in rows)
    good = [(calls, floors) for calls, floors in rows if floors <= 1.1 * best]
    assert better.settings.calls == min(good)[0] > min(rows)[0]


def calls_and_floors(choice: SamplerChoice) -> list[tuple[int, float]]:
    """All samplers that were tried with the usual spacing."""
    heuns = [("heun", *row) for row in choice.few]
    return [
        (SamplerSettings(name, sigma_min=stop, num_steps=steps).calls, floors)
        for name, steps, stop, floors in (*heuns, *choice.others)
    ]


class Telling:
    """Answers with rho / 100 in all pixels, read off the levels that it was asked at."""

    def __init__(self) -> None:
        self.levels: list[float] = []

    def __call__(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        level = float(sigma.flatten()[0])
        self.levels = [*(self.levels if level < 39 else []), level]
        return torch.full_like(x, self._rho() / 100)

    def _rho(self) -> float:
        ends = (1.0, 0.7, 0.5, 0.3, 0.18, 0.08, 0.05)
        few = [(steps, stop) for steps in (3, 4, 5, 6, 8, 10) for stop in ends]
        for rho in (4.0, 7.0, 10.0):
            seconds = [float(karras_sigmas(*pair, 40.0, rho)[1]) for pair in few]
            if any(abs(second - level) < 1e-3 for second in seconds for level in self.levels[1:2]):
                return rho
        return 0.0


class Wanted:
    """Distance 1, but for pictures of one spacing, which are nearer."""

    def __init__(self, rho: float, nearer: float) -> None:
        self.rho, self.nearer = rho, nearer

    def measure(self, images: Tensor) -> Floors:
        value = 1.0 - self.nearer * (abs(100 * float(images.mean()) - self.rho) < 0.1)
        return found(value, images, half=0.0)


@pytest.mark.parametrize(
    ("rho", "nearer", "chosen"), [(10.0, 0.5, 10.0), (4.0, 0.5, 4.0), (4.0, 0.0, 7.0)]
)
def test_calls_are_spread_otherwise_where_that_is_surely_nearer(
    rho: float, nearer: float, chosen: float
) -> None:
    wanted = Wanted(rho, nearer)
    choice = choose_sampler(Telling(), wanted, inputs, SamplerSettings(), num_images=64)
    assert choice.settings.rho == chosen
    expected = {4.0: 1.0, 7.0: 1.0, 10.0: 1.0} | {rho: 1 - nearer}
    assert dict(choice.by_spread) == pytest.approx(expected)
    assert f"spread with rho {chosen:g}" in choice.settings.reason


class Walked:
    """Says of pictures whether their sampler asked once at each level, as DPM-Solver++ does."""

    def __init__(self, once: float, twice: float) -> None:
        self.once, self.twice, self.levels = once, twice, list[float]()

    def denoiser(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        level = float(sigma.flatten()[0])
        self.levels = [level] if level == 40.0 else [*self.levels, level]
        return torch.zeros_like(x)

    def measure(self, images: Tensor) -> Floors:
        each = len(self.levels) == len(set(self.levels))
        return found(self.once if each else self.twice, images)


def test_another_sampler_is_taken_where_it_is_nearer_and_then_with_few_calls() -> None:
    judge = Walked(once=5.0, twice=10.0)
    choice = choose_sampler(judge.denoiser, judge, inputs, SamplerSettings(), num_images=64)
    assert (choice.settings.name, choice.settings.calls) == ("dpmpp_2m", 3)
    assert {name for name, *_ in choice.others} == {"dpmpp_2m"}
    assert "in 3 calls of dpmpp_2m" in choice.settings.reason
    assert min(row[1] for row in choice.others) == 3


def test_another_sampler_that_is_farther_costs_little_and_changes_nothing() -> None:
    judge = Walked(once=20.0, twice=10.0)
    choice = choose_sampler(judge.denoiser, judge, inputs, SamplerSettings(), num_images=64)
    assert choice.settings.name == "heun"
    assert len(choice.others) == 2  # the same stop, and the next
    assert {row[1] for row in choice.others} == {choice.settings.calls}


def dark(shift: float) -> Denoiser:
    """As exact, but too dark."""
    return lambda x, sigma, condition=None: exact(x, sigma) - shift


class Brightness:
    """Ten times the distance of the mean brightness to that of the data, and a floor."""

    def measure(self, images: Tensor) -> Floors:
        return found(1 + 10 * abs(images.mean().item()), images)


WIDE = SamplerSettings(guidance_interval=(0.0, 100.0))


def test_guidance_is_tried_and_taken_where_it_is_surely_nearer() -> None:
    """Dark by 0.2 and by 0.5: w = 1.67 has the right brightness, and 1.7 is tried."""
    asked: list[tuple[Tensor, Tensor]] = []

    def suffers(guided: Tensor, plain: Tensor) -> bool:
        asked.append((guided, plain))
        return len(asked) == 2

    both = [
        choose_sampler(dark(0.2), Brightness(), inputs, WIDE, 128, weak=weak, suffers=suffers)
        for weak in (dark(0.5), dark(0.5))
    ]
    choice, kept = both
    assert choice.settings.guidance == 1.7
    assert choice.settings.guidance_interval == (0.0, 100.0)
    assert [weight for weight, _ in choice.by_guidance] == [1.0, 1.3, 1.7, 2.2]
    assert "guidance 1.7 (" in choice.settings.reason
    assert f"in {choice.settings.calls} calls" in choice.settings.reason
    assert choice.settings.calls == 2 * replace(choice.settings, guidance=1.0).calls
    assert kept.settings.guidance == 1.0  # a class suffers
    guided, plain = asked[1]
    assert abs(guided.mean()) < 0.5 * abs(plain.mean())


@pytest.mark.parametrize("weak", [dark(0.0), dark(0.205), None])
def test_guidance_that_is_not_surely_and_clearly_nearer_is_not_taken(
    weak: Denoiser | None,
) -> None:
    choice = choose_sampler(dark(0.2), Brightness(), inputs, WIDE, 128, weak=weak)
    assert choice.settings.guidance == 1.0
    tried = [weight for weight, _ in choice.by_guidance]
    assert tried[:2] == ([1.0] if weak is None else [1.0, 1.3])
    assert ("guidance" in choice.settings.reason) == (weak is not None)


def test_short_time_leaves_some_for_guidance() -> None:
    choice = choose_sampler(dark(0.2), Brightness(), inputs, WIDE, 128, calls=60, weak=dark(0.5))
    assert len(choice.few) > 1
    assert len(choice.by_guidance) > 1
    assert choice.settings.guidance > 1
    assert choice.others
    last = choose_sampler(dark(0.2), Brightness(), inputs, WIDE, 128, calls=15, weak=dark(0.5))
    assert len(last.few) == 1


class Negative(Spread):
    """An unbiased number near 0 is often below it."""

    def measure(self, images: Tensor) -> Floors:
        return found(super().measure(images).value - 1, images)


def test_a_number_below_zero_still_chooses() -> None:
    below = choose_sampler(exact, Negative(), inputs, SamplerSettings(), num_images=64)
    assert min(d for _, _, d in below.few) < 0
    assert below.by_stop[0][0] == 1.0


def test_short_time_tries_fewer_samplers_on_as_many_pictures() -> None:
    full = choose_sampler(exact, Spread(), inputs, SamplerSettings(), 128)
    few = choose_sampler(exact, Spread(), inputs, SamplerSettings(), 128, calls=30)
    assert (full.num_images, few.num_images) == (128, 128)
    assert 1 < len(few.few) < len(full.few)
    assert few.by_stop == ()
    assert "best of" in few.settings.reason


@pytest.mark.parametrize("seconds", [1e-9, None])
def test_without_time_the_usual_sampler_stays(seconds: float | None) -> None:
    calls = None if seconds else 5.0
    choice = choose_sampler(exact, Spread(), inputs, SamplerSettings(), 64, seconds, calls)
    usual = SamplerSettings()
    assert _key(choice.settings) == (usual.num_steps, usual.sigma_min)
    assert "too short" in choice.settings.reason
    assert choice.few == ()


def test_where_time_runs_out_what_was_measured_has_to_do() -> None:
    now = iter(range(1000))  # a second passes with every look at the clock
    choice = choose_sampler(
        exact, Spread(), inputs, SamplerSettings(), 64, 30.0, clock=lambda: float(next(now))
    )
    assert 1 <= len(choice.few) < 6
    assert _key(choice.settings) in [(n, s) for n, s, _ in choice.few]
    assert f"best of {len(choice.few) + len(choice.others)}" in choice.settings.reason


def _key(settings: SamplerSettings) -> tuple[int, float]:
    return settings.num_steps, settings.sigma_min


def test_large_pictures_start_from_their_own_sampler() -> None:
    """With time for one try, it is the usual one; Heun's is not measured and taken instead."""
    judge = Walked(once=5.0, twice=10.0)
    usual = SamplerSettings(name="dpmpp_2m", num_steps=15, sigma_min=0.1)
    short = choose_sampler(judge.denoiser, judge, inputs, usual, 64, calls=20)
    assert (short.settings.name, short.settings.num_steps) == ("dpmpp_2m", 15)
    assert short.others == (("dpmpp_2m", 15, 0.1, 5.0),)
    assert short.few == ()
    long = choose_sampler(judge.denoiser, judge, inputs, usual, 64)
    assert {name for name, *_ in long.others} == {"dpmpp_2m"}
    fewest = min(row[1] for row in long.others)
    assert long.settings.calls == fewest <= 11  # all are as near


def test_a_sampler_that_the_search_does_not_know_starts_from_heun() -> None:
    judge = Walked(once=5.0, twice=10.0)
    for name, steps in (("ddim", 5), ("heun", 7), ("dpmpp_2m", 14)):
        usual = SamplerSettings(name=name, num_steps=steps, sigma_min=0.1)
        found = choose_sampler(judge.denoiser, judge, inputs, usual, 64, calls=20)
        assert found.few[0][:2] == (5, 0.3)
