"""Score identities, exact: an affine generator's own optimal fake score is known in closed form.

With a Gaussian teacher everything inside the expectations is quadratic in (z, eps), so a cubature
of eight equally weighted points gives each expectation without error, and gradients are compared
to 1e-8. A mixture as teacher is checked by Monte Carlo.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from noisewise.diffusion import (
    EDMWeight,
    Preconditioned,
    Prediction,
    ScoreIdentity,
    add_noise,
    denoising_loss,
    eps_from_x0,
    fake_score_loss,
    held,
    score_identity_loss,
    v_from_x0,
)
from oracle import AffineGenerator, GaussianMixture, cubature, gaussian, mixture

POINTS = cubature(4)
Z, EPS = POINTS[:, :2], POINTS[:, 2:]
LEVELS = [0.1, 0.4, 1.5, 6.0]
Weight = Literal["l1", "sigma", "none"]


def _generator(scale: float = 0.6) -> AffineGenerator:
    matrix = scale * torch.tensor([[0.9, -0.3], [0.5, 0.7]], dtype=torch.float64)
    return AffineGenerator(matrix, torch.tensor([0.3, -0.4], dtype=torch.float64))


def _level(sigma: float, n: int = len(POINTS)) -> Tensor:
    return torch.full((n,), sigma, dtype=torch.float64)


def _step(
    generator: AffineGenerator,
    level: float,
    lam: float = 1.0,
    weight: Weight = "none",
    grad_through: Literal["both", "none"] = "both",
    teacher: GaussianMixture | None = None,
) -> ScoreIdentity:
    """One exact generator step, psi at its optimum and held."""
    return score_identity_loss(
        teacher or gaussian(),
        generator.law(),
        generator(Z),
        _level(level),
        EPS,
        lam=lam,
        weight=weight,
        grad_through=grad_through,
        sigma_data=0.5,
    )


def _gradients(generator: AffineGenerator, loss: Tensor) -> Tensor:
    grads = torch.autograd.grad(loss, [generator.matrix, generator.shift])
    return torch.cat([g.flatten() for g in grads])


def _fisher(
    generator: AffineGenerator, level: float, moving_psi: bool, moving_x: bool = True
) -> Tensor:
    """L1 = E |f_phi - f_psi*|^2 (mean over pixels); either dependence on theta can be cut."""
    x = add_noise(generator(Z), _level(level), EPS)
    x = x if moving_x else x.detach()
    d = gaussian()(x, _level(level)) - generator.law(moving=moving_psi)(x, _level(level))
    return d.square().mean()


# --- the identity -----------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.2, 1.0, 5.0])
def test_identity_behind_the_loss(level: float) -> None:
    """E <h(x), f_psi*(x)> = E <h(x), x_g> for any h of x and sigma; psi* from a mixture."""
    n, law = 100_000, mixture()
    g = torch.Generator().manual_seed(0)
    x_g, noise = law.sample(n, g), torch.randn(n, 2, generator=g, dtype=torch.float64)
    sigma = _level(level, n)
    x = add_noise(x_g, sigma, noise)
    for h in (torch.sin(3 * x), x**3, gaussian()(x, sigma) - law(x, sigma)):
        gap = (h * (law(x, sigma) - x_g)).sum(1)
        assert abs(gap.mean()) < 4.5 * gap.std() / math.sqrt(n)
    cheat = (x_g * (law(x, sigma) - x_g)).sum(1)  # an h that knows x_g breaks it
    assert abs(cheat.mean()) > 20 * cheat.std() / math.sqrt(n)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("weight", ["none", "sigma"])
def test_value_at_lambda_one_is_zero_and_says_nothing(level: float, weight: Weight) -> None:
    step = _step(_generator(), level, lam=1.0, weight=weight)
    assert step.fisher > 1e-5  # far from converged, and yet
    assert abs(step.loss.item()) < 1e-12


# --- the gradients ----------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_lambda_half_is_the_full_fisher_gradient(level: float) -> None:
    """FGM: grad L1 in full, psi* moving with theta, = 2 grad(L2 - L1/2) with psi held."""
    generator = _generator()
    full = _gradients(generator, _fisher(generator, level, moving_psi=True))
    ours = 2 * _gradients(generator, _step(generator, level, lam=0.5).loss)
    torch.testing.assert_close(ours, full, rtol=1e-8, atol=1e-11)


def test_lambda_half_against_finite_differences() -> None:
    generator, h = _generator(), 1e-5
    ours = 2 * _gradients(generator, _step(generator, 0.4, lam=0.5).loss)
    theta = nn.utils.parameters_to_vector(generator.parameters()).detach()
    for i in range(len(theta)):
        values = []
        for sign in (1, -1):
            moved = theta.clone()
            moved[i] += sign * h
            nn.utils.vector_to_parameters(moved, generator.parameters())
            values.append(_fisher(generator, 0.4, moving_psi=True).item())
        assert ours[i].item() == pytest.approx(
            (values[0] - values[1]) / (2 * h), rel=1e-5, abs=1e-9
        )


@pytest.mark.parametrize("level", LEVELS)
def test_lambda_one_holds_the_outer_expectation(level: float) -> None:
    """Su: the gradient of E_{x ~ sg(p_theta)} |f_phi - f_psi*(theta)|^2 = 2 grad(L2 - L1)."""
    generator = _generator()
    stopped = _gradients(generator, _fisher(generator, level, moving_psi=True, moving_x=False))
    ours = 2 * _gradients(generator, _step(generator, level, lam=1.0).loss)
    torch.testing.assert_close(ours, stopped, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("level", LEVELS)
def test_l1_alone_is_biased(level: float) -> None:
    """L1 = L_0 - L_1 with psi held misses how psi* moves: here it points the opposite way."""
    narrow = AffineGenerator(
        0.5 * torch.linalg.cholesky(gaussian().covariances[0]), gaussian().means[0]
    )
    held_l1 = _step(narrow, level, lam=0.0).loss - _step(narrow, level, lam=1.0).loss
    torch.testing.assert_close(held_l1, _fisher(narrow, level, moving_psi=False))
    growth = torch.cat([narrow.matrix.detach().flatten(), torch.zeros(2)])
    biased = _gradients(narrow, held_l1) @ growth
    full = _gradients(narrow, _fisher(narrow, level, moving_psi=True)) @ growth
    right = _gradients(narrow, _step(narrow, level, lam=0.5).loss) @ growth
    assert biased > 0  # a narrow generator is told to shrink
    assert full < 0
    assert right < 0  # and grows, as it should


def test_lambda_half_and_one_on_a_mixture_by_monte_carlo() -> None:
    """Both identities with a teacher that is no Gaussian; error bars from independent batches."""
    generator, teacher, level, n = _generator(), mixture(), 0.4, 20_000
    for lam, moving_x in ((0.5, True), (1.0, False)):
        gaps = []
        for seed in range(12):
            g = torch.Generator().manual_seed(seed)
            z, eps = torch.randn(2, n, 2, generator=g, dtype=torch.float64)
            sigma = _level(level, n)
            x_g = generator(z)
            x = add_noise(x_g, sigma, eps)
            x = x if moving_x else x.detach()
            d = teacher(x, sigma) - generator.law(moving=True)(x, sigma)
            truth = _gradients(generator, d.square().mean())
            step = score_identity_loss(
                teacher, generator.law(), generator(z), sigma, eps, lam=lam, weight="none"
            )
            gaps.append(2 * _gradients(generator, step.loss) - truth)
        gap = torch.stack(gaps)
        error = gap.std(0) / math.sqrt(len(gaps))
        assert (gap.mean(0).abs() < 5 * error).all()
        assert (error < 0.1 * truth.abs().max()).all()


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0, 1.2])
@pytest.mark.parametrize("weight", ["none", "l1", "sigma"])
def test_detached_nets_are_dmd_at_every_lambda(lam: float, weight: Weight) -> None:
    """W (f_psi - f_phi) dx_g/dtheta."""
    generator, level = _generator(), 0.4
    ours = _gradients(generator, _step(generator, level, lam, weight, "none").loss)
    x_g = generator(Z)
    x = add_noise(x_g.detach(), _level(level), EPS)
    f_phi, f_psi = gaussian()(x, _level(level)), generator.law()(x, _level(level))
    w = {
        "none": torch.ones(len(Z)).double(),
        "l1": 1 / (x_g - f_phi).abs().mean(1).clamp(min=1e-5),
        "sigma": torch.full((len(Z),), math.hypot(level, 0.5) / (level * 0.5)).double(),
    }[weight].detach()
    dmd = _gradients(generator, (w[:, None] * (f_psi - f_phi) * x_g).mean())
    torch.testing.assert_close(ours, dmd)


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0, 1.2])
@pytest.mark.parametrize("weight", ["none", "l1", "sigma"])
def test_loss_by_its_definition(lam: float, weight: Weight) -> None:
    """Gradient through both nets and x_g, weights held, against the formula written out."""
    generator = _generator()
    g = torch.Generator().manual_seed(0)
    z, eps = torch.randn(2, 50, 2, generator=g, dtype=torch.float64)
    sigma = torch.logspace(-3, 1, 50, dtype=torch.float64)
    x_g = generator(z)
    x = x_g + sigma[:, None] * eps
    f_phi, f_psi = mixture()(x, sigma), generator.law()(x, sigma)
    w = {
        "none": lambda: torch.ones(50).double(),
        "l1": lambda: 1 / (x_g - f_phi).abs().mean(1).clamp(min=1e-5),
        "sigma": lambda: 1 / (sigma * 0.7 / (sigma**2 + 0.49).sqrt()).clamp(min=0.01),
    }[weight]().detach()
    l1 = (w[:, None] * (f_phi - f_psi) ** 2).mean()
    l2 = (w[:, None] * (f_phi - f_psi) * (f_phi - x_g)).mean()
    truth = l2 - lam * l1
    ours = score_identity_loss(
        mixture(), generator.law(), generator(z), sigma, eps, None, lam, weight, sigma_data=0.7
    )
    torch.testing.assert_close(ours.loss, truth)
    torch.testing.assert_close(_gradients(generator, ours.loss), _gradients(generator, truth))
    torch.testing.assert_close(ours.fisher, (f_phi - f_psi).square().mean())


# --- where it leads ---------------------------------------------------------------------------


def _converge(loss: Callable[[AffineGenerator], Tensor], scale: float = 0.3) -> AffineGenerator:
    generator = _generator(scale)
    optimiser = torch.optim.Adam(generator.parameters(), lr=0.03, betas=(0.0, 0.999))
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0, total_iters=300)
    for _ in range(300):
        optimiser.zero_grad()
        loss(generator).backward()
        optimiser.step()
        schedule.step()
    return generator


@pytest.mark.parametrize("lam", [0.5, 1.0, 1.2])
def test_affine_generator_finds_the_data(lam: float) -> None:
    def loss(generator: AffineGenerator) -> Tensor:
        steps = [_step(generator, level, lam, "sigma").loss for level in (0.1, 0.4, 1.5)]
        return torch.stack(steps).sum()

    law = _converge(loss).law()
    torch.testing.assert_close(law.means, gaussian().means, rtol=0, atol=0.01)
    torch.testing.assert_close(law.covariances, gaussian().covariances, rtol=0, atol=0.02)


def test_l1_alone_does_not_find_the_data() -> None:
    def loss(generator: AffineGenerator) -> Tensor:
        both = [
            _step(generator, level, lam, "sigma").loss
            for level in (0.1, 0.4, 1.5)
            for lam in (0, 1)
        ]
        return sum(both[0::2], start=torch.zeros(())) - sum(both[1::2], start=torch.zeros(()))

    law = _converge(loss).law()
    assert law.covariances[0].trace() < 0.2 * gaussian().covariances[0].trace()  # it collapses


@pytest.mark.parametrize(("lam", "comes_back"), [(0.5, True), (1.0, True), (1.2, False)])
def test_only_above_one_a_much_too_wide_generator_runs_away(lam: float, comes_back: bool) -> None:
    """Why lambda > 1 can explode, and lambda <= 1 cannot.

    For variances c of the data and g > c of the generator, d L_lambda / dg has the sign of
    1 - c_phi - lambda (c_psi - c_phi), with c_phi = c / (c + sigma^2), c_psi = g / (g + sigma^2):
    as g -> infinity that of 1 - lambda.
    """
    generator, level = _generator(scale=100.0), 1.5
    grads = _gradients(generator, _step(generator, level, lam).loss)
    outward = grads[:4] @ generator.matrix.detach().flatten()
    assert bool(outward > 0) is comes_back  # downhill is inwards


# --- gradients land where they should ---------------------------------------------------------


class Net(nn.Module):
    """A small net with parameters everywhere."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(2, 2, generator=g, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.randn(2, generator=g).double(), requires_grad=False)
        self.calls = 0

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor | None = None) -> Tensor:
        self.calls += 1
        return torch.tanh(x @ self.weight + noise_level[:, None] + self.frozen)


