"""Where the Hessian is another one on each batch, the stated errors cover the truth as well."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from noisewise.scaling.curvature import half_form, half_product, hessian_trace, noise_probes
from noisewise.scaling.direct import Burst, law_points
from noisewise.scaling.flat import Flat, along, gram
from noisewise.scaling.intervals import Estimate, fieller, mean_estimate, symmetric
from noisewise.scaling.measurement import LawPoint
from noisewise.scaling.probes import noise_scale
from noisewise.scaling.updates import Updater

P, K, ROWS, SIZE, RUNS = 6, 4, 24, 4, 120
G = torch.linspace(0.4, 0.9, P, dtype=torch.float64)
MEAN = torch.linspace(1.0, 3.0, P, dtype=torch.float64)  # of the Hessian's diagonal
DRIFT, NOISE = float(MEAN @ G**2), float(MEAN.sum())  # g'Hg and tr(Sigma H) with Sigma = 1


class Bowl(nn.Module):
    """L = w' diag(x) w / 2: the batch is its Hessian's diagonal."""

    def __init__(self, p: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(p, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * (self.w.square() * x).sum()


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)


def bursts() -> Iterator[Burst]:
    """Rows of a known law, and Hessians that differ from batch to batch by about a half."""
    generator, flat = torch.Generator().manual_seed(7), Flat(Bowl(P))
    for _ in range(RUNS):
        together = torch.randn(K, 1, generator=generator, dtype=torch.float64)
        apart = torch.randn(K, P, generator=generator, dtype=torch.float64)
        noise = torch.randn(ROWS, P, generator=generator, dtype=torch.float64)
        hessians = MEAN * (1 + 0.6 * together + 0.4 * apart)
        yield Burst(flat, loss, G + noise / SIZE**0.5, list(hessians), SIZE, 8.0)


def pairs_of(burst: Burst) -> list[tuple[Tensor, Tensor]]:
    return list(zip(*burst.halves, strict=True))


def covers(found: Estimate, truth: float) -> bool:
    return found.low <= truth <= found.high


def test_forms_traces_and_their_ratio_cover_the_truth_where_rows_and_probes_alone_do_not() -> None:
    names = ("drift", "noise", "trace", "ratio")
    hits, naive = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    signs = torch.Generator().manual_seed(1)
    for burst in bursts():
        drift = half_form(burst.flat, loss, burst.halves, burst.batches)
        probes = noise_probes(burst.flat, loss, pairs_of(burst), burst.batches, SIZE)
        trace = hessian_trace(burst.flat, loss, burst.batches, signs, probes=8)
        product = half_product(burst.flat, loss, burst.halves, burst.batches)
        assert product == drift.estimate()
        hits["drift"] += covers(product, DRIFT)
        hits["noise"] += covers(probes.estimate(), NOISE)
        hits["trace"] += covers(trace, NOISE)
        hits["ratio"] += covers(noise_scale(probes, drift), NOISE / DRIFT)
        naive["drift"] += covers(symmetric(drift.mean, drift.rows[0], drift.count), DRIFT)
        naive["noise"] += covers(mean_estimate(probes.values), NOISE)
        # One probe of a diagonal Hessian is exact: eight on four batches are four numbers, twice.
        naive["trace"] += covers(mean_estimate(burst_traces(burst).repeat(2)), NOISE)
    for name in names:
        assert hits[name] >= 0.91 * RUNS, (name, hits)
    for name in ("drift", "noise", "trace"):
        assert naive[name] < 0.84 * RUNS, (name, naive)
    assert min(hits.values()) < RUNS  # wide enough, and not for every price


def burst_traces(burst: Burst) -> Tensor:
    return torch.stack([h for h in burst.batches if isinstance(h, Tensor)]).sum(1)


def test_the_laws_learning_rate_covers_the_truth() -> None:
    hits, ratios, naive = 0, 0, 0
    for burst in bursts():
        updater = Updater(torch.optim.SGD(burst.flat.model.parameters(), lr=0.1), burst.flat)
        own, large = law_points(burst, updater, (8.0, 64.0), ROWS // 2)
        best = [float(G @ G) / (DRIFT + NOISE / b) for b in (8.0, 64.0)]
        hits += covers(own.lr, best[0])
        drift = half_form(burst.flat, loss, burst.halves, burst.batches)
        probes = noise_probes(burst.flat, loss, pairs_of(burst), burst.batches, SIZE)
        known = drift.rows[0] + float(probes.values.var()) / len(probes.values) / 8.0**2
        alone = torch.tensor([[0.0, 0.0], [0.0, known]])  # the slope's own error is far smaller
        naive += covers(fieller(own.slope, own.drift + own.diffusion, alone, 12), best[0])
        ratios += covers(large.ratio, best[1] / best[0])
        assert (own.noise.value, own.noise.count) == (pytest.approx(own.diffusion), ROWS // 2)
        assert own.ratio.value == own.ratio.low == own.ratio.high == 1
    assert 0.91 * RUNS <= hits < RUNS
    assert naive < 0.84 * RUNS
    assert 0.91 * RUNS <= ratios <= RUNS


def test_the_noise_of_a_law_says_how_many_probes_it_needs() -> None:
    burst = next(bursts())
    updater = Updater(torch.optim.SGD(burst.flat.model.parameters(), lr=0.1), burst.flat)
    few, _ = law_points(burst, updater, (8.0, 64.0), ROWS // 2)
    probes = noise_probes(burst.flat, loss, pairs_of(burst), burst.batches, SIZE).estimate()
    assert few.noise.relative_error == pytest.approx(probes.relative_error)
    assert few.noise.needed(0.1) == math.ceil(12 * (few.noise.relative_error / 0.1) ** 2)
    assert LawPoint.from_dict(few.to_dict()) == few
    old = {name: value for name, value in few.to_dict().items() if name != "noise"}
    assert not LawPoint.from_dict(old).noise.known


class Largest(TorchDispatchMode):
    """The largest piece of memory that an operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        inputs = {a.untyped_storage().data_ptr() for a in args if isinstance(a, Tensor)}
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.untyped_storage().data_ptr() not in inputs:
            self.num_bytes = max(self.num_bytes, out.untyped_storage().nbytes())
        return out


def test_no_copy_of_all_rows_is_made() -> None:
    p, n = 300_000, 24
    rows = torch.randn(n, p, generator=torch.Generator().manual_seed(0))
    model = Bowl(p, torch.float32)
    burst = Burst(Flat(model), loss, rows, [torch.ones(p), 2 * torch.ones(p)], SIZE, 8.0)
    updater = Updater(torch.optim.SGD(model.parameters(), lr=0.1), burst.flat)
    with Largest() as memory:
        law_points(burst, updater, (8.0, 64.0), 2)
    assert memory.num_bytes < rows.nbytes / 3
    torch.testing.assert_close(gram(rows), rows.double() @ rows.double().T)
    weight = torch.rand(p)
    torch.testing.assert_close(
        gram(rows, weight), (rows.double() * weight.double()) @ rows.double().T
    )
    torch.testing.assert_close(along(rows, weight), rows.double() @ weight.double())
