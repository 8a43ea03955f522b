"""On a GPU: the same promises, with random numbers from there or from the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from noisewise import lowrank
from noisewise.lowrank import LowRank
from spectra import error_of, values, with_values

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

Method = Callable[[Tensor, torch.Generator], tuple[LowRank, Tensor]]
METHODS: dict[str, Method] = {
    "svd": lambda a, g: (lowrank.svd(a, 10, generator=g), a),
    "svd accurate": lambda a, g: (lowrank.svd(a, 10, accurate=True, generator=g), a),
    "svd by tolerance": lambda a, g: (lowrank.svd(a, tol=0.2, generator=g), a),
    "svd spectral": lambda a, g: (lowrank.svd(a, 10, norm="spectral", generator=g), a),
    "columns": lambda a, g: (lowrank.interpolative(a, 10, generator=g), a),
    "columns by tolerance": lambda a, g: (lowrank.interpolative(a, tol=0.2, generator=g), a),
    "rows": lambda a, g: (lowrank.interpolative(a, 10, axis="rows", generator=g), a),
    "cur": lambda a, g: (lowrank.cur(a, 10, generator=g), a),
    "cross": lambda a, g: (lowrank.cur(a, 10, core="cross", generator=g), a),
    "sampled": lambda a, g: (lowrank.sampled_matmul(a, a.mH, 20, generator=g), a @ a.mH),
    "single pass": lambda a, g: (lowrank.single_pass(a.split(37), 10, generator=g), a),
}


@pytest.mark.parametrize("where", ["cuda", "cpu"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.float64])
def test_promises_hold_on_the_device(name: str, where: str, dtype: torch.dtype) -> None:
    a = with_values(120, 90, values("1/i", 90), dtype).cuda()
    r, truth = METHODS[name](a, torch.Generator(where).manual_seed(0))
    again, _ = METHODS[name](a, torch.Generator(where).manual_seed(0))
    assert r.device.type == "cuda"
    assert r.error.upper.device.type == "cuda"
    slack = 20 * torch.finfo(dtype).eps * torch.linalg.matrix_norm(truth).double()
    assert bool(error_of(truth, r.dense()) <= r.error.upper + slack)
    assert torch.allclose(again.dense(), r.dense(), atol=float(slack))
    here = r.to("cpu")
    assert here.device.type == "cpu"
    assert (here.columns is None) == (r.columns is None)
    assert here.columns is None or here.columns.device.type == "cpu"


@pytest.mark.parametrize("route", ["auto", "svd", "qr", "cholesky", "limit"])
def test_pseudo_inverses_on_the_device(route: str) -> None:
    a = with_values(60, 20, torch.linspace(2, 1, 20)).cuda().requires_grad_()
    x = lowrank.pinv(a, route=route)  # pyrefly: ignore
    assert x.device.type == "cuda"
    assert torch.allclose(x.dense(), torch.linalg.pinv(a.detach()), atol=1e-6)
    x.dense().sum().backward()
    assert a.grad is not None
    found = lowrank.lstsq(a, torch.ones(60, dtype=torch.float64, device="cuda"))
    assert found.x.device.type == "cuda"
    assert str(found)


@pytest.mark.parametrize("where", ["cuda", "cpu"])
def test_a_stream_with_nan_is_refused_at_its_end(where: str) -> None:
    a = torch.ones(10, 6, device="cuda")
    with pytest.raises(ValueError, match="Block 1 of the rows holds NaN or Inf"):
        lowrank.single_pass([a, a / 0, a], 1, generator=torch.Generator(where))
