"""Guidance that is distilled, where everything is known; see `gaussian_case`.

The pictures of one class are N(m, 1), and the means of all classes N(0, spread^2), so pictures of
all classes together are N(0, W^2) with ``W^2 = 1 + spread^2``. The generator draws N(mean, b^2) for
this class. All denoisers are straight lines, and so is the guided one:

    D_w = D_c + (w - 1) (D_c - D_all),   D_c = (v m + x) / (1 + v),   D_all = W^2 x / (W^2 + v)

At one noise level it is the denoiser of exactly one Gaussian. In precisions of noised pictures,

    1 / (b^2 + v) = w / (1 + v) - (w - 1) / (W^2 + v),    mean / (b^2 + v) = w m / (1 + v),

which is the density ``p_c^w / p_all^(w - 1)``: narrower than the class, and further from the rest.

Papers: Ho and Salimans 2022 (guidance); Zhou et al. 2024 (guidance in a distillation, arXiv
2406.01561).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noisewise.diffusion.denoiser import Denoiser
from noisewise.diffusion.distill import score_identity_loss
from noisewise.diffusion.gaussian_case import normal_pairs
from noisewise.diffusion.guidance import guided

_ALL_LEVELS = (0.0, 1e9)


@dataclass(frozen=True)
class GuidedCase:
    """A class of N(m, 1) among classes whose means are N(0, spread^2).

    Attributes:
        m: mean of the class.
        spread: standard deviation of the means of all classes.
        weight: of the guidance, w.

    Example:
        >>> GuidedCase(m=1.0, spread=1.0, weight=1.0).ends_at(0.5)  # without guidance: the class
        (1.0, 1.0)
        >>> mean, b = GuidedCase(m=1.0, spread=1.0, weight=1.5).ends_at(0.5)
        >>> round(mean, 3), round(b, 3)
        (1.227, 0.879)
    """

    m: float
    spread: float
    weight: float

    @property
    def teacher(self) -> Denoiser:
        """The guided denoiser of the class."""
        whole = 1 + self.spread**2

        def of_class(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
            v = sigma.square()[:, None]
            return (v * self.m + x) / (1 + v)

        def of_all(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
            return whole * x / (whole + sigma.square()[:, None])

        return guided(of_class, of_all, self.weight, _ALL_LEVELS)

    def ends_at(self, sigma: float) -> tuple[float, float]:
        """Mean and width of the generator at which the gradient is 0, at this noise level.

        Raises:
            ValueError: if the guidance is so strong that no Gaussian has this denoiser.
        """
        v = sigma**2
        precision = self.weight / (1 + v) - (self.weight - 1) / (1 + self.spread**2 + v)
        variance = 1 / precision - v
        if variance <= 0:
            raise ValueError(
                f"no Gaussian has the denoiser of guidance {self.weight:g} at noise {sigma:g}; "
                "use less of one of them"
            )
        return self.weight * self.m / ((1 + v) * precision), variance**0.5

    def gradient(self, mean: float, b: float, sigma: float, lam: float) -> tuple[float, float]:
        """Gradient of the loss by mean and b as training takes it, the fake score at its optimum.

        The fake score is trained inside its own guidance, so that the *guided* one is the mean of
        the generator's pictures at its optimum: it is a plain ``E[x_g | x]`` here.

        Args:
            mean: of the generator's pictures.
            b: their width.
            sigma: noise level.
            lam: lambda.

        Example:
            >>> case = GuidedCase(m=1.0, spread=1.0, weight=1.5)
            >>> max(map(abs, case.gradient(*case.ends_at(0.5), 0.5, 1.2))) < 1e-12
            True
        """
        place, width = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (mean, b))
        z, noise = normal_pairs()
        levels = torch.full((len(z),), sigma, dtype=torch.float64)

        def fake(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
            v = sigma.square()[:, None]
            return (v * mean + b**2 * x) / (b**2 + v)

        step = score_identity_loss(
            self.teacher, fake, place + width * z, levels, noise, lam=lam, weight="none"
        )
        found = torch.autograd.grad(step.loss, (place, width))
        return float(found[0]), float(found[1])
