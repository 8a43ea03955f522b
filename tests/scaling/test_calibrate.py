"""A calibration burst on exact quadratics: noise, curvature, law and direct measurement agree."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from noisewise.scaling import GaussianSoftSign, Measurement, advise, calibrate
from noisewise.scaling.direct import Burst
from noisewise.scaling.exact_laws import gaussian_law, gaussian_sums
from noisewise.scaling.flat import Flat, gradient
from noisewise.scaling.updates import Updater, optimizer_facts, unwrapped

P, SIZE = 12, 8


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Quadratic(nn.Module):
    """L = w'Hw / 2 - w'x: gradient Hw - x, so the noise of one example is that of x."""

    def __init__(self, hessian: Tensor, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("hessian", hessian)
        self.w = nn.Parameter(start.clone())

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * self.w @ self.hessian @ self.w - self.w @ x.mean(0)


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)


HESSIAN = 0.6 * torch.ones(P, P, dtype=torch.float64) + torch.eye(P, dtype=torch.float64)
ROOT = torch.linalg.cholesky(HESSIAN)  # Sigma = H: correlated noise
START = torch.full((P,), 0.05, dtype=torch.float64)
GRADIENT = HESSIAN @ START


def micro_batches(n: int, seed: int = 0) -> list[Tensor]:
    x = torch.randn(n, SIZE, P, generator=seeded(seed), dtype=torch.float64) @ ROOT.T
    return list(x)


def adam_after_steps(
    model: Quadratic, batch: int, epsilon: float, steps: int = 300
) -> torch.optim.Adam:
    """Adam whose state has seen this batch size at these weights; the weights stay."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=epsilon)
    generator = seeded(9)
    for _ in range(steps):
        noise = torch.randn(P, generator=generator, dtype=torch.float64) @ ROOT.T / batch**0.5
        model.w.grad = GRADIENT + noise
        optimizer.step()
        with torch.no_grad():
            model.w.copy_(START)
    model.w.grad = None
    return optimizer


def swept(batch: float, scale: Tensor) -> float:
    noise = torch.randn(20000, P, generator=seeded(5), dtype=torch.float64) @ ROOT.T / batch**0.5
    u = (GRADIENT + torch.cat([noise, -noise])) * scale
    return float((u @ GRADIENT).mean() / ((u @ HESSIAN) * u).sum(1).mean())


def test_sgd_on_a_quadratic() -> None:
    model = Quadratic(HESSIAN, START)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    found = calibrate(model, loss, micro_batches(400), optimizer, probes=64)
    drift = float(GRADIENT @ HESSIAN @ GRADIENT)
    truths = [
        (found.g2, float(GRADIENT @ GRADIENT)),
        (found.trace_sigma, float(HESSIAN.trace())),
        (found.b_simple, float(HESSIAN.trace() / (GRADIENT @ GRADIENT))),
        (found.b_noise, float((HESSIAN @ HESSIAN).trace()) / drift),
        (found.curvature["g_h_g"], drift),
        (found.curvature["trace_sigma_h"], float((HESSIAN @ HESSIAN).trace())),
    ]
    for estimate, truth in truths:
        width = (estimate.high - estimate.low) / 2
        assert estimate.value == pytest.approx(truth, abs=1.6 * width), (estimate, truth)
        assert width < 0.4 * truth
    one = torch.ones(P, dtype=torch.float64)
    law = found.preconditioned()
    sgd = found.sgd()
    assert law is not None
    assert sgd is not None
    for batch in (1.0, 8.0, 64.0, 1024.0):
        assert law.lr(batch) == pytest.approx(swept(batch, one), rel=0.15)
        assert sgd.lr(batch) == pytest.approx(swept(batch, one), rel=0.2)
    for point in found.direct:
        assert point.lr.low < swept(point.batch, one) < point.lr.high
    assert found.optimizer.lr_per_effective == pytest.approx(0.1)
    assert found.noise.groups.keys() == {"w"}


