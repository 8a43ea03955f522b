"""The adversary in the fake score: what it hears, its losses and where their gradients go."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noisewise.diffusion import (
    GuidedByShares,
    Hearing,
    Preconditioned,
    denoising_loss,
    fake_loss_with_adversary,
    fooling_loss,
    innermost,
    score_identity_loss,
    telling_loss,
)
from noisewise.nets.derive import build

NETS: list[dict[str, Any]] = [
    {"name": "unet", "widths": [8, 8], "blocks": [1, 1]},
    {"name": "uvit", "widths": [8], "width": 32, "depth": 3},
    {"name": "vit", "width": 32, "depth": 2, "patch": 4, "bottleneck": 0},
]
SHAPE = (3, 1, 8, 8)


def made(net: dict[str, Any], classes: int = 0) -> Preconditioned:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inner = build({"channels": 1, "size": 8, "num_classes": classes, **net})
        with torch.no_grad():
            for p in inner.parameters():
                p.add_(0.05 * torch.randn_like(p))
    return Preconditioned(inner, 0.5).eval()


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("net", NETS, ids=lambda net: net["name"])
def test_logits_are_the_channel_mean_of_the_innermost_layer(net: dict[str, Any]) -> None:
    denoiser, kept = made(net), []
    layer = innermost(denoiser)
    hearing = Hearing(denoiser, layer)
    x, sigma = drawn(1), torch.tensor([0.1, 0.5, 2.0])
    found = hearing(x, sigma)
    handle = layer.register_forward_hook(lambda module, given, out: kept.append(out))
    assert torch.equal(found, denoiser(x, sigma))
    handle.remove()
    mean = kept[0].mean(1 if kept[0].ndim == 4 else -1)
    torch.testing.assert_close(hearing.logits, mean.flatten(1))
    assert hearing.logits.shape[0] == len(x)


def test_a_net_without_a_middle_is_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match="use --data-term realuid"):
        innermost(nn.Conv2d(1, 1, 3))
    hearing = Hearing(nn.Identity(), nn.Conv2d(1, 1, 1))
    hearing(drawn(0))
    with pytest.raises(ValueError, match="use --data-term realuid"):
        _ = hearing.logits


def test_losses_are_those_of_torch_and_the_optimum_tells_densities_apart() -> None:
    """With real and generated pictures from two laws, the best logit is the log of their ratio."""
    real, generated = drawn(1, 5, 4), drawn(2, 5, 4)
    bce = nn.functional.binary_cross_entropy_with_logits
    half = (bce(real, torch.ones(5, 4)) + bce(generated, torch.zeros(5, 4))) / 2
    torch.testing.assert_close(telling_loss(real, generated), half)
    torch.testing.assert_close(
        fooling_loss(20 * real), bce((20 * real).clamp(-10, 10), torch.ones(5, 4))
    )
    # one place, seen 3 times in real pictures and once in generated ones
    logit = torch.tensor(math.log(3.0), requires_grad=True)
    told = 3 * nn.functional.softplus(-logit) + nn.functional.softplus(
        logit
    )  # the two halves, weighted
    told.backward()
    assert logit.grad is not None
    assert abs(float(logit.grad)) < 1e-6


def test_the_fake_score_learns_both_in_one_call() -> None:
    """The loss is the plain one of the generated pictures plus the adversary's, by hand."""
    fake = made(NETS[0])
    layer = innermost(fake)
    generated, real, noise = drawn(1).requires_grad_(), drawn(2), drawn(3)
    sigma = torch.tensor([0.2, 0.7, 3.0])

    def weight(sigma: Tensor) -> Tensor:
        return 1 + sigma

    found = fake_loss_with_adversary(Hearing(fake, layer), generated, real, sigma, noise, weight)
    plain = denoising_loss(fake, generated, sigma, noise, weight).mean()
    heard = Hearing(fake, layer)
    level = sigma[:, None, None, None]
    heard(real + level * noise, sigma)
    of_real = heard.logits
    heard(generated + level * noise, sigma)
    own = plain + weight(sigma).mean() / 64 * telling_loss(of_real, heard.logits)
    torch.testing.assert_close(found, own)
    found.backward()
    assert generated.grad is None, "the fake score's step never moves the generator"
    grads = {name: p.grad for name, p in fake.named_parameters()}
    head = next(g for name, g in grads.items() if "head" in name)
    assert head is not None, "the decoder learns from generated pictures"


def test_the_generator_is_pulled_where_the_adversary_says_real() -> None:
    """The gradient by x_g equals that of finite differences; no parameter of the fake gets one."""
    teacher, fake = made(NETS[0]).double(), made(NETS[0]).double()
    layer = innermost(fake)
    sigma, noise = torch.tensor([0.2, 0.7, 1.5]).double(), drawn(3).double()

    def loss(x_g: Tensor) -> Tensor:
        hearing = Hearing(fake, layer)
        score_identity_loss(teacher, hearing, x_g, sigma, noise)
        return fooling_loss_of(hearing)

    def fooling_loss_of(hearing: Hearing) -> Tensor:
        return fooling_loss(hearing.logits)

    x_g = drawn(1).double().requires_grad_()
    loss(x_g).backward()
    assert x_g.grad is not None
    assert all(p.grad is None for p in fake.parameters())
    assert all(p.requires_grad for p in fake.parameters())
    step, way = 1e-3, x_g.grad / x_g.grad.norm()
    with torch.no_grad():
        ahead, back = loss(x_g + step * way), loss(x_g - step * way)
    assert float((ahead - back) / (2 * step)) == pytest.approx(float(x_g.grad.norm()), rel=0.05)


def test_guidance_does_not_change_what_is_heard() -> None:
    """A guided fake score calls its net twice; the pictures' own call is the one that counts."""
    fake = made(NETS[0], classes=2)
    layer, x, sigma = innermost(fake), drawn(1), torch.tensor([0.1, 0.5, 2.0])
    labels = torch.tensor([0, 1, 0])
    guided = GuidedByShares(fake, torch.tensor([0.5, 0.5]), 2.0, (0.2, 1.0))
    one, two = Hearing(fake, layer), Hearing(guided, layer)
    one(x, sigma, labels)
    two(x, sigma, labels)
    torch.testing.assert_close(two.logits, one.logits)
