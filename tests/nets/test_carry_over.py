"""Weights carried into another net: what it computes then is known exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noisewise.diffusion import Preconditioned
from noisewise.nets.carry_edges import interpolated_places
from noisewise.nets.carry_over import Trained, carry_over, followed
from noisewise.nets.derive import build, derive

UNET = {"name": "unet", "channels": 3, "size": 16, "widths": [8, 16], "blocks": [1, 2]}
UVIT = {"name": "uvit", "channels": 3, "size": 16, "widths": [8], "width": 32, "depth": 1}
VIT = {"name": "vit", "channels": 3, "size": 16, "width": 32, "depth": 2, "patch": 2}
GREY_AXIS = [3**-0.5] * 3
TINTS = [[2**-0.5, -(2**-0.5), 0.0], [6**-0.5, 6**-0.5, -2 * 6**-0.5]]


def pyramid(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 (settings of a net)
    """A pyramid of two levels over a flat spectrum."""
    power = [[0.5] * 32, [0.2] * 32, [0.1] * 32]
    return {
        "name": "pyramid", "gains": True, "channels": 3, "size": 32,
        "widths": [4, 8, 16], "blocks": [1, 1, 1],
        "detail_sd": [[0.1, 0.05, 0.04], [0.2, 0.1, 0.08]], "coarse_sd": [0.9, 0.5, 0.4],
        "power": power, "colours": [GREY_AXIS, *TINTS], "mean": [0.1, 0.2, 0.3],
    } | changes  # fmt: skip


def trained(config: dict[str, Any], seed: int = 0) -> nn.Module:
    """A net whose every weight has been moved, so that no branch is silent."""
    generator = torch.Generator().manual_seed(seed)
    net = build(config)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return net


def base(net: nn.Module, sigma_data: float = 0.5, **more: Any) -> Trained:  # noqa: ANN401
    return Trained(net.config, net.state_dict(), sigma_data, **more)  # pyrefly: ignore


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("config", [UNET, UVIT, VIT, pyramid()], ids=lambda c: c["name"])
def test_the_same_net_is_the_same_bit_for_bit(config: dict[str, Any]) -> None:
    old, new = trained(config), build(config)
    carried = carry_over(base(old), new, 0.5)
    assert (carried.share, carried.fresh) == (1.0, ())
    side = config["size"]
    x, level = noise(2, 3, side, side), torch.tensor([-1.0, 1.0])
    assert torch.equal(new(x, level), old(x, level))


@pytest.mark.parametrize("config", [UNET, UVIT, VIT], ids=lambda c: c["name"])
def test_more_contrast_is_the_same_picture_at_more_noise(config: dict[str, Any]) -> None:
    """D_new(k x, k sigma) = k D_old(x, sigma), where the pictures vary k times as much."""
    old, new = trained(config), build(config)
    carry_over(base(old, 0.4), new, 0.7)
    before, now = Preconditioned(old, 0.4), Preconditioned(new, 0.7)
    x, sigma, k = noise(2, 3, 16, 16), torch.tensor([0.2, 5.0]), 0.7 / 0.4
    torch.testing.assert_close(now(k * x, k * sigma), k * before(x, sigma), rtol=1e-4, atol=1e-4)


def test_a_pyramid_of_twice_the_size_has_the_coarse_scales_of_the_old_one() -> None:
    """In a rotation, the band of half the side varies twice as much: k = 2."""
    old = trained(pyramid())
    power = [[4 * v for v in row] for row in pyramid()["power"]]
    larger = pyramid(
        size=64, widths=[4, *pyramid()["widths"]], blocks=[1] * 4, power=power, mean=[0.0] * 3,
        detail_sd=[[0.1] * 3, *[[2 * v for v in row] for row in pyramid()["detail_sd"]]],
        coarse_sd=[2 * v for v in pyramid()["coarse_sd"]],
    )  # fmt: skip
    new = build(larger)
    carried = carry_over(base(old), new, 0.5)
    assert carried.share > 0.9
    x, level = noise(2, 3, 8, 8), torch.tensor([-1.0, 1.0])
    offset = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1) * 4  # the mean, two levels down
    expected = 2 * (old(x + offset, level) - offset)
    found = new(2 * x, level + torch.tensor(2.0).log())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_axes_of_colour_are_matched_with_their_signs() -> None:
    """The measurement may give an axis or its opposite, and any order: the net is the same."""
    old = trained(pyramid())
    order, signs = [2, 0, 1], [-1.0, 1.0, -1.0]

    def turned(rows: list[list[float]]) -> list[list[float]]:
        return [rows[at] for at in order]

    settings = pyramid()
    axes = turned(settings["colours"])
    other = pyramid(
        colours=[[sign * v for v in axis] for sign, axis in zip(signs, axes, strict=True)],
        power=turned(settings["power"]),
        detail_sd=[[row[at] for at in order] for row in settings["detail_sd"]],
        coarse_sd=[settings["coarse_sd"][at] for at in order],
    )
    new = build(other)
    assert carry_over(base(old), new, 0.5).share == 1.0
    x, level = noise(2, 3, 32, 32), torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(new(x, level), old(x, level), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [UNET, UVIT, VIT], ids=lambda c: c["name"])
@pytest.mark.parametrize("more", [3, 4])
def test_grey_becomes_colour(config: dict[str, Any], more: int) -> None:
    """A grey picture in colour: every colour is denoised as grey was; transparency is not read."""
    old, new = trained(config | {"channels": 1}), build(config | {"channels": more})
    carry_over(base(old), new, 0.5)
    grey, level = noise(2, 1, 16, 16), torch.tensor([-1.0, 1.0])
    colour = torch.cat([grey.repeat(1, 3, 1, 1), noise(2, 1, 16, 16, seed=5)], 1)[:, :more]
    found = new(colour, level)
    expected = old(grey, level).repeat(1, 3, 1, 1)
    torch.testing.assert_close(found[:, :3], expected, rtol=1e-4, atol=1e-5)
    if more == 4:
        assert not found[:, 3].any()


@pytest.mark.parametrize("config", [UNET, UVIT, VIT], ids=lambda c: c["name"])
def test_colour_becomes_grey(config: dict[str, Any]) -> None:
    old, new = trained(config), build(config | {"channels": 1})
    carry_over(base(old), new, 0.5)
    grey, level = noise(2, 1, 16, 16), torch.tensor([-1.0, 1.0])
    expected = old(grey.repeat(1, 3, 1, 1), level).mean(1, keepdim=True)
    torch.testing.assert_close(new(grey, level), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [UNET, UVIT, VIT], ids=lambda c: c["name"])
def test_transparency_joins_unseen_and_leaves_again(config: dict[str, Any]) -> None:
    old, new, back = trained(config), build(config | {"channels": 4}), build(config)
    carried = carry_over(base(old), new, 0.5)
    assert 0.9 < carried.share < 1
    x, level = noise(2, 4, 16, 16), torch.tensor([-1.0, 1.0])
    found = new(x, level)
    torch.testing.assert_close(found[:, :3], old(x[:, :3], level), rtol=1e-5, atol=1e-6)
    assert not found[:, 3].any()
    carry_over(base(new), back, 0.5)
    torch.testing.assert_close(back(x[:, :3], level), found[:, :3], rtol=1e-5, atol=1e-6)


def test_a_grey_pyramid_becomes_the_brightness_of_a_coloured_one() -> None:
    """Along the axis of grey it is the old net; tints are filtered, as in a fresh net."""
    one = {name: [row[:1] for row in pyramid()[name]] for name in ("detail_sd",)}
    grey = pyramid(
        channels=1, coarse_sd=[0.9], power=[[0.5] * 32], colours=[[1.0]], mean=[0.0], **one
    )
    old, new, fresh = trained(grey), build(pyramid(mean=[0.0] * 3)), build(pyramid(mean=[0.0] * 3))
    old_sd = Trained(grey, old.state_dict(), 0.5)
    coloured = torch.tensor(pyramid()["coarse_sd"]).square().mean().sqrt()
    shift = (coloured / 0.9).log()  # noise is counted from the coarsest band of all colours
    carry_over(old_sd, new, 0.5)
    values, level = noise(2, 1, 32, 32), torch.tensor([-1.0, 1.0])
    axis = torch.tensor(GREY_AXIS).view(1, 3, 1, 1)
    found = new(values * axis, level)
    expected = _with_level_told(old, values, level, level - shift)
    along = (found * axis).sum(1, keepdim=True)
    torch.testing.assert_close(along, expected, rtol=1e-4, atol=1e-4)
    rest = fresh(values * axis, level)
    across = found - along * axis
    torch.testing.assert_close(
        across, rest - (rest * axis).sum(1, keepdim=True) * axis, rtol=1e-4, atol=1e-4
    )


def _with_level_told(net: nn.Module, x: Tensor, level: Tensor, told: Tensor) -> Tensor:
    """The net at one noise level, told of another."""
    embedding = net.embedding
    assert isinstance(embedding, nn.Module)
    hook = embedding.register_forward_pre_hook(lambda _, given: (told, *given[1:]))
    try:
        return net(x, level)
    finally:
        hook.remove()


def test_a_larger_patch_sees_an_enlarged_picture() -> None:
    old, new = trained(VIT), build(VIT | {"size": 32, "patch": 4})
    assert carry_over(base(old), new, 0.5).share == 1.0
    x, level = noise(2, 3, 16, 16), torch.tensor([-1.0, 1.0])

    def enlarged(image: Tensor) -> Tensor:
        return image.repeat_interleave(2, 2).repeat_interleave(2, 3)

    torch.testing.assert_close(
        new(enlarged(x), level), enlarged(old(x, level)), rtol=1e-4, atol=1e-5
    )
    back = build(VIT)
    carry_over(base(new), back, 0.5)
    torch.testing.assert_close(back(x, level), old(x, level), rtol=1e-4, atol=1e-5)


def test_positions_are_interpolated() -> None:
    flat = torch.full((16, 3), 2.5)
    torch.testing.assert_close(
        interpolated_places(flat, 8, (12, 16), (2, 2)), torch.full((48, 3), 2.5)
    )
    ramp = torch.arange(4.0).repeat(4)[:, None]  # along each row
    found = interpolated_places(ramp, 4, 8, (1, 1)).reshape(8, 8)
    assert torch.equal(found, found[:1].expand(8, 8))
    assert bool((found[0].diff() >= 0).all())


# ---------------------------------------------------------------------- classes
def rows(net: nn.Module) -> Tensor:
    return net.state_dict()["embedding.labels.weight"]


def test_classes_keep_their_vectors_by_name() -> None:
    old = trained(UNET | {"num_classes": 3})
    new = build(UNET | {"num_classes": 4})
    named = base(old, classes=("cat", "dog", ""), shares=(1.0, 2.0, 1.0))
    carried = carry_over(named, new, 0.5, ("bird", "dog", "cat", ""))
    before, after = rows(old), rows(new)
    mean = (before[0] + 2 * before[1] + before[2]) / 4
    torch.testing.assert_close(after, torch.stack([mean, before[1], before[0], mean]))
    assert carried.fresh == ()


def test_without_classes_the_net_is_that_of_all_classes_at_once() -> None:
    old, new = trained(UNET | {"num_classes": 2}), build(UNET)
    carry_over(base(old, classes=("a", "b"), shares=(3.0, 1.0)), new, 0.5)
    x, level = noise(2, 3, 16, 16), torch.tensor([-1.0, 1.0])
    all_at_once = old(x, level, torch.tensor([[0.75, 0.25]] * 2))
    torch.testing.assert_close(new(x, level), all_at_once, rtol=1e-4, atol=1e-5)


def test_classes_that_join_begin_as_the_net_without_them() -> None:
    old, new = trained(UNET), build(UNET | {"num_classes": 2})
    carry_over(base(old), new, 0.5, ("a", "b"))
    x, level = noise(2, 3, 16, 16), torch.tensor([-1.0, 1.0])
    assert torch.equal(new(x, level, torch.tensor([0, 1])), old(x, level))


# ---------------------------------------------------------------------- sizes
def test_a_unet_of_another_size_is_the_same_convolutions() -> None:
    old, new = trained(UNET), build(UNET | {"size": [12, 20]})
    assert carry_over(base(old), new, 0.5).share == 1.0
    assert all(
        torch.equal(value, new.state_dict()[name]) for name, value in old.state_dict().items()
    )


def test_levels_of_a_unet_of_twice_the_size_are_matched_by_resolution() -> None:
    larger = derive((32, 32), 3, architecture="unet", widths=(8, 8, 16)).net | {"size": 32}
    widths, _ = followed(UNET | {"patch": 2}, larger | {"widths": [32, 64, 128]})
    assert widths == (8, 8, 16)
    old, new = trained(UNET | {"blocks": [1, 1], "patch": 2}), build(larger)
    carried = carry_over(base(old), new, 0.5)
    before, after = old.state_dict(), new.state_dict()
    pairs = (("down.0", "down.1"), ("down.1", "down.2"), ("up.0", "up.0"), ("up.1", "up.1"))
    for mine, theirs in pairs:
        name = "conv1.weight"
        assert torch.equal(before[f"{mine}.{name}"], after[f"{theirs}.{name}"]), mine
    assert torch.equal(before["shrink.0.weight"], after["shrink.1.weight"])
    assert torch.equal(before["grow.0.weight"], after["grow.0.weight"])
    fresh = {name.split(".")[0] + name.split(".")[1] for name in carried.fresh}
    assert fresh == {"down0", "up2", "shrink0", "grow1"}


def test_a_derived_pyramid_follows_the_trunk_of_its_base() -> None:
    new = derive((128, 128), 3).net
    old = derive((64, 64), 3, widths=(8, 24, 48, 96)).net
    assert followed(old, new) == ((*new["widths"][:2], 24, 48, 96), None)
    assert followed(old, derive((48, 48), 3).net) == ((8, 24, 48, 96), None)


def test_another_net_gives_what_both_have() -> None:
    old = trained(UNET | {"widths": [32, 64, 128], "blocks": [1, 1, 1], "size": 32})
    new = build(derive((64, 64), 3).net)
    carried = carry_over(base(old), new, 0.5)
    assert 0.1 < carried.share < 0.9
    assert torch.equal(old.state_dict()["middle.conv1.weight"], new.middle.conv1.weight)  # pyrefly: ignore


# ---------------------------------------------------------------------- refusals
def test_what_cannot_be_mapped_is_refused() -> None:
    with pytest.raises(ValueError, match=r"old\.net has 2 channels and these pictures have 3"):
        carry_over(base(trained(UNET | {"channels": 2}), named="old.net"), build(UNET), 0.5)
    with pytest.raises(ValueError, match="no weight of the base fits this net"):
        carry_over(Trained({}, {"a": torch.ones(2)}, 0.5), build(UNET), 0.5)
