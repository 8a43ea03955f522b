"""Data-parallel ranks: two real gloo processes give the numbers of one process with both halves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from noisewise.scaling import rank_moments, watch

PROGRAM = """
import json, os, sys
import torch
import torch.distributed as dist
from torch import nn
from noisewise.scaling import rank_moments, watch

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()
parallel = nn.parallel.DistributedDataParallel(net)
sgd = torch.optim.SGD(parallel.parameters(), lr=0.05)
monitor = watch(parallel, sgd, every=1, skip=0)
data = torch.randn(8, 4, 8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
loss = lambda model, x: (model(x)[:, 0] - x.sum(1)).square().mean()
by_hand = []
for step in data:
    mine = step[rank::2]  # two micro-batches of this rank's two
    own = torch.autograd.grad(sum(loss(net, x) for x in mine) / 2, list(net.parameters()))
    moments = rank_moments(own, 16)
    by_hand.append([float(moments[0]), float(moments[1]), moments[2], moments[3]])
    with parallel.no_sync():
        (loss(parallel, mine[0]) / 2).backward()
    (loss(parallel, mine[1]) / 2).backward()
    nn.utils.clip_grad_norm_(parallel.parameters(), 1e-2)
    sgd.step()
    sgd.zero_grad()
kept = len(monitor.noise)
for x in data[0, rank::2, : 8 - 4 * rank]:  # the second rank has half as many examples
    (loss(parallel, x) / 2).backward()
sgd.step()
unequal = [kept, len(monitor.noise), monitor.num_skipped]
try:
    watch(parallel, sgd)
    second = "no complaint"
except ValueError as error:
    second = str(error)
with open(f"{folder}/{rank}.json", "w") as stream:
    json.dump({"records": monitor.noise.state_dict()["records"], "by_hand": by_hand,
               "clipped": monitor.measurement().clipped_share, "second": second,
               "unequal": unequal}, stream)
dist.destroy_process_group()
os._exit(0)  # threads that torch.distributed leaves running would abort a normal exit now and then
"""


def test_two_gloo_ranks_agree_with_one_process(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=280)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], outputs
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["records"] == second["records"]
    assert first["clipped"] == 1.0
    assert first["unequal"] == second["unequal"] == [8, 8, 1]
    assert "already has a communication hook" in first["second"]

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    sgd = torch.optim.SGD(net.parameters(), lr=0.05)
    monitor = watch(net, sgd, every=1, skip=0)
    data = torch.randn(8, 4, 8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for i, step in enumerate(data):
        rows = []
        for x in step:
            ((net(x)[:, 0] - x.sum(1)).square().mean() / 4).backward()
        whole = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
        for half in (step[::2], step[1::2]):
            value = (net(half.flatten(0, 1))[:, 0] - half.flatten(0, 1).sum(1)).square().mean()
            grads = torch.autograd.grad(value, list(net.parameters()))
            rows.append(torch.cat([g.flatten() for g in grads]))
        squares, mean, ranks_seen, batch = first["by_hand"][i]
        assert (ranks_seen, batch) == (2, 32.0)
        assert mean == pytest.approx(float(whole.square().sum()))
        assert squares == pytest.approx(16 * sum(float(r.square().sum()) for r in rows))
        nn.utils.clip_grad_norm_(net.parameters(), 1e-2)
        sgd.step()
        sgd.zero_grad()
    for ours, theirs in zip(monitor.noise.state_dict()["records"], first["records"], strict=True):
        assert theirs[2:] == [4, 32.0]
        assert theirs[0] == pytest.approx(ours[0])
        assert theirs[1] == pytest.approx(ours[1])


def test_without_ranks_one_sentence() -> None:
    with pytest.raises(ValueError, match="not initialised"):
        rank_moments([torch.ones(3)], 8)
