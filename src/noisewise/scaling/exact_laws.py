"""Sign and soft sign with the exact Gaussian moments of every coordinate: no mean field.

Sources: `moments` for the integrals; Li et al. 2024 and Su 2024 for the mean-field forms that this
law replaces. It still assumes that the noise of the coordinates is Gaussian and independent. If the
noise is correlated like the curvature, as on real nets, this law fails too; the measured law in
`preconditioned` does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from noisewise.scaling.intervals import Estimate
from noisewise.scaling.laws import checked_batch
from noisewise.scaling.moments import soft_sign_moments
from noisewise.scaling.preconditioned import Preconditioned
from noisewise.scaling.sign_laws import SoftSign

if TYPE_CHECKING:
    from noisewise.scaling.direct import Burst

__all__ = ["GaussianSoftSign", "gaussian_law", "gaussian_sums"]

_SLOPE, _CURVATURE = "gaussian_slope_", "gaussian_curvature_"  # followed by the batch


@dataclass(frozen=True, eq=False)
class GaussianSoftSign:
    """The best learning rate of g / sqrt(g^2 + eps^2), exact for independent Gaussian noise.

        lr*(B) = mu'g / (mu'H mu + sum H_ii (E phi_i^2 - mu_i^2)),     mu_i = E phi_i

    eps = 0 is sign descent; eps -> inf gives eps times SGD's law with tr(Sigma H).

    Args:
        g: true gradient [p].
        sigma: standard deviation of one example's gradient [p], positive.
        hessian: matrix [p, p], or a function v -> H v.
        diagonal: H_ii [p]; None: taken from the matrix.
        epsilon: eps, >= 0, in units of the gradient.

    Raises:
        ValueError: for shapes that do not match, sigma that is not positive, negative epsilon, or
            a Hessian given as a function without its diagonal.

    Example:
        >>> law = GaussianSoftSign(torch.ones(4), torch.ones(4), torch.eye(4))
        >>> round(law.lr(1), 4)  # erf(1 / sqrt 2): the mean of the sign
        0.6827
    """

    g: Tensor
    sigma: Tensor
    hessian: Tensor | Callable[[Tensor], Tensor]
    diagonal: Tensor | None = None
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        """Check the shapes."""
        if self.g.ndim != 1 or self.sigma.shape != self.g.shape or bool((self.sigma <= 0).any()):
            raise ValueError("g and sigma must be vectors of equal length, with positive sigma.")
        if self.epsilon < 0:
            raise ValueError(f"epsilon is {self.epsilon}: it must not be negative.")
        if not isinstance(self.hessian, Tensor) and self.diagonal is None:
            raise ValueError("A Hessian given as a function needs its diagonal: pass diagonal=.")

    @classmethod
    def from_burst(
        cls, burst: Burst, epsilon: float, probes: int, generator: torch.Generator
    ) -> GaussianSoftSign:
        """Make the law from the gradients of a calibration.

        g_i has the sign of the mean gradient and the size of the unbiased signal, 0 where that is
        negative; then all are scaled by one factor so that their squares sum to the unbiased
        |g|^2. H_ii is Hutchinson's v_i (H v)_i; its weighted sums are unbiased with any number of
        probes.

        Args:
            burst: gradients and Hessian.
            epsilon: the optimiser's epsilon.
            probes: number of Rademacher vectors, 1 or more.
            generator: draws the probes, on the CPU.

        Raises:
            ValueError: if the gradient cannot be told from its noise.

        Source: our own; Hutchinson 1990 for the diagonal.
        """
        kept = burst.signal.clamp_min(0)
        total, seen = float(burst.signal.double().sum()), float(kept.double().sum())
        if not total > 0:
            raise ValueError("The gradient cannot be told from its noise: give more micro-batches.")
        g = burst.rows.mean(0).sign() * kept.sqrt() * math.sqrt(total / seen)
        diagonal = torch.zeros_like(g)
        for _ in range(probes):
            v = torch.randint(0, 2, g.shape, generator=generator).to(g) * 2 - 1
            diagonal += v * burst.product(v) / probes
        # A coordinate without noise (a dead unit) keeps its sign: so give it a tiny deviation.
        sigma = burst.variance.sqrt().clamp_min(torch.finfo(g.dtype).tiny ** 0.25)
        return cls(g, sigma, burst.product, diagonal, epsilon)

    def _product(self, v: Tensor) -> Tensor:
        return self.hessian @ v if isinstance(self.hessian, Tensor) else self.hessian(v)

    def moments(self, batch: float) -> tuple[float, float]:
        """Return E[phi]'g and E[phi'H phi]."""
        root = math.sqrt(checked_batch(batch))
        first, second = soft_sign_moments(
            self.g * root / self.sigma, self.epsilon * root / self.sigma
        )
        diagonal = self.diagonal
        if diagonal is None:
            assert isinstance(self.hessian, Tensor)
            diagonal = self.hessian.diagonal()
        spread = (diagonal * (second - first.square())).sum()
        return float(first @ self.g), float(first @ self._product(first) + spread)

    def lr(self, batch: float) -> float:
        """Return the learning rate; inf if the curvature is not positive."""
        slope, curvature = self.moments(batch)
        return slope / curvature if curvature > 0 else math.inf

    def gain(self, batch: float) -> float:
        """Return the decrease of the loss in that step."""
        slope, curvature = self.moments(batch)
        return slope**2 / (2 * curvature) if curvature > 0 else math.inf

    def mean_field(self) -> SoftSign:
        """Return the closed form that assumes one signal-to-noise ratio for all coordinates.

        Source: Su 2024, with the constant for Adam's own averages (see `sign_laws`) at eps = 0,
        which agrees with SGD at eps -> inf.
        """
        soft = torch.hypot(self.g, self.g.new_tensor(self.epsilon))
        nu = self.g / soft.clamp_min(torch.finfo(self.g.dtype).tiny)
        quadratic = float(nu @ self._product(nu))
        diagonal = self.diagonal
        if diagonal is None:
            assert isinstance(self.hessian, Tensor)
            diagonal = self.hessian.diagonal()
        noise = float(self.sigma.square().sum())
        signal = float(self.g.square().sum()) + len(self.g) * self.epsilon**2
        return SoftSign(float(nu @ self.g), quadratic, float(diagonal.sum()), noise / signal)


def gaussian_sums(
    burst: Burst, epsilon: float, batches: Sequence[float], probes: int, seed: int
) -> dict[str, Estimate]:
    """Return E[phi]'g and E[phi'H phi] at several batches, for `Measurement.curvature`.

    Args:
        burst: gradients and Hessian.
        epsilon: the optimiser's epsilon.
        batches: examples per step.
        probes: number of probes of the diagonal; each probe and each batch costs a product with
            the Hessian.
        seed: seed of the probes.

    Returns:
        Two numbers for each batch; empty if the gradient cannot be told from its noise.
    """
    if not float(burst.signal.double().sum()) > 0:
        return {}
    generator = torch.Generator().manual_seed(seed)
    law, found = GaussianSoftSign.from_burst(burst, epsilon, probes, generator), {}
    for batch in batches:
        slope, curvature = law.moments(batch)
        found[f"{_SLOPE}{batch:.17g}"] = Estimate(slope, -math.inf, math.inf)
        found[f"{_CURVATURE}{batch:.17g}"] = Estimate(curvature, -math.inf, math.inf)
    return found


def gaussian_law(curvature: Mapping[str, Estimate]) -> Preconditioned | None:
    """Return the law from the table of `gaussian_sums`; None if it was not measured.

    Example:
        >>> law = GaussianSoftSign(torch.ones(4), torch.ones(4), torch.eye(4))
        >>> table = {}
        >>> for batch in (1.0, 4.0):
        ...     slope, curved = law.moments(batch)
        ...     table[f"gaussian_slope_{batch:g}"] = Estimate(slope, 0, math.inf)
        ...     table[f"gaussian_curvature_{batch:g}"] = Estimate(curved, 0, math.inf)
        >>> found = gaussian_law(table)
        >>> round(found.lr(4), 6) == round(law.lr(4), 6)
        True
    """
    known = sorted(
        (float(name.removeprefix(_SLOPE)), value.value, curvature[other].value)
        for name, value in curvature.items()
        if name.startswith(_SLOPE) and (other := name.replace(_SLOPE, _CURVATURE)) in curvature
    )
    usable = [(b, slope, curved) for b, slope, curved in known if min(slope, curved) > 0]
    if len(usable) < 2:
        return None
    batches, slopes, curvatures = zip(*usable, strict=True)
    return Preconditioned(batches, slopes, curvatures, (0.0,) * len(batches))