@pytest.mark.parametrize("epsilon", [1e-8, 1.0])
def test_adam_with_correlated_noise(epsilon: float) -> None:
    model = Quadratic(HESSIAN, START)
    optimizer = adam_after_steps(model, 32, epsilon)
    found = calibrate(model, loss, micro_batches(600), optimizer, batch=32, probes=90)
    law = found.preconditioned()
    assert law is not None
    for batch in (2.0, 32.0, 128.0, 2048.0):
        v = GRADIENT**2 + HESSIAN.diagonal() / batch
        truth = swept(batch, 1 / (v.sqrt() + epsilon))
        assert law.lr(batch) == pytest.approx(truth, rel=0.25), batch
    for point in found.direct:
        v = GRADIENT**2 + HESSIAN.diagonal() / point.batch
        truth = swept(point.batch, 1 / (v.sqrt() + epsilon))
        assert point.lr.value == pytest.approx(truth, rel=0.5)
    own = next(p for p in found.curve if p.batch == 32)
    assert own.ratio.value == own.ratio.low == own.ratio.high == 1
    for batch, batch0 in ((64.0, 32.0), (16.0, 32.0), (32.0, 512.0)):  # twice the batch, mostly
        advice = advise(found, batch=batch, batch0=batch0, lr=1e-6)
        # A large epsilon has an edge of stability as well, far above this learning rate.
        assert advice.rule == (
            "preconditioned" if epsilon < 1 else "noise and the edge of stability"
        )
        assert advice.low < 0.999 * advice.lr < 0.998 * advice.high
        truth = 1.0
        for at, power in ((batch, 1), (batch0, -1)):
            v = GRADIENT**2 + HESSIAN.diagonal() / at
            truth *= swept(at, 1 / (v.sqrt() + epsilon)) ** power
        side = advice.high if truth > advice.lr else advice.low
        assert abs(math.log(truth / advice.ratio)) < 1.6 * abs(math.log(side / advice.lr))
    assert found.epsilon_share == (0.0 if epsilon < 1e-3 else 1.0)
    closed = found.soft_sign()
    assert closed is not None
    assert closed.diagonal == pytest.approx(float(HESSIAN.trace()), rel=0.2)
    # The sign of this noise meets far more curvature than tr H: the closed form's mistake.
    assert found.curvature["sign_noise"].low > 1.1 * float(HESSIAN.trace())


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_exact_gaussian_moments_are_filled_from_a_burst(epsilon: float) -> None:
    """Independent noise, where the law is exact; the Hessian is not diagonal."""
    flat = Flat(Quadratic(HESSIAN, START))
    x = list(torch.randn(400, SIZE, P, generator=seeded(3), dtype=torch.float64))
    rows = torch.stack([gradient(flat, loss, batch) for batch in x[8:]])
    burst = Burst(flat, loss, rows, x[:2], SIZE, 32)
    law = GaussianSoftSign.from_burst(burst, epsilon, 64, seeded(4))
    assert float(law.g.square().sum()) == pytest.approx(float(burst.signal.sum()))
    truth = GaussianSoftSign(GRADIENT, torch.ones(P, dtype=torch.float64), HESSIAN, epsilon=epsilon)
    sums = gaussian_sums(burst, epsilon, [2.0, 32.0, 512.0], 64, seed=4)
    table = gaussian_law(sums)
    assert table is not None
    for batch in (2.0, 32.0, 512.0):
        assert law.lr(batch) == pytest.approx(truth.lr(batch), rel=0.08)
        assert table.lr(batch) == pytest.approx(law.lr(batch))
        assert table.gain(batch) == pytest.approx(law.gain(batch))
    pure = Burst(flat, loss, rows - rows.mean(0), x[:2], SIZE, 32)  # no signal is left
    assert gaussian_sums(pure, epsilon, [2.0, 32.0], 1, seed=0) == {}
    with pytest.raises(ValueError, match="told from its noise"):
        GaussianSoftSign.from_burst(pure, epsilon, 1, seeded())


