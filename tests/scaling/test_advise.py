"""The advice: which rule decides and why, its band, what is held fixed, and what it warns of."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from noisewise.scaling import Advice, Estimate, Measurement, Noise, advise, band
from noisewise.scaling.epsilon import EpsilonPoint
from noisewise.scaling.measurement import DirectPoint, LawPoint
from noisewise.scaling.updates import OptimizerFacts
from noisewise.scaling.warning_codes import WarningCode


@pytest.fixture(autouse=True)
def only_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands as wide as the laws make them; test_band has what is added for the time."""
    monkeypatch.setattr(band, "ONE_TIME", 0.0)


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
        ratio = sure((2 + 2 * 200 / 64) / (2 + diffusion), 0.1 if batch != 64 else 0.0)
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


def test_sgd_follows_the_noise_scale_up_to_it_and_its_band_holds_the_law_and_the_root() -> None:
    below = advise(measured(b_noise=sure(2000.0)), batch=256)
    assert below.rule == "noise scale (B_noise)"
    assert below.ratio == pytest.approx((1 + 2000 / 64) / (1 + 2000 / 256))
    assert below.low == pytest.approx(0.1 * 2)  # the square root, a draw with the law
    assert below.high == pytest.approx(0.1 * (1 + 2200 / 64) / (1 + 2200 / 256))
    beyond = advise(measured(b_noise=sure(200.0)), batch=1024)
    assert beyond.ratio == pytest.approx((1 + 200 / 64) / 2)  # as at a batch of 200
    assert beyond.high == pytest.approx(0.1 * (1 + 220 / 64) / (1 + 220 / 1024))
    assert beyond.low == pytest.approx(0.1 * (1 + 180 / 64) / 2)
    assert "no further" in beyond.reason
    both = advise(measured(b_noise=sure(20.0)), batch=256)
    assert (both.ratio, both.low) == (1, 0.1)  # both are beyond it
    assert both.high > 0.1
    simple = advise(measured(), batch=256)
    assert simple.rule == "noise scale (B_simple)"
    back = advise(measured(b_noise=sure(200.0)), batch=64, batch0=1024, lr=beyond.lr)
    assert back.lr == pytest.approx(0.1)
    assert back.low < back.lr < back.high


def test_adam_follows_the_measured_law_and_else_the_root_below_the_noise_scale() -> None:
    advice = advise(measured(ADAM, curve=True), batch=256)
    assert advice.rule == "preconditioned"
    assert advice.ratio == pytest.approx((2 + 6.25) / (2 + 2 * 200 / 256))
    assert advice.beta2 == pytest.approx(0.99**4)
    assert advice.epsilon == 1e-8
    assert "square root" in advice.others
    for batch in (16.0, 256.0, 64 * 400.0):
        rough = advise(measured(ADAM), batch=batch)
        assert rough.rule == "noise scale, alpha 1/2"
        assert rough.ratio == pytest.approx(((1 + 300 / 64) / (1 + 300 / batch)) ** 0.5)
        ends = sorted(((batch / 64) ** 0.5, ((1 + 270 / 64) / (1 + 270 / batch)) ** 0.5))
        assert (rough.low, rough.high) == pytest.approx([1e-3 * end for end in ends])
        assert "curvature was not measured" in rough.reason


def wide(low: float, value: float, high: float, facts: OptimizerFacts) -> Measurement:
    """A noise scale that is hardly known."""
    return measured(facts, b_simple=Estimate(value, low, high, math.nan, 64))


def told(advice: Advice, code: WarningCode) -> str:
    """The sentence of a warning."""
    return dict(zip(advice.warning_codes, advice.warnings, strict=True))[code]


