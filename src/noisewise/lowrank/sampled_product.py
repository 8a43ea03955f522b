"""A product X Y approximated by a few columns of X and the matching rows of Y.

Drineas, Kannan and Mahoney 2006 (independent draws, lemma 4 and theorem 1); Duffield, Lund and
Thorup 2007 (priority sampling: no term twice, unbiased, with at most the variance of one term
fewer); arXiv 2501.17836 (priority sampling of matrix products).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from noisewise.lowrank.arrays import Array, numpy_home, numpy_too
from noisewise.lowrank.certificate import (
    PROBES,
    Error,
    Kind,
    Residual,
    certificate,
    check_probability,
    rounding,
)
from noisewise.lowrank.factors import LowRank
from noisewise.lowrank.inputs import Randomness, as_matrix, new_generator, product
from noisewise.lowrank.magnitude import frobenius_norm
from noisewise.lowrank.operators import Dense, Matrix, common_dtype, to_unit
from noisewise.lowrank.request import whole

Method = Literal["priority", "independent", "top"]


@numpy_home
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SampledProduct(LowRank):
    """X Y ~ sum over the sampled i of weight_i X[:, i] Y[i, :].

    Attributes:
        index: i of each sample, int64 [*batch, samples]; independent draws may repeat.
        weights: the weight of each sample, [*batch, samples].
        expected: root of the expected squared error [*batch]. For independent draws, the closed
            form without -|XY|^2, which would cost the product; so it is a little too large. For
            priority sampling, an unbiased estimate. For "top", which is not random, the bound.
        bound: for "top", the sum of |X_i| |Y_i| over the dropped i, which always holds; for
            independent draws, (1 + sqrt(8 ln 1/d)) / sqrt(c) |X|_F |Y|_F; for priority sampling,
            infinite.
    """

    index: Tensor
    weights: Tensor
    expected: Tensor
    bound: Tensor

    @property
    def columns(self) -> Tensor:
        """The chosen columns of X."""
        return self.index

    @property
    def rows(self) -> Tensor:
        """The chosen rows of Y, with the same index."""
        return self.index


@numpy_too
def sampled_matmul(
    x: object,
    y: object,
    samples: int,
    *,
    method: Method = "priority",
    generator: Randomness = None,
    failure_probability: float | None = 1e-6,
) -> SampledProduct:
    """Return X Y approximated by some of its rank-one terms.

    Let w_i = |X_i| |Y_i|, with the norms of column i of X and row i of Y; W is the sum of all w_i,
    and c the number of samples.

    * "independent": i is drawn with probability p_i = w_i / W and gets the weight 1 / (c p_i).
      Unbiased, ``E |err|_F^2 = (W^2 - |X Y|_F^2) / c``.
    * "priority": the c largest w_i / u_i with uniform u_i get the weight max(1, tau / w_i), where
      tau is the next largest w_i / u_i. Unbiased, no term twice, ``E |err|_F^2 <= W^2 / (c - 1)``,
      exact for c = n.
    * "top": the c largest w_i get the weight 1. Biased, ``|err|_F <= sum of the dropped w_i``. It
      has the smallest error by far on most data, and the largest if the dropped terms point in the
      same direction.

    Fresh probes certify the actual error.

    Args:
        x: X [*batch, m, n].
        y: Y [*batch, n, p].
        samples: c, from 1 to n; "independent" allows more than n.
        method: see above.
        generator: the source of the draws and the probes; by default a fixed seed.
        failure_probability: see `svd`.

    Returns:
        left [*batch, m, c], which includes the weights, and right [*batch, c, p]. Gradients flow to
        x and y for fixed index and weights.

    Raises:
        ValueError: if the shapes cannot be multiplied, for NaN or Inf, and for a number of samples
            out of range.

    Example:
        >>> x, y = torch.eye(4), torch.diag(torch.tensor([4.0, 3.0, 0.2, 0.1]))
        >>> r = sampled_matmul(x, y, 2, method="top")
        >>> r.columns.tolist(), round(float(r.bound), 4)
        ([0, 1], 0.3)
    """
    a, b = as_matrix(x), as_matrix(y)
    if not isinstance(a, Dense) or not isinstance(b, Dense):
        raise ValueError(
            "A sampled product reads single columns and rows: give two dense matrices."
        )
    if a.n != b.m or a.batch != b.batch:
        raise ValueError(
            f"Matrices of shape {list(a.shape)} and {list(b.shape)} cannot be multiplied."
        )
    if method not in ("priority", "independent", "top"):
        raise ValueError(f"method is {method!r}: give 'priority', 'independent' or 'top'.")
    samples = whole("samples", samples)
    if samples < 1 or (method != "independent" and samples > a.n):
        range_of = "at least 1" if method == "independent" else f"a number from 1 to {a.n}"
        raise ValueError(f"samples is {samples}, the product has {a.n} terms: give {range_of}.")
    check_probability(failure_probability)
    generator = new_generator(generator)
    dtype = common_dtype([a, b])
    (a, unit_a), (b, unit_b) = (_unit(part.converted(dtype)) for part in (a, b))
    with torch.no_grad():
        sizes = _column_norms(a.tensor) * _column_norms(b.tensor.mT)
        index, weights, square = _DRAWS[method](sizes, samples, generator)
        bound = _bound(method, sizes, index, a, b, samples, failure_probability)
    left = _columns(a.tensor, index) * weights[..., None, :].to(dtype)
    right = _columns(b.tensor.mT, index).mT
    with torch.no_grad():
        exact_parts = product(a.tensor.detach(), b.tensor.detach())
        error = _certified(exact_parts, left, right, method, bound, failure_probability, generator)
        expected = bound if method == "top" else square.clamp_min(0.0).sqrt()
    notes = tuple(dict.fromkeys(a.notes + b.notes))
    if unit_a is not None or unit_b is not None:
        size_a, size_b = (torch.ones_like(bound) if u is None else u for u in (unit_a, unit_b))
        left = left * size_a[..., None, None].to(dtype)
        right = right * size_b[..., None, None].to(dtype)
        size = size_a * size_b
        error, expected, bound = error.scaled(size), expected * size, bound * size
    return SampledProduct(
        left=left,
        right=right,
        error=error,
        notes=notes,
        index=index,
        weights=weights,
        expected=expected,
        bound=bound,
    )


@numpy_too
def expected_error(x: Array, y: Array, samples: int) -> Tensor:
    """Return the exact sqrt(E |err|_F^2) of independent draws; it costs as much as the product.

    ``E |err|_F^2 = ((sum_i |X_i| |Y_i|)^2 - |X Y|_F^2) / c``, Drineas et al. 2006, lemma 4.

    Args:
        x: X [*batch, m, n].
        y: Y [*batch, n, p].
        samples: c.
    """
    sizes = _column_norms(x) * _column_norms(y.mT)
    square = sizes.sum(-1).square() - frobenius_norm(x @ y).square()
    return (square.clamp_min(0.0) / samples).sqrt()


def _unit(a: Dense) -> tuple[Dense, Tensor | None]:
    """As `to_unit`, for a dense matrix."""
    found, unit = to_unit(a)
    assert isinstance(found, Dense)
    return found, unit


def _column_norms(a: Tensor) -> Tensor:
    return torch.linalg.vector_norm(a.detach(), dim=-2).double()


def _columns(a: Tensor, index: Tensor) -> Tensor:
    where = index[..., None, :].expand(*a.shape[:-1], index.shape[-1])
    return a.gather(-1, where)


def _uniform(like: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    drawn = torch.rand(shape, dtype=torch.float64, device=generator.device, generator=generator).to(
        like.device
    )
    return 1 - drawn  # in (0, 1]


def _independent(
    sizes: Tensor, samples: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws with replacement from the cumulated sizes, and W^2 / c."""
    total = sizes.sum(-1, keepdim=True)
    steps = sizes.cumsum(-1)
    where = _uniform(sizes, (*sizes.shape[:-1], samples), generator) * steps[..., -1:]
    index = torch.searchsorted(steps, where).clamp_max(sizes.shape[-1] - 1)
    chosen = sizes.gather(-1, index)
    weights = torch.where(chosen > 0, total / (samples * chosen), 0.0)
    return index, weights, total[..., 0].square() / samples


