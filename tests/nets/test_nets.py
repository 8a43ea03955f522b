"""Every net keeps the same laws: shape, start, dtype, rebuilding, what it must and must not mix."""

from __future__ import annotations

import copy
import re
from typing import Literal

import pytest
import torch
from torch import nn

from noisewise.nets import UNet, UViT, ViT, build, derive, fastest
from noisewise.sizes import as_size, sides

NETS = [
    {"name": "unet", "channels": 1, "size": 28, "widths": [8, 16, 16], "blocks": [1, 2, 1]},
    {"name": "unet", "channels": 3, "size": 8, "widths": [8], "blocks": [1], "patch": 1},
    {"name": "unet", "channels": 3, "size": 36, "widths": [8, 8], "blocks": [1, 1], "patch": 4},
    {"name": "uvit", "channels": 3, "size": 32, "widths": [8, 16], "width": 32, "depth": 1},
    {"name": "vit", "channels": 1, "size": 16, "width": 32, "depth": 2, "patch": 4},
    {"name": "vit", "channels": 3, "size": 16, "width": 32, "depth": 1, "bottleneck": 8},
    {"name": "unet", "channels": 1, "size": "24x16", "widths": [8, 16], "blocks": [1, 1]},
    {"name": "uvit", "channels": 1, "size": "24x40", "widths": [8], "width": 32, "depth": 1},
    {"name": "vit", "channels": 1, "size": "16x24", "width": 32, "depth": 1, "patch": 4},
]
ids = [f"{c['name']}-{c['size']}-{i}" for i, c in enumerate(NETS)]


