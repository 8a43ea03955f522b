"""Bases of the range of A: subspace iteration, block Krylov, and blocks until a tolerance is met.

Halko, Martinsson and Tropp 2011 (arXiv 0909.4061), algorithms 4.3 and 4.4 with an orthonormal basis
after every product. Musco and Musco 2015 (arXiv 1504.05477) and Hallman 2022 (randUBV) for block
Krylov, with both sides orthonormal. Yu, Gu and Li 2018 (randQB) for blocks; here the error is
measured, because their indicator |A|^2 - |B|^2 shows no error below sqrt(eps).

All functions return an orthonormal Q [m, l] and W = A^H Q [n, l], so that A ~ Q W^H.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noisewise.lowrank.certificate import (
    PROBES,
    Norm,
    Residual,
    exact,
    probed,
    rounding,
    sketched,
)
from noisewise.lowrank.magnitude import frobenius_norm
from noisewise.lowrank.operators import Dense, Matrix, gaussian

FIRST_BLOCK, LARGEST_BLOCK = 20, 128
TINY = torch.finfo(torch.float64).tiny
_VISIBLE = 1e3  # |A|^2 - |B|^2 is used if it is above this many roundings of |A|^2
_SLACK = 32.0  # its largest error, in roundings of |A|^2
_FILL = 1e-3  # noise in units of rounding, so that an exhausted block gets random directions


def subspace(
    matrix: Matrix, size: int, power: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis Q of the range of (A A^H)^power A Omega, and W = A^H Q.

    ``E |A - Q Q^H A|_F^2 <= (1 + k / (p - 1)) sum_{j > k} s_j^2`` for power 0 and size k + p
    (Halko et al. 2011, theorem 10.5). Each step of the power iteration brings the factor nearer to
    1.

    Args:
        matrix: A.
        size: l, the number of columns of Q, at most min(m, n).
        power: steps of the power iteration.
        generator: the source of Omega.
    """
    q = torch.linalg.qr(matrix.matmat(matrix.gaussian(size, generator))).Q
    for _ in range(power):
        z = torch.linalg.qr(matrix.rmatmat(q)).Q
        q = torch.linalg.qr(matrix.matmat(z)).Q
    return q, matrix.rmatmat(q)


