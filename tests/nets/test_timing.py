"""A compiled net is the same net; a machine that cannot compile keeps the plain one."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from noisewise.nets.timing import compile_if_quicker, fastest
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


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_hopeless_ways_and_long_steps_are_timed_on_few_pictures(seconds: float) -> None:
    """bfloat16 is slow here, as where the processor has none; 0 s are too few for a whole batch."""
    seen: set[tuple[torch.dtype, int]] = set()

    class Net(UNet):
        def forward(
            self, x: Tensor, noise_level: Tensor, condition: Tensor | None = None
        ) -> Tensor:
            dtype = next(self.parameters()).dtype
            seen.add((dtype, len(x)))
            time.sleep(0.2 if dtype == torch.bfloat16 else 0.0)
            return super().forward(x, noise_level, condition)

    found = fastest(Net(1, 8, (8,), (1,)), torch.device("cpu"), batch=5, seconds=seconds)
    assert found.dtype == torch.float32
    assert len(found.images_per_second) == 4
    assert {dtype for dtype, n in seen if n == 4} == {torch.float32, torch.bfloat16}
    assert {dtype for dtype, n in seen if n == 5} == ({torch.float32} if seconds else set())