def test_what_is_hardly_known_is_not_called_certain() -> None:
    rough = advise(wide(100.0, 500.0, 3000.0, SGD), batch=1024)
    assert rough.rule == "lower bound of the noise scale"
    assert (
        rough.ratio
        == pytest.approx((1 + 100 / 64) / (1 + 100 / 1024))
        == pytest.approx(2.335, abs=1e-3)
    )
    assert rough.low == rough.lr
    assert rough.high / 0.1 == pytest.approx((1 + 3000 / 64) / (1 + 3000 / 1024))
    muon = OptimizerFacts("Muon", "muon", 0.02, 0.95)
    for facts, rule, reach in ((SGD, "constant", 4.0), (ADAM, "square root", 2.0)):
        unknown = advise(wide(0.0, 500.0, math.inf, facts), batch=256)
        assert unknown.rule == rule
        assert (unknown.low, unknown.high) == pytest.approx((facts.lr, reach * facts.lr))
    for low, rule in ((0.0, "square root"), (1.0, "lower bound of the noise scale")):
        unresolved = advise(wide(low, 500.0, math.inf, muon), batch=64 * 64)
        assert unresolved.rule == rule
        assert unresolved.low < 2 * 0.02 < unresolved.high == pytest.approx(8 * 0.02)
        assert "no law" not in unresolved.text(verbose=True)
    shown = advise(wide(0.0, 500.0, math.inf, ADAM), batch=256).text()
    assert "(band 0.001 to 0.002)" in shown


def test_the_measured_band_is_interpolated_and_combines_both_ends() -> None:
    """The curve is exact at the own batch of 64 and 10 % wide at 16, 256 and 1024."""
    m, down, up = measured(ADAM, curve=True), -math.log(0.9), math.log(1.1)
    cases = [  # the share of one measured half-width that must be left, new and old batch
        (128.0, 64.0, 0.5), (64.0, 64.0, 0.0), (256.0, 64.0, 1.0), (512.0, 64.0, 1.0),
        (32.0, 64.0, 0.5), (256.0, 16.0, 2.0), (128.0, 1024.0, 1.5),
    ]  # fmt: skip
    for batch, batch0, share in cases:
        found = advise(m, batch=batch, batch0=batch0)
        assert found.rule == "preconditioned"
        widths = (down * share, up * share)
        if batch0 != 64 and share != 2.0:  # of a denominator, the other way about
            widths = (0.5 * down + up, 0.5 * up + down)
        elif share == 2.0:
            widths = (down + up, up + down)
        assert math.log(found.lr / found.low) == pytest.approx(widths[0])
        assert math.log(found.high / found.lr) == pytest.approx(widths[1])
    back = advise(m, batch=64.0, batch0=1024.0)
    assert back.low < back.lr < back.high
    assert math.log(back.high / back.lr) == pytest.approx(down)


def test_beyond_the_measured_batches_the_band_widens_and_then_the_law_is_refused() -> None:
    inside = advise(measured(ADAM, curve=True), batch=1024)
    assert "extrapolated" not in inside.warning_codes
    near = advise(measured(ADAM, curve=True), batch=4096)
    assert near.rule == "preconditioned"
    assert "from batch 4 to 1024 and is extrapolated to 4096" in told(near, "extrapolated")
    assert near.low <= inside.low < 2 * inside.high == pytest.approx(near.high)
    far = advise(measured(ADAM, curve=True), batch=64 * 1024)
    assert far.rule == "noise scale, alpha 1/2"
    assert "too uncertain here" in far.reason
    old = advise(measured(ADAM, curve=True), batch=64, batch0=1)
    assert "extrapolated to 1:" in told(old, "extrapolated")
    sgd = advise(measured(curve=True), batch=4096)  # its curve is exact at every batch
    assert "extrapolated" not in sgd.warning_codes


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
    assert "no_same_path" in beyond.warning_codes


LAM = np.geomspace(0.02, 1.0, 12)