def leave_one_out(matrix: Matrix, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return Q and W of a plain sketch, and an estimate of |A - Q Q^H A|_F without more products.

    ``mean_j 1 / |R^-1 [j, :]|^2`` with A Omega = Q R: the part of each probe that the other columns
    do not represent (Epperly and Tropp 2022, arXiv 2207.06342). It is not a bound.
    """
    q, r = torch.linalg.qr(matrix.matmat(matrix.gaussian(size, generator)))
    tiny = torch.finfo(r.dtype).tiny
    diagonal = r.diagonal(dim1=-2, dim2=-1)
    r = r + torch.diag_embed(torch.where(diagonal == 0, tiny, 0.0).to(r.dtype))
    eye = torch.eye(size, dtype=r.dtype, device=r.device).expand_as(r)
    inverse = torch.linalg.solve_triangular(r, eye, upper=True)
    left_out = 1 / torch.linalg.vector_norm(inverse, dim=-1).double()
    return q, matrix.rmatmat(q), left_out.square().mean(-1).sqrt()


def krylov(
    matrix: Matrix, block: int, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis Q of [A Omega, (A A^H) A Omega, ...] and W = A^H Q.

    The left and the right blocks are both made orthonormal to all blocks before them, by project,
    QR, project, QR. With fewer steps, the basis is not orthonormal in float32.

    Args:
        matrix: A.
        block: columns of Omega.
        steps: number of blocks; block * steps <= min(m, n).
        generator: the source of Omega.
    """
    total = block * steps
    like = {"dtype": matrix.dtype, "device": matrix.device}
    q = torch.empty(*matrix.batch, matrix.m, total, **like)
    v = torch.empty(*matrix.batch, matrix.n, total, **like)
    w = torch.empty(*matrix.batch, matrix.n, total, **like)
    q[..., :block] = torch.linalg.qr(matrix.matmat(matrix.gaussian(block, generator))).Q
    for start in range(0, total, block):
        here, after = slice(start, start + block), slice(start + block, start + 2 * block)
        w[..., here] = matrix.rmatmat(q[..., here])
        if start + block < total:
            v[..., here] = orthonormal_to(w[..., here], v[..., :start], generator)
            y = matrix.matmat(v[..., here])
            q[..., after] = orthonormal_to(y, q[..., : start + block], generator)
    return q, w


def orthonormal_to(y: Tensor, basis: Tensor, generator: torch.Generator) -> Tensor:
    """Orthonormal columns for y without its part in the basis; random ones if nothing is left."""
    if basis.shape[-1]:
        size = frobenius_norm(y) * (_FILL * torch.finfo(y.dtype).eps) + torch.finfo(y.dtype).tiny
        noise = gaussian(y.shape, y.dtype, y.device, generator)
        y = y - basis @ (basis.mH @ y) + noise * size.to(y.real.dtype)[..., None, None]
        y = torch.linalg.qr(y).Q
        y = y - basis @ (basis.mH @ y)
    return torch.linalg.qr(y).Q


@dataclass(frozen=True)
class Found:
    """A basis found block by block.

    Attributes:
        q: [*batch, m, l].
        w: A^H q, [*batch, n, l].
        estimate: an estimate of |A - q w^H|.
        upper: a bound of it, without the slack for rounding.
        is_exact: whether both are the exact error.
    """

    q: Tensor
    w: Tensor
    estimate: Tensor
    upper: Tensor
    is_exact: bool


class Blocks:
    """Growing Q and W, for a matrix given by its products."""

    def __init__(self, matrix: Matrix, generator: torch.Generator) -> None:
        self.matrix, self.generator = matrix, generator
        self.q = torch.zeros(*matrix.batch, matrix.m, 0, dtype=matrix.dtype, device=matrix.device)
        self.w = torch.zeros(*matrix.batch, matrix.n, 0, dtype=matrix.dtype, device=matrix.device)

    def residual(self) -> Residual:
        """A - Q W^H."""
        return Residual(self.matrix, self.q, self.w.mH)

    def measure(
        self, norm: Norm, probability: float, sketch: Tensor
    ) -> tuple[Tensor, Tensor, bool]:
        """Estimate and bound of the current error, and whether they are exact.

        The probes of the next block have not been used yet, so its sketch can bound the error.
        """
        known = self.matrix.frobenius() if norm == "frobenius" else None
        if known is not None:
            free = error_from_norms(known, self.w.flatten(-2), self.matrix.dtype)
            if free is not None:
                return *free, True
        return *probed(self.residual(), _probes_for(sketch, norm), norm, probability), False

    def grow(self, sketch: Tensor, power: int) -> None:
        """Add a block of directions of the residual."""
        left = self.residual()
        q = orthonormal_to(sketch, self.q, self.generator)
        for _ in range(power):
            z = torch.linalg.qr(left.rmatmat(q)).Q
            q = orthonormal_to(left.matmat(z), self.q, self.generator)
        self.append(q, self.matrix.rmatmat(q))

    def append(self, q: Tensor, w: Tensor) -> None:
        """Append orthonormal columns."""
        self.q, self.w = torch.cat([self.q, q], -1), torch.cat([self.w, w], -1)


class _DenseBlocks(Blocks):
    """The same, with the residual in memory: its norm is then exact at every size."""

    def __init__(self, matrix: Matrix, generator: torch.Generator) -> None:
        super().__init__(matrix, generator)
        assert matrix.entries is not None
        self.left = Dense(matrix.entries.clone())

    def residual(self) -> Residual:
        return Residual(self.left, self.q[..., :0], self.w[..., :0].mH)

    def measure(
        self, norm: Norm, probability: float, sketch: Tensor
    ) -> tuple[Tensor, Tensor, bool]:
        size = self.left.frobenius()
        if norm == "frobenius":
            return size, size, True
        if probability == 0:
            size = exact(self.residual(), norm)
            return size, size, True
        estimate, upper = probed(self.residual(), _probes_for(sketch, norm), norm, probability)
        return estimate, torch.minimum(upper, size), False

    def append(self, q: Tensor, w: Tensor) -> None:
        # From the residual, not from A: equal in exact arithmetic, and no digits are lost.
        w = self.left.rmatmat(q)
        self.left = Dense(self.left.tensor - q @ w.mH)
        super().append(q, w)


def empty_basis(matrix: Matrix, generator: torch.Generator) -> Blocks:
    """Return an empty basis; it holds the residual if the entries of the matrix are known."""
    return (Blocks if matrix.entries is None else _DenseBlocks)(matrix, generator)


def blocks(
    matrix: Matrix,
    tol: float,
    *,
    norm: Norm,
    probability: float,
    most: int,
    power: int,
    generator: torch.Generator,
) -> Found:
    """Add blocks until the error is certified to be at most tol |A|, or there are `most` columns.

    The sketch of each block bounds the current error before the block is added. Check j spends
    d / (j (j + 1)) of the probability, so all checks together spend at most d. If |A| is not known,
    |W| <= |A| replaces it; the error is then a little smaller than needed.

    Args:
        matrix: A.
        tol: relative error to reach, below 1.
        norm: the norm of the error.
        probability: d; 0 only if the entries are known.
        most: largest number of columns, up to min(m, n).
        power: steps of the power iteration of each block.
        generator: the source of all random numbers.
    """
    state = empty_basis(matrix, generator)
    check = 0
    while True:
        size = state.q.shape[-1]
        check += 1
        step = min(max(FIRST_BLOCK, size // 2), LARGEST_BLOCK)
        sketch = sketched(state.residual(), step, generator)
        share = probability / (check * (check + 1))
        estimate, upper, is_exact = state.measure(norm, share, sketch)
        slack = rounding(matrix, known_scale(matrix, state.w, "frobenius"))
        done = (upper + slack <= tol * known_scale(matrix, state.w, norm)) | (estimate <= slack)
        if size >= most or bool(done.all()):
            return Found(state.q, state.w, estimate, upper, is_exact)
        state.grow(sketch[..., : most - size], power)


def _probes_for(sketch: Tensor, norm: Norm) -> Tensor:
    """The probes that bound the error; for the spectral norm only the first few, to save time."""
    return sketch if norm == "frobenius" else sketch[..., :PROBES]


def known_scale(matrix: Matrix, w: Tensor, norm: Norm) -> Tensor:
    """|A|, or |W| <= |A| if |A| is not known."""
    known = matrix.frobenius() if norm == "frobenius" else None
    if known is not None:
        return known
    if norm == "frobenius" or 0 in w.shape:
        return frobenius_norm(w)
    return torch.linalg.matrix_norm(w, 2).double()


def error_from_norms(
    known: Tensor, kept: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor] | None:
    """The error sqrt(|A|_F^2 - |kept|^2) and a bound of it; None if rounding could hide it.

    Args:
        known: |A|_F.
        kept: numbers [*batch, k] with the norm of an orthogonal projection of A.
        dtype: the dtype in which they were computed.
    """
    eps = torch.finfo(dtype).eps
    share = torch.linalg.vector_norm(kept.abs().double(), dim=-1) / known.clamp_min(TINY)
    left = 1 - share.square()
    if not bool(((left > _VISIBLE * eps) | (known == 0)).all()):
        return None
    return known * left.clamp_min(0.0).sqrt(), known * (left + _SLACK * eps).sqrt()
