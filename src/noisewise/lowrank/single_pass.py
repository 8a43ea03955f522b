"""A truncated SVD in one pass over the rows: the generalised Nystrom approximation.

Tropp, Yurtsever, Udell and Cevher 2017 (arXiv 1609.00048), algorithm 7 without the second pass;
Nakatsukasa 2020 (arXiv 2009.11392: a QR instead of a pseudo-inverse).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noisewise.lowrank.arrays import as_arrays, is_dask, is_numpy
from noisewise.lowrank.certificate import PROBES, ROUNDING, Error, Kind, check_probability
from noisewise.lowrank.chi_square import chi_square_quantile
from noisewise.lowrank.dtypes import SINGLE, computable
from noisewise.lowrank.factors import SVD, make
from noisewise.lowrank.inputs import Randomness, as_matrix, new_generator
from noisewise.lowrank.magnitude import frobenius_norm, is_plain, power_of_two
from noisewise.lowrank.operators import Dense, gaussian
from noisewise.lowrank.request import positive, whole
from noisewise.lowrank.singular_values import of_projection, smallest_rank


@dataclass
class _Sketches:
    """What is kept of the rows: products from the right, from the left, and with the probes.

    Psi, which multiplies from the left, is drawn block by block and is not kept: each block has its
    own seed, from which it is drawn again at the end.
    """

    omega: Tensor
    probes: Tensor
    psi_rows: int
    right: list[Tensor]
    probed: list[Tensor]
    seed: int
    drawn_on: torch.device
    left: Tensor
    norms: list[Tensor]
    rows: int
    notes: tuple[str, ...]


def single_pass(
    rows: Iterable[object],
    rank: int,
    *,
    tol: float | None = None,
    generator: Randomness = None,
    failure_probability: float | None = 1e-6,
    sketch: int | None = None,
) -> SVD:
    """Return a truncated SVD of a matrix whose rows are read only once, block after block.

    ``A ~ Y (Psi Y)^+ (Psi A)`` with Y = A Omega, l random directions in Omega and 1.5 l in Psi; the
    result is truncated to the rank. Beside four blocks it needs memory for (l + 20) m and
    (2.5 l + 20) n numbers while it reads, and for at most (3 l + 40) m + (8 l + 40) n at the end.
    The error is 2 to 10 times that of `svd`, and more in the spectral norm; probes in the same pass
    bound it. Use it only if A cannot be read a second time.

    Args:
        rows: blocks [rows, n] of one matrix from top to bottom, all with the same width and dtype;
            or an array of dask, which is computed one block of rows at a time.
        rank: the largest rank of the result.
        tol: reduce the rank as long as the bound of the error (without a probability, its estimate)
            stays within tol |A|_F.
        generator: the source of all random numbers; by default a fixed seed.
        failure_probability: the probability that `error.upper` is too small, up to 0.1; None for an
            estimate without a bound. 0 is not possible, because an exact error needs A again.
        sketch: l; 2 rank + 10 by default.

    Raises:
        ValueError: without rows, for blocks of different widths or dtypes, for NaN or Inf, and for
            a rank that the matrix cannot have.

    Example:
        >>> a = torch.outer(torch.arange(1.0, 101.0), torch.ones(30))
        >>> r = single_pass(a.split(8), rank=1)
        >>> r.shape, bool(r.error.relative_estimate < 1e-4)
        (torch.Size([100, 30]), True)
    """
    check_probability(failure_probability)
    if failure_probability == 0:
        raise ValueError(
            "failure_probability is 0, but an exact error needs the rows again: give a "
            "probability, or None for an estimate."
        )
    rank = whole("rank", rank)
    sketch = None if sketch is None else whole("sketch", sketch)
    if sketch is not None and sketch < max(rank, 1):
        raise ValueError(f"rank is {rank} and sketch {sketch}: give 0 <= rank <= sketch.")
    tol = None if tol is None else positive("tol", tol)
    generator = new_generator(generator)
    state: _Sketches | None = None
    to_arrays = False
    with torch.no_grad():
        for block in _computed(rows) if is_dask(rows) else rows:
            a, notes = _block(block)
            if state is None:
                to_arrays = is_numpy(block)
                state = _start(a, notes, sketch or 2 * rank + 10, generator)
            _add(state, a)
        if state is None:
            raise ValueError("There are no rows: give at least one block.")
        small = min(state.rows, state.omega.shape[0])
        if rank > small:
            raise ValueError(
                f"rank is {rank}: a {state.rows} x {state.omega.shape[0]} matrix can have ranks "
                f"from 0 to {small}."
            )
        found = _finish(state, rank, tol, failure_probability)
    return as_arrays(found) if to_arrays else found


def _computed(rows: Any) -> Iterator[np.ndarray]:  # noqa: ANN401 (an array of dask)
    """The blocks of rows of an array of dask."""
    if rows.ndim != 2:
        raise ValueError(f"The shape is {list(rows.shape)}: give a matrix with two dimensions.")
    for block in range(rows.numblocks[0]):
        yield np.asarray(rows.blocks[block])


def _block(given: object) -> tuple[Tensor, tuple[str, ...]]:
    """The entries of a block, and notes about their dtype; this does not wait for a GPU."""
    if is_dask(given):
        given = np.asarray(given)
    if not isinstance(given, Tensor):
        read = as_matrix(given)
        given = read.tensor if isinstance(read, Dense) else torch.zeros(())
    if given.layout != torch.strided or given.dim() != 2:
        raise ValueError("A block of rows must be a dense matrix with two dimensions.")
    return computable(given.detach())


def _start(a: Tensor, notes: tuple[str, ...], size: int, generator: torch.Generator) -> _Sketches:
    n = a.shape[1]
    size = min(size, n)
    psi_rows = math.ceil(1.5 * size)
    omega = gaussian((n, size), a.dtype, a.device, generator)
    probes = gaussian((n, PROBES), a.dtype, a.device, generator)
    left = torch.zeros(psi_rows, n, dtype=a.dtype, device=a.device)
    on = generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=on))
    return _Sketches(omega, probes, psi_rows, [], [], seed, on, left, [], 0, notes)


def _psi(state: _Sketches, block: int, rows: int) -> Tensor:
    """The columns of Psi that multiply a block."""
    generator = torch.Generator(state.drawn_on).manual_seed(state.seed + block)
    shape = (state.psi_rows, rows)
    return gaussian(shape, state.omega.dtype, state.omega.device, generator)


def _add(state: _Sketches, a: Tensor) -> None:
    rows, n = a.shape
    if n != state.omega.shape[0] or a.dtype != state.omega.dtype:
        raise ValueError(
            f"A block of rows has {n} columns of {a.dtype}, but the first block has "
            f"{state.omega.shape[0]} of {state.omega.dtype}: all blocks must agree."
        )
    state.norms.append(_norm(a))
    if a.device.type == "cpu":  # on a GPU, this is checked once, at the end
        _check_finite(state.norms)
    state.left += _psi(state, len(state.right), rows) @ a
    state.right.append(a @ state.omega)
    state.probed.append(a @ state.probes)
    state.rows += rows


def _norm(a: Tensor) -> Tensor:
    """|A|_F in double precision for entries of any size; NaN or Inf if the block holds any."""
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
        raise ValueError(
            f"Block {len(norms) - 1} of the rows holds NaN or Inf: replace these values first."
        )


def _scale(state: _Sketches) -> tuple[Tensor, Tensor | None]:
    """|A|_F, and a divisor for the sketches if squares leave the range, else None."""
    norms = torch.stack(state.norms)
    largest = norms.amax()
    if not bool(torch.isfinite(largest)):
        first = int((~torch.isfinite(norms)).int().argmax())
        _check_finite(state.norms[: first + 1])
    size = torch.where(largest > 0, largest, torch.ones_like(largest))
    scale = torch.linalg.vector_norm(norms / size) * largest
    dtype = state.omega.dtype
    return scale, None if is_plain(scale, dtype) else power_of_two(scale, dtype)


def _finish(state: _Sketches, rank: int, tol: float | None, probability: float | None) -> SVD:
    scale, unit = _scale(state)
    lengths = [len(part) for part in state.right]
    y, g = _joined(state.right, unit), _joined(state.probed, unit)
    left = state.left if unit is None else state.left / unit.to(y.dtype)
    scale = scale if unit is None else scale / unit
    q, _ = torch.linalg.qr(y)  # [m, min(m, l)]
    del y
    parts = enumerate(q.split(lengths))
    psi_q = sum((_psi(state, b, len(p)) @ p for b, p in parts), q.new_zeros(()))
    inner, r = torch.linalg.qr(psi_q)
    core = torch.linalg.solve_triangular(r, inner.mH @ left, upper=True)
    u, s, vh = of_projection(q, core.mH, rank)
    del q, left, core
    estimates = _by_rank(u, s[:rank], vh, g, state.probes)
    bounds, kind, probability = _bounds(u, estimates, scale, tol is not None, probability)
    sizes = estimates if kind == "estimate" else bounds
    if tol is not None:
        rank = smallest_rank(sizes, tol * scale)
    zero = torch.zeros_like(scale)
    error = Error("frobenius", kind, estimates[rank], bounds[rank], probability, scale, zero)
    converged, notes = True, state.notes
    if tol is not None and bool(sizes[rank] > tol * scale):
        converged, notes = False, (*notes, f"the tolerance {tol:.2g} was not certified in one pass")
    s = s[:rank]
    if unit is not None:
        s, error = s * unit.to(s.dtype), error.scaled(unit)
    return make(u[:, :rank], s, vh[:rank], error, converged, notes)


def _joined(parts: list[Tensor], unit: Tensor | None) -> Tensor:
    """The blocks in one, divided by a unit; the list is empty afterwards."""
    whole = torch.cat(parts)
    parts.clear()
    return whole if unit is None else whole.div_(unit.to(whole.dtype))


def _bounds(
    u: Tensor, estimates: Tensor, scale: Tensor, is_chosen: bool, probability: float | None
) -> tuple[Tensor, Kind, float]:
    """A bound of the error of each truncation, its kind, and its probability of failure."""
    if probability is None:
        return torch.full_like(estimates, math.inf), "estimate", 0.0
    # The probes choose one of the truncations, so each gets a share of the probability.
    share = probability / (len(estimates) if is_chosen else 1)
    if u.is_complex():
        quantile = chi_square_quantile(2 * PROBES, share) / 2
    else:
        quantile = chi_square_quantile(PROBES, share)
    slack = ROUNDING * torch.finfo(u.dtype).eps * scale
    return estimates * math.sqrt(PROBES / quantile) + slack, "probes", probability


def _by_rank(u: Tensor, s: Tensor, vh: Tensor, g: Tensor, probes: Tensor) -> Tensor:
    """Estimated error of each truncation k = 0, ..., rank, from G = A probes."""
    answers = (vh @ probes) * s[:, None].to(vh.dtype)  # [rank, probes]
    squares = [frobenius_norm(g)]
    for k in range(len(s)):
        g = g - u[:, k : k + 1] @ answers[k : k + 1]
        squares.append(frobenius_norm(g))
    return torch.stack(squares) / math.sqrt(PROBES)
