"""The edge of stability: the sharpest curvature, and how it bends a law over many steps.

Papers: Cohen et al. 2021, "Gradient descent on neural networks typically occurs at the edge of
stability" (2 / sharpness, and with momentum); Cohen et al. 2022, "Adaptive gradient methods at the
edge of stability" (the preconditioned sharpness). The sum of the two curvatures is ours.

The best rate of one step is 1 / lr = curvature along the gradient + curvature along its noise. Over
many steps and at large batches, the sharpest direction limits the rate, although one gradient
hardly shows it: above lr = 2 / lambda_max it grows from step to step. So for many steps

    1 / lr(B) = 1 / (c lr_1(B)) + 1 / edge,      edge = 2 / lambda_max(P H)

with c from the learning rate that was tuned at one batch. On exact quadratics with a fixed number
of examples the best rate rises with the batch up to 1.5 to 1.9 / lambda_max and stays there; for
real nets see benchmarks/learning_rate/laws.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from noisewise.scaling.curvature import Route, hessian_product, mean_hessian_product
from noisewise.scaling.flat import Flat, Loss
from noisewise.scaling.intervals import Estimate, mean_estimate
from noisewise.scaling.laws import Law, checked_batch

__all__ = ["EdgeOfStability", "bent", "sharpness"]

_CLOSE = 2e-3  # the search ends if an eigenvalue changes by less than this share in one product


def sharpness(
    flat: Flat,
    loss: Loss,
    batches: Sequence[object],
    generator: torch.Generator,
    preconditioner: Tensor | None = None,
    route: Route = "double_backward",
    products: int = 24,
) -> Estimate:
    """Return lambda_max(P H), the sharpest curvature for updates P g.

    Power iteration on ``P^(1/2) H P^(1/2)`` of each half of the batches; then both directions are
    measured on all batches. A direction is too sharp on its own half and not sharp enough on the
    other half. To second order both errors have the same size, so they cancel in the mean.

    Args:
        flat: the model's parameters.
        loss: scalar mean loss.
        batches: data for the Hessian, batches of equal size; a single batch gives no interval, and
            the value holds for its data only.
        generator: draws the first direction, on the CPU.
        preconditioner: diagonal [p], not negative, for example 1 / (sqrt(v) + eps); None: 1.
        route: how to compute Hessian products, not "three_losses".
        products: most products with the Hessian of a half, 1 or more.

    Raises:
        ValueError: without a batch, or for fewer than 1 product.

    Source: Cohen et al. 2021, section 2; 2022, section 2 for P.

    Example:
        >>> from torch import nn
        >>> model = nn.Linear(2, 1, bias=False)
        >>> x = [torch.tensor([[2.0, 0.0], [0.0, 1.0]])] * 2  # H = diag(4, 1) / 2
        >>> half = lambda m, x: 0.5 * m(x).square().mean()
        >>> round(sharpness(Flat(model), half, x, torch.Generator().manual_seed(0)).value, 3)
        2.0
    """
    if not batches or products < 1:
        raise ValueError("The sharpness needs a batch for the Hessian and at least one product.")
    root = flat.vector().new_ones(()) if preconditioner is None else preconditioner.sqrt()
    first = torch.randn(flat.num_parameters, generator=generator).to(flat.vector())
    numbers = range(len(batches))
    halves = (numbers[::2], numbers[1::2]) if len(batches) > 1 else (numbers,)
    values = torch.zeros(len(batches), dtype=torch.float64)
    for half in halves:
        u = root * _sharpest(flat, loss, batches, half, first, root, route, products)
        for j, batch in enumerate(batches):
            product = hessian_product(flat, loss, batch, u, route, j)
            values[j] += float(u.double() @ product.double()) / len(halves)
    return mean_estimate(values)


def _sharpest(
    flat: Flat,
    loss: Loss,
    batches: Sequence[object],
    half: Sequence[int],
    first: Tensor,
    root: Tensor,
    route: Route,
    products: int,
) -> Tensor:
    """Direction of the largest eigenvalue; a shift removes larger negative eigenvalues."""
    x, value, moved = first / first.norm(), math.inf, 0.0
    for _ in range(products):
        y = moved * x + root * mean_hessian_product(flat, loss, batches, root * x, route, half)
        before, value = value, float(x.double() @ y.double())
        length = y.norm()
        if not length > 0:  # flat in every direction that was tried
            return x
        x = y / length
        if abs(value - before) > _CLOSE * abs(value):
            continue
        if value > 0:
            return x
        moved, value = moved + 2 * abs(value), math.inf  # H + c keeps the order and turns the signs
    return x


def bent(ratio: float, share: float) -> float:
    """Return a law's factor, bent below the edge: ``1 / ((1 - share) / ratio + share)``.

    Args:
        ratio: lr(B) / lr(B_0) by the law of one step.
        share: tuned learning rate over the edge of stability; at 1 or above, the result is 1.

    Source: the formula at the head of this module, divided by the tuned rate.

    Example:
        >>> bent(4.0, 0.0), bent(4.0, 0.5), bent(4.0, 1.0), bent(4.0, 2.0)
        (4.0, 1.6, 1.0, 1.0)
    """
    share = min(share, 1.0)
    if ratio <= 0:
        return 1.0 if share == 1 else 0.0
    return 1 / ((1 - share) / ratio + share) if share or math.isfinite(ratio) else math.inf


@dataclass(frozen=True)
class EdgeOfStability:
    """A law for many steps: ``1 / lr(B) = 1 / (scale lr_1(B)) + 1 / edge``.

    Assumes: a constant learning rate, the same number of examples at each batch, and a curvature
    and a preconditioner that stay as measured. Adam with a small epsilon adapts its preconditioner
    to the sharpest direction; there this law failed on a real net.

    Args:
        law: law of one step.
        edge: learning rate above which the sharpest direction grows, in the law's units.
        scale: c, the best rate over the law's rate far below the edge.

    Raises:
        ValueError: for an edge or a scale that is not positive.

    Source: the head of this module.

    Example:
        >>> from noisewise.scaling.laws import Linear
        >>> law = EdgeOfStability.through(Linear(1.0, 64), edge=2.0, lr=1.0, batch=64)
        >>> law.lr(64), law.lr(192), round(law.lr(64e6), 3)
        (1.0, 1.5, 2.0)
    """

    law: Law
    edge: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not min(self.edge, self.scale) > 0:
            raise ValueError("The edge of stability and the scale of the law must be above 0.")

    @classmethod
    def through(cls, law: Law, edge: float, lr: float, batch: float) -> EdgeOfStability:
        """Return the law that gives `lr` at `batch`.

        Raises:
            ValueError: if lr is not below the edge.
        """
        if not 0 < lr < edge:
            raise ValueError(
                f"A learning rate of {lr:.3g} is not below the edge of {edge:.3g}: lower it."
            )
        return cls(law, edge, 1 / (1 / lr - 1 / edge) / law.lr(checked_batch(batch)))

    def lr(self, batch: float) -> float:
        """Return the harmonic sum of the scaled law and the edge."""
        return 1 / (1 / (self.scale * self.law.lr(batch)) + 1 / self.edge)

    def gain(self, batch: float) -> float:
        """Return the gain of one step at this rate, ``gain_1 x (2 - x)``, x = lr / lr_1."""
        times = self.lr(batch) / self.law.lr(batch)
        return self.law.gain(batch) * times * (2 - times)
