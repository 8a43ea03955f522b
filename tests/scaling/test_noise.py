"""Gradient noise against the exact answer: unbiased, as noisy as theory says, all routes one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from noisewise.scaling.intervals import Estimate
from noisewise.scaling.measurement import Measurement
from noisewise.scaling.noise import GradientNoise, measure_noise, unbiased_moments
from noisewise.scaling.sources import per_sample_gradients

P = 40  # coordinates
G = torch.linspace(0.2, 1.0, P, dtype=torch.float64)
SIGMA = torch.linspace(3.0, 1.0, P, dtype=torch.float64)  # standard deviations of one example
G2, TRACE, TRACE_2 = float(G @ G), float(SIGMA @ SIGMA), float((SIGMA**4).sum())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def micro_batches(steps: int, n: int, b: int, seed: int = 0) -> Tensor:
    """Gaussian micro-batch gradients [steps, n, P] of a known law."""
    noise = torch.randn(steps, n, P, generator=seeded(seed), dtype=torch.float64)
    return G + SIGMA * noise / math.sqrt(b)


def moments(gradients: Tensor, b: int) -> tuple[Tensor, Tensor]:
    n = gradients.shape[1]
    squares = b * gradients.square().sum((1, 2))
    return unbiased_moments(squares, gradients.mean(1).square().sum(1), n, n * b)


@pytest.mark.parametrize("n", [2, 8, 64])
def test_bias_and_variance_are_those_of_theory(n: int) -> None:
    """Var |g|^2 = 4 g'Sg/B + 2 tr S^2 / (b^2 n (n-1)) and Var tr S = 2 tr S^2 / (n-1), Gaussian."""
    b, steps = 4, 16000 // n
    g2, trace = moments(micro_batches(steps, n, b), b)
    signal = float(G**2 @ SIGMA**2)
    var_g2 = 4 * signal / (n * b) + 2 * TRACE_2 / (b * b * n * (n - 1))
    var_trace = 2 * TRACE_2 / (n - 1)
    assert abs(float(g2.mean()) - G2) < 4 * math.sqrt(var_g2 / steps)
    assert abs(float(trace.mean()) - TRACE) < 4 * math.sqrt(var_trace / steps)
    spread = 6 / math.sqrt(steps)  # relative sd of a variance is about sqrt(2 / steps)
    assert float(g2.var()) == pytest.approx(var_g2, rel=spread)
    assert float(trace.var()) == pytest.approx(var_trace, rel=spread)


def test_unequal_micro_batches_are_unbiased_and_a_plain_mean_of_them_is_not() -> None:
    sizes = torch.tensor([1.0, 2.0, 9.0], dtype=torch.float64)
    noise = torch.randn(30000, 3, P, generator=seeded(1), dtype=torch.float64)
    rows = G + SIGMA * noise / sizes[:, None].sqrt()
    mean = (sizes[:, None] * rows).sum(1) / sizes.sum()
    squares = (sizes * rows.square().sum(2)).sum(1)
    g2, trace = unbiased_moments(squares, mean.square().sum(1), 3, 12.0)
    assert float(g2.mean()) == pytest.approx(G2, rel=0.02)
    assert float(trace.mean()) == pytest.approx(TRACE, rel=0.02)
    plain, wrong = moments(rows, 4)  # as if each had 4 examples
    assert float(wrong.mean()) > 1.5 * TRACE
    assert plain.shape == g2.shape


def test_without_replacement_the_gradient_of_the_data_set_is_found() -> None:
    data = G + SIGMA * torch.randn(60, P, generator=seeded(2), dtype=torch.float64)
    true = data.mean(0).square().sum()
    generator, corrected, naive = seeded(3), [], []
    for _ in range(4000):
        chosen = data[torch.randperm(60, generator=generator)[:40]].view(8, 5, P).mean(1)
        squares, mean = 5 * chosen.square().sum(), chosen.mean(0).square().sum()
        corrected.append(unbiased_moments(squares, mean, 8, 40, dataset_size=60)[0])
        naive.append(unbiased_moments(squares, mean, 8, 40)[0])
    assert float(torch.stack(corrected).mean()) == pytest.approx(float(true), rel=0.01)
    assert float(torch.stack(naive).mean()) < 0.9 * float(true)
    with pytest.raises(ValueError, match="without replacement"):
        unbiased_moments(squares, mean, 8, 40, dataset_size=30)


def test_a_mean_of_ratios_is_wrong_and_a_ratio_of_means_is_right() -> None:
    g2, trace = moments(0.3 * G + (micro_batches(4000, 4, 8) - G), 8)
    truth = TRACE / (0.09 * G2)
    assert float((g2 < 0).double().mean()) > 0.05
    # In runs of 200 steps: a mean of ratios has no expectation, and clipping only biases it.
    off = (trace / g2).view(20, 200).mean(1) / truth - 1
    assert float(off.abs().median()) > 0.4
    assert float((trace / g2.clamp_min(1e-3 * TRACE / 32)).mean()) > 2 * truth
    ours = trace.view(20, 200).mean(1) / g2.view(20, 200).mean(1) / truth - 1
    assert float(ours.abs().median()) < 0.15


