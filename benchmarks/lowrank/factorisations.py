"""Low-rank factorisations: error against the best, time against peers, and the certificate.

A cell is one matrix, dtype and rank. All methods take turns, seed by seed, so that a change in the
speed of the machine affects all of them. Times are processor times on one thread, so the load of
other programs does not count. F/opt is the error in the Frobenius norm divided by the best possible
error.

    python -m benchmarks.lowrank.factorisations                  everything, about ten minutes
    python -m benchmarks.lowrank.factorisations --weights FILE   the largest weights of a file

The peers scikit-learn and skerch are compared if they are installed.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.lowrank import figure as lowrank_figure
from benchmarks.lowrank.peers import BATCHED, SINGULAR, SKELETON, Way
from benchmarks.shared import harness
from benchmarks.shared.summaries import figure, ratio, table
from noisewise import lowrank
from noisewise.lowrank.certificate import Residual, probed
from noisewise.lowrank.operators import Dense

RANKS = (50, 10, 100)  # in this order, so that a stopped run has the most useful cells
CERTIFIED = (10, 25, 50, 100, 200)  # ranks at which the certificate is compared with the true error
SEEDS = 5
PACKAGES = ("noisewise", "torch", "numpy", "scipy", "scikit-learn", "skerch")


def _spectrum(name: str, count: int) -> Tensor:
    i = torch.arange(1, count + 1, dtype=torch.float64)
    return {
        "i^-2": i**-2.0,
        "i^-1": i**-1.0,
        "i^-1/2": i**-0.5,
        "10^(-i/10)": 10 ** (-0.1 * i),
        "step at 50": torch.where(i <= 50, 1.0, 0.01).double(),
    }[name]


def matrix(name: str, m: int, n: int, weights: str | None) -> Tensor:
    """The matrix with this name, in double precision."""
    generator = torch.Generator().manual_seed(0)
    if name == "kernel":  # Gaussian kernel of points on a winding curve
        t = torch.linspace(0, 1, m, dtype=torch.float64)[:, None]
        waves = torch.arange(1, 17, dtype=torch.float64)
        points = torch.cat([torch.sin(7 * waves * t) / waves, torch.cos(5 * waves * t) / waves], 1)
        return torch.exp(-torch.cdist(points, points[:n]).square() / 0.5)
    if name == "Kahan":
        c = 0.285
        powers = (1 - c * c) ** (0.5 * torch.arange(96, dtype=torch.float64))
        return powers[:, None] * (torch.eye(96) - c * torch.ones(96, 96).triu(1)).double()
    if name == "photograph":
        return photograph()
    if name == "batch":
        u, v = (
            torch.linalg.qr(torch.randn(256, size, n, dtype=torch.float64, generator=generator)).Q
            for size in (m, n)
        )
        return (u * _spectrum("i^-1", n)) @ v.mT
    if name.startswith("weight "):
        assert weights is not None
        return load_file(weights)[name.removeprefix("weight ")].flatten(1).double()
    u, v = (
        torch.linalg.qr(torch.randn(size, n, dtype=torch.float64, generator=generator)).Q
        for size in (m, n)
    )
    return (u * _spectrum(name, n)) @ v.mT


def photograph() -> Tensor:
    """A photograph in grey, 427 x 640, which comes with scikit-learn."""
    from sklearn.datasets import load_sample_image

    red, green, blue = torch.from_numpy(load_sample_image("china.jpg").copy()).double().unbind(-1)
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255


def spectral_norm(e: Tensor) -> float:
    """The spectral norm by 12 steps of block iteration; it can be a little too small."""
    generator = torch.Generator().manual_seed(9)
    q = torch.randn(*e.shape[:-2], e.shape[-1], 6, dtype=e.dtype, generator=generator)
    for _ in range(12):
        q = torch.linalg.qr(e.mT @ (e @ q)).Q
    return float(torch.linalg.matrix_norm(e @ q, 2).max())


def compared(a: Tensor, dtype: torch.dtype, k: int, ways: Mapping[str, Way]) -> harness.Values:
    """Milliseconds and errors of each method, one number per seed."""
    s = torch.linalg.svdvals(a)
    best, best_two = float(s[..., k:].norm()), float(s[..., k].max())
    given = a.to(dtype)
    values: dict[str, dict[str, list[float]]] = {
        name: {"ms": [], "F": [], "two": []} for name in ways
    }
    for way in ways.values():
        way(given, k, 0)  # a first call, not measured
    for seed in range(1, SEEDS + 1):
        for name, way in ways.items():
            if name.startswith("LAPACK") and seed > 1:
                continue  # it does not depend on the seed
            start = time.process_time()
            left, right = way(given, k, seed)
            values[name]["ms"].append(1000 * (time.process_time() - start))
            e = a - left.double() @ right.double()
            values[name]["F"].append(float(e.norm()) / best)
            if seed == 1:
                values[name]["two"].append(spectral_norm(e) / best_two)
    return {"ways": values, "best": best, "scale": float(a.norm())}


def certified(a: Tensor, k: int) -> harness.Values:
    """The cost of the certificate, and how sharp it is."""
    spent: dict[str, list[float]] = {"svd": [], "probes": [], "exact": []}
    sharp: list[float] = []
    for seed in range(SEEDS):
        g = torch.Generator().manual_seed(seed)
        start = time.process_time()
        r = lowrank.svd(a, k, generator=g)
        middle = time.process_time()
        found = lowrank.certify(a, r.left, r.right, generator=g)
        end = time.process_time()
        lowrank.certify(a, r.left, r.right, failure_probability=0)
        spent["svd"].append(1000 * (middle - start))
        spent["probes"].append(1000 * (end - middle))
        spent["exact"].append(1000 * (time.process_time() - end))
        sharp.append(float(found.upper) / float((a - r.dense()).norm()))
    return {"ms": spent, "upper over true": sharp}


def failures(d: float, s: int, draws: int) -> harness.Values:
    """How often the bound fails in the worst case, a residual of rank one."""
    generator = torch.Generator().manual_seed(1)
    e = torch.zeros(draws, 2, 2, dtype=torch.float64)
    e[:, 0, 0] = 1
    residual = Residual(Dense(e), e[..., :0], e[..., :0, :])
    g = e @ torch.randn(draws, 2, s, dtype=torch.float64, generator=generator)
    upper = probed(residual, g, "frobenius", d * draws)[1]
    return {"failed": float((upper < 1).double().mean()), "draws": draws}


def main() -> None:
    """Run the missing cells and print the tables."""
    parser = harness.parser(__doc__ or "")
    parser.add_argument("--weights", default=None, help="a .safetensors checkpoint")
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads or 1)
    path = harness.results_file(arguments, "lowrank/factorisations")
    results = harness.Results(path, harness.environment(threads, PACKAGES), arguments.redo)
    if not arguments.table_only:
        _run(results, arguments.quick, arguments.weights)
    place = (
        harness.work_folder(arguments, "lowrank/factorisations")
        if arguments.quick
        else harness.FIGURES
    )
    if lowrank_figure.draw(results, RANKS[0], place / "lowrank.svg"):
        harness.note(f"chart: {place / 'lowrank.svg'}")
    harness.publish(results, "Low-rank factorisations", _tables(results))


def _run(results: harness.Results, quick: bool, weights: str | None) -> None:
    m, n = (300, 200) if quick else (1500, 1000)
    names = ["i^-2", "i^-1", "i^-1/2", "10^(-i/10)", "step at 50", "kernel"]
    _small_cells(results, quick)
    grid = [(name, "float64", RANKS[0]) for name in names]
    grid += [(name, "float32", RANKS[0]) for name in names]
    if weights:
        large = sorted(load_file(weights).items(), key=lambda item: -item[1].numel())[:2]
        grid += [(f"weight {name}", "float32", 10) for name, _ in large]
    grid += [(name, "float64", k) for k in RANKS[1:] for name in names]
    if find_spec("sklearn"):
        grid += [("photograph", "float64", k) for k in RANKS]
    for name, dtype, k in grid[: 2 if quick else None]:
        for part, ways in (("singular", SINGULAR), ("skeleton", SKELETON)):
            if part == "skeleton" and dtype == "float32":
                continue  # scipy accepts only float64
            setting = {"part": part, "matrix": name, "dtype": dtype, "k": k}
            results.cell(
                setting,
                lambda name=name, dtype=dtype, k=k, ways=ways: compared(
                    matrix(name, m, n, weights), getattr(torch, dtype), k, ways
                ),
            )

    _other_shapes(results, quick)


def _other_shapes(results: harness.Results, quick: bool) -> None:
    """A large square matrix in single precision, and a batch of small matrices."""
    side = 300 if quick else 2000
    for k in (20,) if quick else (20, 100):
        results.cell(
            {"part": "singular", "matrix": f"i^-1, {side}^2", "dtype": "float32", "k": k},
            lambda k=k: compared(matrix("i^-1", side, side, None), torch.float32, k, SINGULAR),
        )
    for dtype in ("float64", "float32"):
        results.cell(
            {"part": "batch", "matrix": "256 of 128 x 64", "dtype": dtype, "k": 16},
            lambda dtype=dtype: compared(
                matrix("batch", 128, 64, None), getattr(torch, dtype), 16, BATCHED
            ),
        )


def _small_cells(results: harness.Results, quick: bool) -> None:
    """Kahan's matrix and the certificate."""
    results.cell(
        {"part": "skeleton", "matrix": "Kahan", "dtype": "float64", "k": 95},
        lambda: compared(matrix("Kahan", 96, 96, None), torch.float64, 95, SKELETON),
    )
    for d, s in ((0.05, 5), (0.01, 10), (1e-3, 20)):
        results.cell({"part": "failures", "d": d, "s": s}, lambda d=d, s=s: failures(d, s, 10_000))
    for name in ("i^-1", "10^(-i/10)"):
        size = 400 if quick else 2000
        for k in CERTIFIED[:3] if quick else CERTIFIED:
            results.cell(
                {"part": "certificate", "matrix": name, "k": k},
                lambda name=name, size=size, k=k: certified(matrix(name, size, size, None), k),
            )


