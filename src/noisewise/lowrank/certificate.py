"""The error of a factorisation: the exact error, or a bound that fails with a stated probability.

The bound by fresh Gaussian probes: let E = A - L R and G = E Omega with Omega [n, s] standard
normal. Then |G|_F^2 is a sum of chi-square variables with s degrees of freedom, weighted by the
squared singular values of E. Its lower tail is heaviest if only one weight is not zero (Szekely and
Bakirov 2003; Roosta-Khorasani, Szekely and Ascher 2015). So with q the quantile of chi-square at d

    P( |E|_F > |G|_F / sqrt(q) ) <= d     for every E of every size.

In the spectral norm |(E E^H)^p G|_F^2 >= sigma_1^(4p+2) chi-square_s for every E, hence

    P( |E|_2 > (|(E E^H)^p G|_F / sqrt(q))^(1/(2p+1)) ) <= d.

The bound does not hold if the probes were used to build the factors, or if they are rescaled.
Complex probes have twice as many degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from noisewise.lowrank.arrays import Array, numpy_home, numpy_too
from noisewise.lowrank.chi_square import chi_square_quantile
from noisewise.lowrank.inputs import (
    Randomness,
    as_matrix,
    check_adjoint,
    check_readable,
    new_generator,
)
from noisewise.lowrank.magnitude import frobenius_norm
from noisewise.lowrank.operators import Matrix, common_dtype, to_unit
from noisewise.lowrank.request import whole

Norm = Literal["frobenius", "spectral"]
Kind = Literal["exact", "bound", "probes", "estimate"]

PROBES = 20  # the bound is then 1.8 (d = 1e-3) to 2.8 (d = 1e-6) times a rank-one error
LARGEST_FAILURE = 0.1  # the proof holds only in the lower tail
ROUNDING = 10.0  # this times eps |A|_F is added to every bound
_COLUMNS = 256  # unit vectors that an operator multiplies at once
_ENTRIES = 1 << 24  # entries of a residual in memory at once


@numpy_home
@dataclass(frozen=True)
class Error:
    """The error |A - L R| of a factorisation; float64 tensors with the shape of the batch.

    Attributes:
        norm: "frobenius" or "spectral".
        kind: "exact" (the computed error; `upper` includes rounding), "bound" (`upper` is proved
            and never fails), "probes" (`upper` fails with `failure_probability`) or "estimate" (no
            bound: `upper` is infinite).
        estimate: the error itself if exact, otherwise an estimate of it.
        upper: at least the error, except with `failure_probability`.
        failure_probability: the probability that `upper` is too small anywhere in the batch; 0 if
            exact.
        scale: |A| in the same norm, or a lower bound of |A| if it is not known.
        optimal_lower: no approximation of this rank has a smaller error; 0 if nothing is known.
    """

    norm: Norm
    kind: Kind
    estimate: Tensor
    upper: Tensor
    failure_probability: float
    scale: Tensor
    optimal_lower: Tensor

    @property
    def relative_estimate(self) -> Tensor:
        """`estimate` divided by `scale`; 0 for a zero matrix without error."""
        return _ratio(self.estimate, self.scale)

    @property
    def relative_upper(self) -> Tensor:
        """`upper` divided by `scale`; 0 for a zero matrix without error."""
        return _ratio(self.upper, self.scale)

    @property
    def times_optimal(self) -> Tensor:
        """`upper` / `optimal_lower`: the error is at most this many times the best of its rank."""
        return _ratio(self.upper, self.optimal_lower)

    def scaled(self, factor: complex | Tensor) -> Error:
        """The error of the factors times a number, or times one number for each matrix."""
        size = abs(factor)
        return replace(
            self,
            estimate=self.estimate * size,
            upper=self.upper * size,
            scale=self.scale * size,
            optimal_lower=self.optimal_lower * size,
        )

    def on(self, device: torch.device) -> Error:
        """The error with its tensors on a device."""
        return replace(
            self,
            estimate=self.estimate.to(device),
            upper=self.upper.to(device),
            scale=self.scale.to(device),
            optimal_lower=self.optimal_lower.to(device),
        )

    def __str__(self) -> str:
        if self.estimate.numel() == 0:
            return "an empty batch has no error"
        sign = "2" if self.norm == "spectral" else "F"
        relative = bool((self.scale > 0).all())
        shown = self.relative_estimate if self.kind == "estimate" else self.relative_upper
        value = f"{(shown if relative else self.upper).max().item():.2g}"
        size = f"||A-LR||_{sign} {'~' if self.kind == 'estimate' else '<='} {value}"
        size += f" ||A||_{sign}" if relative else ""
        size += " for every matrix of the batch" if self.estimate.dim() else ""
        match self.kind:
            case "exact":
                return f"{size} (exact)"
            case "bound":
                return f"{size} (a proved bound, never fails)"
            case "probes":
                return f"{size} (fails with probability <= {self.failure_probability:.2g})"
            case "estimate":
                return f"{size} (an estimate, no bound)"


def _ratio(value: Tensor, scale: Tensor) -> Tensor:
    return torch.where(value == 0, 0.0, value / scale)


def quantile(matrix: Matrix, probes: int, probability: float) -> float:
    """Return the quantile q of the module's formula for one matrix of this batch."""
    share = probability / max(1, matrix.batch.numel())
    if matrix.dtype.is_complex:
        return chi_square_quantile(2 * probes, share) / 2
    return chi_square_quantile(probes, share)