def test_intervals_cover_as_often_as_they_say() -> None:
    b, n, truth, hits = 8, 24, TRACE / G2, torch.zeros(3)
    for rows in micro_batches(300, n, b, seed=5):
        found = measure_noise(rows, b)
        for i, (part, value) in enumerate(
            ((found.g2, G2), (found.trace_sigma, TRACE), (found.b_simple, truth))
        ):
            hits[i] += part.low <= value <= part.high
    assert bool(((hits >= 275) & (hits <= 295)).all()), hits  # 95 % are 285, give or take 4


def test_without_signal_there_is_only_a_lower_bound() -> None:
    rows = SIGMA * torch.randn(16, P, generator=seeded(4), dtype=torch.float64)
    found = measure_noise(rows, 1)
    assert found.g2.low < 0 < found.g2.high
    assert not found.identifiable
    assert found.b_simple.high == math.inf
    assert 0 < found.b_simple.low
    assert "no upper bound" in str(found.b_simple)
    rest = SIGMA * torch.randn(16, P, generator=seeded(8), dtype=torch.float64)
    bound = measure_noise(rest - rest.mean(0), 1).b_simple  # |g|^2 below zero
    assert bound.value == math.inf
    kept = Estimate.from_dict(json.loads(json.dumps(bound.to_dict(), allow_nan=False)))
    assert (kept.value, kept.low, str(kept)) == (math.inf, bound.low, str(bound))
    assert not Estimate.from_dict(Estimate.unknown().to_dict()).known
    assert found.more_needed() > 0


def test_accumulation_and_per_sample_agree_on_a_real_net() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x = torch.randn(512, 6, dtype=torch.float64)
    y = torch.randint(3, (512,))

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(net(batch[0]), batch[1])

    rows = per_sample_gradients(model, loss, (x, y))
    whole = torch.autograd.grad(loss(model, (x, y)), list(model.parameters()))
    torch.testing.assert_close(rows.mean(0), torch.cat([g.flatten() for g in whole]))
    single = measure_noise(rows)
    accumulated = measure_noise(rows.view(32, 16, -1).mean(1), 16)
    # The same data, so |g|^2 differs by far less than its own error.
    assert accumulated.g2.value == pytest.approx(single.g2.value, abs=single.g2.standard_error)
    assert accumulated.trace_sigma.value == pytest.approx(
        single.trace_sigma.value, abs=3 * accumulated.trace_sigma.standard_error
    )


def test_groups_add_up_and_are_divided_last() -> None:
    rows = micro_batches(1, 32, 4)[0]
    found = measure_noise(rows, 4, groups={"first": slice(0, 10), "rest": slice(10, P)})
    parts = found.groups.values()
    assert sum(p.g2.value for p in parts) == pytest.approx(found.g2.value)
    assert sum(p.trace_sigma.value for p in parts) == pytest.approx(found.trace_sigma.value)
    mean_of_ratios = sum(p.b_simple.value for p in parts) / 2
    assert found.b_simple.value != pytest.approx(mean_of_ratios, rel=0.05)


def test_running_noise_equals_the_mean_of_its_steps_and_forgets_old_ones() -> None:
    steps = micro_batches(60, 4, 8)
    noise = GradientNoise(window=40)
    for rows in steps:
        noise.add_gradients(rows, 8)
    g2, trace = moments(steps[20:], 8)
    found = noise.read()
    assert (len(noise), noise.num_steps, noise.batch, noise.num_micro) == (40, 60, 32.0, 4.0)
    assert found.g2.value == pytest.approx(float(g2.mean()))
    assert found.trace_sigma.value == pytest.approx(float(trace.mean()))
    restored = GradientNoise()
    restored.load_state_dict(noise.state_dict())
    restored.add_gradients(steps[0], 8)
    noise.add_gradients(steps[0], 8)
    assert restored.read() == noise.read()


def test_bad_input_is_one_sentence_and_nothing_is_recorded() -> None:
    noise = GradientNoise()
    with pytest.raises(ValueError, match="One micro-batch"):
        noise.add_gradients(torch.ones(1, 3), 8)
    with pytest.raises(ValueError, match="not finite"):
        noise.add_gradients(torch.tensor([[1.0, math.nan], [1.0, 1.0]]), 8)
    with pytest.raises(ValueError, match="above 0"):
        noise.add(torch.ones(1), torch.ones(1), 2, 0)
    assert len(noise) == 0
    with pytest.raises(ValueError, match="two or more"):
        noise.read()
    with pytest.raises(ValueError, match="3 or more"):
        measure_noise(torch.ones(2, 5))
    with pytest.raises(ValueError, match="other parameter groups"):
        noise.load_state_dict(GradientNoise(groups=("a", "b")).state_dict())
    normed = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match="Batch norm"):
        per_sample_gradients(normed, lambda m, x: m(x).sum(), torch.ones(4, 2))
    frozen = nn.Linear(2, 1).requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable"):
        per_sample_gradients(frozen, lambda m, x: m(x).sum(), torch.ones(4, 2))


def test_what_is_no_measurement_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"it is a folder; name the file in it, such as noise\.json"
    ):
        Measurement.load(tmp_path)
    with pytest.raises(ValueError, match="it does not exist; watch a training"):
        Measurement.load(tmp_path / "none.json")