def test_the_training_is_left_as_it_was_and_the_measurement_repeats() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1)
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    x = torch.randn(24, 16, 5)

    def square(model: nn.Module, batch: Tensor) -> Tensor:
        return (model(batch)[:, 0] - batch.sum(1)).square().mean()

    square(net, x[0]).backward()
    optimizer.step()
    state = [t.clone() for t in (*net.parameters(), *net.buffers())]
    grads = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    moments = [s["exp_avg_sq"].clone() for s in optimizer.state.values()]
    rng = torch.get_rng_state()
    first = calibrate(net, square, list(x), optimizer, probes=3)
    assert all(map(torch.equal, state, (*net.parameters(), *net.buffers())))
    kept = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(map(torch.equal, grads, kept))
    assert all(map(torch.equal, moments, (s["exp_avg_sq"] for s in optimizer.state.values())))
    assert torch.equal(rng, torch.get_rng_state())
    assert calibrate(net, square, list(x), optimizer, probes=3).to_dict() == first.to_dict()
    assert any("Batch norm" in sentence for sentence in first.warnings)


class Masked(nn.Module):
    """Gradient: a mask of dropout on each example's row, twice 0 or 1; nothing else is random."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(P, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (nn.functional.dropout(x, 0.5) @ self.w).mean() + 0.5 * self.w @ self.w


class Shaken(Quadratic):
    """A quadratic whose loss draws noise of its own, three times that of the data."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 3 * torch.randn_like(x))


def test_what_the_loss_draws_is_noise_and_not_signal() -> None:
    """With one draw for all micro-batches |g|^2 is too large by its variance / size, for any n."""
    ones = [torch.ones(SIZE, P, dtype=torch.float64)] * 200
    cases = [
        (Masked(), ones, P, P),
        (
            Shaken(HESSIAN, START),
            micro_batches(200),
            float(GRADIENT @ GRADIENT),
            float(HESSIAN.trace()) + 9 * P,
        ),
    ]
    for model, data, signal, trace in cases:
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        found = calibrate(model, loss, data, sgd, probes=4)
        assert abs(found.g2.value - signal) < 4 * found.g2.standard_error
        assert abs(found.trace_sigma.value - trace) < 4 * found.trace_sigma.standard_error
        assert found.g2.standard_error < 0.2 * trace / SIZE  # so that the bias would be seen


def test_update_curvature_is_that_of_the_batch_that_was_trained_at() -> None:
    model, batch = Quadratic(HESSIAN, 0 * START), 4 * SIZE  # at rest: an update is noise alone
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    found = calibrate(model, loss, micro_batches(400), sgd, batch=batch, probes=90)
    noise, real = float((HESSIAN @ HESSIAN).trace()), found.curvature["update_curvature"]
    assert abs(real.value - noise / batch) < 3 * real.standard_error
    assert real.high < noise / (2 * SIZE)
    large = calibrate(model, loss, micro_batches(24), sgd, batch=100 * SIZE, probes=4)
    assert "update_curvature" not in large.curvature  # none rather than another batch's


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    model = Quadratic(HESSIAN, START)
    optimizer = adam_after_steps(model, 8, 1e-8, steps=20)
    found = calibrate(model, loss, micro_batches(24), optimizer, probes=2)
    found.save(tmp_path / "m.json")
    again = Measurement.load(tmp_path / "m.json")
    assert again.to_dict() == found.to_dict()
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="not a measurement"):
        Measurement.load(tmp_path / "other.json")
    (tmp_path / "m.json").write_text('{"noisewise_measurement": 1}')
    with pytest.raises(ValueError, match="damaged"):
        Measurement.load(tmp_path / "m.json")
    with pytest.raises(ValueError, match="cannot be read"):
        Measurement.load(tmp_path / "none.json")
    older = found.to_dict() | {"warnings": ["Not identifiable yet: collect more.", "Other."]}
    del older["warning_codes"]  # files had none
    assert Measurement.from_dict(older).coded_warnings() == (
        ("noise_not_known", "Not identifiable yet: collect more."),
        ("uncoded", "Other."),
    )