def best_lr(batch: float, steps: int) -> tuple[float, float]:
    """Best constant lr of SGD on an exact noisy quadratic after so many steps (Sigma = 1).

    Also B_noise = tr(Sigma H) / E g'Hg at the end of that run.
    """
    lam, rates = LAM[:, None], np.geomspace(1e-4, 1.9, 400)[None]
    rate = (1 - rates * lam) ** 2
    start, floor = 4.0, rates**2 / batch / np.maximum(1 - rate, 1e-12)
    variance = rate**steps * start + floor * (1 - rate**steps)
    i = (lam * variance).sum(0).argmin()
    return float(rates[0, i]), float(LAM.sum() / (LAM**3 * variance[:, i]).sum())


def test_for_as_many_steps_half_the_exponent_is_the_exact_optimum() -> None:
    """Sweeps of an exact quadratic at fixed steps; the noise scale read at the end of training."""
    for steps in (64, 256):
        lr0, scale = best_lr(1.0, steps)
        found = measured(OptimizerFacts("SGD", "sgd", lr0), b_noise=sure(scale, 0.05))
        for batch in (4.0, 16.0, 64.0):
            swept = best_lr(batch, steps)[0]
            advice = advise(found, batch=batch, batch0=1.0, hold="steps")
            assert advice.rule == "half the exponent of noise scale (B_noise)"
            assert advice.lr == pytest.approx(swept, rel=0.3)
            assert advice.low <= swept <= advice.high
            law = lr0 * (1 + scale) / (1 + scale / batch)
            assert law > 1.5 * swept  # with its whole exponent it is far off


def test_without_an_upper_bound_the_bound_decides_and_says_how_much_more() -> None:
    unbounded = Estimate(math.inf, 500.0, math.inf, math.nan, 64)
    found = measured(b_simple=unbounded)
    weak = Noise(Estimate(0.1, -0.4, 0.6, 0.25, 64), sure(100.0), unbounded, 64)
    found = Measurement(weak, Estimate.unknown(), SGD, 64.0, 8.0, 1000)
    advice = advise(found, batch=256)
    assert advice.rule == "lower bound of the noise scale"
    assert advice.lr == pytest.approx(0.1 * (1 + 500 / 64) / (1 + 500 / 256))
    assert advice.high == pytest.approx(0.4)  # linear is possible
    assert advice.warning_codes.count("noise_not_known") == 1
    assert "more micro-batches" in told(advice, "noise_not_known")
    known = replace(found, warnings=("Collect more.",), warning_codes=("noise_not_known",))
    said = advise(known, batch=256)
    assert said.warning_codes.count("noise_not_known") == 1
    assert told(said, "noise_not_known") == "Collect more."


def test_a_surge_is_named_only_when_the_noise_curvature_supports_it() -> None:
    closed = {"trace_h": 1.0, "sign_slope": 1.0, "sign_curvature": 40.0}
    real = advise(measured(ADAM, curve=True, sign={**closed, "sign_noise": 1.5}), batch=2048)
    assert "surge" in real.warning_codes
    false = advise(measured(ADAM, curve=True, sign={**closed, "sign_noise": 35.0}), batch=2048)
    assert "surge" not in false.warning_codes
    assert "does not support" in told(false, "surge_not_supported")
    none = advise(measured(ADAM, curve=True), batch=2048)
    assert not {"surge", "surge_not_supported"} & set(none.warning_codes)


def test_an_unknown_optimiser_uses_its_own_updates_or_the_root() -> None:
    lion = OptimizerFacts("Lion", "other", 1e-4, beta1=0.9)
    bare = measured(lion)
    root = advise(bare, batch=256)
    assert root.rule == "square root"
    assert (root.low, root.lr, root.high) == pytest.approx((1e-4, 2e-4, 2e-4))
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
    assert "above_one_step_optimum" in found.warning_codes
    assert "one single step" in found.text(verbose=True)
    kinds = {curve.name: curve.kind for curve in found.curves}
    assert kinds["one-step optimum"] == "bound"
    assert kinds["linear"] == "rule"
    assert all(len(c.batches) == len(c.rates) for c in found.curves)


