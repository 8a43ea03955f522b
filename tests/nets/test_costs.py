"""Costs are computed without numbers, and agree with a real step."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from noisewise.nets import build, derive
from noisewise.nets.costs import _continued, _passed, costs_of
from noisewise.sizes import Size, num_pixels


@pytest.mark.parametrize("size", [16, 64, 96])
def test_they_are_those_of_a_real_step(size: int) -> None:
    config = derive(size, 3, num_classes=4).net
    costs, net = costs_of(config), build(config)
    assert costs.parameters == sum(p.numel() for p in net.parameters())
    labels = torch.zeros(1, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        out = net(torch.zeros(1, 3, size, size), torch.zeros(1), labels)
        out.square().mean().backward()
    # The backward pass needs twice the forward pass, but not for the first layer's input.
    assert costs.flops == pytest.approx(counter.get_total_flops(), rel=0.1)


@pytest.mark.parametrize("size", [128, (64, 128), (192, 128)])
def test_large_pyramids_are_computed_from_small_ones_exactly(size: Size) -> None:
    config = derive(size, 3, num_classes=4).net
    coarsest = 2 ** (len(config["widths"]) - 1)
    small = [_passed(config, times * coarsest) for times in (1, 2, 3)]
    whole = _passed(config, size)
    for at in (1, 2):
        assert (
            _continued([found[at] for found in small], num_pixels(size) // coarsest**2) == whole[at]
        )


def test_memory_grows_with_pictures_and_with_pixels() -> None:
    small, large = costs_of(derive(64, 3).net), costs_of(derive(1024, 3).net)
    assert large.picture_bytes > 20 * small.picture_bytes
    assert large.picture_bytes < 2**30  # a picture of 1024 pixels trains on any machine
    assert small.step_bytes(3) - small.step_bytes(2) == small.picture_bytes
    assert small.fitting(small.step_bytes(5)) == 5
    assert small.fitting(small.step_bytes(1) - 1) == 0
    assert small.fitting(0) == 0


def test_what_a_step_saves_is_counted_once() -> None:
    """Against torch's own count of the tensors that a real step keeps."""
    config = derive(32, 1).net
    net, seen, total = build(config), set(), 0
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal total
        place = tensor.untyped_storage().data_ptr()
        if place not in own | seen:
            seen.add(place)
            alive.append(tensor)
            total += tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        out = net(torch.zeros(1, 1, 32, 32), torch.zeros(1))
        out.square().mean()
    assert costs_of(config).picture_bytes == pytest.approx(1.5 * total, rel=0.1)
