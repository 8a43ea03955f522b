"""The advice: which rule decides and why, its band, what is held fixed, and what it warns of."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from noisewise.scaling import Estimate, Measurement, Noise, advise
from noisewise.scaling.measurement import DirectPoint, LawPoint
from noisewise.scaling.updates import OptimizerFacts

SGD = OptimizerFacts("SGD", "sgd", 0.1, beta1=0.9, accumulates=True)
ADAM = OptimizerFacts("AdamW", "adam", 1e-3, beta1=0.9, beta2=0.99, epsilon=1e-8)


def sure(value: float, width: float = 0.1) -> Estimate:
    return Estimate(value, value * (1 - width), value * (1 + width), value * width / 2, 50)


def noise(scale: Estimate, g2: Estimate | None = None) -> Noise:
    return Noise(g2 or sure(1.0), sure(scale.value), scale, 64)


def measured(
    facts: OptimizerFacts = SGD,
    b_simple: Estimate | None = None,
    b_noise: Estimate | None = None,
    curve: bool = False,
    sign: dict[str, float] | None = None,
) -> Measurement:
    points = []
    for batch in (4.0, 16.0, 64.0, 256.0, 1024.0):
        diffusion = 2.0 * 200 / batch
        ratio = sure((2 + 2 * 200 / 64) / (2 + diffusion))
        points.append(LawPoint(batch, 1.0, 2.0, diffusion, sure(1 / (2 + diffusion)), ratio))
    curvature = {name: sure(value) for name, value in (sign or {}).items()}
    return Measurement(
        noise(b_simple or sure(300.0)),
        b_noise or Estimate.unknown(),
        facts,
        64.0,
        8.0,
        1000,
        curvature,
        tuple(points) if curve else (),
    )


def test_sgd_follows_the_noise_scale_with_its_band() -> None:
    advice = advise(measured(b_noise=sure(200.0)), batch=256)
    assert advice.rule == "noise scale (B_noise)"
    factor = (1 + 200 / 64) / (1 + 200 / 256)
    assert advice.lr == pytest.approx(0.1 * factor)
    assert advice.low < advice.lr < advice.high
    assert advice.high == pytest.approx(0.1 * (1 + 220 / 64) / (1 + 220 / 256))
    simple = advise(measured(), batch=256)
    assert simple.rule == "noise scale (B_simple)"
    back = advise(measured(b_noise=sure(200.0)), batch=64, batch0=256, lr=advice.lr)
    assert back.lr == pytest.approx(0.1)
    assert back.low < back.lr < back.high


def test_adam_follows_the_measured_law_and_else_the_square_root() -> None:
    advice = advise(measured(ADAM, curve=True), batch=256)
    assert advice.rule == "preconditioned"
    assert advice.ratio == pytest.approx((2 + 6.25) / (2 + 2 * 200 / 256))
    assert advice.beta2 == pytest.approx(0.99**4)
    assert advice.epsilon == 1e-8
    assert "square root" in advice.others
    rough = measured(ADAM)
    assert advise(rough, batch=256).rule == "square root"
    assert advise(rough, batch=256).ratio == pytest.approx(2)


def test_the_same_trajectory_is_linear_for_sgd_and_the_root_for_adam_with_its_constants() -> None:
    found = advise(measured(b_noise=sure(2000.0)), batch=128, hold="trajectory")
    assert (found.rule, found.ratio) == ("linear", pytest.approx(2))
    adam = advise(measured(ADAM, curve=True), batch=256, hold="trajectory")
    assert (adam.rule, adam.ratio) == ("square root", pytest.approx(2))
    assert adam.epsilon == pytest.approx(0.5e-8)
    assert adam.beta2 == pytest.approx(1 - 4 * (1 - 0.99), abs=1e-3)  # Malladi, to first order
    large = advise(measured(ADAM), batch=64 * 400, hold="trajectory")
    assert 0 < large.beta2 < 1  # where 1 - k (1 - beta2) would be negative
    beyond = advise(measured(b_noise=sure(100.0)), batch=512, hold="trajectory")
    assert any("same trajectory" in sentence for sentence in beyond.warnings)


def best_lr(batch: float, steps: int) -> float:
    """Best constant lr of SGD on an exact noisy quadratic after so many steps."""
    lam = np.geomspace(0.02, 1.0, 12)[:, None]
    rates = np.geomspace(1e-4, 1.9, 400)[None]
    rate = (1 - rates * lam) ** 2
    start, floor = 4.0, rates**2 * lam / batch / np.maximum(1 - rate, 1e-12)
    variance = rate**steps * start + floor * (1 - rate**steps)
    return float(rates[0, (lam * variance).sum(0).argmin()])


def test_for_as_many_steps_the_exact_optimum_lies_in_the_band() -> None:
    """Sweeps of an exact quadratic at fixed steps; the law read at the start of training."""
    lam = np.geomspace(0.02, 1.0, 12)
    weights = 2.0 * np.ones(12)
    drift, trace = float(((lam * weights) ** 2 * lam).sum()), float((lam * lam).sum())
    scale = trace / drift
    for steps in (64, 256):
        for batch in (4.0, 16.0):
            swept = best_lr(batch, steps) / best_lr(1.0, steps)
            facts = OptimizerFacts("SGD", "sgd", best_lr(1.0, steps))
            late = Estimate(scale * 50, scale * 40, scale * 60, scale * 5, 50)
            found = advise(measured(facts, b_noise=late), batch=batch, batch0=1.0, hold="steps")
            assert found.low <= swept * facts.lr <= found.high
            assert 1 < swept < batch**0.6


def test_without_an_upper_bound_the_bound_decides_and_says_how_much_more() -> None:
    unbounded = Estimate(math.inf, 500.0, math.inf, math.nan, 64)
    found = measured(b_simple=unbounded)
    weak = Noise(Estimate(0.1, -0.4, 0.6, 0.25, 64), sure(100.0), unbounded, 64)
    found = Measurement(weak, Estimate.unknown(), SGD, 64.0, 8.0, 1000)
    advice = advise(found, batch=256)
    assert advice.rule == "lower bound of the noise scale"
    assert advice.lr == pytest.approx(0.1 * (1 + 500 / 64) / (1 + 500 / 256))
    assert advice.high == pytest.approx(0.4)  # linear is possible
    more = [s for s in advice.warnings if s.startswith("Not identifiable yet")]
    assert len(more) == 1
    assert "more micro-batches" in more[0]


def test_a_surge_is_named_only_when_the_noise_curvature_supports_it() -> None:
    closed = {"trace_h": 1.0, "sign_slope": 1.0, "sign_curvature": 40.0}
    real = advise(measured(ADAM, curve=True, sign={**closed, "sign_noise": 1.5}), batch=2048)
    assert any(s.startswith("Surge") for s in real.warnings)
    false = advise(measured(ADAM, curve=True, sign={**closed, "sign_noise": 35.0}), batch=2048)
    assert not any(s.startswith("Surge") for s in false.warnings)
    assert any("does not support" in s for s in false.warnings)
    none = advise(measured(ADAM, curve=True), batch=2048)
    assert not any("urge" in s for s in none.warnings)


def test_an_unknown_optimiser_uses_its_own_updates_or_the_root() -> None:
    lion = OptimizerFacts("Lion", "other", 1e-4, beta1=0.9)
    bare = measured(lion)
    assert advise(bare, batch=256).rule == "square root"
    points = tuple(
        DirectPoint(b, sure(1.0), sure(1.0), sure(1e-3 * b**0.3)) for b in (64.0, 128.0, 256.0)
    )
    direct = Measurement(bare.noise, bare.b_noise, lion, 64.0, 64.0, 1000, direct=points)
    found = advise(direct, batch=256)
    assert found.rule == "direct measurement"
    assert found.ratio == pytest.approx(4**0.3)


def test_absolute_rates_are_in_the_optimisers_own_units() -> None:
    found = advise(measured(b_noise=sure(200.0), curve=True), batch=256)
    assert found.lr_one_step == pytest.approx(0.1 / (2 + 2 * 200 / 256))  # momentum 0.9 that sums
    assert any("one-step optimum" in s for s in found.warnings)
    assert "one single step" in found.text()
    kinds = {curve.name: curve.kind for curve in found.curves}
    assert kinds["one-step optimum"] == "bound"
    assert kinds["linear"] == "rule"
    assert all(len(c.batches) == len(c.rates) for c in found.curves)


def test_text_and_json_say_the_same() -> None:
    found = advise(measured(ADAM, curve=True), batch=1024)
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["lr"] == found.lr
    assert values["rule"] == "preconditioned"
    assert values["curves"]
    text = found.text()
    for word in ("learning rate", "rule", "beta2", "times the steps", "warning:", "not linear"):
        assert word in text
    assert found.steps < 1 < found.examples


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"batch": 0}, "above 0"),
        ({"batch": -4}, "above 0"),
        ({"batch": math.nan}, "above 0"),
        ({"batch": 8, "hold": "budget"}, "hold is"),
        ({"batch": 8, "lr": 0.0}, "cannot be scaled"),
        ({"batch": 8, "batch0": 0}, "above 0"),
    ],
)
def test_bad_input_is_one_sentence(words: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        advise(measured(), **words)
    nameless = Measurement(noise(sure(9.0)), Estimate.unknown(), SGD, None, 8.0, 10)
    with pytest.raises(ValueError, match="batch0="):
        advise(nameless, batch=8)