@pytest.mark.parametrize("grad_through", ["both", "none"])
def test_no_gradient_lands_in_teacher_or_fake(grad_through: Literal["both", "none"]) -> None:
    teacher, fake = (Preconditioned(Net(seed), 0.5) for seed in (1, 2))
    generator = _generator()
    step = score_identity_loss(
        teacher, fake, generator(Z), _level(0.4), EPS, grad_through=grad_through
    )
    net = fake.net
    assert isinstance(net, Net)
    assert net.weight.requires_grad  # given back at once, so the fake step can follow
    assert not net.frozen.requires_grad  # and what was frozen before stays so
    step.loss.backward()
    assert generator.matrix.grad is not None
    assert generator.matrix.grad.abs().sum() > 0
    for module in (teacher, fake):
        assert all(p.grad is None for p in module.parameters())
    assert net.calls == 1
    assert not step.fisher.requires_grad
    assert not step.x_g.requires_grad


def test_gradient_goes_through_each_of_the_two_nets() -> None:
    generator = _generator()
    teacher, fake = (Preconditioned(Net(seed), 0.5) for seed in (1, 2))
    cut = lambda d: lambda x, s, c: d(x, s, c).detach()  # noqa: E731

    def gradients(a: Callable[..., Tensor], b: Callable[..., Tensor]) -> Tensor:
        loss = score_identity_loss(a, b, generator(Z), _level(0.4), EPS, weight="none").loss
        return _gradients(generator, loss)

    whole = gradients(teacher, fake)
    for a, b in ((cut(teacher), fake), (teacher, cut(fake)), (cut(teacher), cut(fake))):
        assert (gradients(a, b) - whole).abs().max() > 1e-3


