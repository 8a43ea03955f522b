"""Where the columns of A live: subspace iteration, block Krylov, and blocks until a tolerance.

Halko, Martinsson and Tropp 2011 (arXiv 0909.4061), algorithms 4.3 and 4.4 with an orthonormal basis
after every product; Musco and Musco 2015 (arXiv 1504.05477) and Hallman 2022 (randUBV) for block
Krylov, both sides kept orthonormal; Yu, Gu and Li 2018 (randQB) for blocks, with the error measured
in place of the indicator |A|^2 - |B|^2, which cannot see below sqrt(eps).

All return Q [m, l] orthonormal and W = A^H Q [n, l], so that A ~ Q W^H.
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
_SEEN = 1e3  # |A|^2 - |B|^2 is trusted above this many roundings of |A|^2
_DOUBT = 32.0  # roundings of |A|^2 that it may be wrong by
_JUNK = 1e-3  # of rounding: keeps the directions of an exhausted block random


def subspace(
    matrix: Matrix, size: int, power: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return Q spanning (A A^H)^power A Omega, and W = A^H Q.

    ``E |A - Q Q^H A|_F^2 <= (1 + k / (p - 1)) sum_{j > k} s_j^2`` for power 0 and size k + p
    (Halko et al. 2011, theorem 10.5); each step of the power iteration brings it nearer to 1.

    Args:
        matrix: A.
        size: l, columns of Q, at most min(m, n).
        power: steps of the power iteration.
        generator: of Omega.
    """
    q = torch.linalg.qr(matrix.matmat(matrix.gaussian(size, generator))).Q
    for _ in range(power):
        z = torch.linalg.qr(matrix.rmatmat(q)).Q
        q = torch.linalg.qr(matrix.matmat(z)).Q
    return q, matrix.rmatmat(q)


