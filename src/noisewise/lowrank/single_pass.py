"""A truncated SVD of rows that pass by once: the generalised Nystrom approximation.

Tropp, Yurtsever, Udell and Cevher 2017 (arXiv 1609.00048), algorithm 7 without the second pass;
Nakatsukasa 2020 (arXiv 2009.11392), who solves with a QR in place of a pseudo-inverse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from noisewise.lowrank.certificate import (
    PROBES,
    Error,
    check_probability,
    rounding,
)
from noisewise.lowrank.chi_square import chi_square_quantile
from noisewise.lowrank.operators import Dense, frobenius_norm, gaussian
from noisewise.lowrank.reading import as_matrix, new_generator
from noisewise.lowrank.singular import SVD, make, of_projection, smallest_rank, tails


@dataclass
class _Sketches:
    """What is kept of the rows: products from the right, from the left, and of the probes."""

    omega: Tensor
    probes: Tensor
    psi_rows: int
    right: list[Tensor]
    seen: list[Tensor]
    psi: list[Tensor]
    left: Tensor
    square: float
    rows: int
    notes: tuple[str, ...]


def single_pass(
    rows: Iterable[Tensor],
    rank: int,
    *,
    tol: float | None = None,
    generator: torch.Generator | None = None,
    failure_probability: float | None = 1e-6,
    sketch: int | None = None,
) -> SVD:
    """Return a truncated SVD of a matrix whose rows are seen once, block after block.

    ``A ~ Y (Psi Y)^+ (Psi A)`` with Y = A Omega: l and 1.5 l random directions, then truncated to
    the rank. Memory is 3 l (m + n) numbers. It errs 2 to 10 times as much as `svd` does, in the
    spectral norm more, and says so: its error is bounded by probes that went through the same pass.
    Use it only where a second look at A is impossible.

    Args:
        rows: blocks [rows, n] of one matrix from top to bottom, all of one width and dtype.
        rank: of the result, at most.
        tol: cut the rank further where the error (its estimate) stays within tol |A|_F.
        generator: of all random numbers; a fixed seed without one.
        failure_probability: of `error.upper`; None for an estimate alone. 0 is not possible: an
            exact error needs A again.
        sketch: l; 2 rank + 10 by default.

    Raises:
        ValueError: for no rows, blocks of different widths, NaN or Inf, or a rank that the matrix
            cannot have.

    Example:
        >>> a = torch.outer(torch.arange(1.0, 101.0), torch.ones(30))
        >>> r = single_pass(a.split(8), rank=1)
        >>> r.shape, bool(r.error.relative_estimate < 1e-4)
        (torch.Size([100, 30]), True)
    """
    check_probability(failure_probability)
    if failure_probability == 0:
        raise ValueError(
            "An exact error needs the rows again: give a probability, or None for an estimate."
        )
    if rank < 0 or (sketch is not None and sketch < max(rank, 1)):
        raise ValueError(f"rank is {rank} and sketch {sketch}: give 0 <= rank <= sketch.")
    if tol is not None and not tol > 0:
        raise ValueError(f"tol is {tol}: give a positive relative tolerance.")
    generator = new_generator(generator)
    state: _Sketches | None = None
    with torch.no_grad():
        for block in rows:
            a = as_matrix(block)
            if not isinstance(a, Dense) or a.batch:
                raise ValueError("Blocks of rows must be dense and two-dimensional.")
            if state is None:
                state = _begun(a, sketch or 2 * rank + 10, generator)
            _take(state, a, generator)
        if state is None:
            raise ValueError("There are no rows.")
        small = min(state.rows, state.omega.shape[0])
        if rank > small:
            raise ValueError(
                f"rank is {rank}, but a matrix {state.rows} x {state.omega.shape[0]} has ranks "
                f"from 0 to {small}."
            )
        return _finished(state, rank, tol, failure_probability)


def _begun(a: Dense, size: int, generator: torch.Generator) -> _Sketches:
    size = min(size, a.n)
    psi_rows = math.ceil(1.5 * size)
    omega = gaussian((a.n, size), a.dtype, a.device, generator)
    probes = gaussian((a.n, PROBES), a.dtype, a.device, generator)
    left = torch.zeros(psi_rows, a.n, dtype=a.dtype, device=a.device)
    return _Sketches(omega, probes, psi_rows, [], [], [], left, 0.0, 0, a.notes)


def _take(state: _Sketches, a: Dense, generator: torch.Generator) -> None:
    if a.n != state.omega.shape[0] or a.dtype != state.omega.dtype:
        raise ValueError(
            f"A block of rows is {a.n} wide in {a.dtype}, the first one {state.omega.shape[0]} in "
            f"{state.omega.dtype}: all must agree."
        )
    psi = gaussian((state.psi_rows, a.m), a.dtype, a.device, generator)
    state.right.append(a.matmat(state.omega))
    state.seen.append(a.matmat(state.probes))
    state.psi.append(psi)
    state.left += psi @ a.tensor
    state.square += float(a.frobenius()) ** 2
    state.rows += a.m


def _finished(state: _Sketches, rank: int, tol: float | None, probability: float | None) -> SVD:
    y = torch.cat(state.right)
    q, _ = torch.linalg.qr(y)  # [m, min(m, l)]
    inner, r = torch.linalg.qr(torch.cat(state.psi, 1) @ q)
    core = torch.linalg.solve_triangular(r, inner.mH @ state.left, upper=True)
    u, s, vh = of_projection(q, core.mH, rank)
    g = torch.cat(state.seen)
    scale = torch.tensor(math.sqrt(state.square), dtype=torch.float64, device=y.device)
    estimates = _by_rank(u, s[:rank], vh, g, state.probes)
    if tol is not None:
        rank = smallest_rank(estimates, tol * scale)
    count = 2 * PROBES if y.is_complex() else PROBES
    if probability is None:
        upper, kind, probability = torch.full_like(scale, math.inf), "estimate", 0.0
    else:
        # One of up to rank + 1 truncations was chosen by what the probes said: each gets a share.
        looks = len(estimates) if tol is not None else 1
        quantile = chi_square_quantile(count, probability / looks) / (2 if y.is_complex() else 1)
        slack = rounding(Dense(y), scale)
        upper = estimates[rank] * math.sqrt(PROBES / quantile) + slack
        kind = "probes"
    lower = tails(s, "frobenius")[rank] * 0
    error = Error("frobenius", kind, estimates[rank], upper, probability, scale, lower)
    parts = u[:, :rank], s[:rank], vh[:rank]
    reached = error.estimate if kind == "estimate" else error.upper
    if tol is None or bool(reached <= tol * scale):
        return make(*parts, error, True, state.notes)
    note = f"the tolerance {tol:.2g} is not certified by one pass"
    return make(*parts, error, False, (*state.notes, note))


def _by_rank(u: Tensor, s: Tensor, vh: Tensor, g: Tensor, probes: Tensor) -> Tensor:
    """Estimated error of each truncation k = 0, ..., rank, from G = A probes."""
    answers = (vh @ probes) * s[:, None].to(vh.dtype)  # [rank, probes]
    squares = [frobenius_norm(g)]
    for k in range(len(s)):
        g = g - u[:, k : k + 1] @ answers[k : k + 1]
        squares.append(frobenius_norm(g))
    return torch.stack(squares) / math.sqrt(PROBES)
