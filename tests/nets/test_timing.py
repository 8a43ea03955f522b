"""A compiled net is the same net; a machine that cannot compile keeps the plain one."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from noisewise.nets.timing import _useful, compile_if_quicker, fastest
from noisewise.nets.unet import UNet


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # compilers warn of many things
def test_the_kept_net_computes_what_the_plain_one_does() -> None:
    net = UNet(1, 8, (8, 16), (1, 1))
    nn.init.normal_(net.head.weight, std=0.1)
    names = [name for name, _ in net.named_parameters()]
    found = compile_if_quicker(net, torch.device("cpu"), batch=4)
    assert "ms per step compiled" in found.reason
    assert found.seconds > 0
    assert all(p.grad is None for p in net.parameters())
    x, level = torch.randn(4, 1, 8, 8), torch.zeros(4)
    plain = net(x, level)
    torch.testing.assert_close(torch.compile(net, dynamic=False)(x, level), plain)
    torch.testing.assert_close(found.net(x, level), plain)
    assert [name for name, _ in net.named_parameters()] == names


def test_without_a_compiler_the_plain_net_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile stands here as it behaves on a machine without a C++ compiler."""

    def broken(*arguments: object, **options: object) -> nn.Module:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nlong advice")

    monkeypatch.setattr(torch, "compile", broken)
    net = UNet(1, 8, (8,), (1,))
    found = compile_if_quicker(net, torch.device("cpu"), batch=2)
    assert found.net is net
    assert found.reason == "not compiled: InvalidCxxCompiler: No working C++ compiler found"


def slow_net(seen: set[tuple[torch.dtype, int]], sleep: dict[torch.dtype, float]) -> UNet:
    """A small net that notes how it is called, and takes as long as it is told to."""

    class Net(UNet):
        def forward(
            self,
            x: Tensor,
            noise_level: Tensor,
            condition: Tensor | None = None,
            told: Tensor | None = None,
        ) -> Tensor:
            dtype = next(self.parameters()).dtype
            seen.add((dtype, len(x)))
            time.sleep(sleep.get(dtype, 0.0))
            return super().forward(x, noise_level, condition, told)

    return Net(1, 8, (8,), (1,))


HALF = (torch.float32, torch.float64)  # a second precision that every processor has


@pytest.mark.parametrize("seconds", [0.001, 0.5])
def test_hopeless_ways_and_long_steps_are_timed_on_few_pictures(seconds: float) -> None:
    """0.001 s are too few for a whole batch."""
    seen: set[tuple[torch.dtype, int]] = set()
    net = slow_net(seen, {torch.float64: 0.2})
    found = fastest(net, torch.device("cpu"), batch=5, seconds=seconds, dtypes=HALF)
    assert found.dtype == torch.float32
    assert {n for dtype, n in seen if dtype == torch.float64} <= {1, 2, 3, 4}
    assert seconds > 0.1 or 5 not in {n for _, n in seen}


def test_a_net_whose_single_step_takes_long_is_timed_once() -> None:
    seen: set[tuple[torch.dtype, int]] = set()
    net = slow_net(seen, {torch.float32: 0.3})
    found = fastest(net, torch.device("cpu"), batch=64, seconds=0.1, dtypes=HALF)
    assert seen == {(torch.float32, 1)}
    assert (found.dtype, found.channels_last) == (torch.float32, True)
    assert "a step takes too long to time other ways" in found.reason
    assert found.images_per_second[0][1] < 10 / 3


def test_a_precision_that_the_processor_lacks_is_told_by_one_convolution() -> None:
    assert _useful((torch.float32,), torch.device("cpu")) == ((torch.float32,), "")
    kept, why = _useful((torch.float32, torch.bfloat16), torch.device("cpu"))
    assert kept[0] == torch.float32
    assert (len(kept) == 1) == ("a convolution in bfloat16 takes" in why)
