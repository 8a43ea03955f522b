"""The loss of a distillation with real pictures where everything is known; see `gaussian_case`.

The data are N(0, 1), the generator draws N(0, b^2), and the teacher has learnt N(0, t^2): t is 1 if
it is right. Without data the generator ends at b = t. With data it ends between t and 1.

Paper: RealUID, see `data_term`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from noisewise.diffusion.data_term import DataTerm
from noisewise.diffusion.denoiser import Denoiser
from noisewise.diffusion.distill import score_identity_loss
from noisewise.diffusion.gaussian_case import line_denoiser, normal_pairs


def data_fake(b: float, term: DataTerm) -> Denoiser:
    """The fake score at its optimum: generated pictures N(0, b^2), real ones N(0, 1).

    Example:
        >>> x, sigma = torch.ones(1, 1), torch.ones(1)
        >>> data_fake(1.0, DataTerm(0.3))(x, sigma)  # the denoiser of the data
        tensor([[0.5000]])
    """

    def denoise(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        v = sigma.square()[:, None]
        generated, real = _density(x, b**2 + v), _density(x, 1 + v)
        said = term.beta * generated * (b**2 / (b**2 + v)) + (1 - term.beta) * real / (1 + v)
        return x * said / (term.alpha * generated + (1 - term.alpha) * real)

    return denoise


def data_gradient(
    b: float, sigma: float, lam: float, term: DataTerm, teacher_width: float = 1.0
) -> float:
    """Gradient of the loss by b as training takes it, the fake score at its optimum.

    Args:
        b: width of the generator.
        sigma: noise level.
        lam: lambda.
        term: shares of the real pictures.
        teacher_width: t.

    Example:
        >>> abs(data_gradient(1.0, 0.5, 1.2, DataTerm(0.1))) < 1e-12
        True
    """
    width = torch.tensor(b, dtype=torch.float64, requires_grad=True)
    z, noise = normal_pairs()
    levels = torch.full((len(z),), sigma, dtype=torch.float64)
    step = score_identity_loss(
        line_denoiser(teacher_width),
        data_fake(b, term),
        width * z,
        levels,
        noise,
        lam=lam,
        weight="none",
        target=term.generated,
    )
    return float(torch.autograd.grad(step.loss, width)[0])


def ends_at(
    sigma: float, lam: float, term: DataTerm, teacher_width: float, low: float, high: float
) -> float:
    """The width between low and high where the gradient is 0, by halving.

    Args:
        sigma: noise level.
        lam: lambda.
        term: shares of the real pictures.
        teacher_width: t.
        low: a width that the gradient makes wider.
        high: a width that it makes narrower.

    Example:
        >>> round(ends_at(0.5, 0.5, DataTerm(), 1.1, 0.5, 2.0), 6)
        1.1
    """
    for _ in range(30):
        middle = (low + high) / 2
        if data_gradient(middle, sigma, lam, term, teacher_width) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _density(x: Tensor, variance: Tensor) -> Tensor:
    """Of N(0, variance), up to a factor."""
    return (-x.square() / (2 * variance)).exp() * variance.rsqrt()
