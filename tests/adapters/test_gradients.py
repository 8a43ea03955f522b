"""Full gradients: right for every kind of layer, and the model is left as it was."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from adapter_cases import CASES, Adapted, mean_loss

peft = pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")

from noisewise.adapters import gradients  # noqa: E402
from noisewise.adapters.layers import as_matrix  # noqa: E402


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_they_are_autograds(case: object) -> None:
    model, batches, loss, names, _ = vars(case()).values()  # pyrefly: ignore
    config = peft.LoraConfig(target_modules=names)
    found = gradients(model, config, batches, loss)
    model.eval()
    modules: dict[str, Any] = dict(model.named_modules())
    weights = [modules[name].weight for name in found]
    mean = mean_loss(model, batches, loss)
    for name, wanted in zip(found, torch.autograd.grad(mean, weights), strict=True):
        matrix = as_matrix(modules[name], wanted)
        torch.testing.assert_close(found[name], matrix, atol=1e-6, rtol=1e-4)


class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.drop, self.b = (
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.drop(self.norm(self.a(x))))


def square(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model(batch).square().mean()


def test_nothing_of_the_model_is_touched() -> None:
    torch.manual_seed(0)
    net = Norms().train()
    net.a.eval()  # modes are put back module by module
    net.a.bias.requires_grad_(False)
    net.b.weight.grad = torch.full_like(net.b.weight, 7.0)
    before = copy.deepcopy(net.state_dict())
    weight = net.a.weight
    batches = [torch.randn(16, 4) for _ in range(3)]
    moving: Any = copy.deepcopy(net)
    moving(batches[0])  # in the modes as they are, the statistics of batch norm would move
    assert not torch.equal(moving.norm.running_mean, before["norm.running_mean"])
    first = gradients(net, peft.LoraConfig(target_modules=["a", "b"]), batches, square)
    assert net.training
    assert not net.a.training
    assert net.norm.training
    assert net.drop.training
    assert net.a.weight is weight
    assert net.a.weight.grad is None
    assert bool((net.b.weight.grad == 7).all())
    assert [p.requires_grad for p in (net.a.weight, net.a.bias)] == [True, False]
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    again = gradients(net, peft.LoraConfig(target_modules=["a", "b"]), batches, square)
    assert all(torch.equal(first[name], again[name]) for name in first)  # dropout is off


def test_batches_count_by_their_samples() -> None:
    net = nn.Sequential(nn.Linear(3, 2, bias=False))
    x = torch.randn(12, 3)
    config = peft.LoraConfig(target_modules=["0"])
    whole = gradients(net, config, [x], square)
    parts = gradients(net, config, [x[:2], x[2:5], x[5:]], square)
    torch.testing.assert_close(whole["0"], parts["0"])
    assert parts.num_samples == 12
    assert parts.num_batches == 3
    assert not whole.noise


def test_signal_and_noise_are_told_apart() -> None:
    """Samples with a known mean gradient and a known covariance: unbiased over repetitions."""
    net = nn.Sequential(nn.Linear(5, 1, bias=False))
    config = peft.LoraConfig(target_modules=["0"])
    generator = torch.Generator().manual_seed(0)
    g2, trace = [], []
    for _ in range(200):
        x = 0.5 + 2 * torch.randn(8, 4, 5, generator=generator)
        noise = gradients(net, config, list(x), lambda m, b: m(b).mean()).noise["0"]
        g2.append(noise.g2)
        trace.append(noise.trace_sigma)
    assert sum(g2) / 200 == pytest.approx(5 * 0.25, abs=0.25)
    assert sum(trace) / 200 == pytest.approx(5 * 4, rel=0.05)
    x = 0.02 * torch.ones(8, 4, 900) + torch.randn(8, 4, 900, generator=generator)
    net = nn.Sequential(nn.Linear(900, 1, bias=False))
    found = gradients(net, config, list(x), lambda m, b: m(b).mean())
    assert found.noisy() == ["0"]


def test_a_tied_weight_is_differentiated_in_its_own_place() -> None:
    torch.manual_seed(0)
    net: Any = nn.ModuleDict({"words": nn.Embedding(7, 4), "head": nn.Linear(4, 7, bias=False)})
    net["head"].weight = net["words"].weight

    def loss(model: Adapted, batch: torch.Tensor) -> torch.Tensor:
        return model["head"](model["words"](batch)).logsumexp(-1).mean()

    batch = torch.arange(7)
    found = gradients(net, peft.LoraConfig(target_modules=["head"]), [batch], loss)
    apart: Any = copy.deepcopy(net)
    apart["head"].weight = nn.Parameter(net["head"].weight.detach().clone())
    (wanted,) = torch.autograd.grad(loss(apart, batch), [apart["head"].weight])
    (both,) = torch.autograd.grad(loss(net, batch), [net["head"].weight])
    torch.testing.assert_close(found["head"], wanted)
    assert not torch.allclose(wanted, both)
    assert net["head"].weight is net["words"].weight


@pytest.mark.parametrize("targets", ["all-linear", "(a|b)", ["a", "b"]])
def test_targets_are_read_as_peft_reads_them(targets: object) -> None:
    net = Norms()
    config = peft.LoraConfig(target_modules=targets, exclude_modules=["b"])
    assert list(gradients(net, config, [torch.randn(4, 4)], square)) == ["a"]


def test_what_has_no_gradient_is_refused() -> None:
    net: Any = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    config, x = peft.LoraConfig(target_modules=["a", "b"]), [torch.ones(1, 2)]
    with pytest.raises(ValueError, match="the loss does not depend on b"):
        gradients(net, config, x, lambda m, b: m.get_submodule("a")(b).sum())
    with pytest.raises(ValueError, match="gradient of b is zero"):
        gradients(
            net,
            config,
            x,
            lambda m, b: (m.get_submodule("a")(b) + 0 * m.get_submodule("b")(b)).sum(),
        )
    with pytest.raises(ValueError, match="gradient of a is not finite"):
        gradients(
            net,
            config,
            x,
            lambda m, b: (m.get_submodule("a")(b) * float("inf") + m.get_submodule("b")(b)).sum(),
        )
    with pytest.raises(ValueError, match="there are no batches"):
        gradients(net, config, [], lambda m, b: m.get_submodule("a")(b).sum())
    with pytest.raises(ValueError, match="scalar"):
        gradients(net, config, x, lambda m, b: m.get_submodule("a")(b))
    assert all(p.requires_grad and p.is_leaf for p in net.parameters())


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (nn.Conv2d(2, 2, 3, dilation=2), "dilation"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), "circular padding"),
        (nn.Conv2d(2, 2, 3, groups=2), "2 groups"),
        (nn.Embedding(3, 2, max_norm=1.0), "max_norm"),
        (nn.LayerNorm(2), "LayerNorm"),
        (nn.MultiheadAttention(2, 1).out_proj, "never calls it"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "parametrisation"),
    ],
)
def test_layers_that_peft_gets_wrong_are_refused(layer: nn.Module, says: str) -> None:
    net: Any = nn.ModuleDict({"it": layer})
    with pytest.raises(ValueError, match=says):
        gradients(net, peft.LoraConfig(target_modules=["it"]), [torch.ones(1)], square)


def test_quantised_weights_are_refused() -> None:
    net: Any = nn.ModuleDict({"it": nn.Linear(2, 2)})
    net["it"].weight = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match="it is quantised"):
        gradients(net, peft.LoraConfig(target_modules=["it"]), [torch.ones(1, 2)], square)


def test_unknown_targets_are_refused() -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="matches no layer"):
        gradients(net, peft.LoraConfig(target_modules=["7"]), [torch.ones(1, 2)], square)
    with pytest.raises(ValueError, match="set target_modules"):
        gradients(net, peft.LoraConfig(), [torch.ones(1, 2)], square)


RANK_CODE = """
import sys, torch, torch.distributed as dist
from torch import nn
from peft import LoraConfig
from noisewise.adapters import gradients
rank, place = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method="file://" + place + "/meet", rank=rank, world_size=2)
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
x = torch.randn(6, 8, 5)
model = nn.parallel.DistributedDataParallel(net) if sys.argv[3] == "ddp" else net
mine = x[:2] if rank == 0 else x[2:]
config = LoraConfig(target_modules=["0", "2"])
found = gradients(model, config, mine, lambda m, b: m(b).square().mean())
dist.destroy_process_group()
whole = gradients(net, config, x, lambda m, b: m(b).square().mean())
assert (found.num_samples, found.num_batches) == (48, 6)
for name in whole:
    torch.testing.assert_close(found[name], whole[name])
    assert abs(found.noise[name].g2 - whole.noise[name].g2) < 1e-6
"""


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", ["plain", "ddp"])
def test_ranks_share_their_batches(wrapped: str, tmp_path: Path) -> None:
    """Two processes with batches of their own find what one finds with all of them."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK_CODE, str(rank), str(tmp_path), wrapped],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
