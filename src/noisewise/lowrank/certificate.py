"""How wrong a factorisation is: the exact error, or a bound that fails with a stated probability.

The bound for fresh Gaussian probes: with E = A - L R and G = E Omega, Omega [n, s] standard normal,
|G|_F^2 is a sum of chi-square variables with s degrees of freedom, weighted by the squared singular
values of E. Its lower tail is heaviest when one weight is all there is (Szekely and Bakirov 2003;
Roosta-Khorasani, Szekely and Ascher 2015), so with q the quantile of chi-square at d

    P( |E|_F > |G|_F / sqrt(q) ) <= d     for every E of every size.

In the spectral norm |(E E^H)^p G|_F^2 >= sigma_1^(4p+2) chi-square_s, whatever E is, hence

    P( |E|_2 > (|(E E^H)^p G|_F / sqrt(q))^(1/(2p+1)) ) <= d.

The probes must not have been used to build the factors, and must not be rescaled: either voids the
bound. Complex probes have twice as many degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from noisewise.lowrank.chi_square import chi_square_quantile
from noisewise.lowrank.inputs import as_matrix, check_adjoint, new_generator
from noisewise.lowrank.magnitude import frobenius_norm
from noisewise.lowrank.operators import Matrix, common_dtype, to_unit

Norm = Literal["frobenius", "spectral"]
Kind = Literal["exact", "bound", "probes", "estimate"]

PROBES = 20  # the bound is then 1.8 (d = 1e-3) to 2.8 (d = 1e-6) times a rank-one error
LARGEST_FAILURE = 0.1  # the worst case is proved for the lower tail only
ROUNDING = 10.0  # eps |A|_F times this is added to every bound
_COLUMNS = 256  # unit vectors sent through an operator at once
_ENTRIES = 1 << 24  # entries of a residual held at once


@dataclass(frozen=True)
class Error:
    """The error |A - L R| of a factorisation; tensors of the batch's shape, float64.

    Attributes:
        norm: "frobenius" or "spectral".
        kind: "exact" (computed, up to rounding that is in `upper`), "bound" (`upper` is proved and
            never fails), "probes" (it fails with `failure_probability`) or "estimate" (there is
            none: `upper` is infinite).
        estimate: the error itself if exact, an estimate of it otherwise.
        upper: no less than the error, but for `failure_probability`.
        failure_probability: chance that `upper` is too small somewhere in the batch; 0 if exact.
        scale: |A| in the same norm; where it cannot be known, a lower bound of it.
        optimal_lower: no approximation of this rank whatsoever has a smaller error than this; 0
            where nothing is known.
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
        """`estimate` over `scale`; 0 for a zero matrix without error."""
        return _ratio(self.estimate, self.scale)

    @property
    def relative_upper(self) -> Tensor:
        """`upper` over `scale`; 0 for a zero matrix without error."""
        return _ratio(self.upper, self.scale)

    @property
    def times_optimal(self) -> Tensor:
        """The factorisation is at most this many times as wrong as the best of its rank."""
        return _ratio(self.upper, self.optimal_lower)

    def scaled(self, factor: complex | Tensor) -> Error:
        """The error of the factors times a number, or one number each of the batch."""
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
        size += " in all of the batch" if self.estimate.dim() else ""
        match self.kind:
            case "exact":
                return f"{size} (exact)"
            case "bound":
                return f"{size} (a bound that never fails)"
            case "probes":
                return f"{size} (fails with probability <= {self.failure_probability:.2g})"
            case "estimate":
                return f"{size} (an estimate, no bound)"


def _ratio(value: Tensor, scale: Tensor) -> Tensor:
    return torch.where(value == 0, 0.0, value / scale)


def quantile(matrix: Matrix, probes: int, probability: float) -> float:
    """Return q of the module's formula for one matrix of this batch and dtype."""
    share = probability / max(1, matrix.batch.numel())
    if matrix.dtype.is_complex:
        return chi_square_quantile(2 * probes, share) / 2
    return chi_square_quantile(probes, share)


def check_probability(probability: float | None) -> None:
    """Refuse what is no probability of failure.

    Raises:
        ValueError: unless None, 0, or up to 0.1.
    """
    if probability is not None and not 0 <= probability <= LARGEST_FAILURE:
        raise ValueError(
            f"failure_probability is {probability}: give a number up to {LARGEST_FAILURE}, 0 for "
            "an exact error, or None for an estimate that promises nothing."
        )


