"""Blocks that forget their features: the same gradients to the last bit, in less memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from noisewise.nets import build, derive
from noisewise.nets.costs import costs_of
from noisewise.nets.recomputing import recompute


class Living(TorchDispatchMode):
    """Tells the most bytes that tensors had at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.alive = {at: kept for at, kept in self.alive.items() if not kept[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return out


def trained(config: dict[str, Any], forget: bool, num_images: int = 1) -> nn.Module:
    """A net with random weights and the gradients of one step."""
    torch.manual_seed(0)
    net = build(config)
    for parameter in net.parameters():  # layers that start at zero have no gradients behind them
        nn.init.normal_(parameter, std=0.05)
    assert recompute(net, forget)
    x = torch.randn(num_images, config["channels"], config["size"], config["size"])
    level = torch.linspace(-2, 2, num_images)
    torch.manual_seed(1)  # of dropout
    net(x, level, torch.zeros(num_images, dtype=torch.int64)).square().mean().backward()
    return net


NETS = {
    "unet": derive(16, 1, None, "unet", (8, 16), num_classes=3, dropout=0.5),
    "pyramid": derive(128, 1, None, "pyramid", (4, 4, 8, 16), num_classes=3, dropout=0.5),
    "uvit": derive(16, 1, None, "uvit", (8,), num_classes=3, dropout=0.5),
    "vit": derive(16, 1, None, "vit", (64,), num_classes=3, dropout=0.5),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradients_are_the_same_to_the_last_bit(name: str, dropout: float) -> None:
    config = {**NETS[name].net, "dropout": dropout}
    plain, forgetful = (trained(config, forget, 2) for forget in (False, True))
    compared = 0
    for one, other in zip(plain.parameters(), forgetful.parameters(), strict=True):
        if one.grad is not None:
            assert other.grad is not None
            torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=0)
            compared += 1
    assert compared > 20


def test_nothing_changes_without_gradients() -> None:
    net = build(derive(16, 1).net)
    recompute(net, True)
    with torch.no_grad():
        assert not net(torch.zeros(1, 1, 16, 16), torch.zeros(1)).requires_grad


def test_the_memory_of_a_step_falls_as_its_costs_say() -> None:
    config, num_images = derive(128, 3, num_classes=4).net, 2
    trained(config, True)  # torch loads its compiler, which makes tensors of its own
    peaks = []
    for forget in (False, True):
        with Living() as living:
            net = trained(config, forget, num_images)
        weights = sum(p.numel() for p in net.parameters())
        peaks.append(living.peak - 4 * weights)
    costs = costs_of(config)
    assert peaks[1] < 0.75 * peaks[0]
    assert costs.recomputed().picture_bytes < 0.75 * costs.picture_bytes
    assert num_images * costs.picture_bytes == pytest.approx(peaks[0], rel=0.5)
    assert num_images * costs.recomputed().picture_bytes == pytest.approx(peaks[1], rel=0.5)
