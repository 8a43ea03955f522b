"""When it was measured is part of the answer: schedules, checkpoints, a watched training."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from noisewise.scaling import Estimate, Measurement, Noise, advise, band, calibrate, watch
from noisewise.scaling.cost import Plan, Speed, fitted
from noisewise.scaling.updates import Family, OptimizerFacts


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x)[:, 0] - x.sum(1)).square().mean()


def batches(num: int = 16) -> list[Tensor]:
    return list(torch.randn(num, 8, 4, generator=torch.Generator().manual_seed(1)))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, schedule: object, steps: int) -> None:
    for x in batches(steps):
        optimizer.zero_grad()
        loss(model, x).backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()  # type: ignore[attr-defined]


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_calibrate_takes_the_top_of_the_schedule(share: float) -> None:
    steps = 20
    for make in (torch.optim.SGD, torch.optim.AdamW):
        model = net()
        optimizer = make(model.parameters(), lr=0.02)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        train(model, optimizer, cosine, round(share * steps))
        before = [p.detach().clone() for p in model.parameters()]
        found = calibrate(model, loss, batches(), optimizer, probes=2, after=share)
        assert found.optimizer.lr == 0.02
        assert advise(found, batch=8).lr == pytest.approx(0.02)
        assert "by_schedule" in found.warning_codes
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        steady = make(model.parameters(), lr=0.02)
        settings = steady.state_dict()["param_groups"]
        steady.load_state_dict(optimizer.state_dict() | {"param_groups": settings})
        want = calibrate(model, loss, batches(), steady, probes=2)
        assert [p.lr.value for p in found.curve] == pytest.approx([p.lr.value for p in want.curve])
        assert [p.lr.value for p in found.direct] == pytest.approx(
            [p.lr.value for p in want.direct]
        )


def test_one_cycle_and_groups() -> None:
    model = net()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters()}]  # type: ignore[index]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, [0.3, 0.1], total_steps=20)
    train(model, optimizer, cycle, 3)
    found = calibrate(model, loss, batches(), optimizer, probes=2)
    assert found.optimizer.lr == 0.3
    assert found.optimizer.rates == (0.3, 0.1)


def test_a_schedule_by_hand_is_asked_for_its_top() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = 0.0025
    with pytest.raises(ValueError, match="give lr="):
        calibrate(model, loss, batches(), optimizer)
    found = calibrate(model, loss, batches(), optimizer, probes=2, lr=0.1)
    assert found.optimizer.lr == 0.1
    own = torch.optim.SGD([{"params": model.parameters(), "lr": 0.1}], lr=0.1)
    assert calibrate(model, loss, batches(), own, probes=2).optimizer.lr == 0.1


def test_watch_knows_the_top_before_it_is_reached() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=100)
    monitor = watch(model, optimizer, every=1, skip=0, total_steps=100)
    for x in batches(10):
        for part in x.split(4):
            (loss(model, part) / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
        warm.step()
    found = monitor.measurement()
    assert found.optimizer.lr == 0.02
    assert (found.begun, found.ended) == (0.0, 0.1)


SCALE = Estimate(256.0, 230.0, 282.0, 10.0, 50)


def measured(scale: Estimate = SCALE, **words: object) -> Measurement:
    one = Estimate(1.0, 0.9, 1.1, 0.05, 50)
    noise = Noise(one, one.scaled(256.0), scale, 64)
    facts = OptimizerFacts("AdamW", "adam", 1e-3, 0.9, beta2=0.99, epsilon=1e-8)
    found = Measurement(noise, Estimate.unknown(), facts, 32.0, 8.0, 1000)
    return replace(found, **words)  # type: ignore[arg-type]


def test_an_early_measurement_says_so_and_what_to_do() -> None:
    early = advise(measured(begun=0.1, ended=0.1), batch=512)
    assert "after 10 % of the training: the edge of stability still moves" in early.text()
    assert "give all the files" in early.text()
    assert "after 10 % of the training" in early.text(verbose=True)
    late = advise(measured(begun=0.6, ended=0.6), batch=512)
    assert "Measured once, after 60 %" in late.text()
    unknown = advise(measured(), batch=512)
    assert "at one time of the training" in unknown.text()
    watched = advise(measured(begun=0.0, ended=1.0, scales=(200.0, 256.0, 300.0)), batch=512)
    assert "when_measured" not in watched.warning_codes
    assert "from 0 to 100 % of the training" in watched.text(verbose=True)


def test_checkpoints_that_disagree_widen_the_band_over_all_of_them() -> None:
    scales = (40.0, 256.0, 2000.0)
    each = [
        measured(Estimate(s, 0.9 * s, 1.1 * s, 0.05 * s, 50), ended=e, begun=e)
        for s, e in zip(scales, (0.1, 0.3, 0.6), strict=True)
    ]
    alone = [advise(m, batch=512) for m in each]
    both = advise(each, batch=512)
    product = alone[0].ratio * alone[1].ratio * alone[2].ratio
    assert both.ratio == pytest.approx(product ** (1 / 3))
    assert both.low <= min(a.lr for a in alone) < max(a.lr for a in alone) <= both.high
    assert "after 10, 30, 60 % of the training" in both.text(verbose=True)
    assert "geometric mean of 3 measurements" in both.reason
    line = next(c for c in both.curves if c.kind == "advice")
    assert min(line.low) > 0
    other = replace(each[0], optimizer=OptimizerFacts("SGD", "sgd", 0.1))
    with pytest.raises(ValueError, match="different optimisers"):
        advise([each[0], other], batch=512)
    with pytest.raises(ValueError, match="give one or more"):
        advise([], batch=512)


def test_a_watched_trainings_spread_is_in_its_band(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(band, "SEVERAL_TIMES", 0.0)
    steady = advise(measured(scales=(256.0, 256.0, 256.0)), batch=512)
    moved = advise(measured(scales=(16.0, 256.0, 5000.0)), batch=512)
    assert moved.lr == steady.lr
    assert moved.low < steady.low
    at = advise(measured(Estimate(16.0, 16.0, 16.0), scales=(16.0, 16.0)), batch=512)
    assert moved.low == pytest.approx(at.lr)


def test_the_band_grows_with_the_change_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [advise(measured(), batch=b) for b in (32.0, 64.0, 256.0)]
    monkeypatch.setattr(band, "ONE_TIME", 0.0)
    bare = [advise(measured(), batch=b) for b in (32.0, 64.0, 256.0)]
    widths = [a.low / b.low for a, b in zip(found, bare, strict=True)]
    assert widths == pytest.approx([1.0, 2**-0.5, 8**-0.5])


def test_the_history_of_a_watched_training_survives_a_restart() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    monitor = watch(model, optimizer, every=1, skip=0, total_steps=40)
    for i, x in enumerate(batches(40)):
        if i == 20:
            state = monitor.state_dict()
            monitor.remove()
            monitor = watch(model, optimizer, every=1, skip=0, total_steps=40)
            monitor.load_state_dict(state)
        for part in x.split(4):
            (loss(model, part) / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
    found = monitor.measurement()
    assert (found.begun, found.ended) == (0.0, 1.0)
    assert 2 <= len(found.scales) <= 3


def test_the_cost_is_said_first_and_a_limit_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    model = net()
    adam = torch.optim.AdamW(model.parameters(), lr=1e-3)
    train(model, adam, None, 10)
    calls = []

    def counted(m: nn.Module, x: Tensor) -> Tensor:
        calls.append(len(caplog.records))
        return loss(m, x)

    with caplog.at_level(logging.INFO, logger="noisewise.scaling"):
        full = calibrate(model, counted, batches(32), adam)
    (said,) = caplog.records
    assert "gradients and" in said.getMessage()
    after = sum(n > 0 for n in calls)  # calls of the loss after the cost was said
    gradients, products = (int(word) for word in said.getMessage().split() if word.isdigit())
    assert after <= gradients + products <= 1.3 * after
    assert "shortened" not in full.warning_codes
    least = calibrate(model, loss, batches(32), adam, seconds=10000)
    assert least.curve == full.curve
    said_seconds = float(said.getMessage().split("about ")[1].split()[0])
    for share in (0.7, 0.4, 0.25):  # how much is left out depends on the machine's load
        try:
            short = calibrate(model, loss, batches(32), adam, seconds=share * said_seconds)
        except ValueError as error:
            if "smallest calibration" not in str(error):
                raise
            continue
        assert short.b_noise.known
        assert advise(short, batch=64).lr > 0
    with pytest.raises(ValueError, match="smallest calibration takes about"):
        calibrate(model, loss, batches(32), adam, seconds=1e-6)
    with pytest.raises(ValueError, match="seconds is 0"):
        calibrate(model, loss, batches(32), adam, seconds=0)
    with pytest.raises(ValueError, match="after is 2"):
        calibrate(model, loss, batches(32), adam, after=2)


@pytest.mark.parametrize("family", ["sgd", "adam", "muon", "other"])
def test_a_shorter_plan_fits_and_keeps_what_its_optimiser_needs(family: Family) -> None:
    adam = family == "adam"
    full = Plan(112, 16, 16, 7 if adam else 1, 8, compare=adam, sharpest=family == "sgd")
    speed = Speed(0.01, 0.03)
    before = full
    for seconds in (1000.0, *(full.seconds(speed) * share for share in (0.9, 0.5, 0.3, 0.2))):
        plan = fitted(full, family, speed, seconds)
        assert plan.seconds(speed) <= seconds
        assert plan.products <= before.products
        assert plan.rows >= 8
        assert 2 * plan.probes <= plan.rows
        assert plan.draws > 0 or family in ("sgd", "adam")
        before = plan


def watched(monitor_of: object, schedule: object, steps: int) -> None:
    """Two micro-batches a step."""
    model, optimizer = monitor_of  # type: ignore[misc]
    for x in batches(steps):
        optimizer.zero_grad()
        for half in x.chunk(2):
            (loss(model, half) / 2).backward()
        optimizer.step()
        schedule.step()  # type: ignore[attr-defined]


def test_a_rate_that_rose_and_fell_under_watch_shows_its_own_peak() -> None:
    """Noam's schedule multiplies a rate of 1.0, which is no rate that anybody tuned."""
    for formula, peak in (
        (lambda i: 0.1 * min((i + 1) ** -0.5, (i + 1) * 8**-1.5), 0.1 * 8**-0.5),
        (lambda i: min((i + 1) / 4, 1.0, 2 - i / 20), 1.0),
    ):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, formula)
        monitor = watch(model, optimizer, every=1, skip=0)
        watched((model, optimizer), schedule, 32)
        assert monitor.measurement().optimizer.lr == pytest.approx(peak)
        again = watch(model, optimizer, every=1, skip=0)
        again.load_state_dict(monitor.state_dict())
        assert again.measurement().optimizer.lr == pytest.approx(peak)


def test_a_watch_that_began_late_calibrates_at_the_top_of_the_schedule() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
    train(model, optimizer, cosine, 20)
    monitor = watch(model, optimizer, every=1, skip=0)
    watched((model, optimizer), cosine, 10)
    assert monitor.calibrate(loss, batches(), probes=2).optimizer.lr == pytest.approx(0.02)


def test_files_may_be_named_in_any_order() -> None:
    facts = OptimizerFacts("AdamW", "adam", 1e-3, 0.9, beta2=0.99, epsilon=1e-8)
    one = Estimate(1.0, 0.9, 1.1)
    early, late = (
        Measurement(
            Noise(one, one.scaled(s), one.scaled(s), 6400), Estimate.unknown(), facts, 32.0, 8.0,
            100, begun=at, ended=at,
        )
        for s, at in ((20.0, 0.33), (200.0, 0.67))
    )  # fmt: skip
    first, second = (advise(ms, batch=256) for ms in ([early, late], [late, early]))
    assert first.text(verbose=True) == second.text(verbose=True)
    assert "after 33, 67 %" in first.text(verbose=True)
