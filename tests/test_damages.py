"""Damages of pictures: each does what its name says, by the amount that its strength says."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage
from torch import Tensor

from benchmarks.pictures import damages


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def things(n: int = 40, channels: int = 3, side: int = 32) -> Tensor:
    """Textured discs on a flat white ground, 8 bits."""
    axis = torch.linspace(-1, 1, side)
    inside = (axis[:, None].square() + axis.square() < 0.5).float()
    texture = 0.6 * torch.rand(n, channels, side, side, generator=generator(1)) - 0.5
    return damages.eight_bits(inside * texture + (1 - inside))


def cut_out(n: int = 40) -> Tensor:
    """The same discs with an opacity: 1 inside, 0 outside."""
    images = things(n)
    opacity = torch.where((images < 1).any(1, keepdim=True), 1.0, -1.0)
    return torch.cat([images, opacity], 1)


@pytest.mark.parametrize("damage", damages.DAMAGES, ids=lambda damage: damage.name)
def test_every_damage_keeps_shape_and_grid_and_the_same_seed_repeats_it(
    damage: damages.Damage,
) -> None:
    for channels in (1, 3, 4):
        if not damage.fits(channels):
            continue
        images = cut_out() if channels == 4 else things(channels=channels)
        before = images.clone()
        found = damage.of(images, damage.strengths[-1], generator())
        assert found.shape == images.shape
        assert torch.equal(found, damages.eight_bits(found))
        assert torch.equal(images, before)
        assert torch.equal(found, damage.of(images, damage.strengths[-1], generator()))
        assert not torch.equal(found, images) or damage.name == "faint grey"


@pytest.mark.parametrize("damage", damages.DAMAGES, ids=lambda damage: damage.name)
def test_a_stronger_damage_changes_more(damage: damages.Damage) -> None:
    images = cut_out() if damage.needs_opacity else things()
    changed = [
        float((damage.of(images, strength, generator()) - images).square().mean())
        for strength in damage.strengths
    ]
    assert changed == sorted(changed)
    assert changed[-1] > 0


def test_noise_and_speckle_have_the_amount_that_they_name() -> None:
    grey = torch.zeros(50, 3, 32, 32)
    assert float(damages.noise(grey, 0.05, generator()).std()) == pytest.approx(0.05, rel=0.02)
    hit = (damages.speckle(grey, 0.01, generator()) - damages.eight_bits(grey)).abs().amax(1) > 0.02
    assert float(hit.float().mean()) == pytest.approx(0.01, rel=0.15)


def test_blur_is_that_of_scipy() -> None:
    images = things(2, 1, 28)
    found = damages.blur(images, 0.8, generator())
    for image, blurred in zip(images[:, 0], found[:, 0], strict=True):
        wanted = ndimage.gaussian_filter(image.numpy(), 0.8, mode="nearest", radius=2)
        assert float((blurred - torch.from_numpy(wanted)).abs().max()) <= 1 / 255 + 1e-5
    larger = damages.blur(things(2, 1, 112), 0.8, generator())  # twice the sigma at four times 28
    wanted = ndimage.gaussian_filter(things(2, 1, 112)[0, 0].numpy(), 1.6, mode="nearest", radius=5)
    assert float((larger[0, 0] - torch.from_numpy(wanted)).abs().max()) <= 1 / 255 + 1e-5


def test_a_warp_moves_pixels_as_far_as_it_says_and_in_proportion_to_the_side() -> None:
    for side in (28, 56):
        ramp = torch.linspace(-1, 1, side).expand(200, 1, side, side).contiguous()
        moved = damages.warp(ramp, 1.5, generator()) - damages.eight_bits(ramp)
        inside = moved[..., side // 4 : -side // 4] * (side - 1) / 2  # in pixels, not at an edge
        # Between the cells of its grid smooth noise is weaker: 0.8 of a deviation.
        assert float(inside.std()) == pytest.approx(1.5 * 0.8 * side / 28, rel=0.15)


def test_torn_pictures_hold_the_same_patches_elsewhere() -> None:
    images = torch.arange(16.0).view(1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    images = damages.eight_bits(images / 8 - 1).expand(50, 1, 32, 32)
    found = damages.torn(images, 0.5, generator())
    assert torch.equal(found.flatten(1).sort(1).values, images.flatten(1).sort(1).values)
    kept = (found == images)[:, 0, ::8, ::8].float().mean()
    assert 0.5 < float(kept) < 0.62  # half are not taken, and some taken ones come back
    assert torch.equal(damages.torn(images, 0.0, generator()), images)


def test_damages_of_things_spare_flat_areas_and_faint_grey_spares_things() -> None:
    images = things()
    flat = damages.flat_areas(images).bool().expand_as(images)
    assert 0.1 < float(flat.float().mean()) < 0.9
    for name in ("stains", "colour stains", "hue", "palette"):
        damage = damages.damage_named(name)
        found = damage.of(images, damage.strengths[-1], generator())
        assert torch.equal(found[flat], images[flat])
        assert not torch.equal(found[~flat], images[~flat])
    found = damages.faint_grey(images, 0.1, generator())
    assert torch.equal(found[~flat], images[~flat])
    assert (found[flat] <= images[flat]).all()  # the ground is white


def test_hue_moves_all_pictures_alike_and_the_palette_each_in_its_own_direction() -> None:
    images = damages.eight_bits(0.2 * things())  # away from the ends of the range
    shift = (damages.hue(images, 0.12, generator()) - images).sum((2, 3))
    assert float(torch.corrcoef(shift)[0, 1:].min()) > 0.99
    drift = (damages.palette(images, 0.15, generator()) - images).sum((2, 3))
    assert float(torch.corrcoef(drift)[0, 1:].min()) < 0
    assert float(drift.sum(1).abs().max()) < 0.05 * float(drift.abs().max())  # no grey in it


def test_damages_of_colour_leave_opacity_alone_and_hidden_colour_cannot_be_seen() -> None:
    images = cut_out()
    found = damages.damage_named("noise").of(images, 0.1, generator())
    assert torch.equal(found[:, 3], images[:, 3])
    hidden = damages.hidden_colour(images, 0.5, generator())
    on_black = [(x[:, :3] + 1) * (x[:, 3:] + 1) for x in (images, hidden)]
    assert torch.equal(*on_black)
    assert not torch.equal(hidden, images)


def test_classes_are_left_out_and_doubled() -> None:
    images = torch.arange(300.0).view(300, 1, 1, 1) / 300
    labels = torch.arange(300) % 10
    left = damages.without_classes(images, labels, [3, 4], 100)
    assert len(left) == 100
    assert not set(labels[(left.flatten() * 300).round().long()].tolist()) & {3, 4}
    more = damages.doubled_class(images, labels, 3, 100)
    found = labels[(more.flatten() * 300).round().long()]
    assert (len(more), int((found == 3).sum())) == (100, 20)
    assert len(more.unique()) == 100
    with pytest.raises(ValueError, match="are left without"):
        damages.without_classes(images, labels, list(range(9)), 100)
    with pytest.raises(ValueError, match="more pictures"):
        damages.doubled_class(images, labels, 3, 200)


def test_copies_and_repeated_pictures() -> None:
    images, originals = torch.rand(40, 1, 8, 8), torch.rand(30, 1, 8, 8)
    found = damages.copies(images, originals, 0.25, generator())
    assert torch.equal(found[:30], images[:30])
    assert all((originals == picture).flatten(1).all(1).any() for picture in found[30:])
    assert len(damages.repeated(images, 0.5).unique(dim=0)) == 20
