"""Every way in which a model can be wrapped is recognised, or refused with one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noisewise.scaling import calibrate, watch
from noisewise.scaling.wrapped import inner_of, wrapping_of

PROGRAM = """
import json, os, sys
import torch
import torch.distributed as dist
from torch import nn
from noisewise.scaling import watch

rank, folder, way = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()

def wrapped(model):
    ddp = nn.parallel.DistributedDataParallel
    if way == "compile(DDP)":
        return torch.compile(ddp(model), backend="eager")
    if way == "DDP(compile)":
        return ddp(torch.compile(model, backend="eager"))
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    mesh = init_device_mesh("cpu", (2,))
    fully_shard(model[0], mesh=mesh)
    return fully_shard(model, mesh=mesh)

def sync(model, on):
    if way == "fully_shard":
        model.set_requires_gradient_sync(on)
    else:
        inner = getattr(model, "_orig_mod", model)
        inner.require_backward_grad_sync = on

model = wrapped(net())
sgd = torch.optim.SGD(model.parameters(), lr=0.05)
monitor = watch(model, sgd, every=1, skip=0)
data = torch.randn(3, 4, 8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
for step in data:
    for i, x in enumerate(step[rank::2]):
        sync(model, i == 1)
        ((model(x)[:, 0] - x.sum(1)).square().mean() / 2).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1e-2)
    sgd.step()
    sgd.zero_grad()
before = len(monitor.noise)

if rank == 1:  # one rank fails; the other must not wait for it for ever
    def broken():
        raise RuntimeError("of this rank only")
    monitor._grad_scale = broken
import warnings
warnings.simplefilter("ignore")
for step in data[:2]:
    for i, x in enumerate(step[rank::2]):
        sync(model, i == 1)
        ((model(x)[:, 0] - x.sum(1)).square().mean() / 2).backward()
    sgd.step()
    sgd.zero_grad()
plain, other = "no complaint", net()
try:
    watch(other, torch.optim.SGD(other.parameters(), lr=0.1))
except ValueError as error:
    plain = str(error)
with open(f"{folder}/{rank}.json", "w") as stream:
    json.dump({"records": monitor.noise.state_dict()["records"], "before": before,
               "stopped": monitor.stopped, "plain": plain,
               "clipped": monitor.measurement().clipped_share}, stream)