def test_little_memory_averages_neighbours() -> None:
    model = Quadratic(HESSIAN, START)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    whole = calibrate(model, loss, micro_batches(64), optimizer, probes=4)
    half = calibrate(model, loss, micro_batches(64), optimizer, probes=4, memory_bytes=40 * 4 * P)
    assert half.noise.num_micro == whole.noise.num_micro // 2
    assert half.g2.value == pytest.approx(whole.g2.value, rel=0.5)
    assert half.trace_sigma.value == pytest.approx(whole.trace_sigma.value, rel=0.3)
    with pytest.raises(ValueError, match="memory_bytes"):
        calibrate(model, loss, micro_batches(24), optimizer, memory_bytes=100)


def test_another_epsilon_is_asked_about_without_training_with_it() -> None:
    model = Quadratic(HESSIAN, START)
    optimizer = adam_after_steps(model, 32, 1e-8)
    data = micro_batches(60)
    asked = calibrate(model, loss, data, optimizer, batch=32, probes=4, epsilon=1.0)
    assert optimizer.param_groups[0]["eps"] == 1e-8
    optimizer.param_groups[0]["eps"] = 1.0
    assert asked.to_dict() == calibrate(model, loss, data, optimizer, batch=32, probes=4).to_dict()
    with pytest.raises(ValueError, match="epsilon"):
        calibrate(model, loss, data, optimizer, epsilon=-1.0)
    with pytest.raises(ValueError, match="epsilon"):
        calibrate(model, loss, data, torch.optim.SGD(model.parameters(), lr=0.1), epsilon=0.1)


def test_groups_with_their_own_learning_rate() -> None:
    net = nn.Linear(2, 1).double()
    groups = [{"params": [net.weight], "lr": 0.1}, {"params": [net.bias], "lr": 0.4}]
    updater = Updater(torch.optim.SGD(groups), Flat(net))
    found = updater.update(torch.ones(3, dtype=torch.float64))
    assert found.tolist() == pytest.approx([1, 1, 4])
    assert updater.relative_lr().tolist() == pytest.approx([1, 1, 4])


def test_bad_input_is_one_sentence() -> None:
    model = Quadratic(HESSIAN, START)
    sgd, data = torch.optim.SGD(model.parameters(), lr=0.1), micro_batches(16)
    adam = torch.optim.Adam(model.parameters())
    cases = [
        ("no state", lambda: calibrate(model, loss, data, adam)),
        ("too few", lambda: calibrate(model, loss, data[:3], sgd)),
        ("too few", lambda: calibrate(model, loss, [], sgd)),
        ("no graph", lambda: calibrate(model, lambda m, x: m(x).detach(), data, sgd)),
        ("not finite", lambda: calibrate(model, lambda m, x: m(x) * math.nan, data, sgd)),
        ("equal sizes", lambda: calibrate(model, loss, [*data, data[0][:3]], sgd)),
        ("above 0", lambda: calibrate(model, loss, data, sgd, batch=0)),
        ("above 0", lambda: calibrate(model, loss, data, sgd, size=-1)),
        ("probes", lambda: calibrate(model, loss, data, sgd, probes=0)),
        ("counted", lambda: calibrate(model, lambda m, _: m(data[0]), ["x"] * 16, sgd)),
        ("Optimizer", lambda: unwrapped("adam")),
        (
            "learning rate is 0",
            lambda: calibrate(model, loss, data, torch.optim.SGD([model.w], 0.0)),
        ),
        ("closure|single", lambda: calibrate(model, loss, data, torch.optim.LBFGS([model.w]))),
    ]
    for pattern, call in cases:
        with pytest.raises(ValueError, match=pattern) as caught:
            call()
        assert str(caught.value).count(". ") <= 1, caught.value
    assert not adam.state  # looking left nothing behind
    frozen = nn.Linear(2, 1).requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable"):
        calibrate(frozen, loss, data, sgd)
    assert optimizer_facts(sgd).family == "sgd"


def test_statistics_that_move_between_calls_are_named() -> None:
    class Drifting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            self.mean += 0.1 * (x.mean(0) - self.mean)
            return ((x - self.mean) * self.w).square().mean()

    model = Drifting()
    data = [torch.randn(8, 3, generator=seeded(i)) + 2 for i in range(16)]
    with pytest.raises(ValueError, match="buffer mean"):
        calibrate(model, loss, data, torch.optim.SGD(model.parameters(), lr=0.1))
    assert not model.mean.any()  # put back