def leave_one_out(matrix: Matrix, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return Q and W of a plain sketch, and an estimate of |A - Q Q^H A|_F that costs no product.

    ``mean_j 1 / |R^-1 [j, :]|^2`` with A Omega = Q R: what each column would have left of its own
    probe without itself (Epperly and Tropp 2022, arXiv 2207.06342). It promises nothing.
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
    """Return Q spanning A Omega, (A A^H) A Omega, ... of steps blocks, and W = A^H Q.

    Both the left and the right blocks are orthonormalised against all before them, by project, QR,
    project, QR: with less, float32 loses the basis.

    Args:
        matrix: A.
        block: columns of Omega.
        steps: blocks; block * steps <= min(m, n).
        generator: of Omega.
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
            v[..., here] = against(w[..., here], v[..., :start], generator)
            y = matrix.matmat(v[..., here])
            q[..., after] = against(y, q[..., : start + block], generator)
    return q, w


def against(y: Tensor, basis: Tensor, generator: torch.Generator) -> Tensor:
    """Orthonormal columns for y with the basis taken off; random ones where nothing is left."""
    if basis.shape[-1]:
        size = frobenius_norm(y) * (_JUNK * torch.finfo(y.dtype).eps) + torch.finfo(y.dtype).tiny
        junk = gaussian(y.shape, y.dtype, y.device, generator)
        y = y - basis @ (basis.mH @ y) + junk * size.to(y.real.dtype)[..., None, None]
        y = torch.linalg.qr(y).Q
        y = y - basis @ (basis.mH @ y)
    return torch.linalg.qr(y).Q


@dataclass(frozen=True)
class Found:
    """A basis found block by block.

    Attributes:
        q: [*batch, m, l].
        w: A^H q, [*batch, n, l].
        estimate: of |A - q w^H|.
        upper: bound of it, without the slack for rounding.
        is_exact: whether both are the error itself.
    """

    q: Tensor
    w: Tensor
    estimate: Tensor
    upper: Tensor
    is_exact: bool


class Blocks:
    """Q and W as they grow, for a matrix known by its products."""

    def __init__(self, matrix: Matrix, generator: torch.Generator) -> None:
        self.matrix, self.generator = matrix, generator
        self.q = torch.zeros(*matrix.batch, matrix.m, 0, dtype=matrix.dtype, device=matrix.device)
        self.w = torch.zeros(*matrix.batch, matrix.n, 0, dtype=matrix.dtype, device=matrix.device)

    def residual(self) -> Residual:
        """A - Q W^H."""
        return Residual(self.matrix, self.q, self.w.mH)

    def look(self, norm: Norm, probability: float, sketch: Tensor) -> tuple[Tensor, Tensor, bool]:
        """Estimate and bound of the error so far, and whether they are exact.

        The sketch of the next block is made of probes that nothing has seen yet: it serves both.
        """
        known = self.matrix.frobenius() if norm == "frobenius" else None
        if known is not None:
            free = seen(known, self.w.flatten(-2), self.matrix.dtype)
            if free is not None:
                return *free, True
        return *probed(self.residual(), _some(sketch, norm), norm, probability), False

    def grow(self, sketch: Tensor, power: int) -> None:
        """Add a block of directions of what is left."""
        left = self.residual()
        q = against(sketch, self.q, self.generator)
        for _ in range(power):
            z = torch.linalg.qr(left.rmatmat(q)).Q
            q = against(left.matmat(z), self.q, self.generator)
        self.append(q, self.matrix.rmatmat(q))

    def append(self, q: Tensor, w: Tensor) -> None:
        """Add orthonormal columns."""
        self.q, self.w = torch.cat([self.q, q], -1), torch.cat([self.w, w], -1)


class _DenseBlocks(Blocks):
    """The same where the residual can be held: its norm is then exact at every size."""

    def __init__(self, matrix: Matrix, generator: torch.Generator) -> None:
        super().__init__(matrix, generator)
        assert matrix.entries is not None
        self.left = Dense(matrix.entries.clone())

    def residual(self) -> Residual:
        return Residual(self.left, self.q[..., :0], self.w[..., :0].mH)

    def look(self, norm: Norm, probability: float, sketch: Tensor) -> tuple[Tensor, Tensor, bool]:
        size = self.left.frobenius()
        if norm == "frobenius":
            return size, size, True
        if probability == 0:
            size = exact(self.residual(), norm)
            return size, size, True
        estimate, upper = probed(self.residual(), _some(sketch, norm), norm, probability)
        return estimate, torch.minimum(upper, size), False

    def append(self, q: Tensor, w: Tensor) -> None:
        # Of what is left, not of A: the same in exact arithmetic, and no digit is lost.
        w = self.left.rmatmat(q)
        self.left = Dense(self.left.tensor - q @ w.mH)
        super().append(q, w)


def growing(matrix: Matrix, generator: torch.Generator) -> Blocks:
    """Return an empty basis: one that holds the residual, where there are entries to hold."""
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
    """Add blocks until the error is certified to be at most tol |A|, or `most` columns are there.

    The sketch of each block, before it is used, bounds the error so far: look j spends d / (j (j +
    1)) of the probability, so that all looks together spend no more than d. Where |A| is not known,
    |W| <= |A| stands for it: the tolerance is then met with something to spare.

    Args:
        matrix: A.
        tol: relative error wanted, below 1.
        norm: of the error.
        probability: d; 0 only where entries are known.
        most: columns at most, up to min(m, n).
        power: steps of the power iteration of each block.
        generator: of everything random.
    """
    state = growing(matrix, generator)
    look = 0
    while True:
        size = state.q.shape[-1]
        look += 1
        step = min(max(FIRST_BLOCK, size // 2), LARGEST_BLOCK)
        sketch = sketched(state.residual(), step, generator)
        share = probability / (look * (look + 1))
        estimate, upper, is_exact = state.look(norm, share, sketch)
        slack = rounding(matrix, known_scale(matrix, state.w, "frobenius"))
        done = (upper + slack <= tol * known_scale(matrix, state.w, norm)) | (estimate <= slack)
        if size >= most or bool(done.all()):
            return Found(state.q, state.w, estimate, upper, is_exact)
        state.grow(sketch[..., : most - size], power)


def _some(sketch: Tensor, norm: Norm) -> Tensor:
    """Every probe makes the spectral bound dearer; the first few do."""
    return sketch if norm == "frobenius" else sketch[..., :PROBES]


def known_scale(matrix: Matrix, w: Tensor, norm: Norm) -> Tensor:
    """|A|, or |W| <= |A| where it is not known."""
    known = matrix.frobenius() if norm == "frobenius" else None
    if known is not None:
        return known
    if norm == "frobenius" or 0 in w.shape:
        return frobenius_norm(w)
    return torch.linalg.matrix_norm(w, 2).double()


def seen(known: Tensor, kept: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """The error sqrt(|A|_F^2 - |kept|^2) and a bound, None where rounding might hide it.

    Args:
        known: |A|_F.
        kept: numbers [*batch, k] of an orthogonal projection of A, which the projection keeps.
        dtype: that they were computed in.
    """
    eps = torch.finfo(dtype).eps
    share = torch.linalg.vector_norm(kept.abs().double(), dim=-1) / known.clamp_min(TINY)
    left = 1 - share.square()
    if not bool(((left > _SEEN * eps) | (known == 0)).all()):
        return None
    return known * left.clamp_min(0.0).sqrt(), known * (left + _DOUBT * eps).sqrt()
