"""Starts as matrices: the theorem, for every spectrum, split and scale."""

from __future__ import annotations

import pytest
import torch

from adapter_cases import SPECTRA, spectrum
from noisewise.adapters.solutions import (
    adam_step,
    bound,
    cosine,
    lora_ga_start,
    lora_one_start,
    pissa_start,
    sgd_step,
)

R, C = 4, 2.0


def residual(goal: torch.Tensor, step: torch.Tensor) -> float:
    """Relative distance at the best length, without cancellation."""
    goal, step = goal.double(), step.double()
    best = (goal * step).sum() / step.square().sum()
    return float((goal - best * step).norm() / goal.norm())


@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize("shape", [(24, 32), (32, 24)])
def test_no_step_of_rank_2r_is_nearer(values: list[float], shape: tuple[int, int]) -> None:
    g = spectrum(*shape, values)
    start = lora_ga_start(g, R, C, mutate_base=True)
    assert residual(g, sgd_step(g, start.a, start.b, C)) == pytest.approx(bound(g, 2 * R), abs=1e-4)
    kept = lora_ga_start(g, R, C)
    assert residual(g, sgd_step(g, kept.a, kept.b, C)) == pytest.approx(bound(g, R), abs=1e-4)
    assert not kept.b.any()


def test_a_gradient_of_rank_2r_is_followed_exactly() -> None:
    g = spectrum(24, 32, SPECTRA["rank 2r"])
    start = lora_ga_start(g, R, C, mutate_base=True, scale="gd")
    assert residual(g, sgd_step(g, start.a, start.b, C)) < 1e-3
    # gd: not only the direction, the length as well
    torch.testing.assert_close(sgd_step(g, start.a, start.b, C), g, atol=1e-4, rtol=1e-4)


def test_a_random_start_misses_the_bound() -> None:
    g = spectrum(24, 32, SPECTRA["rank 2r"])
    a = torch.randn(R, 32, generator=torch.Generator().manual_seed(0))
    assert residual(g, sgd_step(g, a, torch.zeros(24, R), C)) > 0.8
    w = torch.randn(24, 32, generator=torch.Generator().manual_seed(1))
    start = pissa_start(w, R, C)
    assert residual(g, sgd_step(g, start.a, start.b, C)) > 0.5


@pytest.mark.parametrize("split", ["ArB2r", "A2rBr", "alternate", "random"])
def test_each_split_makes_the_same_step(split: str) -> None:
    g = spectrum(24, 32, SPECTRA["falling"])
    generator = torch.Generator().manual_seed(0)
    start = lora_ga_start(g, R, C, mutate_base=True, split=split, generator=generator)  # pyrefly: ignore
    first = lora_ga_start(g, R, C, mutate_base=True)
    step = sgd_step(g, start.a, start.b, C)
    torch.testing.assert_close(step, sgd_step(g, first.a, first.b, C), atol=1e-4, rtol=1e-4)
    assert abs(start.b.T @ (g @ start.a.T)).max() < 1e-4  # the two sides share no direction


@pytest.mark.parametrize("both", [False, True])
def test_a_loss_a_hundred_times_as_large_changes_nothing(both: bool) -> None:
    g = spectrum(24, 32, SPECTRA["falling"])
    one, hundred = (lora_ga_start(x, R, C, mutate_base=both) for x in (g, 100 * g))
    torch.testing.assert_close(one.a.abs(), hundred.a.abs(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.b.abs(), hundred.b.abs(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("both", [False, True])
def test_scale_adam_takes_a_first_step_as_long_as_full_fine_tuning(both: bool) -> None:
    g = torch.randn(48, 64, generator=torch.Generator().manual_seed(0))
    start = lora_ga_start(g, R, C, mutate_base=both, scale="adam")
    length = adam_step(g, start.a, start.b, C).norm() / g.sign().norm()
    assert length == pytest.approx(1.0, abs=0.05)


def test_scales_are_those_of_the_paper() -> None:
    g = torch.randn(48, 64, generator=torch.Generator().manual_seed(0))
    stable = lora_ga_start(g, R, C, mutate_base=True, gamma=64.0)
    wanted = 48**0.25 / 64**0.5
    torch.testing.assert_close(stable.a.norm(dim=1), torch.full((R,), wanted))
    torch.testing.assert_close(stable.b.norm(dim=0), torch.full((R,), wanted))
    unit = lora_ga_start(g, R, C, scale="unit")
    torch.testing.assert_close(unit.a @ unit.a.T, torch.eye(R), atol=1e-5, rtol=0)


@pytest.mark.parametrize("both", [False, True])
def test_the_answers_to_adam_are_ordered(both: bool) -> None:
    """Solving is never worse than the two it starts from, and here it is better."""
    g = spectrum(24, 32, SPECTRA["falling"]) * torch.rand(24, 1).add(0.1)
    reached = {}
    for answer in ("gradient", "sign", "solve"):
        start = lora_ga_start(g, R, C, mutate_base=both, answer=answer)  # pyrefly: ignore
        reached[answer] = cosine(adam_step(g, start.a, start.b, C), g.sign())
    assert reached["solve"] > max(reached["gradient"], reached["sign"]) + 0.01
    least = bound(g.sign(), 2 * R if both else R)
    assert (1 - reached["solve"] ** 2) ** 0.5 >= least - 1e-6


def test_the_error_of_the_factorisation_is_stated() -> None:
    g = spectrum(80, 96, [3.0 / i for i in range(1, 81)])
    start = lora_ga_start(g, R, C)
    assert start.error == pytest.approx(bound(g, R), rel=0.01)


def test_lora_one_is_a_weighted_step_down() -> None:
    g = spectrum(24, 32, SPECTRA["falling"])
    start = lora_one_start(g, R, gamma=128.0)
    step = start.b @ start.a
    assert cosine(step, -g) == pytest.approx((1 - bound(g, R) ** 2) ** 0.5, abs=1e-4)


def test_pissa_takes_the_principal_part() -> None:
    w = spectrum(24, 32, SPECTRA["falling"])
    start = pissa_start(w, R, C)
    assert float((w - C * start.b @ start.a).norm() / w.norm()) == pytest.approx(
        bound(w, R), abs=1e-5
    )
    torch.testing.assert_close(start.a.norm(dim=1), start.b.norm(dim=0), atol=1e-4, rtol=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    g = torch.randn(6, 40)
    with pytest.raises(ValueError, match=r"rank 3, or mutate_base=False"):
        lora_ga_start(g, 4, C, mutate_base=True)
    assert lora_ga_start(g, 4, C).a.shape == (4, 40)
    with pytest.raises(ValueError, match="rank 7 does not fit"):
        lora_ga_start(g, 7, C)
    with pytest.raises(ValueError, match="not finite"):
        lora_ga_start(g / 0, 2, C)
    with pytest.raises(ValueError, match="gradient is zero"):
        lora_ga_start(0 * g, 2, C)
    with pytest.raises(ValueError, match="needs a generator"):
        lora_ga_start(g, 2, C, mutate_base=True, split="random")
    with pytest.raises(ValueError, match="scale 'large' is unknown"):
        lora_ga_start(g, 2, C, scale="large")  # pyrefly: ignore
