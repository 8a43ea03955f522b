"""Branches from a checkpoint: exact noisy quadratics, a real net, a budget, and odd losses."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

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
    assert found.critical.value == pytest.approx(30, rel=0.05)
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
    with pytest.raises(ValueError, match="cannot be read"):
        Branching.load(tmp_path / "none.json")


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
    assert batch_warmup(at(0, 100)).stages == (BatchStage(0, 64, pytest.approx(0.1 * 8**0.5)),)
    assert batch_warmup(at(500, 3)).stages == (BatchStage(0, 8, 0.1),)
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


def test_a_batch_that_grows_saves_steps_at_equal_loss_on_a_real_net() -> None:
    """A net of one hidden layer learns a random teacher; batch 8 against the schedule."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9216, 8, generator=generator)
    y = torch.tanh(x @ torch.randn(8, 6, generator=generator)).sum(1, keepdim=True)
    y = y + 0.3 * torch.randn(y.shape, generator=generator)
    train_x, train_y, held = x[:8192], y[:8192], (x[8192:], y[8192:])

    def loss(net: nn.Module, of: tuple[Tensor, Tensor]) -> Tensor:
        return (net(of[0]) - of[1]).square().mean()

    def go(
        net: nn.Module, first: int, last: int, plan: Callable[[int], tuple[int, float]]
    ) -> nn.Module:
        """Train over the examples from `first` to `last`."""
        sgd, seen = torch.optim.SGD(net.parameters()), first
        while seen < last:
            batch, sgd.param_groups[0]["lr"] = plan(seen)
            end = min(seen + batch, last)
            sgd.zero_grad()
            loss(net, (train_x[seen:end], train_y[seen:end])).backward()
            sgd.step()
            seen = end
        return net

    def falling(seen: int, first: int, last: int) -> float:
        return min(1.0, 2 * (last - seen) / (last - first))

    torch.manual_seed(0)
    fresh = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    rate, points = 0.06, []
    for seen in (1024, 4096):
        there = go(copy.deepcopy(fresh), 0, seen, lambda _: (8, rate))

        def train(batch: int, lr: float, examples: int, seen: int = seen, there=there) -> float:  # noqa: ANN001
            last = seen + examples
            net = go(
                copy.deepcopy(there), seen, last, lambda s: (batch, lr * falling(s, seen, last))
            )
            return float(loss(net, held))

        points.append(
            branch(train, batch=8, lr=rate, examples=2048, batches=(16, 32, 64), seen=seen)
        )
    warmup = batch_warmup(points)
    steady = go(copy.deepcopy(fresh), 0, 8192, lambda s: (8, rate * falling(s, 0, 8192)))
    grown = go(
        copy.deepcopy(fresh), 0, 8192,
        lambda s: (warmup(s).batch, warmup(s).lr * falling(s, 0, 8192)),
    )  # fmt: skip
    assert isinstance(warmup, BatchWarmup)
    assert warmup.steps(8192) < 0.7 * 1024
    assert float(loss(grown, held)) < 1.03 * float(loss(steady, held))