def test_held_gives_back_after_an_error() -> None:
    net = Net(0)

    def fail() -> None:
        with held(net):
            assert not net.weight.requires_grad
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="middle"):
        fail()
    assert net.weight.requires_grad


@pytest.mark.parametrize("prediction", ["edm", "v", "eps"])
def test_same_gradient_whatever_the_teacher_predicts(prediction: Prediction) -> None:
    """An exact Gaussian teacher behind an EDM, a v or an eps net."""
    sd = 0.5

    class Exact(nn.Module):
        def forward(self, x_in: Tensor, noise_level: Tensor, condition: Tensor | None) -> Tensor:
            sigma = noise_level.exp()
            x = x_in * (sigma**2 + sd**2).sqrt()[:, None]
            x0 = gaussian()(x, sigma)
            if prediction == "edm":
                total = (sigma**2 + sd**2)[:, None]
                return (x0 - sd**2 / total * x) * total.sqrt() / (sigma[:, None] * sd)
            return {"v": v_from_x0, "eps": eps_from_x0}[prediction](x, sigma, x0)

    generator = _generator()
    truth = _gradients(generator, _step(generator, 0.4, weight="l1").loss)
    step = score_identity_loss(
        Preconditioned(Exact(), sd, prediction), generator.law(), generator(Z), _level(0.4), EPS
    )
    torch.testing.assert_close(_gradients(generator, step.loss), truth, rtol=1e-7, atol=1e-10)