def test_the_figure_holds_every_law_the_direct_points_and_the_users_own() -> None:
    sums = {"trace_h": 1.0, "sign_slope": 1.0, "sign_curvature": 40.0}
    for batch in (4.0, 64.0, 1024.0):
        sums |= {f"gaussian_slope_{batch:g}": batch**0.5, f"gaussian_curvature_{batch:g}": 2.0}
    found = measured(ADAM, b_noise=sure(200.0), curve=True, sign=sums)
    found = replace(found, direct=(DirectPoint(64.0, sure(1.0), sure(1.0), sure(1e-3)),))
    advice = advise(found, batch=256)
    names = {curve.name for curve in advice.curves}
    assert names == {
        "advice", "linear", "square root", "constant", "variance rule", "preconditioned",
        "noise scale (B_noise)", "noise scale (B_simple)", "noise scale, alpha 1/2",
        "lower bound of the noise scale", "closed form", "sign descent", "exact Gaussian moments",
        "one-step optimum", "direct measurement",
    }  # fmt: skip
    figure = advice.figure()
    drawn = {text.get_text() for text in figure.legends[0].get_texts()}
    assert drawn == {*names, "your rate", f"advice: {advice.lr:.3g}"}
    exact = next(c for c in advice.curves if c.name == "exact Gaussian moments")
    at = min(range(len(exact.batches)), key=lambda i: abs(exact.batches[i] - 256))
    assert exact.rates[at] == pytest.approx(1e-3 * (exact.batches[at] / 64) ** 0.5)
    line = next(c for c in advice.curves if c.kind == "advice")
    near = min(range(len(line.batches)), key=lambda i: abs(line.batches[i] - 256))
    again = advise(found, batch=line.batches[near])
    assert (line.rates[near], line.low[near], line.high[near]) == (again.lr, again.low, again.high)
    other = advice.others
    b_eps = 300 / (1 + 1000 * 1e-16)
    assert float(other["variance rule"].split()[1].rstrip(";")) == pytest.approx(
        ((1 + 256 / b_eps) / (1 + 64 / b_eps)) ** 0.5, rel=5e-3
    )
    large = measured(replace(ADAM, epsilon=1.0), curve=True, sign=sums)
    assert "sign descent" not in advise(large, batch=256).others  # its sums are those of signs


def test_text_and_json_say_the_same() -> None:
    found = advise(measured(ADAM, curve=True), batch=1024)
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["lr"] == found.lr
    assert values["rule"] == "preconditioned"
    assert values["curves"]
    text = found.text(verbose=True)
    for word in (
        "learning rate",
        "rule",
        "beta2",
        "times the steps",
        "warning  ",
        "not used       linear",
    ):
        assert word in text
    first, second, *_ = found.text().splitlines()
    assert first == f"learning rate  {found.lr:.4g} at batch 1024 (band 0.003106 to 0.003796)"
    assert second.startswith("That is 3.45 times the 0.001 of batch 64, for the same number of")
    assert "not used" not in found.text()
    assert text.startswith(found.text())
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


@pytest.mark.parametrize("odd", [math.nan, math.inf, -1.0])
def test_odd_numbers_are_refused_in_one_sentence(odd: float) -> None:
    curve = (EpsilonPoint(1e-8, 1.0, 0.0), EpsilonPoint(1e-4, 0.5, 0.4))
    adam = replace(measured(ADAM, sure(300.0)), epsilons=curve)
    for given in ("batch", "batch0", "lr", "epsilon", "ema"):
        with pytest.raises(ValueError, match=r"."):
            advise(adam, **{"batch": 128.0, given: odd})  # type: ignore[arg-type]


def test_the_answer_says_plainly_where_the_square_root_is_as_good() -> None:
    """Far below the noise scale Adam's rule is the square root; at it, it is not."""
    sentence = "the square root of the batch is as good here (4 times)"
    assert sentence in advise(measured(ADAM, sure(50_000.0)), batch=1024).text()
    assert "as good" not in advise(measured(ADAM, sure(40.0)), batch=1024).text()
