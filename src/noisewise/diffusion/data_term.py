"""Real pictures in the fake score's loss: a distillation that can correct its teacher.

    fake score:  alpha E w |f_psi(x) - (beta / alpha) x_g|^2
                 + (1 - alpha) E w |f_psi(x*) - s x0*|^2
    generator:   E <d, (f_phi - (beta / alpha) x_g) - lambda d>,    d = f_phi(x) - f_psi(x)

x* are noised real pictures. With ``beta = 1 - (1 - alpha) s``, the fake score at its optimum is

    f_psi = (beta p_g m_g + (1 - beta) p* m*) / (alpha p_g + (1 - alpha) p*)

where p_g and p* are the densities of the noised pictures, m_g and m* their exact denoisers. If the
generator draws the data, f_psi is m*: against a perfect teacher the gradient is 0 there, for every
alpha and s. Against a teacher with errors, s below 1 makes the fake score look at the densities
too: where the generator draws too little, f_psi is pulled down, and the generator comes back.

Paper: RealUID (universal inverse distillation with real data, ICLR 2026), with alpha 0.94 and beta
0.96, so s = 0.67; it has no discriminator. It is written there for flows and lambda 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noisewise.diffusion.denoiser import Denoiser
from noisewise.diffusion.losses import Weight, mean_pixels
from noisewise.diffusion.noise import add_noise


@dataclass(frozen=True)
class DataTerm:
    """The shares of real and of generated pictures.

    Attributes:
        weight: 1 - alpha, from 0 to below 1; 0: no data.
        target: s, what the fake score learns to say of a real picture, as a share of it.

    Example:
        >>> term = DataTerm(0.06, 0.68)
        >>> round(term.alpha, 4), round(term.beta, 4), round(term.generated, 3)
        (0.94, 0.9592, 1.02)
    """

    weight: float = 0.0
    target: float = 0.68

    @property
    def alpha(self) -> float:
        """Share of the generated pictures."""
        return 1 - self.weight

    @property
    def beta(self) -> float:
        """Share of the generated pictures in what the fake score says."""
        return 1 - self.weight * self.target

    @property
    def generated(self) -> float:
        """What the fake score learns to say of a generated picture, as a share: beta / alpha."""
        return self.beta / self.alpha if self.weight else 1.0


def fake_loss_with_data(
    fake: Denoiser,
    generated: Tensor,
    real: Tensor,
    sigma: Tensor,
    noise: Tensor,
    weight: Weight,
    term: DataTerm,
    condition: Tensor | None = None,
) -> Tensor:
    """Loss of the fake score on generated and real pictures, in one call of it; a scalar.

    Args:
        fake: f_psi.
        generated: x_g, float [n, ...]; detached here.
        real: x0*, float [m, ...].
        sigma: noise level of each generated and then of each real picture, [n + m].
        noise: standard normal, for all of them.
        weight: that of the teacher's training.
        term: shares.
        condition: class of each, int64 [n + m], or None.

    Source: RealUID, the real-data matching loss.

    Example:
        >>> one, zero, noise = torch.ones(1, 1), torch.zeros(1, 1), torch.zeros(2, 1)
        >>> fake_loss_with_data(lambda x, s, c: x, zero, one, torch.ones(2), noise, lambda s: s,
        ...                     DataTerm(0.5, 0.0))
        tensor(0.5000)
    """
    n, x0 = len(generated), torch.cat([generated.detach(), real])
    found = fake(add_noise(x0, sigma, noise), sigma, condition)
    aim = torch.cat([term.generated * x0[:n], term.target * x0[n:]])
    losses = weight(sigma) * mean_pixels((found - aim).square())
    return term.alpha * losses[:n].mean() + term.weight * losses[n:].mean()