@dataclass(frozen=True)
class Residual:
    """E = A - left right, known by its products.

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
        for start in range(0, self.matrix.n, _COLUMNS):
            index = torch.arange(start, min(start + _COLUMNS, self.matrix.n))
            index = index.to(self.matrix.device)
            yield self.matrix.columns(index) - self.left @ self.right[..., index]


def exact(residual: Residual, norm: Norm) -> Tensor:
    """Return |E|, computed from all its entries: as dear as the factorisation itself."""
    if norm == "frobenius":
        parts = [frobenius_norm(block) for block in residual.blocks()]
        if not parts:
            return torch.zeros(
                residual.matrix.batch, dtype=torch.float64, device=residual.left.device
            )
        return torch.linalg.vector_norm(torch.stack(parts), dim=0)
    dim = -2 if residual.matrix.entries is not None else -1
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
    """Return an estimate of |E| and a bound that fails with the probability given.

    Args:
        residual: E.
        g: E Omega for fresh probes Omega, as `Matrix.gaussian` draws them.
        norm: of the error.
        probability: of failure, for the whole batch.
        power: p of the spectral bound; 0 is crude (13 times the truth and more), 1 costs two more
            products a probe.
    """
    probes = g.shape[-1]
    q = quantile(residual.matrix, probes, probability)
    if norm == "frobenius":
        size = frobenius_norm(g)
        return size / math.sqrt(probes), size / math.sqrt(q)
    return _spectral(residual, g, q, power)


def _spectral(residual: Residual, g: Tensor, q: float, power: int) -> tuple[Tensor, Tensor]:
    """Logarithms are carried along, since sigma^(2p+1) leaves the range of float32 soon."""
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
    """What rounding may hide from a measured error: ROUNDING eps |A|_F."""
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
    """Return the error of two factors by the cheapest way that keeps the promise.

    Exact if asked for (probability 0), or where the factors are so thin that the residual costs no
    more than the probes; probes otherwise.

    Args:
        residual: A and its factors.
        norm: of the error.
        probability: 0, a probability, or None (five probes and no promise).
        generator: of fresh probes.
        scale: |A| in that norm, or a lower bound of it.
        optimal_lower: see `Error`.
        probes: s.
    """
    thin = residual.left.shape[-1] <= probes and norm == "frobenius"
    slack = rounding(residual.matrix, scale)
    kind: Kind = "probes"
    if probability is not None and (
        probability == 0 or (thin and residual.matrix.entries is not None)
    ):
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


def certify(
    matrix: Matrix | Tensor,
    left: Tensor,
    right: Tensor,
    *,
    norm: Norm = "frobenius",
    failure_probability: float | None = 1e-6,
    generator: torch.Generator | None = None,
    probes: int = PROBES,
) -> Error:
    """Return how wrong any two factors are, whoever made them.

    Args:
        matrix: A, whatever `noisewise.lowrank.svd` takes.
        left: [..., m, k]; complex or double factors of a real or single A are taken as they are.
        right: [..., k, n].
        norm: "frobenius" or "spectral".
        failure_probability: of the bound; 0 computes the error exactly, None only estimates it.
        generator: of the probes; it must not be the one that the factors were built with, from the
            same state.
        probes: s, at least 1; more make the bound sharper.

    Raises:
        ValueError: where shapes do not agree, the probability or number of probes is no such, or an
            operator's rmatmat is no adjoint.

    Source: the module's formulas.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> a = torch.randn(50, 40, generator=g)
        >>> e = certify(a, a[:, :30], torch.eye(30, 40), generator=g, failure_probability=1e-3)
        >>> bool(e.upper >= torch.linalg.matrix_norm(a[:, 30:]))
        True
    """
    check_probability(failure_probability)
    if probes < 1:
        raise ValueError(f"probes is {probes}: give at least one.")
    a = as_matrix(matrix)
    if left.shape[-2] != a.m or right.shape[-1] != a.n or left.shape[-1] != right.shape[-2]:
        raise ValueError(
            f"Factors {list(left.shape)} and {list(right.shape)} do not multiply to "
            f"{list(a.shape)}."
        )
    generator = new_generator(generator)
    dtype = common_dtype([a], left.dtype, right.dtype)
    with torch.no_grad():
        check_adjoint(a, generator)
        a, unit = to_unit(a.converted(dtype))
        left, right = (part.to(dtype) for part in (left, right))
        if unit is not None:  # an even power of two: half of it for each factor
            half = unit.sqrt()[..., None, None].to(dtype)
            left, right = left / half, right / half
        scale, _ = norm_of(a, norm, generator)
        zero = torch.zeros_like(scale)
        residual = Residual(a, left, right)
        found = certificate(residual, norm, failure_probability, generator, scale, zero, probes)
    return found if unit is None else found.scaled(unit)


def norm_of(matrix: Matrix, norm: Norm, generator: torch.Generator) -> tuple[Tensor, bool]:
    """Return |A| and whether it is exact; otherwise a lower bound from a few products."""
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
