"""Single examples' gradients of normalisation layers, against torch.func's exact ones."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from noisewise.scaling import Monitor, advise, measure_noise, per_sample_gradients, watch
from noisewise.scaling.band import NORM_LAYERS
from noisewise.scaling.norm_layers import NormLayers, norm_parameters


class OtherRMSNorm(nn.Module):
    """As transformers' Llama has it; `plus_one` as its Gemma."""

    def __init__(self, width: int, plus_one: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width) * 0.1 + (0 if plus_one else 1))
        self.variance_epsilon, self.plus_one = 1e-6, plus_one

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return x * (1 + self.weight if self.plus_one else self.weight)


class Tiny(nn.Module):
    """A transformer's block on sequences of 6, with every kind of normalisation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(3, 8)
        self.norms = nn.ModuleList(
            [nn.LayerNorm(8), nn.RMSNorm(8), OtherRMSNorm(8, False), OtherRMSNorm(8, True)]
        )
        self.mix, self.last = nn.Linear(8, 8), nn.GroupNorm(2, 8)
        self.out = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        for norm in self.norms:
            x = x + torch.tanh(self.mix(norm(x)))
        x = x + self.norms[0](x)  # used twice
        return self.out(self.last(x.transpose(1, 2)).transpose(1, 2))[..., 0]


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x) - x.sum(-1).sin()).square().mean()


def test_squared_norms_of_single_examples_are_exact() -> None:
    model = Tiny().double()
    x = torch.randn(7, 6, 3, dtype=torch.float64)
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    wanted = norm_parameters(model, model.parameters())
    assert len(wanted) == 7
    layers = NormLayers(wanted)
    layers.arm(model)
    loss(model, x).backward()
    found = layers.read(7)
    layers.disarm()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(parameter is p for p in wanted))
        if parameter.requires_grad:
            assert parameter in found, name
    rows = per_sample_gradients(model, loss, x)
    named = [p for p in model.parameters() if p.requires_grad]
    pieces = rows.split([p.numel() for p in named], dim=1)
    for parameter, piece in zip(named, pieces, strict=True):
        assert 49 * float(found[parameter]) == pytest.approx(float(piece.square().sum()), rel=1e-5)


def trained(model: nn.Module, steps: int) -> Monitor:
    sgd = torch.optim.SGD(model.parameters(), lr=0.02)
    monitor = watch(model, sgd, every=1, skip=0)
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        sgd.zero_grad()
        loss(model, torch.randn(32, 6, 3, generator=generator)).backward()
        sgd.step()
    return monitor


def test_a_loop_without_accumulation_is_watched_by_its_norm_layers() -> None:
    monitor = trained(Tiny(), 12)
    found = monitor.measurement()
    assert found.source == "norm layers"
    assert len(monitor.noise) == 10  # the first two steps showed that there is no accumulation
    assert (found.batch, found.size) == (32.0, 1.0)
    assert "norm_layers" in found.warning_codes
    assert "normalisation layers" in monitor.report()
    again = trained(Tiny(), 3)
    again.load_state_dict(monitor.state_dict())
    assert len(again.noise) == 10
    wide = advise(found, batch=16, batch0=1)
    plain = advise(replace(found, source="all"), batch=16, batch0=1)
    assert wide.low < plain.low < plain.high <= wide.high


def test_its_numbers_are_those_of_micro_batches_of_one_example() -> None:
    model = Tiny()
    sgd = torch.optim.SGD(model.parameters(), lr=0.0)
    monitor = watch(model, sgd, every=1, skip=0, norms=True)
    x = torch.randn(32, 6, 3, generator=torch.Generator().manual_seed(5))
    loss(model, x).backward()
    sgd.step()
    g2, trace, num, batch = monitor.noise.state_dict()["records"][0]
    assert (num, batch) == (32, 32.0)
    monitor.remove()
    wanted = norm_parameters(model, model.parameters())
    for p in model.parameters():
        p.requires_grad_(any(p is q for q in wanted))
    exact = measure_noise(per_sample_gradients(model, loss, x), 1.0)
    assert g2[0] == pytest.approx(exact.g2.value, rel=1e-3)
    assert trace[0] == pytest.approx(exact.trace_sigma.value, rel=1e-3)


def test_how_closely_it_stands_for_the_whole_net() -> None:
    """On this net the noise scale of the layers is within a factor of two of the whole net's."""
    model = Tiny()
    trained(model, 60).remove()
    x = torch.randn(2048, 6, 3, generator=torch.Generator().manual_seed(3))
    whole = measure_noise(per_sample_gradients(model, loss, x), 1.0).b_simple.value
    wanted = norm_parameters(model, model.parameters())
    for p in model.parameters():
        p.requires_grad_(any(p is q for q in wanted))
    layers = measure_noise(per_sample_gradients(model, loss, x), 1.0).b_simple.value
    assert abs(math.log(layers / whole)) < math.log(NORM_LAYERS)


class Folded(Tiny):
    """Its norm sees tokens and not examples."""

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norms[0](self.inner(x.flatten(0, 1)))).view(x.shape[:2])


def test_rows_that_are_no_examples_are_not_taken_for_them() -> None:
    monitor = trained(Folded(), 8)
    assert len(monitor.noise) == 0
    assert monitor.stopped is None
    assert "do not show the gradients of single examples" in monitor.why_nothing()
