"""Singular values and vectors: the rank for a tolerance, the lost part, the signs of vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from noisewise.lowrank.arrays import Array, numpy_too
from noisewise.lowrank.certificate import Norm
from noisewise.lowrank.request import positive


def fixed_signs(u: Tensor, vh: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate each pair so that the largest entry of its left vector is real and positive."""
    if 0 in u.shape:
        return u, vh
    largest = u.gather(-2, pivots(u))
    turn = torch.where(largest == 0, torch.ones_like(largest), largest.sgn()).conj()
    return u * turn, vh * turn.mH


def pivots(u: Tensor) -> Tensor:
    """The row of the largest entry of each column, int64 [..., 1, k]."""
    return u.abs().argmax(-2, keepdim=True)


def of_projection(q: Tensor, w: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the SVD of Q W^H for orthonormal Q: all values, and the first `rank` vectors."""
    if w.shape[-1] == 0:
        return q, w.real.new_zeros(*w.shape[:-2], 0), w.mH
    basis, r = torch.linalg.qr(w)
    inner_u, s, inner_vh = torch.linalg.svd(r.mH, full_matrices=False)
    u, vh = fixed_signs(q @ inner_u[..., :rank], inner_vh[..., :rank, :] @ basis.mH)
    return u, s, vh


def tails(values: Tensor, norm: Norm) -> Tensor:
    """The part lost if the first k values are kept, for k = 0, ..., r; float64 [*batch, r + 1]."""
    values = values.double()
    zero = torch.zeros_like(values.sum(-1, keepdim=True))
    if norm == "spectral":
        return torch.cat([values, zero], -1)
    if values.shape[-1] == 0:
        return zero
    largest = values.amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    squares = (values / largest).square().flip(-1).cumsum(-1).flip(-1)
    return torch.cat([squares.sqrt() * largest, zero], -1)


def smallest_rank(losses: Tensor, limit: Tensor) -> int:
    """The smallest k with a loss within the limit for the whole batch; losses [*batch, r + 1]."""
    if losses.numel() == 0:
        return 0
    fits = losses <= limit[..., None]
    fits = fits | (torch.arange(losses.shape[-1], device=losses.device) == losses.shape[-1] - 1)
    return int(fits.int().argmax(-1).max())


@numpy_too
def rank_for(values: Array, tol: float, norm: Norm = "frobenius") -> int:
    """Return the smallest rank whose best approximation has an error of at most tol |A|.

    Args:
        values: all singular values, largest first, [*batch, r].
        tol: relative tolerance.
        norm: the norm of the error, "frobenius" or "spectral".

    Raises:
        ValueError: for a tolerance that is not positive.

    Example:
        >>> rank_for(torch.tensor([1.0, 0.1, 0.01]), 0.05)
        2
    """
    tol = positive("tol", tol)
    losses = tails(values, norm)
    return smallest_rank(losses, tol * losses[..., 0])
