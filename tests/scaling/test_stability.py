"""The edge of stability: measured against exact eigenvalues, and the law against exact sweeps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from noisewise.scaling import (
    EdgeOfStability,
    Estimate,
    Flat,
    Preconditioned,
    advise,
    band,
    calibrate,
    sharpness,
)
from noisewise.scaling.updates import OptimizerFacts, optimizer_facts

P, SIZE = 10, 8


class Quadratic(nn.Module):
    """L = w'(H + E_batch)w / 2 - w'x: the Hessian of a batch is the true one and some noise."""

    def __init__(self, hessian: Tensor) -> None:
        super().__init__()
        self.register_buffer("hessian", hessian)
        self.w = nn.Parameter(torch.full((len(hessian),), 0.05, dtype=torch.float64))

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, own = batch[0].mean(0), batch[1].mean(0)
        return 0.5 * self.w @ (self.hessian + own) @ self.w - self.w @ x


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return model(batch)


def hessian(values: Tensor, seed: int = 0) -> Tensor:
    q, _ = torch.linalg.qr(
        torch.randn(P, P, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )
    return q @ torch.diag(values) @ q.T


def batches(n: int, spread: float, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, SIZE, P, generator=generator, dtype=torch.float64)
    own = torch.randn(n, SIZE, P, P, generator=generator, dtype=torch.float64)
    return [(a, spread * (b + b.mT)) for a, b in zip(x, own, strict=True)]


VALUES = torch.linspace(0.1, 2.0, P, dtype=torch.float64)


@pytest.mark.parametrize("route", ["double_backward", "central_difference"])
@pytest.mark.parametrize("lowest", [0.1, -3.0])  # -3: larger in size than the largest, 2
def test_the_sharpness_is_the_largest_eigenvalue_of_the_preconditioned_hessian(
    route: str, lowest: float
) -> None:
    values = VALUES.clone()
    values[0] = lowest
    h = hessian(values)
    flat = Flat(Quadratic(h))
    generator = torch.Generator().manual_seed(3)
    found = sharpness(flat, loss, batches(4, 0.0), generator, None, route, 400)  # pyrefly: ignore
    assert found.value == pytest.approx(2.0, rel=2e-2)
    scale = torch.linspace(0.2, 3.0, P, dtype=torch.float64)
    exact = float(torch.linalg.eigvals(torch.diag(scale) @ h).real.max())
    found = sharpness(flat, loss, batches(4, 0.0), generator, scale, route, 400)  # pyrefly: ignore
    assert found.value == pytest.approx(exact, rel=2e-2)


def test_it_is_not_too_large_from_few_noisy_batches_as_their_own_eigenvalue_is() -> None:
    h, covered, naive, values = hessian(VALUES), 0, [], []
    model = Quadratic(h)
    for seed in range(40):
        given = batches(8, 0.5, seed)
        generator = torch.Generator().manual_seed(seed)
        found = sharpness(Flat(model), loss, given, generator, products=60)
        values.append(found.value)
        covered += found.low <= 2.0 <= found.high
        own = torch.stack([b.mean(0) for _, b in given]).mean(0)
        naive.append(float(torch.linalg.eigvalsh(h + own).max()))
    assert covered >= 34
    assert np.mean(values) == pytest.approx(2.0, abs=0.05)
    assert np.mean(naive) > 2.1  # what a plain power iteration over all of them would say


def test_the_law_meets_the_edge_and_the_step_that_gains_nothing() -> None:
    sgd = Preconditioned((10.0, 1000.0), (1.0, 1.0), (2.0, 2.0), (20.0, 0.2))
    law = EdgeOfStability(sgd, edge=0.5)
    assert 1 / law.lr(100) == pytest.approx(1 / sgd.lr(100) + 2)
    assert EdgeOfStability(sgd, 1e12).gain(100) == pytest.approx(sgd.gain(100))
    twice = EdgeOfStability(sgd, 1e12, scale=2.0)
    assert twice.gain(100) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match="not below the edge"):
        EdgeOfStability.through(sgd, 0.5, 0.6, 64)
    with pytest.raises(ValueError, match="above 0"):
        EdgeOfStability(sgd, 0.0)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_edge_is_where_torchs_own_momentum_begins_to_grow(
    momentum: float, nesterov: bool
) -> None:
    if nesterov and not momentum:
        return
    w = torch.ones(1, dtype=torch.float64, requires_grad=True)
    sgd = torch.optim.SGD([w], lr=1.0, momentum=momentum, nesterov=nesterov)
    edge = optimizer_facts(sgd).edge_times_sharpness / 3.0  # sharpness 3
    for times, grows in ((0.98, False), (1.02, True)):
        with torch.no_grad():
            w.fill_(1.0)
        sgd = torch.optim.SGD([w], lr=times * edge, momentum=momentum, nesterov=nesterov)
        for _ in range(2000):
            sgd.zero_grad()
            (1.5 * w.square().sum()).backward()
            sgd.step()
        assert bool(w.abs().item() > 1) == grows
    assert OptimizerFacts("Adam", "adam", 1.0, 0.9).edge_times_sharpness == pytest.approx(38)


def swept(batch: float, examples: int) -> float:
    """Best constant rate of SGD on an exact noisy quadratic with a budget of examples."""
    lam = 1 / np.arange(1, 101)[:, None]
    rates = np.geomspace(1e-4, 1.99, 3000)[None]
    rate, steps = (1 - rates * lam) ** 2, examples // batch
    floor = rates**2 * lam / batch / np.maximum(1 - rate, 1e-12)  # Sigma = H
    return float(rates[0, (lam * (rate**steps * 0.3 + floor * (1 - rate**steps))).sum(0).argmin()])


def test_over_many_steps_the_edge_holds_where_every_unbent_law_runs_past_it() -> None:
    """Exact: the best rate stops at 1.4 to 1.9 over the sharpness (1), whatever the noise says."""
    best = {batch: swept(batch, 4096) for batch in (4, 16, 64, 256, 1024)}
    assert best[64] / best[4] > 8  # with few examples a step it rises almost linearly
    for batch in (256, 1024):
        assert 1.4 < best[batch] < 1.9
        law = EdgeOfStability.through(_linear(), 2.0, best[16], 16)
        assert law.lr(batch) == pytest.approx(best[batch], rel=0.25)
        assert best[16] * batch / 16 > 2 * best[batch]  # the law without the edge
    assert best[16] * math.sqrt(1024 / 16) > 1.5 * best[1024]  # and the square root


def _linear() -> Preconditioned:
    """A law far below its noise scale."""
    return Preconditioned((1.0, 4096.0), (1.0, 1.0), (1e-9, 1e-9), (1.0, 1 / 4096))


def test_calibrate_measures_it_where_it_counts_and_the_advice_bends_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(band, "ONE_TIME", 0.0)  # the band of the law alone
    h = hessian(VALUES)
    model, given = Quadratic(h), batches(64, 0.02, 1)
    with torch.no_grad():
        model.w.fill_(0.5)  # a gradient that is told from zero
    sgd = torch.optim.SGD(model.parameters(), lr=0.3)
    found = calibrate(model, loss, given, sgd, batch=64)
    assert found.curvature["sharpness"].low < 2.0 < found.curvature["sharpness"].high
    assert found.edge.value == pytest.approx(1.0, rel=0.1)
    advice = advise(found, batch=1024)
    assert advice.rule == "noise and the edge of stability"
    law = float(advice.others["noise scale (B_noise)"].split()[1])
    bent = 1 / (0.7 / law + 0.3)
    assert advice.ratio == pytest.approx(bent, rel=0.05)
    assert advice.ratio < law
    assert advice.low <= advice.lr <= advice.high
    assert advice.high == pytest.approx(0.3 * law, rel=0.01)  # the band reaches to the law
    assert advise(found, batch=1024, hold="steps").rule.startswith("half the exponent of noise")
    edge = next(c for c in advice.curves if c.name == "edge of stability")
    assert (edge.kind, set(edge.rates)) == ("bound", {found.edge.value})
    assert "edge of stability" in {t.get_text() for t in advice.figure().legends[0].get_texts()}
    vague = replace(found.noise, b_simple=Estimate(math.inf, 500.0, math.inf))
    bound = replace(found, noise=vague, b_noise=Estimate.unknown())
    past = advise(bound, batch=1024)  # a rule that ignores the edge says so
    assert past.rule == "lower bound of the noise scale"
    assert "beyond_edge" in past.warning_codes
    at_it = advise(found, batch=1024, lr=1.5)
    assert at_it.ratio == 1.0
    assert "at_edge" in at_it.warning_codes
    for epsilon, known in ((1e-8, False), (10.0, True)):
        adam = torch.optim.Adam(model.parameters(), lr=1e-3, eps=epsilon)
        model.zero_grad()
        loss(model, given[0]).backward()
        start = model.w.detach().clone()
        adam.step()
        with torch.no_grad():
            model.w.copy_(start)
        found = calibrate(model, loss, given, adam)
        assert ("sharpness" in found.curvature) == known
    assert found.edge.value == pytest.approx(19 * 10.0, rel=0.15)  # beta1 0.9: 38 over 2 / 10


def test_bad_input_is_one_sentence() -> None:
    flat, generator = Flat(Quadratic(hessian(VALUES))), torch.Generator()
    with pytest.raises(ValueError, match="needs a batch"):
        sharpness(flat, loss, [], generator)
    with pytest.raises(ValueError, match="one product"):
        sharpness(flat, loss, batches(2, 0.0), generator, products=0)
