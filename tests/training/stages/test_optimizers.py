from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noisewise.training.stages.optimizers import (
    Muon,
    Optimizers,
    build_optimizers,
    orthogonalise,
    split_parameters,
)
from tiny import TinyNet


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (16, 40), (40, 16), (64, 576)])
def test_newton_schulz_keeps_the_singular_vectors_and_levels_the_values(
    rows: int, columns: int
) -> None:
    matrix = random(3, rows, columns)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalise(matrix)
    inner = u.mT @ found @ vh.mT  # diagonal, with the new singular values
    off = inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))
    assert off.abs().max() < 0.02
    well = s > 1e-2 * s.norm(dim=1, keepdim=True)
    values = inner.diagonal(dim1=1, dim2=2)[well]
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_a_batch_of_matrices_is_the_matrices_one_by_one() -> None:
    matrices = random(4, 8, 12)
    alone = torch.cat([orthogonalise(m[None]) for m in matrices])
    torch.testing.assert_close(orthogonalise(matrices), alone)


def test_the_step_does_not_depend_on_the_gradients_scale() -> None:
    steps = []
    for scale in (1e-3, 1e3):
        weight = nn.Parameter(torch.zeros(8, 8))
        weight.grad = random(8, 8) * scale
        Muon([weight], lr=0.1).step()
        steps.append(weight.detach())
    torch.testing.assert_close(*steps, rtol=0, atol=1e-3)


def test_a_convolution_is_its_flattened_matrix_in_any_memory_layout() -> None:
    gradient = random(8, 4, 3, 3)
    flat = nn.Parameter(torch.zeros(8, 36))
    flat.grad = gradient.reshape(8, 36)
    Muon([flat], lr=0.1).step()
    for layout in (torch.contiguous_format, torch.channels_last):
        conv = nn.Parameter(torch.zeros(8, 4, 3, 3).to(memory_format=layout))
        conv.grad = gradient.to(memory_format=layout)
        Muon([conv], lr=0.1).step()
        torch.testing.assert_close(conv.reshape(8, 36), flat)


def test_momentum_is_nesterovs_as_written_by_hand() -> None:
    weight = nn.Parameter(torch.zeros(6, 6))
    optimizer = Muon([weight], lr=0.1, momentum=0.9)
    memory, expected = torch.zeros(6, 6), torch.zeros(6, 6)
    for seed in range(3):
        weight.grad = random(6, 6, seed=seed)
        memory = 0.9 * memory + 0.1 * weight.grad
        expected -= 0.1 * orthogonalise((0.1 * weight.grad + 0.9 * memory)[None])[0]
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-5)


def test_it_finds_the_ill_conditioned_minimum_that_gradient_descent_does_not() -> None:
    scales = torch.logspace(0, -3, 8)
    target = random(8, 8)

    def left(optimizer_of: type, lr: float) -> float:
        weight = nn.Parameter(torch.zeros(8, 8))
        optimizer = optimizer_of([weight], lr=lr)
        for step in range(200):
            loss = (scales[:, None] * (weight - target)).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.param_groups[0]["lr"] = lr * (1 - step / 200)
            optimizer.step()
        return (weight - target).norm().item() / target.norm().item()

    assert left(Muon, 0.2) < 0.4
    assert left(torch.optim.SGD, 0.4) > 0.6


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="give vectors to Adam"):
        Muon([nn.Parameter(torch.zeros(3))])


def test_only_hidden_matrices_go_to_muon() -> None:
    net = TinyNet(num_classes=3)
    hidden, rest = split_parameters(net)
    assert [p is net.mid.weight for p in hidden] == [True]
    assert len(hidden) + len(rest) == len(list(net.parameters()))


def test_a_net_may_name_its_own_rest() -> None:
    class Other(TinyNet):
        adam_parameters = ("mid",)

    hidden, _ = split_parameters(Other())
    assert {tuple(p.shape) for p in hidden} == {(16, 1, 3, 3), (16, 2), (1, 16, 3, 3)}


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_saved_state_continues_exactly_though_saved_in_another_memory_layout(name: str) -> None:
    """A fused Adam given moments in another layout than its weight mixes them up silently."""

    def steps(net: TinyNet, optimizers: Optimizers, count: int, first: int = 0) -> None:
        for seed in range(first, first + count):
            loss = F.mse_loss(
                net(random(4, 1, 8, 8, seed=seed), torch.zeros(4)), random(4, 1, 8, 8)
            )
            loss.backward()
            optimizers.step(0.5)

    def made(net: TinyNet) -> Optimizers:
        return build_optimizers(net, name, 0.01, 0.01)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = TinyNet().to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
    optimizers = made(net)
    steps(net, optimizers, 3)
    other = copy.deepcopy(net)
    state = [
        {
            key: {k: v.contiguous().clone() for k, v in memory.items()}
            for key, memory in saved.items()
        }
        for saved in optimizers.state_dict()
    ]
    resumed = made(other)
    resumed.load_state_dict(state)
    steps(net, optimizers, 3, first=3)
    steps(other, resumed, 3, first=3)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_unknown_optimizers_are_refused() -> None:
    with pytest.raises(ValueError, match="muon or adamw"):
        build_optimizers(TinyNet(), "sgd", 0.1, 0.1)