def check_probability(probability: float | None) -> None:
    """Check a probability of failure.

    Raises:
        ValueError: unless it is None or from 0 to 0.1.
    """
    if probability is not None and not 0 <= probability <= LARGEST_FAILURE:
        raise ValueError(
            f"failure_probability is {probability}: give a number up to {LARGEST_FAILURE}, 0 for "
            "the exact error, or None for an estimate without a bound."
        )


@dataclass(frozen=True)
class Residual:
    """E = A - left right, given by its products.

    Attributes:
        matrix: A.
        left: [..., m, k].
        right: [..., k, n].
    """

    matrix: Matrix
    left: Tensor
    right: Tensor

    def matmat(self, x: Tensor) -> Tensor:
        """E x."""
        return self.matrix.matmat(x) - self.left @ (self.right @ x)

    def rmatmat(self, y: Tensor) -> Tensor:
        """E^H y."""
        return self.matrix.rmatmat(y) - self.right.mH @ (self.left.mH @ y)

    def blocks(self) -> Iterator[Tensor]:
        """E itself, in blocks of rows or of columns."""
        entries = self.matrix.entries
        if entries is not None:
            step = max(1, _ENTRIES // max(1, entries[..., :1, :].numel()))
            for start in range(0, self.matrix.m, step):
                rows = slice(start, start + step)
                yield entries[..., rows, :] - self.left[..., rows, :] @ self.right
            return
        read = self.matrix.row_blocks()
        if read is not None:
            for rows, block in read:
                yield torch.addmm(block, self.left[rows], self.right, alpha=-1)
            return
        for start in range(0, self.matrix.n, _COLUMNS):
            index = torch.arange(start, min(start + _COLUMNS, self.matrix.n))
            index = index.to(self.matrix.device)
            yield self.matrix.columns(index) - self.left @ self.right[..., index]


def exact(residual: Residual, norm: Norm) -> Tensor:
    """Return |E| computed from all its entries; this costs as much as the factorisation."""
    if norm == "frobenius":
        parts = [frobenius_norm(block) for block in residual.blocks()]
        if not parts:
            return torch.zeros(
                residual.matrix.batch, dtype=torch.float64, device=residual.left.device
            )
        return torch.linalg.vector_norm(torch.stack(parts), dim=0)
    by_rows = residual.matrix.entries is not None or residual.matrix.row_blocks() is not None
    dim = -2 if by_rows else -1
    whole = torch.cat(list(residual.blocks()), dim) if min(residual.matrix.shape[-2:]) else None
    if whole is None:
        return torch.zeros(residual.matrix.batch, dtype=torch.float64, device=residual.left.device)
    return torch.linalg.svdvals(whole)[..., 0].double()


def probed(
    residual: Residual,
    g: Tensor,
    norm: Norm,
    probability: float,
    power: int = 1,
) -> tuple[Tensor, Tensor]:
    """Return an estimate of |E| and a bound that fails with the given probability.

    Args:
        residual: E.
        g: E Omega for fresh probes Omega from `Matrix.gaussian`.
        norm: the norm of the error.
        probability: the probability of failure for the whole batch.
        power: p of the spectral bound; with 0 the bound is 13 times the error or more, 1 costs two
            more products per probe.
    """
    probes = g.shape[-1]
    q = quantile(residual.matrix, probes, probability)
    if norm == "frobenius":
        size = frobenius_norm(g)
        return size / math.sqrt(probes), size / math.sqrt(q)
    return _spectral(residual, g, q, power)


def _spectral(residual: Residual, g: Tensor, q: float, power: int) -> tuple[Tensor, Tensor]:
    """The spectral norm, by logarithms: sigma^(2p+1) soon exceeds the range of float32."""
    tiny = torch.finfo(torch.float64).tiny
    log_size = torch.zeros(g.shape[:-2], dtype=torch.float64, device=g.device)
    lower = torch.zeros_like(log_size)
    for _ in range(power):
        for step in (residual.rmatmat, residual.matmat):
            size = frobenius_norm(g)
            log_size = log_size + size.clamp_min(tiny).log()
            g = g / size.clamp_min(tiny).to(g.real.dtype)[..., None, None]
            before = torch.linalg.vector_norm(g, dim=-2)
            g = step(g)
            after = torch.linalg.vector_norm(g, dim=-2)
            growth = torch.where(before > 0, after / before, 0.0).amax(-1)
            lower = torch.maximum(lower, growth.double())
    last = frobenius_norm(g)
    log_size = log_size + last.clamp_min(tiny).log()
    upper = ((log_size - 0.5 * math.log(q)) / (2 * power + 1)).exp()
    upper = torch.where(last > 0, upper, 0.0)
    return (lower if power else torch.minimum(upper, last)), upper


def sketched(residual: Residual, probes: int, generator: torch.Generator) -> Tensor:
    """E Omega for fresh probes."""
    return residual.matmat(residual.matrix.gaussian(probes, generator))


def rounding(matrix: Matrix, scale: Tensor) -> Tensor:
    """The largest error that rounding can hide: ROUNDING eps |A|_F."""
    return ROUNDING * torch.finfo(matrix.dtype).eps * scale


def certificate(
    residual: Residual,
    norm: Norm,
    probability: float | None,
    generator: torch.Generator,
    scale: Tensor,
    optimal_lower: Tensor,
    probes: int = PROBES,
) -> Error:
    """Return the error of two factors, computed in the cheapest way that gives the certificate.

    The error is exact if this was requested (probability 0), or if the factors are so thin that the
    residual costs no more than the probes. Otherwise probes bound it.

    Args:
        residual: A and its factors.
        norm: the norm of the error.
        probability: 0, a probability, or None (five probes, no bound).
        generator: the source of fresh probes.
        scale: |A| in this norm, or a lower bound of it.
        optimal_lower: see `Error`.
        probes: s.
    """
    matrix = residual.matrix
    is_read = matrix.entries is not None or matrix.row_blocks() is not None
    thin = residual.left.shape[-1] <= probes and norm == "frobenius" and is_read
    slack = rounding(residual.matrix, scale)
    kind: Kind = "probes"
    if probability is not None and (probability == 0 or thin):
        estimate = exact(residual, norm)
        upper, kind, probability = estimate + slack, "exact", 0.0
    elif probability is None:
        estimate, _ = probed(residual, sketched(residual, 5, generator), norm, 0.1)
        upper, kind, probability = torch.full_like(estimate, math.inf), "estimate", 0.0
    else:
        g = sketched(residual, probes, generator)
        estimate, upper = probed(residual, g, norm, probability)
        upper = upper + slack
    return Error(norm, kind, estimate, upper, probability, scale, optimal_lower)


@numpy_too
def certify(
    matrix: object,
    left: Array,
    right: Array,
    *,
    norm: Norm = "frobenius",
    failure_probability: float | None = 1e-6,
    generator: Randomness = None,
    probes: int = PROBES,
) -> Error:
    """Return the error |A - left right| of any two factors, with its certificate.

    Args:
        matrix: A, anything that `noisewise.lowrank.svd` takes.
        left: [..., m, k]. Factors may be complex although A is real, or double although A is
            single.
        right: [..., k, n].
        norm: "frobenius" or "spectral".
        failure_probability: the probability that the bound fails, up to 0.1; 0 computes the exact
            error, None only estimates it.
        generator: the source of the probes, or its seed. It must not be the generator that built
            the factors, in the same state.
        probes: s, at least 1; more probes give a sharper bound.

    Raises:
        ValueError: if the shapes do not agree, the probability or the number of probes is out of
            range, or the rmatmat of an operator is not the adjoint.

    Source: the formulas at the top of this module.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> a = torch.randn(50, 40, generator=g)
        >>> e = certify(a, a[:, :30], torch.eye(30, 40), generator=g, failure_probability=1e-3)
        >>> bool(e.upper >= torch.linalg.matrix_norm(a[:, 30:]))
        True
    """
    check_probability(failure_probability)
    probes = whole("probes", probes, least=1)
    a = as_matrix(matrix)
    check_readable(left, right)
    if left.shape[-2] != a.m or right.shape[-1] != a.n or left.shape[-1] != right.shape[-2]:
        raise ValueError(
            f"Factors of shape {list(left.shape)} and {list(right.shape)} do not multiply to a "
            f"matrix of shape {list(a.shape)}."
        )
    generator = new_generator(generator)
    dtype = common_dtype([a], left.dtype, right.dtype)
    with torch.no_grad():
        check_adjoint(a, generator)
        a, unit = to_unit(a.converted(dtype))
        left, right = (part.to(dtype) for part in (left, right))
        if unit is not None:  # an even power of two: its square root for each factor
            half = unit.sqrt()[..., None, None].to(dtype)
            left, right = left / half, right / half
        scale, _ = norm_of(a, norm, generator)
        zero = torch.zeros_like(scale)
        residual = Residual(a, left, right)
        found = certificate(residual, norm, failure_probability, generator, scale, zero, probes)
    return found if unit is None else found.scaled(unit)


def norm_of(matrix: Matrix, norm: Norm, generator: torch.Generator) -> tuple[Tensor, bool]:
    """Return |A| and True, or a lower bound of |A| from a few products and False."""
    if norm == "frobenius":
        known = matrix.frobenius()
        if known is not None:
            return known, True
    if min(matrix.m, matrix.n) == 0:
        return torch.zeros(matrix.batch, dtype=torch.float64, device=matrix.device), True
    q = torch.linalg.qr(matrix.matmat(matrix.gaussian(min(8, matrix.n), generator))).Q
    for _ in range(2):
        q = torch.linalg.qr(matrix.matmat(torch.linalg.qr(matrix.rmatmat(q)).Q)).Q
    w = matrix.rmatmat(q)
    return (
        frobenius_norm(w) if norm == "frobenius" else torch.linalg.svdvals(w)[..., 0].double()
    ), False
