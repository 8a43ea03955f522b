"""Ranks by tolerance: blocks with power steps, as in `svd(tol=)`, against block Krylov.

Block Krylov multiplies each block twice and extends one Krylov space. The other method starts each
block from a new sketch of the residual. Both stop at the same certified error and drop as many of
the last singular values as the tolerance allows. The smallest rank is that of the complete SVD.

    python -m benchmarks.lowrank.tolerance             about a minute
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.shared import harness
from benchmarks.shared.summaries import table
from noisewise import lowrank
from noisewise.lowrank.range_finder import orthonormal_to
from noisewise.lowrank.singular_values import of_projection, smallest_rank, tails

TOLERANCES = (0.3, 0.05, 1e-3)
SEEDS = 3
Way = Callable[[Tensor, float, torch.Generator], int]
SPECTRA: dict[str, Callable[[Tensor], Tensor]] = {
    "i^-2": lambda i: i**-2,
    "i^-1": lambda i: 1 / i,
    "i^-1/2": lambda i: i**-0.5,
    "10^(-i/10)": lambda i: 10 ** (-0.1 * i),
    "100 equal, then 50/i": lambda i: torch.where(i <= 100, 1.0, 50 / i),
}


def krylov(block: int) -> Way:
    """Block Krylov until the tolerance is met, for a dense matrix with the residual in memory."""

    def rank(a: Tensor, tol: float, generator: torch.Generator) -> int:
        limit, most = tol * a.norm(), min(a.shape)
        omega = torch.randn(a.shape[1], block, dtype=a.dtype, generator=generator)
        y, left = torch.linalg.qr(a @ omega).Q, a
        q, w, v = a[:, :0], a.mT[:, :0], a.mT[:, :0]
        while True:
            z = a.mT @ y
            left = left - y @ z.mT
            q, w = torch.cat([q, y], 1), torch.cat([w, z], 1)
            if left.norm() <= limit or q.shape[1] == most:
                break
            block_left = min(block, most - q.shape[1])
            v = torch.cat([v, orthonormal_to(z, v, generator)], 1)
            y = orthonormal_to(a @ v[:, -z.shape[1] :][:, :block_left], q, generator)
        s = of_projection(q, w)[1]
        return smallest_rank(torch.hypot(left.norm(), tails(s, "frobenius")), limit)

    return rank


def blocks(accurate: bool) -> Way:
    """The method of `svd(tol=)`."""

    def rank(a: Tensor, tol: float, generator: torch.Generator) -> int:
        return lowrank.svd(a, tol=tol, accurate=accurate, generator=generator).rank

    return rank


WAYS: dict[str, Way] = {
    "svd": blocks(accurate=False),
    "svd, accurate": blocks(accurate=True),
    "block Krylov, 20": krylov(20),
    "block Krylov, 50": krylov(50),
}


def measured(spectrum: str, tol: float, m: int, n: int) -> harness.Values:
    """Ranks and milliseconds of processor time, one number per seed."""
    generator = torch.Generator().manual_seed(0)
    u, v = (
        torch.linalg.qr(torch.randn(size, n, dtype=torch.float64, generator=generator)).Q
        for size in (m, n)
    )
    s = SPECTRA[spectrum](torch.arange(1, n + 1, dtype=torch.float64))
    a = (u * s) @ v.mT
    ranks: dict[str, list[int]] = {name: [] for name in WAYS}
    spent: dict[str, list[float]] = {name: [] for name in WAYS}
    for seed in range(1, SEEDS + 1):
        for name, way in WAYS.items():
            start = time.process_time()
            ranks[name].append(way(a, tol, torch.Generator().manual_seed(seed)))
            spent[name].append(1000 * (time.process_time() - start))
    return {"smallest": lowrank.rank_for(s, tol), "ranks": ranks, "ms": spent}


def main() -> None:
    """Run the missing cells and print the table."""
    arguments = harness.parser(__doc__ or "").parse_args()
    threads = harness.use_threads(arguments.threads or 1)
    path = harness.results_file(arguments, "lowrank/tolerance")
    conditions = harness.environment(threads, ("noisewise", "torch"))
    results = harness.Results(path, conditions, arguments.redo)
    m, n = (300, 200) if arguments.quick else (900, 600)
    if not arguments.table_only:
        for spectrum in SPECTRA:
            for tol in TOLERANCES:
                setting = {"spectrum": spectrum, "tol": tol, "m": m, "n": n}
                results.cell(setting, lambda s=spectrum, t=tol: measured(s, t, m, n))
    harness.publish(results, "Ranks by tolerance", [_table(results)])


def _table(results: harness.Results) -> str:
    rows = []
    for cell in results.cells({}):
        ranks, spent = cell.values["ranks"], cell.values["ms"]
        assert isinstance(ranks, dict)
        assert isinstance(spent, dict)
        shown = [f"{max(ranks[name])}, {min(spent[name]):.0f} ms" for name in WAYS]
        size = f"{cell.asked('m'):.0f} x {cell.asked('n'):.0f}"
        label = f"{cell.setting['spectrum']}, {size}, tol {cell.asked('tol'):g}"
        rows.append((label, f"{cell.number('smallest'):.0f}", *shown))
    return table(["largest rank, least time", "smallest rank", *WAYS], rows)


if __name__ == "__main__":
    harness.run_program(main)
