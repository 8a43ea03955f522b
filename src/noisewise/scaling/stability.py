"""The edge of stability: the sharpest curvature, and the law that it bends over many steps.

Papers: Cohen et al. 2021, "Gradient descent on neural networks typically occurs at the edge of
stability" (2 / sharpness, and with momentum); Cohen et al. 2022, "Adaptive gradient methods at the
edge of stability" (the preconditioned sharpness). The sum of the two curvatures is ours.

One step does best at 1 / lr = curvature that the gradient meets + curvature that its noise meets.
Over many steps the sharpest direction, hardly seen in one gradient, decides at large batches: above
lr = 2 / lambda_max it grows from step to step. Hence for many steps

    1 / lr(B) = 1 / (c lr_1(B)) + 1 / edge,      edge = 2 / lambda_max(P H)

with c from the learning rate that was tuned at one batch. On exact quadratics at a fixed budget of
examples the best rate rises with the batch up to 1.5 to 1.9 / lambda_max and stays there; on real
nets see benchmarks/learning_rate/laws.py.
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

_CLOSE = 2e-3  # relative change of an eigenvalue from one product to the next that ends the search


def sharpness(
    flat: Flat,
    loss: Loss,
    batches: Sequence[object],
    generator: torch.Generator,
    preconditioner: Tensor | None = None,
    route: Route = "double_backward",
    products: int = 24,
) -> Estimate:
    """Return lambda_max(P H), the sharpest curvature that an update P g meets.

    Power iteration on ``P^(1/2) H P^(1/2)`` of either half of the batches, both directions then
    measured on all batches. A direction is too sharp on the half that it was chosen on and not
    sharp enough on the other, to second order by the same amount: in the mean the two cancel.

    Args:
        flat: the model's parameters.
        loss: scalar mean loss.
        batches: where the Hessian is taken, of equal size; with a single one there is no interval,
            and the value is that of the very data.
        generator: draws the first direction, on the CPU.
        preconditioner: diagonal [p], none negative, for example 1 / (sqrt(v) + eps); None: 1.
        route: of the Hessian, not "three_losses".
        products: with the Hessian of a half, at most.

    Raises:
        ValueError: without a batch, or for a number of products below 1.

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
        raise ValueError("The sharpness needs a batch for the Hessian and one product or more.")
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
    """Direction of the largest eigenvalue; where the one largest in size is negative, moved off."""
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
        moved, value = moved + 2 * abs(value), math.inf  # H + c: its order stays, the signs do not
    return x


def bent(ratio: float, share: float) -> float:
    """Return a law's factor between two batches, bent: ``1 / ((1 - share) / ratio + share)``.

    Args:
        ratio: lr(B) / lr(B_0) by the law of one step.
        share: tuned learning rate over the edge of stability; at 1 nothing changes any more.

    Source: the module's head, divided by the tuned rate.

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

    Assumes: a constant learning rate, as many examples at each batch, the curvature of the
    measurement throughout; and an update that does not adapt its preconditioner to the sharpest
    direction meanwhile, as Adam with a small epsilon does (there it failed on a real net).

    Args:
        law: of one step.
        edge: learning rate above which the sharpest direction grows, in the law's units.
        scale: c, how many times the law's rate is best where the edge is far away.

    Raises:
        ValueError: for an edge or a scale that is not positive.

    Source: the module's head.

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
        """Return the law that says `lr` at `batch`.

        Raises:
            ValueError: if lr is not below the edge.
        """
        if not 0 < lr < edge:
            raise ValueError(f"A learning rate of {lr:.3g} is not below the edge of {edge:.3g}.")
        return cls(law, edge, 1 / (1 / lr - 1 / edge) / law.lr(checked_batch(batch)))

    def lr(self, batch: float) -> float:
        """Return the harmonic sum of the scaled law and the edge."""
        return 1 / (1 / (self.scale * self.law.lr(batch)) + 1 / self.edge)

    def gain(self, batch: float) -> float:
        """Return what one step gains at this rate, ``gain_1 x (2 - x)``, x = lr / lr_1."""
        times = self.lr(batch) / self.law.lr(batch)
        return self.law.gain(batch) * times * (2 - times)