def _ways(cell: harness.Cell) -> Mapping[str, Mapping[str, Sequence[float]]]:
    ways = cell.values["ways"]
    assert isinstance(ways, dict)
    return ways


def _tables(results: harness.Results) -> list[str]:
    return [
        "### Singular vectors: F/opt [2/opt], and the time over torch.svd_lowrank's",
        *_compared(results, "singular", "torch.svd_lowrank, q = k + 10"),
        "### Real columns and rows: F/opt [2/opt], and the time over scipy interp_decomp's",
        *_compared(results, "skeleton", "scipy interp_decomp"),
        "### A batch: F/opt [2/opt], and the time over torch.svd_lowrank's",
        *_compared(results, "batch", "torch.svd_lowrank, q = k + 10"),
        "### The certificate",
        _certificate(results),
        _failures(results),
    ]


def _compared(results: harness.Results, part: str, base: str) -> list[str]:
    """A table of errors and a table of times for each dtype."""
    made = []
    for dtype in ("float64", "float32"):
        cells = sorted(
            results.cells({"part": part, "dtype": dtype}),
            key=lambda cell: (str(cell.setting["matrix"]), cell.asked("k")),
        )
        if not cells:
            continue
        names = list(dict.fromkeys(name for cell in cells for name in _ways(cell)))
        head = [f"{c.setting['matrix']}, {c.setting['k']}" for c in cells]
        errors = [[name, *(_error(_ways(cell).get(name)) for cell in cells)] for name in names]
        times = []
        for name in names:
            line: list[object] = [name]
            for cell in cells:
                ways = _ways(cell)
                mine, theirs = ways.get(name), ways.get(base)
                found = ratio([mine["ms"]], [theirs["ms"]]) if mine and theirs else None
                line.append(str(found) if found else "-")
            times.append(line)
        made += [table([f"{dtype}: error", *head], errors)]
        made += [table([f"{dtype}: time over {base}", *head], times)]
    return made


