"""Preconditioning, conversions, and teachers from elsewhere: all must give back the exact x0."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from noisewise.diffusion import (
    Preconditioned,
    Prediction,
    add_noise,
    eps_error,
    eps_from_x0,
    flow_error,
    flow_from_x0,
    from_diffusers,
    from_edm,
    v_error,
    v_from_x0,
    x0_from_eps,
    x0_from_flow,
    x0_from_v,
)
from oracle import mixture

Convert = Callable[[Tensor, Tensor, Tensor], Tensor]
PAIRS = {
    "eps": (x0_from_eps, eps_from_x0),
    "v": (x0_from_v, v_from_x0),
    "flow": (x0_from_flow, flow_from_x0),
}
SIGMA = torch.logspace(-3, 3, 61, dtype=torch.float64)


def _pictures(n: int = len(SIGMA), seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x0, noise = torch.randn(2, n, 3, 2, 2, generator=generator, dtype=torch.float64)
    return 0.5 * x0, noise


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_conversions_round_trip_at_every_sigma(pair: tuple[Convert, Convert]) -> None:
    to_x0, from_x0 = pair
    x0, noise = _pictures()
    x = add_noise(x0, SIGMA, noise)
    torch.testing.assert_close(to_x0(x, SIGMA, from_x0(x, SIGMA, x0)), x0, rtol=1e-9, atol=1e-9)
    # From a prediction that is not the truth, too.
    guess = torch.tanh(x + 1)
    back = from_x0(x, SIGMA, to_x0(x, SIGMA, guess))
    torch.testing.assert_close(back, guess, rtol=1e-8, atol=1e-8)


@given(sigma=st.floats(1e-4, 1e4), x0=st.floats(-1, 1), noise=st.floats(-4, 4))
@settings(max_examples=100, deadline=None)
def test_conversions_mean_what_they_say(sigma: float, x0: float, noise: float) -> None:
    level, clean, eps = (torch.tensor([v], dtype=torch.float64) for v in (sigma, x0, noise))
    x = clean + level * eps
    alpha = 1 / (1 + level**2).sqrt()
    targets = {"eps": eps, "v": alpha * eps - level * alpha * clean, "flow": eps - clean}
    for name, (to_x0, from_x0) in PAIRS.items():
        tolerance = 1e-11 * (1 + sigma + 1 / sigma)
        torch.testing.assert_close(from_x0(x, level, clean), targets[name], rtol=0, atol=tolerance)
        torch.testing.assert_close(to_x0(x, level, targets[name]), clean, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", PAIRS)
def test_error_conversions(name: str) -> None:
    error_from = {"eps": eps_error, "v": v_error, "flow": flow_error}[name]
    from_x0 = PAIRS[name][1]
    x0, noise = _pictures()
    x = add_noise(x0, SIGMA, noise)
    guess = x0 + 0.1 * torch.cos(x)
    squared = (from_x0(x, SIGMA, guess) - from_x0(x, SIGMA, x0)).square().flatten(1).sum(1)
    x0_error = (guess - x0).square().flatten(1).sum(1)
    torch.testing.assert_close(error_from(x0_error, SIGMA), squared, rtol=1e-6, atol=1e-12)


# --- preconditioning --------------------------------------------------------------------------


class Scripted(nn.Module):
    """Answers what it is told, and remembers what it was asked."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor | None = None) -> Tensor:
        self.asked = (x, noise_level, condition)
        return self.answer


def _answer(prediction: Prediction, x: Tensor, sigma: Tensor, x0: Tensor, sd: float) -> Tensor:
    """What the net must say so that the denoiser says x0, by each prediction's own definition."""
    if prediction == "edm":
        level = sigma.reshape(-1, 1, 1, 1)
        total = level**2 + sd**2
        return (x0 - sd**2 / total * x) * total.sqrt() / (level * sd)
    return {"x0": lambda *a: a[-1], "v": v_from_x0, "eps": eps_from_x0}[prediction](x, sigma, x0)


@pytest.mark.parametrize("prediction", ["edm", "x0", "v", "eps"])
def test_every_prediction_gives_the_same_denoiser(prediction: Prediction) -> None:
    x0, noise = _pictures()
    x, sd, label = add_noise(x0, SIGMA, noise), 0.37, torch.arange(len(SIGMA))
    net = Scripted(_answer(prediction, x, SIGMA, x0, sd))
    denoised = Preconditioned(net, sd, prediction)(x, SIGMA, label)
    torch.testing.assert_close(denoised, x0, rtol=1e-8, atol=1e-8)
    seen, noise_level, condition = net.asked
    torch.testing.assert_close(noise_level, SIGMA.log())
    torch.testing.assert_close(seen, x / (SIGMA**2 + sd**2).sqrt().reshape(-1, 1, 1, 1))
    assert condition is label


@pytest.mark.parametrize("prediction", ["edm", "x0", "v", "eps"])
def test_coefficients_are_what_forward_uses(prediction: Prediction) -> None:
    x, answer = _pictures()
    denoiser = Preconditioned(Scripted(answer), 0.6, prediction)
    c_skip, c_out = (c.reshape(-1, 1, 1, 1) for c in denoiser.coefficients(SIGMA))
    torch.testing.assert_close(denoiser(x, SIGMA), c_skip * x + c_out * answer)


def test_edm_with_unit_data_is_v_prediction_with_the_sign_turned() -> None:
    edm, v = (Preconditioned(nn.Identity(), 1.0, p) for p in ("edm", "v"))
    for mine, theirs, sign in zip(
        edm.coefficients(SIGMA), v.coefficients(SIGMA), (1, -1), strict=True
    ):
        torch.testing.assert_close(mine, sign * theirs)


