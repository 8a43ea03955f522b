"""The singular value decomposition as a value, and what is done with singular values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from noisewise.lowrank.certificate import ROUNDING, Error, Norm
from noisewise.lowrank.factors import LowRank, added, rescaled
from noisewise.lowrank.gradients import truncation, with_gradient


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SVD(LowRank):
    """A ~ U diag(S) Vh; left = U diag(S), right = Vh.

    Attributes:
        U: orthonormal columns [*batch, m, rank]; the largest entry of each is real and positive.
        S: real, falling [*batch, rank].
        Vh: orthonormal rows [*batch, rank, n].
        source: the matrix that a gradient flows to, or None.
    """

    U: Tensor
    S: Tensor
    Vh: Tensor
    source: Tensor | None = None

    @property
    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """U, S, Vh."""
        return self.U, self.S, self.Vh

    @property
    def attached(self) -> Tensor | None:
        """U diag(S) Vh; its gradient needs only s_k > s_(k+1), not that all values differ."""
        if self.source is None:
            return None
        return truncation(self.source, self.U, self.S, self.Vh)

    def _rounded(self, dtype: torch.dtype) -> dict[str, Tensor]:
        u = self.U.to(dtype)
        parts = {"U": u, "S": self.S.to(u.real.dtype), "Vh": self.Vh.to(dtype)}
        return {**super()._rounded(dtype), **parts}

    def detach(self) -> SVD:
        """Return it without a gradient."""
        u, s, vh = (part.detach() for part in self.factors)
        return make(u, s, vh, self.error, self.converged, self.notes)


def make(
    u: Tensor,
    s: Tensor,
    vh: Tensor,
    error: Error,
    converged: bool = True,
    notes: tuple[str, ...] = (),
    source: Tensor | None = None,
) -> SVD:
    """Return the value of three factors, attached to the matrix that a gradient flows to."""
    if source is not None:
        u, s, vh = with_gradient(source, u, s, vh)
    left = u * s[..., None, :].to(u.dtype)
    return SVD(
        left=left,
        right=vh,
        error=error,
        converged=converged,
        notes=notes,
        U=u,
        S=s,
        Vh=vh,
        source=source,
    )


def fixed_signs(u: Tensor, vh: Tensor) -> tuple[Tensor, Tensor]:
    """Turn each pair so that the largest entry of its left vector is real and positive."""
    if 0 in u.shape:
        return u, vh
    largest = u.gather(-2, pivots(u))
    turn = torch.where(largest == 0, torch.ones_like(largest), largest.sgn()).conj()
    return u * turn, vh * turn.mH


def pivots(u: Tensor) -> Tensor:
    """Row of the largest entry of each column, int64 [..., 1, k]."""
    return u.abs().argmax(-2, keepdim=True)


def of_projection(q: Tensor, w: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the SVD of Q W^H, Q orthonormal: all values, and the first `rank` vectors."""
    if w.shape[-1] == 0:
        return q, w.real.new_zeros(*w.shape[:-2], 0), w.mH
    basis, r = torch.linalg.qr(w)
    inner_u, s, inner_vh = torch.linalg.svd(r.mH, full_matrices=False)
    u, vh = fixed_signs(q @ inner_u[..., :rank], inner_vh[..., :rank, :] @ basis.mH)
    return u, s, vh


def tails(values: Tensor, norm: Norm) -> Tensor:
    """What is lost with the first k values kept, float64 [*batch, r + 1]: k = 0, ..., r."""
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
    """The least k whose loss is within the limit in all of the batch; losses [*batch, r + 1]."""
    if losses.numel() == 0:
        return 0
    fits = losses <= limit[..., None]
    fits = fits | (torch.arange(losses.shape[-1], device=losses.device) == losses.shape[-1] - 1)
    return int(fits.int().argmax(-1).max())


def rank_for(values: Tensor, tol: float, norm: Norm = "frobenius") -> int:
    """Return the smallest rank whose best approximation errs by at most tol |A|.

    Args:
        values: all singular values, falling, [*batch, r].
        tol: relative tolerance.
        norm: of the error.

    Raises:
        ValueError: for a tolerance that is not positive.

    Example:
        >>> rank_for(torch.tensor([1.0, 0.1, 0.01]), 0.05)
        2
    """
    if not tol > 0:
        raise ValueError(f"tol is {tol}: give a positive relative tolerance.")
    losses = tails(values, norm)
    return smallest_rank(losses, tol * losses[..., 0])


def compressed(value: LowRank, rank: int | None, tol: float | None) -> SVD:
    """The best approximation of a low-rank value, see `LowRank.compress`."""
    if (rank is None) == (tol is None):
        raise ValueError("Say what to compress to: a rank, or a relative tolerance tol.")
    if rank is not None and not 0 <= rank <= value.rank:
        raise ValueError(f"rank is {rank}, the value has {value.rank}: give no more than that.")
    if tol is not None and not tol > 0:
        raise ValueError(f"tol is {tol}: give a positive relative tolerance.")
    whole = value.attached
    left, right = value.left, value.right
    if whole is not None:
        left, right = left.detach(), right.detach()
    q, r = torch.linalg.qr(left)
    u, s, vh = of_projection(q, (r @ right).mH)
    losses = tails(s.detach(), value.error.norm)
    if rank is None:
        assert tol is not None
        rank = smallest_rank(losses, tol * losses[..., 0])
    rank = min(rank, s.shape[-1])
    lost = losses[..., rank] + ROUNDING * torch.finfo(value.dtype).eps * losses[..., 0]
    cut = replace(value.error, kind="exact", estimate=losses[..., rank], upper=lost)
    cut = replace(cut, failure_probability=0.0)
    error = added(value.error, cut)
    if bool((value.error.upper == 0).all()):
        error = replace(error, kind="exact")
    error = rescaled(error, losses[..., 0])
    parts = u[..., :rank], s[..., :rank], vh[..., :rank, :]
    return make(*parts, error, value.converged, value.notes, whole)
