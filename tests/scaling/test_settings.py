"""Betas, weight decay, EMA and epsilon at another batch: each rule, and where it leaves its range.

The short training below has what makes a small beta2 diverge: gradients that jump. There beta2 by
its half-life alone is far worse than the old one, and the bounded one is not.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from noisewise.scaling import Estimate, Measurement, Noise, advise
from noisewise.scaling.epsilon import EpsilonPoint, epsilon_curve
from noisewise.scaling.settings import BETA2_CEILING, BETA2_FLOOR, settings_for
from noisewise.scaling.updates import OptimizerFacts

ADAMW = OptimizerFacts(
    "AdamW", "adam", 1e-3, 0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1, decoupled=True
)


def measured(facts: OptimizerFacts = ADAMW) -> Measurement:
    scale = Estimate(5000.0, 4500.0, 5500.0, 200.0, 50)
    one = Estimate(1.0, 0.9, 1.1, 0.05, 50)
    noise = Noise(one, one.scaled(5000.0), scale, 64)
    return Measurement(noise, Estimate.unknown(), facts, 32.0, 8.0, 1000)


@pytest.mark.parametrize("times", [1e-5, 1 / 64, 0.25, 2, 16, 64, 1024])
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.9, 0.999), (0.9, 0.9), (0.0, 0.99)])
def test_betas_stay_where_adam_is_known_to_converge(
    times: float, betas: tuple[float, float]
) -> None:
    facts = replace(ADAMW, beta1=betas[0], beta2=betas[1])
    for hold in ("examples", "trajectory", "steps"):
        found = settings_for(facts, times, 1.0, hold)
        assert 0 <= found.beta1 < 1
        assert min(betas[1], BETA2_FLOOR) <= found.beta2
        assert found.beta2 <= max(betas[1], BETA2_CEILING, found.beta1**2)
        assert found.beta1**2 <= found.beta2 or hold == "steps"  # Zhang et al. 2022
        left = found.beta2 != pytest.approx(betas[1] ** times) and hold != "steps"
        codes = [code for code, _ in found.notes]
        assert ("left_range" in codes) >= left


def test_the_answer_says_where_a_rule_left_its_range() -> None:
    for batch in (512.0, 2048.0):
        advice = advise(measured(), batch=batch)
        assert advice.beta2 == 0.95
        assert "left_range" in advice.warning_codes
        assert "half-life in examples asks for" in advice.text()
        assert "beta2  " not in advice.text()  # it is unchanged
    path = advise(measured(), batch=512, hold="trajectory")
    assert path.beta1 == pytest.approx(0.9**16)
    assert "1 - beta1 would be 1.6" in path.text()
    assert "momentum       0.185" in path.text()
    near = advise(measured(), batch=64, hold="trajectory")
    assert near.beta1 == pytest.approx(1 - 2 * 0.1, abs=0.02)  # Malladi, to first order
    assert not [c for c in near.warning_codes if c == "left_range" and "beta1" in near.text()]
    small = advise(measured(replace(ADAMW, beta2=0.999)), batch=1, batch0=512)
    assert small.beta2 == pytest.approx(0.9999)


def last_loss(beta2: float, lr: float) -> float:
    """Loss after a short training of a net whose gradients jump."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10))
    adam = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, beta2))
    generator = torch.Generator().manual_seed(1)
    rule = torch.randn(16, 10, generator=generator)
    total = 0.0
    for step in range(150):
        x = torch.randn(64, 16, generator=generator) * (8.0 if step % 7 == 0 else 1.0)
        loss = nn.functional.cross_entropy(model(x), (x @ rule).argmax(1))
        adam.zero_grad()
        loss.backward()
        adam.step()
        total += float(loss.detach()) if step >= 100 else 0.0
    return total / 50


