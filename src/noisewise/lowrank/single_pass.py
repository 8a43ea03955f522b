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

from noisewise.lowrank.certificate import PROBES, ROUNDING, Error, Kind, check_probability
from noisewise.lowrank.chi_square import chi_square_quantile
from noisewise.lowrank.dtypes import SINGLE
from noisewise.lowrank.factors import SVD, make
from noisewise.lowrank.inputs import as_matrix, computable, new_generator
from noisewise.lowrank.magnitude import frobenius_norm, is_plain, power_of_two
from noisewise.lowrank.operators import Dense, gaussian
from noisewise.lowrank.singular_values import of_projection, smallest_rank


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
    norms: list[Tensor]
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
        tol: cut the rank further where the error's bound (without a probability, its estimate)
            stays within tol |A|_F.
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
            a, notes = _block(block)
            if state is None:
                state = _begun(a, notes, sketch or 2 * rank + 10, generator)
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


def _block(given: object) -> tuple[Tensor, tuple[str, ...]]:
    """A block's entries, and what to say about their dtype; nothing waits for a device here."""
    if not isinstance(given, Tensor):
        read = as_matrix(given)
        given = read.tensor if isinstance(read, Dense) else torch.zeros(())
    if given.layout != torch.strided or given.dim() != 2:
        raise ValueError("Blocks of rows must be dense and two-dimensional.")
    return computable(given)


def _begun(a: Tensor, notes: tuple[str, ...], size: int, generator: torch.Generator) -> _Sketches:
    n = a.shape[1]
    size = min(size, n)
    psi_rows = math.ceil(1.5 * size)
    omega = gaussian((n, size), a.dtype, a.device, generator)
    probes = gaussian((n, PROBES), a.dtype, a.device, generator)
    left = torch.zeros(psi_rows, n, dtype=a.dtype, device=a.device)
    return _Sketches(omega, probes, psi_rows, [], [], [], left, [], 0, notes)


def _take(state: _Sketches, a: Tensor, generator: torch.Generator) -> None:
    rows, n = a.shape
    if n != state.omega.shape[0] or a.dtype != state.omega.dtype:
        raise ValueError(
            f"A block of rows is {n} wide in {a.dtype}, the first one {state.omega.shape[0]} in "
            f"{state.omega.dtype}: all must agree."
        )
    state.norms.append(_norm(a))
    if a.device.type == "cpu":  # a device is asked once, at the end
        _check_finite(state.norms)
    psi = gaussian((state.psi_rows, rows), a.dtype, a.device, generator)
    state.right.append(a @ state.omega)
    state.seen.append(a @ state.probes)
    state.psi.append(psi)
    state.left += psi @ a
    state.rows += rows


def _norm(a: Tensor) -> Tensor:
    """|A|_F in double precision, whatever the size of the entries; NaN or Inf where one is."""
    if a.dtype in SINGLE:
        wide = torch.complex128 if a.is_complex() else torch.float64
        return torch.linalg.vector_norm(a, dtype=wide)
    if a.numel() == 0:
        return a.real.new_zeros(())
    largest = a.abs().amax()
    unit = torch.where(largest > 0, largest, torch.ones_like(largest))
    return torch.linalg.vector_norm(a / unit) * unit


def _check_finite(norms: list[Tensor]) -> None:
    if not bool(torch.isfinite(norms[-1])):
        raise ValueError(f"Block {len(norms) - 1} of the rows holds NaN or Inf: mend it first.")


def _scale(state: _Sketches) -> tuple[Tensor, Tensor | None]:
    """|A|_F, and what the sketches are divided by first where squares leave the range."""
    norms = torch.stack(state.norms)
    largest = norms.amax()
    if not bool(torch.isfinite(largest)):
        first = int((~torch.isfinite(norms)).int().argmax())
        _check_finite(state.norms[: first + 1])
    size = torch.where(largest > 0, largest, torch.ones_like(largest))
    scale = torch.linalg.vector_norm(norms / size) * largest
    dtype = state.omega.dtype
    return scale, None if is_plain(scale, dtype) else power_of_two(scale, dtype)


def _finished(state: _Sketches, rank: int, tol: float | None, probability: float | None) -> SVD:
    scale, unit = _scale(state)
    y, g, left = torch.cat(state.right), torch.cat(state.seen), state.left
    if unit is not None:
        y, g, left = (part / unit.to(y.dtype) for part in (y, g, left))
        scale = scale / unit
    q, _ = torch.linalg.qr(y)  # [m, min(m, l)]
    inner, r = torch.linalg.qr(torch.cat(state.psi, 1) @ q)
    core = torch.linalg.solve_triangular(r, inner.mH @ left, upper=True)
    u, s, vh = of_projection(q, core.mH, rank)
    estimates = _by_rank(u, s[:rank], vh, g, state.probes)
    bounds, kind, probability = _bounds(y, estimates, scale, tol is not None, probability)
    judged = estimates if kind == "estimate" else bounds
    if tol is not None:
        rank = smallest_rank(judged, tol * scale)
    zero = torch.zeros_like(scale)
    error = Error("frobenius", kind, estimates[rank], bounds[rank], probability, scale, zero)
    converged, notes = True, state.notes
    if tol is not None and bool(judged[rank] > tol * scale):
        converged, notes = False, (*notes, f"the tolerance {tol:.2g} is not certified by one pass")
    s = s[:rank]
    if unit is not None:
        s, error = s * unit.to(s.dtype), error.scaled(unit)
    return make(u[:, :rank], s, vh[:rank], error, converged, notes)


def _bounds(
    y: Tensor, estimates: Tensor, scale: Tensor, is_chosen: bool, probability: float | None
) -> tuple[Tensor, Kind, float]:
    """What each truncation errs by at most, how that is known, and when it fails."""
    if probability is None:
        return torch.full_like(estimates, math.inf), "estimate", 0.0
    # One of the truncations is chosen by what the probes say: each gets a share.
    share = probability / (len(estimates) if is_chosen else 1)
    if y.is_complex():
        quantile = chi_square_quantile(2 * PROBES, share) / 2
    else:
        quantile = chi_square_quantile(PROBES, share)
    slack = ROUNDING * torch.finfo(y.dtype).eps * scale
    return estimates * math.sqrt(PROBES / quantile) + slack, "probes", probability


def _by_rank(u: Tensor, s: Tensor, vh: Tensor, g: Tensor, probes: Tensor) -> Tensor:
    """Estimated error of each truncation k = 0, ..., rank, from G = A probes."""
    answers = (vh @ probes) * s[:, None].to(vh.dtype)  # [rank, probes]
    squares = [frobenius_norm(g)]
    for k in range(len(s)):
        g = g - u[:, k : k + 1] @ answers[k : k + 1]
        squares.append(frobenius_norm(g))
    return torch.stack(squares) / math.sqrt(PROBES)
