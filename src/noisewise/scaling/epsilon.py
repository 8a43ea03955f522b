"""What Adam's epsilon does: how many coordinates it rules, and how long an update is with another.

Source: ours, from Kingma and Ba 2015. An update g / (sqrt(v) + eps) has the mean square
``v / (sqrt(v) + eps)^2`` for each coordinate, because E g^2 = v. With another epsilon, the rate
that keeps the length of an update changes by the inverse of that length. For eps far below sqrt(v)
it is 1, far above (SGD) it is proportional to eps; both limits are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["EpsilonPoint", "epsilon_curve", "factor_between", "share_below"]

_GRID = tuple(10.0**k for k in range(-12, 1))
_MOST = 1 << 20  # coordinates that are looked at


@dataclass(frozen=True)
class EpsilonPoint:
    """An optimiser's updates with one epsilon.

    Attributes:
        epsilon: the value.
        length: root mean square of an update's coordinates, per unit of learning rate.
        share: share of coordinates with sqrt(v) below epsilon.
    """

    epsilon: float
    length: float
    share: float


def epsilon_curve(optimizer: torch.optim.Optimizer) -> tuple[EpsilonPoint, ...]:
    """Return updates' lengths for epsilons from 1e-12 to 1; empty without a second moment.

    Args:
        optimizer: one like Adam, after some steps; at most a million coordinates are looked at.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(4))
        >>> adam = torch.optim.Adam([weight])
        >>> weight.grad = torch.full((4,), 1e-3)
        >>> adam.step()
        >>> [round(p.length, 3) for p in epsilon_curve(adam) if p.epsilon in (1e-8, 1e-3)]
        [1.0, 0.5]
    """
    roots = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            v = state.get("exp_avg_sq", state.get("square_avg"))
            if isinstance(v, Tensor) and v.is_floating_point() and not v.is_sparse:
                roots.append(_root(v, state, group))
    total = sum(root.numel() for root in roots)
    if not total:
        return ()
    step = math.ceil(total / _MOST)
    root = torch.cat([r.flatten()[::step].double().cpu() for r in roots])
    found = []
    for epsilon in _GRID:
        length = float((root / (root + epsilon)).square().mean().sqrt())
        found.append(EpsilonPoint(epsilon, length, float((root < epsilon).double().mean())))
    return tuple(found)


def _root(v: Tensor, state: dict, group: dict) -> Tensor:
    """sqrt(v), bias-corrected."""
    v = v.detach()
    if hasattr(v, "to_local"):
        v = v.to_local()
    betas, steps = group.get("betas"), float(state.get("step", 0) or 0)
    bias = 1 - float(betas[1]) ** max(1.0, steps) if betas is not None and steps else 1.0
    return (v.float() / bias).sqrt()


def factor_between(curve: tuple[EpsilonPoint, ...], old: float, new: float) -> float:
    """Return by how much the rate changes from one epsilon to another, at equal update length.

    Lengths are interpolated in logarithms, and extrapolated as in the limits.

    Raises:
        ValueError: if the measurement has no second moment of an optimiser like Adam.

    Example:
        >>> table = (EpsilonPoint(1e-8, 1.0, 0.0), EpsilonPoint(1e-4, 0.5, 0.4))
        >>> factor_between(table, 1e-8, 1e-4)
        2.0
    """
    if len(curve) < 2:
        raise ValueError(
            "This measurement does not know the second moment of an optimiser like Adam, so it "
            "cannot say what another epsilon does: measure again, after some steps."
        )
    return _at(curve, old) / _at(curve, new)


def _at(curve: tuple[EpsilonPoint, ...], epsilon: float) -> float:
    if epsilon <= curve[0].epsilon:
        return curve[0].length
    if epsilon >= curve[-1].epsilon:
        return curve[-1].length * curve[-1].epsilon / epsilon
    for left, right in pairwise(curve):
        if epsilon <= right.epsilon:
            share = math.log(epsilon / left.epsilon) / math.log(right.epsilon / left.epsilon)
            low, high = max(left.length, 1e-30), max(right.length, 1e-30)
            return low * (high / low) ** share
    raise AssertionError("the curve ascends")


def share_below(curve: tuple[EpsilonPoint, ...], epsilon: float) -> float:
    """Return the share of coordinates with sqrt(v) below an epsilon, from the nearest point."""
    return min(curve, key=lambda p: abs(math.log(p.epsilon / max(epsilon, 1e-12)))).share
