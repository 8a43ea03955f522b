"""Chooses the columns that represent the others: pivoted Gram-Schmidt on a sketch.

Businger and Golub 1965 (the pivots); Voronin and Martinsson 2017 (on a sketch of A instead of A);
Gu and Eisenstat 1996 (swaps that keep the coefficients small).
"""

from __future__ import annotations

import torch
from torch import Tensor


def pivots(sketch: Tensor, count: int, allowed: Tensor | None = None) -> Tensor:
    """Return the columns that pivoted QR takes first; on a GPU without waiting for results.

    Each step takes the column farthest from the span of the columns before it, and subtracts its
    direction from all other columns.

    Args:
        sketch: [*batch, l, n].
        count: k <= n. Above the numerical rank, the first columns not yet taken are added.
        allowed: bool [*batch, n], the columns that may be taken; all by default.

    Returns:
        int64 [*batch, k], in the order in which they were chosen; all different.
    """
    real = sketch.real.dtype
    sketch = sketch.contiguous()
    start = torch.linalg.vector_norm(sketch, dim=-2).square()
    nothing = 4 * torch.finfo(real).eps * start  # the rounding left of a column in the span
    left = start if allowed is None else start.masked_fill(~allowed, -torch.inf)
    if sketch.dim() == 2 and sketch.device.type == "cpu":
        return _one_by_one(sketch, count, left.clone(), nothing)
    shape = sketch.shape[:-1]
    index = torch.empty(*shape[:-1], count, dtype=torch.int64, device=sketch.device)
    basis = sketch.new_zeros(*shape, count)
    for step in range(count):
        # Columns inside the span come after all others, and before columns that are not allowed.
        worth = torch.where(left > nothing, left, left.clamp(max=-1.0))
        chosen = worth.argmax(-1, keepdim=True)
        index[..., step : step + 1] = chosen
        column = sketch.gather(-1, chosen[..., None, :].expand(*shape, 1))
        taken = basis[..., :step]
        for _ in range(2):
            column = column - taken @ (taken.mH @ column)
        size = torch.linalg.vector_norm(column, dim=-2, keepdim=True)
        column = column / size.clamp_min(torch.finfo(real).tiny)
        basis[..., step : step + 1] = column
        row = (column.mH @ sketch)[..., 0, :]
        left = (left - (row.square() if row.dtype == real else row.abs().square())).scatter_(
            -1, chosen, -torch.inf
        )
    return index


def _one_by_one(sketch: Tensor, count: int, left: Tensor, nothing: Tensor) -> Tensor:
    """The same for one matrix on the CPU, where reading an index is cheap: twice as fast."""
    basis = sketch.new_zeros(len(sketch), count)
    index: list[int] = []
    for step in range(count):
        chosen = int(left.argmax())
        if not left[chosen] > nothing[chosen]:
            chosen = int(torch.where(left > nothing, left, left.clamp(max=-1.0)).argmax())
        index.append(chosen)
        column, taken = sketch[:, chosen], basis[:, :step]
        for _ in range(2):
            column = torch.addmv(column, taken, taken.mH @ column, alpha=-1)
        size = torch.linalg.vector_norm(column).clamp_min(torch.finfo(left.dtype).tiny)
        column = torch.div(column, size, out=basis[:, step])
        row = column.conj() @ sketch
        left.sub_(row.square() if row.dtype == left.dtype else row.abs().square())
        left[chosen] = -torch.inf
    return torch.tensor(index, dtype=torch.int64)


def coefficients(chosen: Tensor, others: Tensor) -> Tensor:
    """Return the Z with the smallest |others - chosen Z|_F, by QR with columns of unit length.

    Args:
        chosen: [*batch, l, k].
        others: [*batch, l, n].
    """
    size = torch.linalg.vector_norm(chosen, dim=-2, keepdim=True)
    size = torch.where(size > 0, size, torch.ones_like(size))
    q, r = torch.linalg.qr(chosen / size)
    return solve_upper(r, q.mH @ others) / size.mT


def solve_upper(r: Tensor, right_side: Tensor) -> Tensor:
    """R^-1 B, without the directions in which R is nearly singular."""
    diagonal = r.diagonal(dim1=-2, dim2=-1)
    if diagonal.shape[-1] == 0:
        return right_side
    eps = torch.finfo(r.dtype).eps * r.shape[-1]
    weak = diagonal.abs() <= eps * diagonal.abs().amax(-1, keepdim=True)
    # A weak direction gets the pivot 1 and zeros everywhere else, so that its result is 0.
    r = torch.where(weak[..., :, None], torch.zeros_like(r), r) + torch.diag_embed(weak.to(r.dtype))
    right_side = torch.where(weak[..., :, None], torch.zeros_like(right_side), right_side)
    return torch.linalg.solve_triangular(r, right_side, upper=True)


def with_small_coefficients(
    sketch: Tensor, index: Tensor, bound: float, most_swaps: int = 100
) -> Tensor:
    """Swap chosen columns for others until no coefficient exceeds the bound.

    A swap of column i for column j multiplies the volume of the chosen columns by |Z_ij| > bound,
    so there are few swaps.

    Args:
        sketch: [*batch, l, n].
        index: [*batch, k].
        bound: above 1.
        most_swaps: the largest number of swaps.

    Returns:
        The index after the swaps.
    """
    if index.shape[-1] == 0:
        return index
    n = sketch.shape[-1]
    for _ in range(most_swaps):
        where = index[..., None, :].expand(*sketch.shape[:-1], index.shape[-1])
        z = coefficients(sketch.gather(-1, where), sketch).abs()
        worst, place = z.flatten(-2).max(-1)
        if bool((worst <= bound).all()):
            break
        row, column = place // n, place % n
        swapped = index.scatter(-1, row[..., None], column[..., None])
        index = torch.where((worst > bound)[..., None], swapped, index)
    return index
