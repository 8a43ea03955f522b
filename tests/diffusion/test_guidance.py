"""Guidance against a mixture whose conditional and unconditional denoisers are exact."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from noisewise.diffusion import (
    SAMPLERS,
    Denoiser,
    Preconditioned,
    Sampler,
    churned_heun,
    from_edm,
    guided,
    guided_calls,
    heun,
    karras_sigmas,
    sample,
    takes_shares,
    with_shares,
)
from noisewise.nets.derive import build
from noisewise.nets.layers import NoiseEmbedding
from oracle import mixture, same_level

SHARES = mixture().weights  # of the components 0, 1, 2
INTERVAL = (0.2, 2.0)


def one_net(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
    """E[x0 | x, component], and E[x0 | x] for the shares of the components."""
    assert condition is not None
    if not condition.is_floating_point():
        return mixture()(x, sigma, condition)
    assert torch.equal(condition, SHARES.expand(len(x), 3))
    return mixture()(x, sigma)


class Counting:
    """Counts the pictures that a denoiser is asked about."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.pictures, self.calls = denoiser, 0, 0

    def __call__(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None, /) -> Tensor:
        self.calls += 1
        self.pictures += len(x)
        return self.denoiser(x, sigma, condition)


def points(n: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return x, torch.arange(n) % 3


@pytest.mark.parametrize("weight", [1.5, 3.0])
def test_inside_the_interval_it_is_the_formula_and_outside_the_denoiser(weight: float) -> None:
    x, labels = points()
    data = mixture()
    for sigma, inside in ((0.2, False), (0.21, True), (1.0, True), (2.0, True), (2.01, False)):
        level = same_level(sigma, len(x))
        plain, unconditional = data(x, level, labels), data(x, level)
        found = guided(one_net, with_shares(one_net, SHARES), weight, INTERVAL)(x, level, labels)
        if inside:
            expected = plain + (weight - 1) * (plain - unconditional)
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
            assert not torch.allclose(found, plain, atol=1e-3)
        else:
            assert torch.equal(found, plain)


def test_it_is_the_score_of_a_sharpened_law() -> None:
    """Tweedie: D_w is the score of p(x | k) (p(x | k) / p(x))^(w - 1), by finite differences."""
    data, weight, sigma = mixture(), 1.7, 0.6
    x, labels = points(30)

    def log_density(x: Tensor) -> Tensor:
        level = same_level(sigma, len(x))
        alone = torch.stack([_component(k).log_density(x, level) for k in range(3)], 1)
        known = alone.gather(1, labels[:, None])[:, 0]
        return weight * known - (weight - 1) * data.log_density(x, level)

    at = x.clone().requires_grad_(True)
    (score,) = torch.autograd.grad(log_density(at).sum(), at)
    denoised = guided(one_net, with_shares(one_net, SHARES), weight, INTERVAL)
    found = (denoised(x, same_level(sigma, len(x)), labels) - x) / sigma**2
    torch.testing.assert_close(found, score, rtol=1e-8, atol=1e-8)


def _component(k: int):  # noqa: ANN202
    data = mixture()
    return type(data)(data.means[k : k + 1], data.covariances[k : k + 1])


def test_a_weight_of_one_is_the_denoiser_itself() -> None:
    assert guided(one_net, with_shares(one_net, SHARES), 1.0, INTERVAL) is one_net


def test_pictures_of_one_batch_are_guided_each_by_its_own_level() -> None:
    x, labels = points(9)
    sigma = torch.tensor([0.1, 0.5, 5.0] * 3, dtype=torch.float64)
    weak = Counting(with_shares(one_net, SHARES))
    plain = Counting(one_net)
    found = guided(plain, weak, 2.0, INTERVAL)(x, sigma, labels)
    whole = 2 * one_net(x, sigma, labels) - mixture()(x, sigma)
    middle = torch.tensor([False, True, False] * 3)
    torch.testing.assert_close(found[middle], whole[middle], rtol=1e-12, atol=1e-12)
    assert torch.equal(found[~middle], one_net(x, sigma, labels)[~middle])
    assert (plain.pictures, weak.pictures) == (9, 3)
    weak.calls = 0
    guided(plain, weak, 2.0, INTERVAL)(x, same_level(5.0, 9), labels)
    assert weak.calls == 0


@pytest.mark.parametrize("known", [*SAMPLERS, churned_heun(10.0)], ids=lambda known: known.name)
@pytest.mark.parametrize("interval", [INTERVAL, (0.0, math.inf), (20.0, 30.0)])
def test_calls_are_counted_truly(known: Sampler, interval: tuple[float, float]) -> None:
    x, labels = points(4)
    for n in (1, 2, 5, 9):
        sigmas = karras_sigmas(n, 0.05, 8.0, dtype=torch.float64)
        counted = Counting(one_net)
        denoiser = guided(counted, with_shares(counted, SHARES), 1.5, interval)
        sample(known.states(denoiser, x, sigmas, labels, lambda: torch.zeros_like(x)))
        assert guided_calls(known, sigmas, interval) == counted.calls
        extra = counted.calls - known.num_calls(n)
        if interval == INTERVAL:
            assert 0 <= extra < known.num_calls(n)
        else:
            assert extra == (known.num_calls(n) if interval[0] == 0 else 0)


def test_guided_pictures_lie_nearer_to_their_own_component_and_farther_from_the_others() -> None:
    x, labels = points(600)
    sigmas = karras_sigmas(20, 0.03, 8.0, dtype=torch.float64)
    weak = with_shares(one_net, SHARES)
    found = [
        sample(heun(guided(one_net, weak, weight, INTERVAL), x, sigmas, labels))
        for weight in (1.0, 2.0)
    ]
    own = [
        torch.stack([_component(k).log_density(p, same_level(0.03, 600)) for k in range(3)], 1)
        .log_softmax(1)
        .gather(1, labels[:, None])
        .mean()
        for p in found
    ]
    assert own[1] > own[0]


def test_another_weaker_denoiser_guides_too() -> None:
    """A denoiser that errs by e, and a weak one that errs by 3 e the same way: w = 1.5 mends it."""
    x, labels = points()
    level = same_level(0.5, len(x))
    truth, error = mixture()(x, level, labels), 0.1 * torch.ones_like(x)
    mended = guided(lambda *_: truth + error, lambda *_: truth + 3 * error, 1.5, INTERVAL)
    torch.testing.assert_close(mended(x, level, labels), truth, rtol=1e-12, atol=1e-12)


def test_nets_take_the_mean_of_their_classes() -> None:
    """Shares are the mean of the vectors of the classes; a share of 1 is that class itself."""
    embedding = NoiseEmbedding(8, num_classes=3).double()
    level = torch.zeros(3, dtype=torch.float64)
    every = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(embedding(level, every), embedding(level, torch.arange(3)))
    table = embedding.labels
    assert table is not None
    shares = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    found = embedding(level[:1], shares[None])
    with torch.no_grad():
        table.weight.copy_((shares[:, None] * table.weight).sum(0).expand(3, 8).clone())
    torch.testing.assert_close(found, embedding(level[:1], torch.tensor([1])))
    with pytest.raises(ValueError, match="no classes"):
        NoiseEmbedding(8)(torch.zeros(1), torch.ones(1, 3))


def test_a_denoiser_says_whether_it_takes_shares() -> None:
    net = build({"name": "unet", "channels": 1, "size": 8, "widths": [8], "blocks": [1]})
    edm = from_edm(lambda x, sigma, labels: labels.sum(1, keepdim=True) * x, num_classes=2)
    assert takes_shares(Preconditioned(net, 0.5))
    assert takes_shares(edm)
    assert not takes_shares(from_edm(lambda x, sigma: x))
    assert not takes_shares(torch.nn.Linear(2, 2))
    shares, x = torch.tensor([[0.25, 0.5]]), torch.ones(1, 1)
    assert edm(x, torch.ones(1), shares).item() == 0.75
    assert edm(x, torch.ones(1), torch.tensor([1])).item() == 1


@pytest.mark.parametrize("weight", [0.0, 0.99, -1.0, math.inf, math.nan])
def test_weights_that_do_not_guide_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="use 1 for none, or more"):
        guided(one_net, one_net, weight, INTERVAL)


@pytest.mark.parametrize("interval", [(2.0, 1.0), (1.0, 1.0), (-1.0, 1.0), (math.nan, 1.0)])
def test_empty_intervals_are_refused(interval: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="noise levels"):
        guided(one_net, one_net, 2.0, interval)
