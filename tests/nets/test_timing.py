"""A compiled net is the same net; a machine that cannot compile keeps the plain one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from noisewise.nets.timing import compile_if_quicker
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