def _error(values: Mapping[str, Sequence[float]] | None) -> str:
    if not values:
        return "-"
    two = values["two"][0] if values["two"] else math.nan
    middle = statistics.median(values["F"])
    shown = f"{middle:.4f}" if middle < 10 else figure(middle)
    return f"{shown} [{figure(two)}]"


def _certificate(results: harness.Results) -> str:
    rows = []
    found = results.cells({"part": "certificate"})
    for cell in sorted(found, key=lambda c: (str(c.setting["matrix"]), c.asked("k"))):
        ms, sharp = cell.values["ms"], cell.values["upper over true"]
        assert isinstance(ms, dict)
        assert isinstance(sharp, list)
        rows.append(
            (
                f"{cell.setting['matrix']}, 2000 x 2000, k = {cell.setting['k']}",
                str(ratio([ms["probes"]], [ms["svd"]])),
                str(ratio([ms["exact"]], [ms["svd"]])),
                statistics.median(sharp),
            )
        )
    head = ["", "20 probes over svd", "exact residual over svd", "upper / true, d = 1e-6"]
    return table(head, rows)


def _failures(results: harness.Results) -> str:
    rows = []
    for cell in results.cells({"part": "failures"}):
        d, draws = cell.asked("d"), cell.number("draws") or 1.0
        rows.append(
            (
                f"{int(cell.asked('s'))} probes, rank-one residual",
                f"{d:g}",
                f"{cell.number('failed'):.4f}",
                f"{d + 3 * math.sqrt(d * (1 - d) / draws):.4f}",
            )
        )
    return table(["10,000 draws", "stated", "failed", "stated + 3 sigma"], rows)


if __name__ == "__main__":
    harness.run_program(main)