def _priority(
    sizes: Tensor, samples: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The largest w / u, and sum tau max(0, tau - w), an unbiased estimate of the variance."""
    priority = sizes / _uniform(sizes, tuple(sizes.shape), generator)
    wanted = min(samples + 1, sizes.shape[-1])
    top, index = priority.topk(wanted, dim=-1)
    if wanted > samples:
        threshold, index = top[..., -1:], index[..., :-1]
    else:
        threshold = torch.zeros_like(top[..., :1])
    chosen = sizes.gather(-1, index)
    weights = torch.where(chosen > 0, torch.maximum(chosen, threshold) / chosen, 1.0)
    square = (threshold * (threshold - chosen).clamp_min(0.0)).sum(-1)
    return index, weights, square


def _top(sizes: Tensor, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """The largest terms; nothing is random."""
    del generator
    chosen, index = sizes.topk(samples, dim=-1)
    return index, torch.ones_like(chosen), torch.zeros_like(sizes.sum(-1))


_DRAWS = {"independent": _independent, "priority": _priority, "top": _top}


def _bound(
    method: Method,
    sizes: Tensor,
    index: Tensor,
    a: Dense,
    b: Dense,
    samples: int,
    probability: float | None,
) -> Tensor:
    """The bound that is known without looking at the result."""
    if method == "top":
        # The sum over the dropped terms; total minus kept could be only rounding.
        return sizes.scatter(-1, index, 0.0).sum(-1)
    if method == "priority" or not probability:
        return torch.full_like(sizes.sum(-1), math.inf)
    share = probability / max(1, a.batch.numel())
    factor = (1 + math.sqrt(8 * math.log(1 / share))) / math.sqrt(samples)
    return factor * a.frobenius() * b.frobenius()


def _certified(
    exact: Matrix,
    left: Tensor,
    right: Tensor,
    method: Method,
    bound: Tensor,
    probability: float | None,
    generator: torch.Generator,
) -> Error:
    """The error by probes on X Y - L R; for "top" the proved bound if that is smaller."""
    scale = frobenius_norm(left) * 0
    residual = Residual(exact, left.detach(), right.detach())
    known = exact.frobenius()
    if known is None:
        g = exact.matmat(exact.gaussian(PROBES, generator))
        scale = frobenius_norm(g) / math.sqrt(PROBES)
    else:
        scale = known
    error = certificate(
        residual, "frobenius", probability, generator, scale, torch.zeros_like(scale)
    )
    if method == "top" and error.kind in ("probes", "estimate"):
        proved = bound + rounding(exact, scale)
        if bool((proved <= error.upper).all()):
            kind: Kind = "bound"
            return Error(
                "frobenius", kind, error.estimate, proved, 0.0, scale, torch.zeros_like(scale)
            )
    return error