def test_condition_reaches_both_nets() -> None:
    seen = []

    def spy(x: Tensor, sigma: Tensor, condition: Tensor | None) -> Tensor:
        seen.append(condition)
        return mixture()(x, sigma, condition)

    label = torch.arange(len(Z)) % 3
    score_identity_loss(spy, spy, _generator()(Z), _level(1.0), EPS, label)
    assert [s is label for s in seen] == [True, True]


def test_images_in_channels_last_give_the_same_answer() -> None:
    g = torch.Generator().manual_seed(0)
    x_g, noise = torch.randn(2, 4, 3, 8, 8, generator=g)
    sigma = torch.logspace(-2, 1, 4)
    shrink = lambda x, s, c: x / (1 + s.reshape(-1, 1, 1, 1))  # noqa: E731
    other = lambda x, s, c: torch.tanh(x)  # noqa: E731
    plain = score_identity_loss(shrink, other, x_g, sigma, noise)
    last = [t.to(memory_format=torch.channels_last) for t in (x_g, noise)]
    torch.testing.assert_close(
        score_identity_loss(shrink, other, last[0], sigma, last[1]).loss, plain.loss
    )


def test_guards_and_refusals() -> None:
    step = _step(_generator(), 1.0)
    x_g = _generator()(Z)
    assert step.x_g_std == pytest.approx(x_g.std(correction=0).item())
    assert step.x_g_absmax == pytest.approx(x_g.abs().max().item())
    with pytest.raises(ValueError, match="'edm'"):
        _step(_generator(), 1.0, weight="edm")  # pyrefly: ignore
    with pytest.raises(ValueError, match="'teacher'"):
        _step(_generator(), 1.0, grad_through="teacher")  # pyrefly: ignore


def test_fake_score_loss_trains_the_fake_alone() -> None:
    generator, fake = _generator(), Preconditioned(Net(2), 0.5)
    loss = fake_score_loss(fake, generator(Z), _level(0.4), EPS, EDMWeight(0.5))
    truth = denoising_loss(fake, generator(Z), _level(0.4), EPS, EDMWeight(0.5))
    torch.testing.assert_close(loss, truth)
    loss.mean().backward()
    assert generator.matrix.grad is None
    assert isinstance(fake.net, Net)
    assert fake.net.weight.grad is not None
