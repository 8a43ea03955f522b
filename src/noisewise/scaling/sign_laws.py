"""Adam as sign descent, in closed form: the surge, and how epsilon removes it (mean field).

Papers: Li et al. 2024, "Surge phenomenon in optimal learning rate and batch size scaling"; Su 2024
(mean field, epsilon); Su 2025 (the constant c: with beta2 near 1 Adam's own average of g^2 makes
the noise batch K = B_simple, not pi/2 B_simple).

Both laws assume independent coordinates with one signal-to-noise ratio. On a real net they gave a
curvature of the noise six times too low and a surge that did not exist. They are for understanding
and comparison; the advice does not use them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from noisewise.scaling.laws import checked_batch

__all__ = ["SignDescent", "SoftSign"]


@dataclass(frozen=True)
class SoftSign:
    """Update g / sqrt(g^2 + eps^2), mean field.

        beta = (1 + K / B)^(-1/2),
        lr*(B) = beta sum nu_i g_i / (beta^2 sum nu_i nu_j H_ij + (1 - beta^2) sum H_ii)

    with nu_i = g_i / sqrt(g_i^2 + eps^2) and K = tr Sigma / (|g|^2 + N eps^2). A surge (a fall of
    lr* at large batches) needs sum nu_i nu_j H_ij > 2 sum H_ii; growing eps removes it.

    Args:
        slope: sum nu_i g_i.
        quadratic: sum_ij nu_i nu_j H_ij = nu'H nu.
        diagonal: curvature of the pure noise update, sum H_ii if coordinates are independent.
        noise_batch: K, examples.

    Source: Su 2024 (epsilon); Li et al. 2024, equation 12, for eps = 0.

    Example:
        >>> law = SoftSign(slope=1.0, quadratic=4.0, diagonal=1.0, noise_batch=300.0)
        >>> law.surges, round(law.batch_peak, 1)
        (True, 150.0)
        >>> law.lr(law.batch_peak) > max(law.lr(10), law.lr(10_000))
        True
    """

    slope: float
    quadratic: float
    diagonal: float
    noise_batch: float

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not (self.diagonal > 0 and self.noise_batch >= 0):
            raise ValueError(
                f"diagonal is {self.diagonal} and noise_batch is {self.noise_batch}: diagonal must "
                "be positive, and noise_batch must not be negative."
            )

    @classmethod
    def from_kappa2(
        cls, slope: float, quadratic: float, diagonal: float, kappa2: float
    ) -> SoftSign:
        """Make the law from kappa^2, a mean of sigma_i^2 / g_i^2: K = pi kappa^2 / 2, eps = 0."""
        return cls(slope, quadratic, diagonal, math.pi * kappa2 / 2)

    def beta(self, batch: float) -> float:
        """Return the share of the sign that survives the noise, (1 + K / B)^(-1/2)."""
        return (1 + self.noise_batch / checked_batch(batch)) ** -0.5

    def curvature(self, batch: float) -> float:
        """Return E phi'H phi."""
        share = self.beta(batch) ** 2
        return share * self.quadratic + (1 - share) * self.diagonal

    def lr(self, batch: float) -> float:
        """Return beta slope / curvature; inf if the curvature is not positive."""
        curvature = self.curvature(batch)
        return self.beta(batch) * self.slope / curvature if curvature > 0 else math.inf

    def gain(self, batch: float) -> float:
        """Return (beta slope)^2 / (2 curvature); it grows with the batch, with or without surge."""
        curvature = self.curvature(batch)
        signal = self.beta(batch) * self.slope
        return signal**2 / (2 * curvature) if curvature > 0 else math.inf

    @property
    def surges(self) -> bool:
        """Whether lr* falls again at large batches: quadratic > 2 diagonal."""
        return self.quadratic > 2 * self.diagonal

    @property
    def batch_peak(self) -> float:
        """Batch of the largest learning rate; inf if it only rises.

        beta_peak^2 = D / O with O = quadratic - diagonal, so B_peak = K D / (O - D).
        """
        if not self.surges:
            return math.inf
        rest = self.quadratic - 2 * self.diagonal
        return self.noise_batch * self.diagonal / rest


@dataclass(frozen=True)
class SignDescent:
    """Pure sign updates, in the notation of the surge paper.

        lr*(B) = lr_max / ((beta_n / beta + beta / beta_n) / 2),   beta = (1 + K / B)^(-1/2),
        B_peak = K beta_n^2 / (1 - beta_n^2),   gain = gain_max / (1 + B_2 / B),
        B_2 = K beta_n^2 / (1 + beta_n^2)

    K = pi kappa^2 / 2. At B_peak lr* is lr_max; for beta_n >= 1 it only rises.

    Assumes: what the module says, and a positive sum of the off-diagonal curvature.

    Args:
        lr_max: sum |g_i| / (2 sqrt(D O)).
        beta_noise: sqrt(D / O), D = sum H_ii, O = sum_{i != j} sign(g_i g_j) H_ij.
        noise_batch: K, examples.
        gain_max: gain of one step at an infinite batch.

    Source: Li et al. 2024, equations 13 to 20 (there K / B is pi sigma^2 / (2 B mu^2)).

    Example:
        >>> law = SignDescent(lr_max=0.01, beta_noise=0.5, noise_batch=300.0)
        >>> round(law.batch_peak, 6), round(law.lr(100), 6)
        (100.0, 0.01)
        >>> round(1 / law.batch_gain - 1 / law.batch_peak, 9) == round(2 / 300, 9)
        True
    """

    lr_max: float
    beta_noise: float
    noise_batch: float
    gain_max: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not (self.lr_max > 0 and self.beta_noise > 0 and self.noise_batch >= 0):
            raise ValueError(
                "lr_max and beta_noise must be positive, and noise_batch must not be negative."
            )

    @classmethod
    def from_sums(
        cls, abs_g: float, diagonal: float, off_diagonal: float, noise_batch: float
    ) -> SignDescent:
        """Make the law from sum |g_i|, D and O.

        Raises:
            ValueError: if D or O is not positive; use `SoftSign` then.
        """
        if not (off_diagonal > 0 and diagonal > 0):
            raise ValueError(
                f"off_diagonal is {off_diagonal} and diagonal is {diagonal}, but both must be "
                "positive: use SoftSign(abs_g, diagonal + off_diagonal, diagonal, noise_batch)."
            )
        return cls(
            abs_g / (2 * math.sqrt(diagonal * off_diagonal)),
            math.sqrt(diagonal / off_diagonal),
            noise_batch,
            abs_g**2 / (2 * (diagonal + off_diagonal)),
        )

    def beta(self, batch: float) -> float:
        """Return the share of the sign that survives the noise."""
        return (1 + self.noise_batch / checked_batch(batch)) ** -0.5

    def lr(self, batch: float) -> float:
        """Return lr_max / ((beta_n / beta + beta / beta_n) / 2)."""
        ratio = self.beta_noise / self.beta(batch)
        return 2 * self.lr_max / (ratio + 1 / ratio)

    def gain(self, batch: float) -> float:
        """Return gain_max / (1 + B_2 / B)."""
        return self.gain_max / (1 + self.batch_gain / checked_batch(batch))

    @property
    def batch_peak(self) -> float:
        """B_peak; inf if the learning rate only rises."""
        if self.beta_noise >= 1:
            return math.inf
        return self.noise_batch * self.beta_noise**2 / (1 - self.beta_noise**2)

    @property
    def batch_gain(self) -> float:
        """B_2, the noise scale of the gain."""
        return self.noise_batch * self.beta_noise**2 / (1 + self.beta_noise**2)
