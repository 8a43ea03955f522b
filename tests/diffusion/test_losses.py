"""The loss at the exact denoiser, the weights against each other, and the sum over scales."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from noisewise.diffusion import (
    EDMWeight,
    EpsWeight,
    FlowWeight,
    MinSNRWeight,
    Preconditioned,
    SigmoidWeight,
    VWeight,
    Weight,
    add_noise,
    denoising_loss,
    eps_from_x0,
    flow_from_x0,
    logsnr_from_sigma,
    multiscale_error,
    v_from_x0,
)
from oracle import GaussianMixture, gaussian, mixture

SIGMA = torch.logspace(-3, 3, 61, dtype=torch.float64)


def _noised(n: int = len(SIGMA), seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x0 = mixture().sample(n, generator)
    return x0, torch.randn(n, 2, generator=generator, dtype=torch.float64)


# --- weights ----------------------------------------------------------------------------------


def test_weights_in_logsnr() -> None:
    snr = logsnr_from_sigma(SIGMA).exp()
    for weight, truth in [
        (EpsWeight(), snr),
        (VWeight(), 1 + snr),
        (FlowWeight(), (1 + snr.sqrt()) ** 2),
        (EDMWeight(0.5), snr + 4),
        (MinSNRWeight(), snr.clamp(max=5)),
        (SigmoidWeight(-2.0), snr * torch.sigmoid(-2 - snr.log())),
    ]:
        torch.testing.assert_close(weight(SIGMA), truth, rtol=1e-9, atol=0)


def test_weights_against_each_other() -> None:
    logsnr = logsnr_from_sigma(SIGMA)
    torch.testing.assert_close(EDMWeight(1.0)(SIGMA), VWeight()(SIGMA))
    torch.testing.assert_close(EpsWeight()(SIGMA), VWeight()(SIGMA) * torch.sigmoid(logsnr))
    sd, total = 0.3, SIGMA**2 + 0.3**2
    torch.testing.assert_close(EDMWeight(sd)(SIGMA), total / (SIGMA * sd) ** 2)
    for bias in (-3.0, 0.0, 2.0):
        weight = SigmoidWeight(bias)(SIGMA)
        assert (weight <= math.exp(bias)).all()  # bounded, unlike eps and v
        torch.testing.assert_close(weight[-5:], EpsWeight()(SIGMA)[-5:], rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("weight", "target"),
    [(EpsWeight(), eps_from_x0), (VWeight(), v_from_x0), (FlowWeight(), flow_from_x0)],
    ids=["eps", "v", "flow"],
)
def test_weighted_loss_is_the_loss_on_that_target(weight: Weight, target: type) -> None:
    x0, noise = _noised()
    x = add_noise(x0, SIGMA, noise)
    loss = denoising_loss(mixture(), x0, SIGMA, noise, weight)
    hat, true = target(x, SIGMA, mixture()(x, SIGMA)), target(x, SIGMA, x0)
    torch.testing.assert_close(loss, (hat - true).square().mean(1), rtol=1e-5, atol=1e-12)


def test_edm_weighted_loss_is_the_plain_loss_on_the_net_s_output() -> None:
    x0, noise = _noised()
    x, sd = add_noise(x0, SIGMA, noise), 0.4

    class Net(torch.nn.Module):
        def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor | None) -> Tensor:
            return torch.sin(3 * x) + noise_level[:, None]

    denoiser = Preconditioned(Net(), sd)
    c_skip, c_out = (c[:, None] for c in denoiser.coefficients(SIGMA))
    out = Net()(x / (SIGMA**2 + sd**2).sqrt()[:, None], SIGMA.log(), None)
    plain = (out - (x0 - c_skip * x) / c_out).square().mean(1)
    torch.testing.assert_close(denoising_loss(denoiser, x0, SIGMA, noise, EDMWeight(sd)), plain)


def test_edm_weight_refuses() -> None:
    with pytest.raises(ValueError, match="sigma_data"):
        EDMWeight(0.0)


# --- the loss ---------------------------------------------------------------------------------


def test_loss_of_the_exact_denoiser_is_the_posterior_variance() -> None:
    data, n = gaussian(), 200_000
    generator = torch.Generator().manual_seed(0)
    x0, noise = data.sample(n, generator), torch.randn(n, 2, generator=generator).double()
    for level in (0.1, 0.5, 2.0):
        sigma = torch.full((n,), level, dtype=torch.float64)
        loss = denoising_loss(data, x0, sigma, noise, torch.ones_like)
        c = torch.linalg.eigvalsh(data.covariances[0])
        truth = (c * level**2 / (c + level**2)).mean()
        assert abs(loss.mean() - truth) < 5 * loss.std() / math.sqrt(n)


def test_nothing_beats_the_exact_denoiser() -> None:
    """And a gradient step away from it shows at once: the loss is at its minimum there."""
    data, n = mixture(), 50_000
    x0, noise = _noised(n)
    sigma = torch.full((n,), 0.4, dtype=torch.float64)

    def error(denoiser: GaussianMixture, stretch: float) -> Tensor:
        stretched = lambda x, s, c=None: denoiser(x, s, c) * stretch  # noqa: E731
        return denoising_loss(stretched, x0, sigma, noise, EpsWeight()).mean()

    best = error(data, 1.0)
    wrong = GaussianMixture(data.means, data.covariances)  # forgets the unequal weights
    for other in (error(data, 1.05), error(data, 0.95), error(wrong, 1.0)):
        assert other > best


def test_conditional_loss_is_lower() -> None:
    data, n = mixture(), 3_000
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(n) % 3
    x0 = torch.stack(
        [
            GaussianMixture(data.means[k : k + 1], data.covariances[k : k + 1]).sample(
                1, generator
            )[0]
            for k in label.tolist()
        ]
    )
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    sigma = torch.ones(n, dtype=torch.float64)
    blind = GaussianMixture(data.means, data.covariances)
    told = denoising_loss(blind, x0, sigma, noise, EpsWeight(), condition=label)
    assert told.mean() < denoising_loss(blind, x0, sigma, noise, EpsWeight()).mean()


# --- scales -----------------------------------------------------------------------------------


def _naive_multiscale(error: Tensor, scales: list[int]) -> Tensor:
    n, c, d, _ = error.shape
    total = torch.zeros(n, dtype=error.dtype)
    for s in scales:
        block = d // s
        means = error.reshape(n, c, s, block, s, block).mean((3, 5))
        total += means.square().mean((1, 2, 3)) / s
    return total


@pytest.mark.parametrize(
    ("size", "scales"),
    [(128, [32, 64, 128]), (32, [32]), (16, [16]), (96, [48, 96]), (66, [33, 66])],
)
def test_multiscale_error_by_its_definition(size: int, scales: list[int]) -> None:
    error = torch.randn(3, 2, size, size, dtype=torch.float64)
    torch.testing.assert_close(multiscale_error(error), _naive_multiscale(error, scales))


def test_multiscale_loss_is_the_weighted_multiscale_error() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 4, 1, 64, 64, generator=generator)
    sigma = torch.tensor([0.1, 0.5, 1.0, 5.0])
    shrink = lambda x, s, c=None: 0.3 * x  # noqa: E731
    loss = denoising_loss(shrink, x0, sigma, noise, EpsWeight(), multiscale=True)
    eps_error = noise - (add_noise(x0, sigma, noise) * 0.7) / sigma.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(loss, multiscale_error(eps_error), rtol=1e-4, atol=1e-6)


def test_coarse_errors_count_more_in_the_multiscale_loss() -> None:
    coarse = torch.ones(1, 1, 128, 128)
    fine = coarse.clone()
    fine[..., ::2] *= -1  # the same square error, gone after averaging
    assert multiscale_error(coarse) > 6 * multiscale_error(fine)
    with pytest.raises(ValueError, match="multiscale"):
        multiscale_error(torch.ones(2, 3))