dist.destroy_process_group()
os._exit(0)
"""


@pytest.mark.parametrize("way", ["compile(DDP)", "DDP(compile)", "fully_shard"])
def test_two_ranks_agree_with_one_process_in_any_wrapper(way: str, tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), str(tmp_path), way],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=280)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], outputs
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["records"] == second["records"]
    assert first["before"] == len(first["records"]) == 3
    assert first["clipped"] == 1.0
    assert "of this rank only" in second["stopped"]
    assert first["stopped"] == "another process stopped watching"
    assert "2 processes train" in first["plain"]

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    sgd = torch.optim.SGD(net.parameters(), lr=0.05)
    monitor = watch(net, sgd, every=1, skip=0)
    data = torch.randn(3, 4, 8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for step in data:
        for x in step:
            ((net(x)[:, 0] - x.sum(1)).square().mean() / 4).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1e-2)
        sgd.step()
        sgd.zero_grad()
    for ours, theirs in zip(monitor.noise.state_dict()["records"], first["records"], strict=True):
        assert theirs[2:] == [4, 32.0]
        assert theirs[0] == pytest.approx(ours[0])
        assert theirs[1] == pytest.approx(ours[1])


def regression() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()


def compiled(model: nn.Module, backend: str) -> nn.Module:
    found = torch.compile(model, backend=backend)
    assert isinstance(found, nn.Module)
    return found


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x)[:, 0] - x.sum(1)).square().mean()


def watched(model: nn.Module, steps: int = 3, **words: Any) -> list[Any]:  # noqa: ANN401
    """Records of a short training."""
    sgd = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    monitor = watch(model, sgd, every=1, skip=0, **words)
    generator = torch.Generator().manual_seed(1)
    for x in torch.randn(steps, 4, 8, 4, generator=generator, dtype=torch.float64):
        for part in x:
            (loss(model, part) / 4).backward()
        sgd.step()
        sgd.zero_grad()
    assert monitor.stopped is None
    return monitor.noise.state_dict()["records"]


def test_wrappers_of_one_process_measure_as_the_model_alone() -> None:
    plain = watched(regression())
    assert plain[0][2:] == [4, 32.0]
    for wrapped in (
        compiled(regression(), "eager"),
        compiled(regression(), "aot_eager"),
        nn.DataParallel(regression()),
    ):
        found = watched(wrapped)
        for ours, theirs in zip(plain, found, strict=True):
            assert theirs[2:] == [4, 32.0]
            assert theirs[0] + theirs[1] == pytest.approx(ours[0] + ours[1])


def test_a_model_compiled_in_place_asks_for_the_batch() -> None:
    model = regression()
    model.compile(backend="eager")
    with pytest.raises(ValueError, match="compiled in place"):
        watched(model)
    found = watched(model, batch=32)
    for ours, theirs in zip(watched(regression()), found, strict=True):
        assert theirs[2:] == [4, 32.0]
        assert theirs[0] + theirs[1] == pytest.approx(ours[0] + ours[1])


def test_a_loop_that_compiles_the_model_itself_is_compiled_twice_at_most() -> None:
    """The hooks come and go with the measured steps; one graph is with and one without them."""
    limits = {"recompile_limit": 2, "fail_on_recompile_limit_hit": True}
    with torch._dynamo.config.patch(**limits):  # type: ignore[attr-defined]
        model = regression()
        call = torch.compile(model, fullgraph=True, backend="eager")
        sgd = torch.optim.SGD(model.parameters(), lr=0.01)
        asks, told = (watch(model, sgd, every=3, skip=0, batch=b) for b in (None, 16))
        for step in torch.randn(12, 2, 8, 4, dtype=torch.float64):
            for x in step:
                ((call(x)[:, 0] - x.sum(1)).square().mean() / 2).backward()
            sgd.step()
            sgd.zero_grad()
    assert asks.stopped is told.stopped is None
    assert len(told.noise) == 4
    assert "give batch=" in asks.why_nothing()


def test_accelerate_and_peft() -> None:
    accelerate = pytest.importorskip("accelerate")
    peft = pytest.importorskip("peft")
    model = accelerate.Accelerator(cpu=True).prepare(regression())
    assert watched(model)[0][2:] == [4, 32.0]
    config = peft.LoraConfig(r=2, target_modules=["0", "2"])
    adapted = peft.get_peft_model(regression(), config).double()
    assert watched(adapted)[0][2:] == [4, 32.0]


def named(name: str, module: str = "deepspeed.runtime") -> nn.Module:
    """A wrapper of a package that is not installed."""
    kind = type(name, (nn.Module,), {"__module__": module})
    wrapper = kind()
    wrapper.module = regression()
    return wrapper


@pytest.mark.parametrize(
    ("wrapper", "said"),
    [
        (named("DeepSpeedEngine"), "DeepSpeed hides the gradient"),
        (named("FullyShardedDataParallel", "torch.distributed.fsdp"), "FSDP's first version"),
        (named("ShardedDataParallel", "fairscale.nn"), "hides the gradient"),
        (named("DistributedDataParallel", "megatron.core"), "DistributedDataParallel of megatron"),
    ],
)
def test_what_hides_its_gradients_is_refused_wherever_it_is(wrapper: nn.Module, said: str) -> None:
    for model in (wrapper, nn.Sequential(wrapper), nn.DataParallel(wrapper)):
        with pytest.raises(ValueError, match=said):
            watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    zero = regression()
    for parameter in zero.parameters():
        parameter.ds_id = 0  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="DeepSpeed"):
        wrapping_of(zero, zero.parameters())
    with pytest.raises(ValueError, match="only a part of each parameter"):
        calibrate(zero, loss, [torch.zeros(2, 4)] * 12, torch.optim.SGD(zero.parameters(), lr=0.1))


def test_calibrate_takes_the_model_out_of_its_wrappers() -> None:
    data = list(torch.randn(12, 8, 4, dtype=torch.float64))
    plain = regression()
    want = calibrate(plain, loss, data, torch.optim.SGD(plain.parameters(), lr=0.1))
    for backend in ("eager", "aot_eager"):
        model = compiled(regression(), backend)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        model(data[0]).sum().backward()  # compiled before
        found = calibrate(model, loss, data, sgd)
        assert found.b_noise.value == pytest.approx(want.b_noise.value)
        through = calibrate(inner_of(model), lambda _, x, m=model: loss(m, x), data, sgd)
        assert through.b_noise.value == pytest.approx(want.b_noise.value)