def test_edm_target_has_unit_variance_at_every_sigma() -> None:
    """EDM, appendix B.6: that is what c_skip and c_out are chosen for."""
    sd, n = 0.4, 20_000
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, n, 1, 1, 1, generator=generator, dtype=torch.float64)
    for level in (0.01, 0.4, 30.0):
        sigma = torch.full((n,), level, dtype=torch.float64)
        x = add_noise(sd * x0, sigma, noise)
        target = _answer("edm", x, sigma, sd * x0, sd)
        assert target.var().item() == pytest.approx(1, abs=0.05)
        assert (target * x).mean().abs() < 0.05 * x.std()  # and does not repeat what x tells


def test_low_precision_nets_answer_in_the_pictures_own_type() -> None:
    net = Scripted(torch.zeros(2, 1, 4, 4, dtype=torch.bfloat16))
    out = Preconditioned(net, 0.5)(torch.ones(2, 1, 4, 4), torch.ones(2))
    assert out.dtype == torch.float32


def test_preconditioned_refuses() -> None:
    with pytest.raises(ValueError, match="sigma_data"):
        Preconditioned(nn.Identity(), 0.0)
    with pytest.raises(ValueError, match="'flow'"):
        Preconditioned(nn.Identity(), 0.5, "flow")  # pyrefly: ignore


# --- teachers from elsewhere ------------------------------------------------------------------


class DiffusersLike(nn.Module):
    """An exact eps / sample / v net on DDPM's linear table, called as diffusers calls its nets."""

    def __init__(self, prediction_type: str) -> None:
        super().__init__()
        self.alphas_cumprod = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
        self.prediction_type = prediction_type
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(
        self, x_t: Tensor, timestep: Tensor, class_labels: Tensor | None = None
    ) -> SimpleNamespace:
        steps = torch.arange(1000, dtype=torch.float64)
        table = self.alphas_cumprod
        log_sigma = torch.zeros_like(timestep, dtype=torch.float64)
        whole = timestep.long().clamp(max=998)
        levels = (0.5 * ((1 - table) / table).log())[torch.stack([whole, whole + 1])]
        log_sigma = levels[0] + (timestep - steps[whole]) * (levels[1] - levels[0])
        sigma = log_sigma.exp()
        x = x_t * (1 + sigma**2).sqrt()[:, None]
        x0 = mixture()(x, sigma, class_labels)
        out = {"epsilon": eps_from_x0, "v_prediction": v_from_x0, "sample": lambda *a: a[-1]}
        return SimpleNamespace(sample=out[self.prediction_type](x, sigma, x0))


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_from_diffusers_recovers_the_exact_denoiser(prediction_type: str) -> None:
    unet = DiffusersLike(prediction_type)
    denoiser = from_diffusers(unet, unet.alphas_cumprod, prediction_type)  # pyrefly: ignore
    assert denoiser.sigma_min == pytest.approx(0.01, rel=1e-3)
    assert denoiser.sigma_max == pytest.approx(157.4, rel=1e-2)
    sigma = torch.logspace(-1.99, 2.19, 50, dtype=torch.float64)
    x = mixture().sample(50, torch.Generator().manual_seed(0))
    x = add_noise(x, sigma, torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator()))
    label = torch.arange(50) % 3
    for condition in (None, label):
        exact = mixture()(x, sigma, condition)
        torch.testing.assert_close(denoiser(x, sigma, condition), exact, rtol=1e-3, atol=1e-4)
    assert list(denoiser.parameters()) == [unet.weight]


def test_from_diffusers_hits_its_own_steps() -> None:
    unet = DiffusersLike("epsilon")
    table = unet.alphas_cumprod
    steps = torch.tensor([0, 1, 500, 998, 999])
    sigma = ((1 - table) / table).sqrt()[steps]
    t = from_diffusers(unet, table).timestep(sigma)
    torch.testing.assert_close(t.double(), steps.double(), rtol=0, atol=2e-3)


def test_from_diffusers_refuses() -> None:
    unet = DiffusersLike("epsilon")
    denoiser = from_diffusers(unet, unet.alphas_cumprod)
    with pytest.raises(ValueError, match="outside the range of this net"):
        denoiser(torch.zeros(1, 2), torch.tensor([0.002]))
    with pytest.raises(ValueError, match="prediction_type"):
        from_diffusers(unet, unet.alphas_cumprod, "x0")  # pyrefly: ignore
    with pytest.raises(ValueError, match="zero terminal SNR"):
        from_diffusers(unet, torch.tensor([0.9, 0.5, 0.0]))


def test_from_edm_turns_labels_into_one_hot() -> None:
    seen: list[Tensor | None] = []

    def fn(x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        seen.append(class_labels)
        return mixture()(x, sigma, None if class_labels is None else class_labels.argmax(1))

    x, sigma = torch.randn(3, 2, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    label = torch.tensor([2, 0, 1])
    denoiser = from_edm(fn, num_classes=3)
    torch.testing.assert_close(denoiser(x, sigma, label), mixture()(x, sigma, label))
    torch.testing.assert_close(denoiser(x, sigma), mixture()(x, sigma))
    assert seen[0] is not None
    assert torch.equal(seen[0], torch.eye(3, dtype=torch.float64)[label])
    assert seen[1] is None
    with pytest.raises(ValueError, match="num_classes"):
        from_edm(fn)(x, sigma, label)
