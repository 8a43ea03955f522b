"""Branches from a checkpoint: exact noisy quadratics, a real net, a budget, and odd losses."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from noisewise.scaling import (
    BatchStage,
    BatchWarmup,
    Branching,
    Estimate,
    batch_warmup,
    branch,
)

NOISE = 60.0


def needs(noise: float) -> Callable[[int, float, int], float]:
    """The exact law of McCandlish et al.: examples to a loss grow with (B + noise)."""
    return lambda batch, lr, examples: 1000 * (batch + noise) / examples


def quadratic(batch: int, lr: float, examples: int) -> float:
    """Exact expected loss of SGD on a noisy quadratic; the rate falls to 0 over the second half."""
    curvature = np.geomspace(0.01, 1.0, 20)
    square, steps = np.ones(20), max(1, examples // batch)
    for i in range(steps):
        rate = lr * min(1.0, 2 * (1 - i / steps))
        square = (1 - rate * curvature) ** 2 * square + rate**2 * curvature * 2.0 / batch
    return float(0.5 * (curvature * square).sum())


@pytest.mark.parametrize("noise", [20.0, 60.0, 300.0])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_the_critical_batch_of_the_exact_law_is_found_and_the_noise_scale_agrees(
    noise: float, share: float
) -> None:
    scale = Estimate(noise, 0.9 * noise, 1.1 * noise)
    found = branch(
        needs(noise),
        batch=10,
        lr=0.1,
        examples=6000,
        batches=(20, 40, 80, 160, 320, 640),
        share=share,
        noise_scale=scale,
    )
    true = 10 / share + noise * (1 / share - 1)
    assert found.predicted.value == pytest.approx(true)
    assert found.critical.low <= true <= found.critical.high
    assert found.critical.value == pytest.approx(true, rel=0.1)
    assert found.agrees
    assert "the two agree" in found.text()
    wrong = replace(found, noise_scale=Estimate(50 * noise, 45 * noise, 55 * noise))
    assert not wrong.agrees
    assert "do not agree" in wrong.text()


def test_the_best_rate_of_a_noisy_quadratic_grows_with_the_batch() -> None:
    found = branch(quadratic, batch=4, lr=0.1, examples=2000, batches=(8, 16, 64))
    assert found.power > 0.4
    assert found.critical.low >= 8
    steady = branch(quadratic, batch=4, lr=0.1, examples=2000, batches=(8, 16, 64), powers=(0.0,))
    assert steady.critical.high <= found.critical.high  # the rate of batch 4 is too low there


def test_the_tolerance_of_the_paper() -> None:
    found = branch(
        needs(NOISE), batch=10, lr=0.1, examples=2000, batches=(20, 40, 80), tolerance=10.0
    )
    assert found.target == pytest.approx(35 + 10)
    assert (found.critical.low, found.critical.high) == (20, 40)
    assert found.critical.value == pytest.approx(30, rel=0.07)
    assert math.isnan(found.share)
    assert found.agrees is None


def test_a_budget_leaves_out_branches_and_says_so() -> None:
    times = itertools.count(step=5.0)  # every look at the clock is 5 seconds later
    found = branch(
        needs(NOISE), batch=10, lr=0.1, examples=2000, batches=(20, 40), seconds=40,
        clock=lambda: next(times),
    )  # fmt: skip
    assert 3 <= len(found.trials) < 8
    assert any("did not fit into 40 seconds" in sentence for sentence in found.warnings)
    short = branch(
        needs(NOISE), batch=10, lr=0.1, examples=2000, batches=(20, 40), seconds=1,
        clock=lambda: next(times),
    )  # fmt: skip
    assert {t.batch for t in short.trials} == {10, 20}  # something is always compared


def test_what_diverges_is_not_good_and_odd_losses_are_said(tmp_path: Path) -> None:
    def wild(batch: int, lr: float, examples: int) -> float:
        return math.nan if batch > 20 else needs(NOISE)(batch, lr, examples)

    found = branch(wild, batch=10, lr=0.1, examples=2000, batches=(20, 40))
    assert (found.critical.low, found.critical.high) == (20, 40)
    assert "diverged" in found.text()
    found.save(tmp_path / "b.json")
    again = Branching.load(tmp_path / "b.json")
    assert again.text() == found.text()
    assert again.to_dict() == found.to_dict()
    with pytest.raises(ValueError, match="itself diverges"):
        branch(lambda *_: math.inf, batch=10, lr=0.1, examples=2000, batches=(20,))
    rising = branch(
        lambda _batch, _lr, examples: float(examples), batch=10, lr=0.1, examples=2000,
        batches=(20,),
    )  # fmt: skip
    assert not rising.critical.known
    assert "did not fall" in rising.warnings[0]
    lower = branch(lambda batch, *_: 1 / batch, batch=10, lr=0.1, examples=2000, batches=(40,))
    assert lower.critical.high == math.inf
    assert "not tuned" in lower.warnings[0]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"batch": 0}, "batch is 0"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"batches": (8,)}, "try larger ones"),
        ({"examples": 50}, "only"),
        ({"powers": ()}, "powers is empty"),
        ({"share": 1.0}, "share is 1.0"),
        ({"tolerance": -1.0}, "tolerance is -1.0"),
        ({"seconds": 0.0}, "seconds is 0.0"),
    ],
)
def test_numbers_that_cannot_be_used_are_refused_before_any_branch(
    given: dict[str, object], sentence: str
) -> None:
    def never(*_: object) -> float:
        raise AssertionError

    values = {"batch": 10, "lr": 0.1, "examples": 2000, "batches": (20, 40)} | given
    with pytest.raises(ValueError, match=sentence):
        branch(never, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"batch0": []}', "[" * 100_000])
def test_a_file_that_is_something_else_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="cannot be read"):
        Branching.load(path)


def test_what_is_no_file_of_branches_is_told_in_plain_words(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for name, reason in (("none", "it does not exist"), ("pipe", "it is not a file of at most")):
        with pytest.raises(ValueError, match=f"{name}.json cannot be read: {reason}") as caught:
            Branching.load(tmp_path / f"{name}.json")
        assert "Errno" not in str(caught.value)


# ------------------------------------------------------------------------ the batch that grows
def at(seen: float, critical: float, **given: float) -> Branching:
    return Branching(
        8, 0.1, 1000, seen, 0.8, 1.0, (), Estimate(critical, critical, 2 * critical),
        **given,  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_batch_doubles_when_the_critical_batch_has_passed_it() -> None:
    points = [at(1000, 12), at(3000, 36), at(9000, 36)]
    warmup = batch_warmup(points)
    assert [(s.examples, s.batch) for s in warmup.stages] == [(0, 8), (1334, 16), (2667, 32)]
    assert [s.lr for s in warmup.stages] == pytest.approx([0.1, 0.1 * 2**0.5, 0.2])
    assert batch_warmup(points[::-1]) == warmup  # the order in which they are given
    assert batch_warmup(points, most=16).stages == warmup.stages[:2]
    (only,) = batch_warmup(at(0, 100)).stages
    assert (only.examples, only.batch) == (0, 64)
    assert only.lr == pytest.approx(0.1 * 8**0.5)
    assert batch_warmup(at(500, 3)).stages == (BatchStage(0, 8, 0.1),)
    falls = batch_warmup([at(1000, 70), at(3000, 20)])  # the later one is smaller
    assert [(s.examples, s.batch) for s in falls.stages] == [(0, 8), (1000, 16)]
    seen, steps = 0, 0
    while seen < 9000:
        now = warmup(seen)
        seen, steps = seen + now.batch, steps + 1
    assert warmup.steps(9000) == steps
    assert f"take {steps:,} steps" in warmup.text(9000)


def test_schedules_that_cannot_be_made_are_refused() -> None:
    for points, given, sentence in (
        ([], {}, "no branches"),
        ([at(math.nan, 20)], {}, "seen="),
        ([at(0, 20), replace(at(1, 20), lr0=0.2)], {}, "different"),
        ([at(0, 20)], {"most": 4}, "cannot grow"),
        ([at(0, 20)], {"power": math.inf}, "power is inf"),
    ):
        with pytest.raises(ValueError, match=sentence):
            batch_warmup(points, **given)  # type: ignore[arg-type]


class Net:
    """One hidden layer learns a random teacher; gradients by hand, so that a step is quick."""

    def __init__(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        x = draw.normal(size=(9216, 8))
        y = np.tanh(x @ draw.normal(size=(8, 6))).sum(1, keepdims=True)
        self.x, self.y = x, y + 0.3 * draw.normal(size=y.shape)
        shapes = (((8, 16), 8), (16, 8), ((16, 1), 16), (1, 16))
        self.fresh = [draw.uniform(-1, 1, shape) / n**0.5 for shape, n in shapes]

    def loss(self, w: list[np.ndarray]) -> float:
        """On the last 1,024 examples, which are never trained on."""
        out = np.tanh(self.x[8192:] @ w[0] + w[1]) @ w[2] + w[3]
        return float(((out - self.y[8192:]) ** 2).mean())

    def trained(
        self, w: list[np.ndarray], first: int, last: int, plan: Callable[[int], tuple[int, float]]
    ) -> list[np.ndarray]:
        """SGD over the examples from `first` to `last`; plan: examples seen to batch and rate."""
        w, seen = [part.copy() for part in w], first
        while seen < last:
            batch, rate = plan(seen)
            end = min(seen + batch, last)
            x, y = self.x[seen:end], self.y[seen:end]
            hidden = np.tanh(x @ w[0] + w[1])
            slope = 2 * (hidden @ w[2] + w[3] - y) / len(x)
            back = (slope @ w[2].T) * (1 - hidden**2)
            gradients = (x.T @ back, back.sum(0), hidden.T @ slope, slope.sum(0))
            for part, gradient in zip(w, gradients, strict=True):
                part -= rate * gradient
            seen = end
        return w

    def branches(self, seen: int, rate: float) -> Branching:
        """From a checkpoint after so many examples at batch 8."""
        there = self.trained(self.fresh, 0, seen, lambda _: (8, rate))

        def train(batch: int, lr: float, examples: int) -> float:
            last = seen + examples
            w = self.trained(there, seen, last, lambda s: (batch, lr * falling(s, seen, last)))
            return self.loss(w)

        return branch(train, batch=8, lr=rate, examples=2048, batches=(16, 32, 64), seen=seen)


def falling(seen: int, first: int, last: int) -> float:
    """The rate falls to 0 over the second half."""
    return min(1.0, 2 * (last - seen) / (last - first))


def test_a_batch_that_grows_saves_steps_at_equal_loss() -> None:
    """The rate of batch 8 is tuned: 0.12 and 0.48 are worse."""
    apart, rate = [], 0.24
    for seed in (1, 2, 3):
        net = Net(seed)
        warmup = batch_warmup([net.branches(seen, rate) for seen in (1024, 4096)])
        assert isinstance(warmup, BatchWarmup)
        steady = net.trained(net.fresh, 0, 8192, lambda s: (8, rate * falling(s, 0, 8192)))
        grown = net.trained(
            net.fresh,
            0,
            8192,
            lambda s, now=warmup: (now(s).batch, now(s).lr * falling(s, 0, 8192)),
        )
        assert warmup.steps(8192) < 0.6 * 1024
        apart.append(net.loss(grown) / net.loss(steady))
        assert apart[-1] < 1.03
    assert np.mean(apart) < 1.01