def awake(config: dict, seed: int = 0) -> nn.Module:
    """Build a net whose zeroed layers hold something, so that every path is seen."""
    net = build(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return net


def pictures(config: dict, n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (n, config["channels"], *sides(as_size(config["size"])))
    return torch.randn(shape, generator=generator), torch.linspace(-3, 3, n)


@pytest.mark.parametrize("config", NETS, ids=ids)
def test_starts_at_zero_and_keeps_the_shape(config: dict) -> None:
    x, level = pictures(config)
    out = build(config)(x, level)
    assert out.shape == x.shape
    assert out.abs().max() == 0


@pytest.mark.parametrize("config", NETS, ids=ids)
def test_rebuilds_from_its_configuration(config: dict) -> None:
    net = awake(config)
    twin = build(dict(net.config))  # pyrefly: ignore[bad-argument-type, no-matching-overload]
    twin.load_state_dict(net.state_dict())
    x, level = pictures(config)
    torch.testing.assert_close(twin.eval()(x, level), net(x, level), rtol=0, atol=0)


@pytest.mark.parametrize("config", NETS, ids=ids)
def test_pictures_of_a_batch_do_not_mix(config: dict) -> None:
    net = awake(config)
    x, level = pictures(config)
    alone = torch.cat([net(x[i : i + 1], level[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(net(x, level), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", NETS, ids=ids)
def test_every_parameter_and_every_pixel_matters(config: dict) -> None:
    net = awake(config).train()
    x, level = pictures(config)
    x.requires_grad_()
    net(x, level).square().sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).all()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("config", NETS, ids=ids)
def test_the_noise_level_matters(config: dict) -> None:
    net = awake(config)
    x, level = pictures(config)
    assert (net(x, level) - net(x, level + 1)).abs().max() > 1e-4


@pytest.mark.parametrize("config", NETS, ids=ids)
def test_bfloat16_weights_compute_in_bfloat16_and_stay_near(config: dict) -> None:
    net = awake(config)
    x, level = pictures(config)
    exact, rough = net(x, level), copy.deepcopy(net).bfloat16()(x, level)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("config", NETS, ids=ids)
def test_labels_choose_and_are_required(config: dict) -> None:
    net = awake({**config, "num_classes": 2})
    x, level = pictures(config)
    zero, one = (net(x, level, torch.full((len(x),), label)) for label in (0, 1))
    assert (zero - one).abs().max() > 1e-4
    with pytest.raises(ValueError, match="label"):
        net(x, level)
    with pytest.raises(ValueError, match="no classes"):
        awake(config)(x, level, torch.zeros(len(x), dtype=torch.int64))


def test_without_attention_the_unet_is_local_and_with_it_global() -> None:
    config = {**NETS[0], "size": 64, "widths": [8], "blocks": [1]}
    for attention in (False, True):
        net = awake({**config, "attention": attention})
        x, level = pictures(config, 1)
        moved = x.clone()
        moved[..., 0, 0] += 1
        change = (net(moved, level) - net(x, level)).abs()[..., -2:, -2:].max().item()
        assert (change > 0) == attention


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (lambda: UNet(1, 27), "cannot use 27 pixels: set size to 26 or 28"),
        (lambda: UNet(1, 8, (8, 8, 8, 8), (1, 1, 1, 1)), "too few"),
        (lambda: UNet(1, 28, (8, 8), (1,)), "blocks"),
        (lambda: ViT(1, 30, patch=4), "set size to 28 or 32"),
        (lambda: UNet(1, "27x16"), "cannot use 27x16 pixels: set size to 26x16 or 28x16"),
        (lambda: UNet(1, (4, 64), (8, 8, 8), (1, 1, 1)), "64x4 pixels are too few"),
        (lambda: UViT(1, (32, 30)), "set size to 28x32 or 32"),
        (lambda: ViT(1, 32, width=40), "multiple of 32"),
        (lambda: UViT(1, 30), "set size to 28 or 32"),
        (lambda: build({"name": "resnet"}), "unknown"),
        (lambda: build({"name": "unet", "depht": 3}), "cannot be built"),
    ],
)
def test_refusals(bad, says: str) -> None:  # noqa: ANN001 - a zero-argument call
    with pytest.raises(ValueError, match=says):
        bad()


@pytest.mark.parametrize("size", [8, 12, 16, 28, 32, 48, 64, 96, 128, 256])
@pytest.mark.parametrize("images", [1e4, None, 5e6])
def test_derived_nets_take_every_size(size: int, images: float | None) -> None:
    derived = derive(size, 3, images)
    net = build(derived.net)
    out = net(torch.zeros(1, 3, size, size), torch.zeros(1))
    assert out.shape == (1, 3, size, size)
    assert derived.reason


SHAPES = [(32, 48), (16, 24), (8, 28), (64, 96), (8, 512), (128, 256), (8, 1024), (100, 132)]


@pytest.mark.parametrize("shape", SHAPES)
def test_derived_nets_take_every_shape(shape: tuple[int, int]) -> None:
    for size in (shape, shape[::-1]):
        net = build(derive(size, 1).net)
        assert net(torch.zeros(1, 1, *size), torch.zeros(1)).shape == (1, 1, *size)
        config = dict(net.config)  # pyrefly: ignore[bad-argument-type, no-matching-overload]
        assert build(config).config == config
        assert config["size"] == f"{size[1]}x{size[0]}"


@pytest.mark.parametrize("name", ["pyramid", "uvit", "vit"])
@pytest.mark.parametrize("size", [*SHAPES, (132, 200), (12, 132), (260, 100), (92, 1000)])
def test_the_sizes_that_a_refusal_names_are_not_refused(
    size: tuple[int, int], name: Literal["pyramid", "uvit", "vit"]
) -> None:
    """Not for their sides: a larger picture may need a step that divides more."""
    try:
        derive(size, 1, architecture=name)
        return
    except ValueError as error:
        said = str(error)
    for near in re.findall(r"\d+x\d+", said.partition("set size to ")[2]):
        try:
            derive(as_size(near), 1, architecture=name)
        except ValueError as error:
            assert "use --net pyramid or widths of at least" in str(error)  # noqa: PT017


def test_a_unet_by_hand_has_blocks_of_two_up_to_64_pixels() -> None:
    sizes = (12, 16, 32, 36, 44, 64, 96, (32, 40), (16, 256))
    patches = [derive(size, 1, architecture="unet").net["patch"] for size in sizes]
    assert patches == [1, 2, 2, 2, 2, 2, 4, 2, 2]


def test_more_pictures_get_wider_nets() -> None:
    sizes = [
        sum(p.numel() for p in build(derive(32, 3, images).net).parameters())
        for images in (1e4, 2e5, 3e6, 3e7)
    ]
    assert sizes == sorted(set(sizes))


def test_timing_leaves_the_net_alone_and_reports_every_way() -> None:
    net = awake(NETS[0])
    before = {k: v.clone() for k, v in net.state_dict().items()}
    timed = fastest(net, torch.device("cpu"), batch=2, seconds=0.5)
    # Where a convolution is far slower in bfloat16, its two ways are left out, with the reason.
    assert len(timed.images_per_second) == (2 if timed.left_out else 4)
    assert all(speed > 0 for _, speed in timed.images_per_second)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert "bfloat16" in timed.reason
