"""One-step distillation by score identities: the generator loss and the fake-score loss.

Papers: Zhou et al. 2024, "Score identity distillation" (SiD); Huang et al. 2024, "Flow generator
matching" (FGM); Su 2024, spaces.ac.cn/archives/10567; Yin et al. 2024 (DMD).

There are three nets: a frozen teacher f_phi(x, sigma) ~ E[x0 | x] of the data; a generator
x_g = G(z); and a fake score f_psi(x, sigma) ~ E[x_g | x] of the generator's own pictures, trained
at the same time. With x = x_g + sigma eps and d = f_phi(x) - f_psi(x):

    L1 = E w |d|^2,    L2 = E w <d, f_phi(x) - x_g>,    L_lambda = L2 - lambda L1

lambda 1/2 gives the unbiased gradient of the Fisher divergence (FGM): 2 grad(L2 - L1/2) includes
how f_psi changes with the generator, which grad L1 ignores. lambda 1 keeps the outer expectation of
the same divergence fixed. SiD found 1.2 best on large sets; above about 1.5 training diverges. With
both outputs detached every lambda gives w (f_psi - f_phi) dx_g/dtheta: DMD.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from noisewise.diffusion.denoiser import Denoiser
from noisewise.diffusion.losses import Weight, denoising_loss, mean_pixels
from noisewise.diffusion.noise import add_noise

ScoreWeight = Literal["l1", "sigma", "none"]
GradThrough = Literal["both", "none"]


@dataclass(frozen=True)
class ScoreIdentity:
    """The result of one generator step; see `score_identity_loss`.

    Attributes:
        loss: L_lambda, a scalar to call backward on. Its value does not show convergence: at lambda
            1 its mean is 0. Measure a distance instead.
        fisher: mean |d|^2 over pictures and pixels, unweighted, detached; falls slowly as the
            generator's score comes closer to the teacher's.
        x_g: the generator's pictures, detached, for the two checks below.
        weight: mean of w over the pictures, detached.
    """

    loss: Tensor
    fisher: Tensor
    x_g: Tensor
    weight: Tensor

    @property
    def x_g_std(self) -> float:
        """Standard deviation of all pixels; far from that of the data: collapse or noise."""
        return self.x_g.std(correction=0).item()

    @property
    def x_g_absmax(self) -> float:
        """Largest |pixel|; pictures are in [-1, 1], so 5 means that training has failed."""
        return self.x_g.abs().amax().item()


@contextmanager
def held(*denoisers: Denoiser) -> Iterator[None]:
    """Freeze the parameters of the denoisers: gradients pass through them to x, not into them.

    Sets requires_grad to False inside the block and restores it at the end. This matters while the
    graph is built, so the backward pass may run later, outside the block. Denoisers that are not an
    nn.Module are not changed: freeze the parameters that they use yourself.

    Example:
        >>> net = nn.Linear(1, 1)
        >>> x = torch.ones(1, requires_grad=True)
        >>> with held(net):
        ...     y = net(x)
        >>> y.backward()
        >>> net.weight.grad is None, x.grad is not None, net.weight.requires_grad
        (True, True, True)
    """
    modules = (d for d in denoisers if isinstance(d, nn.Module))
    free = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in free:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in free:
            parameter.requires_grad_(True)


def score_identity_loss(
    teacher: Denoiser,
    fake: Denoiser,
    x_g: Tensor,
    sigma: Tensor,
    noise: Tensor,
    condition: Tensor | None = None,
    lam: float = 1.0,
    weight: ScoreWeight = "l1",
    grad_through: GradThrough = "both",
    sigma_data: float = 0.5,
    target: float = 1.0,
) -> ScoreIdentity:
    """Generator loss ``L_lambda = mean w <f_phi - f_psi, (f_phi - x_g) - lambda (f_phi - f_psi)>``.

    Each net is called once. No gradient reaches the parameters of teacher and fake (they are `held`
    while the graph is built); it flows through both nets to x, and through x_g.

    Args:
        teacher: f_phi, a denoiser of the data, in eval mode.
        fake: f_psi, a denoiser of the generator's pictures, in eval mode.
        x_g: the generator's pictures with their graph, float [n, ...].
        sigma: noise level of each, [n], for example drawn from `KarrasUniform`.
        noise: standard normal, with the shape of x_g.
        condition: class of each, int64 [n], or None.
        lam: lambda; 1 by default, 0.5 gives the unbiased Fisher gradient.
        weight: w, one per picture, never differentiated. "l1" (as in the papers):
            ``1 / max(mean |x_g - f_phi|, 1e-5)``. "sigma": ``1 / max(c_out(sigma), 0.01)`` with
            c_out = sigma sd / sqrt(sigma^2 + sd^2): about the mean of "l1", but a function of sigma
            alone, as the identity behind the loss requires; at most 100. "none": 1.
        grad_through: "both" nets (SiD), or "none": both outputs are constants, which is DMD and
            needs no backward pass through either net.
        sigma_data: standard deviation sd of the data; used by weight "sigma" only.
        target: with real pictures (`data_term`), the share of x_g in place of x_g; else 1.

    Returns:
        The loss (mean over pictures and pixels), the unweighted mean |d|^2, and x_g.

    Raises:
        ValueError: if weight or grad_through is unknown.

    Source: Zhou et al. 2024 (SiD), algorithm 1; lambda 1/2: Huang et al. 2024.

    Example:
        >>> x_g = torch.ones(1, 1, requires_grad=True)
        >>> teacher, fake = (lambda x, sigma, c: 0 * x), (lambda x, sigma, c: x)
        >>> step = score_identity_loss(teacher, fake, x_g, torch.ones(1), torch.zeros(1, 1),
        ...                            weight="none", grad_through="none")
        >>> step.loss.backward()
        >>> x_g.grad  # f_psi - f_phi: downhill, x_g goes towards the teacher
        tensor([[1.]])
    """
    for name, value, known in (
        ("weight", weight, get_args(ScoreWeight)),
        ("grad_through", grad_through, get_args(GradThrough)),
    ):
        if value not in known:
            raise ValueError(f"{name} {value!r} is unknown: use one of {', '.join(known)}")
    with held(teacher, fake), torch.no_grad() if grad_through == "none" else nullcontext():
        x = add_noise(x_g, sigma, noise)
        f_phi, f_psi = teacher(x, sigma, condition), fake(x, sigma, condition)
    d = f_phi - f_psi
    residual = f_phi - x_g
    aim = residual if target == 1 else f_phi - target * x_g
    product = mean_pixels(d * aim.sub(d, alpha=lam))
    w = _weight(weight, residual.detach(), sigma, sigma_data)
    loss = (product if w is None else w * product).mean()
    mean_weight = torch.ones_like(loss) if w is None else w.mean()
    return ScoreIdentity(loss, d.detach().square().mean(), x_g.detach(), mean_weight.detach())


def fake_score_loss(
    fake: Denoiser,
    x_g: Tensor,
    sigma: Tensor,
    noise: Tensor,
    weight: Weight,
    condition: Tensor | None = None,
) -> Tensor:
    """Loss of the fake score: the teacher's denoising loss on the generator's pictures.

    Args:
        fake: f_psi, in train mode.
        x_g: the generator's pictures, float [n, ...]; detached here, so the same pictures can be
            used for this step and for the generator's step.
        sigma: noise level of each, [n], drawn as in the training of the teacher.
        noise: standard normal, with the shape of x_g.
        weight: the weight that the teacher was trained with.
        condition: class of each, int64 [n], or None.

    Returns:
        One loss per picture, [n].

    Source: Zhou et al. 2024 (SiD), algorithm 1.

    Example:
        >>> x_g, noise = torch.ones(1, 1), torch.ones(1, 1)
        >>> fake_score_loss(lambda x, sigma, c: x, x_g, torch.ones(1), noise, lambda sigma: sigma)
        tensor([1.])
    """
    return denoising_loss(fake, x_g.detach(), sigma, noise, weight, condition)


def _weight(kind: ScoreWeight, residual: Tensor, sigma: Tensor, sigma_data: float) -> Tensor | None:
    if kind == "l1":
        return mean_pixels(residual.abs()).clamp(min=1e-5).reciprocal()
    if kind == "sigma":
        c_out = sigma * sigma_data * torch.rsqrt(sigma.square() + sigma_data**2)
        return c_out.clamp(min=0.01).reciprocal()
    return None
