"""The figure of the theory: best learning rate against batch, for several epsilons.

Papers: Li et al. 2024 (the surge); Su 2024 (epsilon). The lines use exact Gaussian moments, the
dashed lines are the mean-field forms. In one panel the curvature is largest where all signs agree,
and there is a surge: the best rate falls again at large batches. The other panel has a diagonal
Hessian and no surge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from noisewise.scaling import GaussianSoftSign

_COORDINATES = 64


@dataclass(frozen=True)
class Line:
    """Best learning rate over its maximum, exact and by the mean field; peak: where it falls."""

    epsilon: float
    rates: tuple[float, ...]
    mean_field: tuple[float, ...]
    peak: float | None


@dataclass(frozen=True)
class Panel:
    """One Hessian and its lines."""

    title: str
    batches: tuple[float, ...]
    lines: tuple[Line, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def panels(epsilons: Sequence[float], signal: float) -> tuple[Panel, Panel]:
    """Return both panels.

    Args:
        epsilons: Adam's epsilon, in units of the standard deviation of one example's gradient.
        signal: gradient over that standard deviation, the same for every coordinate.

    Example:
        >>> aligned, diagonal = panels([0.0, 0.3], 0.03)
        >>> aligned.lines[0].peak is None, aligned.lines[1].peak, diagonal.lines[0].peak
        (False, None, None)
    """
    one = torch.ones(_COORDINATES, dtype=torch.float64)
    aligned = torch.outer(one, one) + 0.02 * one.diag()
    diagonal = torch.linspace(0.2, 2.0, _COORDINATES, dtype=torch.float64).diag()
    return (
        _panel("curvature along the signs", aligned, epsilons, signal),
        _panel("diagonal curvature", diagonal, epsilons, signal),
    )


def _panel(title: str, hessian: torch.Tensor, epsilons: Sequence[float], signal: float) -> Panel:
    one = torch.ones(_COORDINATES, dtype=torch.float64)
    batches = tuple(2.0 ** (k / 2) for k in range(37))
    lines = []
    for epsilon in epsilons:
        law = GaussianSoftSign(signal * one, one, hessian, epsilon=float(epsilon))
        exact = [law.lr(batch) for batch in batches]
        top = max(exact)
        field = law.mean_field()
        falls = exact[-1] < 0.98 * top
        lines.append(
            Line(
                float(epsilon),
                tuple(rate / top for rate in exact),
                tuple(field.lr(batch) / top for batch in batches),
                batches[exact.index(top)] if falls else None,
            )
        )
    return Panel(title, batches, tuple(lines))