def test_the_bounded_beta2_is_no_worse_than_the_old_one_where_the_unbounded_one_is() -> None:
    facts = replace(ADAMW, lr=0.03)
    advice = advise(measured(facts), batch=2048, lr=0.03)
    kept, followed, unbounded = (last_loss(b, 0.03) for b in (0.95, advice.beta2, 0.95**64))
    assert followed <= 1.05 * kept
    assert unbounded > 1.5 * kept


def test_weight_decay_keeps_its_time_constant() -> None:
    """Tau = B / (lr wd D) with the same D, or with D in proportion to B."""
    for hold in ("examples", "steps", "trajectory"):
        for batch in (8.0, 256.0):
            advice = advise(measured(), batch=batch, hold=hold)
            data = batch / 32 if hold == "steps" else 1.0
            tau = batch / (advice.lr * advice.weight_decay * data)
            assert tau == pytest.approx(32 / (1e-3 * 0.1))
            assert "weight decay" in advice.text()
    coupled = advise(measured(replace(ADAMW, name="Adam", decoupled=False)), batch=256)
    assert math.isnan(coupled.weight_decay)
    assert "weight_decay" in coupled.warning_codes
    assert json_none(coupled.to_dict()["weight_decay"])
    huge = advise(measured(replace(ADAMW, weight_decay=20.0)), batch=4096)
    assert huge.lr * huge.weight_decay <= 0.1 + 1e-9
    assert "would remove" in huge.text()


def json_none(value: object) -> bool:
    return value is None


def test_an_average_of_the_weights_keeps_its_half_life_in_examples() -> None:
    advice = advise(measured(), batch=256, ema=0.9999)
    assert advice.ema == pytest.approx(0.9999**8)
    assert "EMA decay" in advice.text()
    assert advise(measured(), batch=256, ema=0.9999, hold="steps").ema == 0.9999
    far = advise(measured(), batch=32 * 4096, ema=0.999)
    assert "does little" in far.text()
    with pytest.raises(ValueError, match="between 0 and 1"):
        advise(measured(), batch=8, ema=1.5)


def test_another_epsilon_scales_the_rate_by_the_length_of_the_update() -> None:
    """Against updates that Adam really makes with both epsilons, from one state."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(2000))
    scales = torch.logspace(-7, -2, 2000)

    def length(epsilon: float) -> tuple[float, torch.optim.Adam]:
        adam = torch.optim.Adam([weight], lr=1.0, betas=(0.0, 0.999), eps=epsilon)
        moved = []
        gen = torch.Generator().manual_seed(2)
        for step in range(400):
            before = weight.detach().clone()
            weight.grad = torch.randn(2000, generator=gen) * scales
            adam.step()
            if step >= 300:
                moved.append(float((weight.detach() - before).norm()))
        return sum(moved) / len(moved), adam

    small, adam = length(1e-8)
    large, _ = length(1e-4)
    curve = epsilon_curve(adam)
    found = replace(measured(), epsilons=curve)
    plain, other = (advise(found, batch=64, epsilon=e) for e in (None, 1e-4))
    assert other.lr / plain.lr == pytest.approx(small / large, rel=0.05)
    assert other.low <= plain.low
    assert other.epsilon == 1e-4
    assert "sqrt(v) below it" in other.text()
    below = float((scales < 1e-4).double().mean())
    assert f"{100 * below:.0f} % of the weights" in other.text()
    with pytest.raises(ValueError, match="second moment"):
        advise(measured(), batch=64, epsilon=1e-4)
    assert Measurement.from_dict(found.to_dict()).epsilons == curve
    assert isinstance(curve[0], EpsilonPoint)


def test_every_groups_rate_is_printed() -> None:
    facts = replace(ADAMW, rates=(1e-3, 2e-4))
    advice = advise(measured(facts), batch=128)
    assert advice.rates == pytest.approx((advice.lr, advice.lr / 5))
    assert f"{advice.rates[1]:.4g}" in advice.text().splitlines()[1]
    scaled = advise(measured(facts), batch=128, lr=2e-3)
    assert scaled.rates == pytest.approx((scaled.lr, scaled.lr / 5))
