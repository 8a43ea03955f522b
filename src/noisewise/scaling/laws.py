"""How the best learning rate depends on the batch size: rules of thumb and the laws of SGD.

Papers: McCandlish et al. 2018 (B_noise, frontier); Goyal et al. 2017 (linear); Krizhevsky 2014 and
Malladi et al. 2022 (square root); Su 2024 (variance view; Muon). The laws for Adam are in
`sign_laws`, `exact_laws` and `preconditioned`.

A law is a frozen value with `lr(batch)`, its best learning rate, and `gain(batch)`, the decrease of
the loss in one step at that rate. One step w -> w - lr phi_B gives, to second order,

    lr*(B) = E[phi_B]'g / E[phi_B' H phi_B],     gain(B) = (E[phi_B]'g)^2 / (2 E[phi_B' H phi_B]).

For a rule that starts from a known point (lr0 at batch0), the gain is relative to that point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "SGD",
    "Constant",
    "Frontier",
    "Law",
    "Linear",
    "Momentum",
    "Muon",
    "SquareRoot",
    "VarianceRule",
    "checked_batch",
]


class Law(Protocol):
    """Anything with the best learning rate and the gain of one step at a batch size."""

    def lr(self, batch: float) -> float:
        """Return the best learning rate by this law."""
        ...

    def gain(self, batch: float) -> float:
        """Return the decrease of the loss in one step at that rate."""
        ...


def checked_batch(batch: float) -> float:
    """Return the batch as a float.

    Raises:
        ValueError: if it is not a positive finite number.
    """
    if not (batch > 0 and math.isfinite(batch)):
        raise ValueError(f"A batch of {batch} examples is not possible: give a number above 0.")
    return float(batch)


def _positive(**named: float) -> None:
    for name, value in named.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}: give a positive number.")


@dataclass(frozen=True)
class Constant:
    """The learning rate does not depend on the batch.

    Assumes: the batch is far above the noise scale, so its noise does not matter.

    Source: the limit B >> B_noise of McCandlish et al. 2018, equation 2.6.

    Example:
        >>> Constant(0.1).lr(512)
        0.1
    """

    lr0: float

    def lr(self, batch: float) -> float:
        """Return lr0."""
        checked_batch(batch)
        return self.lr0

    def gain(self, batch: float) -> float:
        """Return 1: more examples gain nothing."""
        checked_batch(batch)
        return 1.0


@dataclass(frozen=True)
class Linear:
    """Twice the batch, twice the learning rate: ``lr0 B / B0``.

    Assumes: plain SGD with a batch far below the noise scale.

    Source: Goyal et al. 2017, section 2.1; the limit B << B_noise of McCandlish et al. 2018.

    Example:
        >>> Linear(0.1, 256).lr(512)
        0.2
    """

    lr0: float
    batch0: float

    def lr(self, batch: float) -> float:
        """Return lr0 B / B0."""
        return self.lr0 * checked_batch(batch) / checked_batch(self.batch0)

    def gain(self, batch: float) -> float:
        """Return B / B0: the gain is proportional to the examples."""
        return checked_batch(batch) / checked_batch(self.batch0)


@dataclass(frozen=True)
class SquareRoot:
    """Twice the batch, 1.41 times the learning rate: ``lr0 sqrt(B / B0)``.

    Assumes: a normalised update (Adam, sign) whose batch is far below the noise scale.

    Source: Malladi et al. 2022, section 5 (the SDE of Adam); Krizhevsky 2014.

    Example:
        >>> round(SquareRoot(0.1, 256).lr(512), 4)
        0.1414
    """

    lr0: float
    batch0: float

    def lr(self, batch: float) -> float:
        """Return lr0 sqrt(B / B0)."""
        return self.lr0 * math.sqrt(checked_batch(batch) / checked_batch(self.batch0))

    def gain(self, batch: float) -> float:
        """Return B / B0: the gain of a normalised step is proportional to its squared signal."""
        return checked_batch(batch) / checked_batch(self.batch0)


@dataclass(frozen=True)
class VarianceRule:
    """Keep the variance of one weight update: ``lr^2 V(B)`` constant.

    For SGD V ~ 1 / B, and this is the square root. For an update that is divided by the size of its
    own gradient, V ~ 1 / (1 + B / B_eps), B_eps = tr Sigma / (|g|^2 + N eps^2), and the rule is
    ``lr0 sqrt((1 + B / B_eps) / (1 + B0 / B_eps))``: constant below B_eps.

    Assumes: the noise of the update must not change. It ignores the curvature.

    Args:
        lr0: a good learning rate at batch0.
        batch0: its batch.
        b_epsilon: B_eps; 0 for SGD.

    Source: Krizhevsky 2014, section 5; Su 2024, the variance view.

    Example:
        >>> VarianceRule(0.1, 64).lr(256)
        0.2
    """

    lr0: float
    batch0: float
    b_epsilon: float = 0.0

    def _quietness(self, batch: float) -> float:
        return batch if self.b_epsilon == 0 else 1 + batch / self.b_epsilon

    def lr(self, batch: float) -> float:
        """Return the learning rate that keeps the variance of an update constant."""
        ratio = self._quietness(checked_batch(batch)) / self._quietness(checked_batch(self.batch0))
        return self.lr0 * math.sqrt(ratio)

    def gain(self, batch: float) -> float:
        """Return the squared signal of one step relative to batch0, at equal variance."""
        return (self.lr(batch) / self.lr0) ** 2


@dataclass(frozen=True)
class SGD:
    """Plain gradient descent: ``lr_max / (1 + B_noise / B)^alpha``, alpha = 1.

    lr_max = g'g / g'Hg, B_noise = tr(Sigma H) / g'Hg. Without a measured curvature,
    B_simple = tr Sigma / g'g replaces B_noise (exact if H is a multiple of the identity).

    Assumes: a quadratic loss over one step, and the noise at these weights. On a small real net the
    one-step optimum was within 13 % for B = 8 to 1024.

    Args:
        lr_max: best learning rate without noise.
        b_noise: noise scale in examples.
        gain_max: decrease of the loss in the best step without noise, (g'g)^2 / (2 g'Hg).
        alpha: 1; between 0.5 and 1 it is the paper's approximation for Adam, for comparison.

    Source: McCandlish et al. 2018, equations 2.6 to 2.8.

    Example:
        >>> SGD(1.0, 100.0).lr(100), SGD(1.0, 100.0, 4.0).gain(300)
        (0.5, 3.0)
    """

    lr_max: float
    b_noise: float
    gain_max: float = 1.0
    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        _positive(lr_max=self.lr_max, alpha=self.alpha)
        if not self.b_noise >= 0:
            raise ValueError(f"b_noise is {self.b_noise}: a noise scale must not be negative.")

    def lr(self, batch: float) -> float:
        """Return lr_max / (1 + B_noise / B)^alpha."""
        return self.lr_max / (1 + self.b_noise / checked_batch(batch)) ** self.alpha

    def gain(self, batch: float) -> float:
        """Return gain_max / (1 + B_noise / B)."""
        return self.gain_max / (1 + self.b_noise / checked_batch(batch))


@dataclass(frozen=True)
class Muon:
    """Orthogonalised updates: ``lr_max / sqrt(1 + B_simple / B)``; no surge.

    Assumes: a special Hessian (the same curvature along every singular direction of the update) and
    noise that shrinks all singular values equally; not tested on other cases.

    Source: Su 2025, mean field of sign-like updates (Muon); the signal factor of
    Li et al. 2024 with B_simple as its scale.

    Example:
        >>> Muon(0.02, 300.0).lr(100)
        0.01
    """

    lr_max: float
    b_simple: float
    gain_max: float = 1.0

    def lr(self, batch: float) -> float:
        """Return lr_max / sqrt(1 + B_simple / B)."""
        return self.lr_max / math.sqrt(1 + self.b_simple / checked_batch(batch))

    def gain(self, batch: float) -> float:
        """Return gain_max / (1 + B_simple / B)."""
        return self.gain_max / (1 + self.b_simple / checked_batch(batch))


@dataclass(frozen=True)
class Momentum:
    """Another law, in the units of an optimiser with momentum; it does not multiply the batch.

    In the end every gradient moves the weights by the same amount for any beta, so drift and
    diffusion over many steps do not depend on beta. Su 2025 multiplies the batch by
    (1 + beta) / (1 - beta), because the averaged gradient has that much less noise; but the weights
    keep the old noise too. On an exact quadratic over 200 steps the best learning rate at
    beta = 0.9 was 1.00 to 1.07 times that at 0 (the multiplier asks for up to 19), as tests/scaling
    shows; Wang et al. 2023 ("The marginal value of momentum") find the same.

    Assumes: many more steps than 1 / (1 - beta).

    Args:
        law: law for the optimiser without momentum.
        beta: momentum, 0 to below 1.
        accumulates: True for PyTorch's SGD, whose buffer is a sum (m = beta m + g), so the learning
            rate is multiplied by (1 - beta); False for averages (Adam, dampening = beta).

    Example:
        >>> round(Momentum(SGD(1.0, 0.0), 0.9, accumulates=True).lr(32), 3)
        0.1
    """

    law: Law
    beta: float
    accumulates: bool = False

    def __post_init__(self) -> None:
        """Check beta."""
        if not 0 <= self.beta < 1:
            raise ValueError(f"beta is {self.beta}: a momentum is from 0 to below 1.")

    def lr(self, batch: float) -> float:
        """Return the law's learning rate, times (1 - beta) if the buffer is a sum."""
        return self.law.lr(batch) * ((1 - self.beta) if self.accumulates else 1.0)

    def gain(self, batch: float) -> float:
        """Return the law's gain of one gradient."""
        return self.law.gain(batch)

    @property
    def claimed_multiplier(self) -> float:
        """(1 + beta) / (1 - beta): by how much averaging reduces the noise; not applied."""
        return (1 + self.beta) / (1 - self.beta)


@dataclass(frozen=True)
class Frontier:
    """Steps against examples to reach the same loss: ``(S / S_min - 1)(E / E_min - 1) = 1``.

    Args:
        b_noise: E_min / S_min, examples.
        steps_min: steps at an infinite batch; 1 gives S / S_min.

    Source: McCandlish et al. 2018, equations 2.11 and 2.12.

    Example:
        >>> frontier = Frontier(100.0)
        >>> frontier.steps(100), frontier.examples(100) / 100
        (2.0, 2.0)
    """

    b_noise: float
    steps_min: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        _positive(b_noise=self.b_noise, steps_min=self.steps_min)

    def steps(self, batch: float) -> float:
        """Return S_min (1 + B_noise / B)."""
        return self.steps_min * (1 + self.b_noise / checked_batch(batch))

    def examples(self, batch: float) -> float:
        """Return E_min (1 + B / B_noise), E_min = B_noise S_min."""
        return self.steps_min * (self.b_noise + checked_batch(batch))
