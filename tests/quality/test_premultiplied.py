"""Straight and premultiplied pictures: the two maps undo each other, and hide nothing odd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from noisewise.quality.eight_bits import levels
from noisewise.quality.premultiplied import premultiplied, straight, without_hidden


def sprites(count: int = 8, side: int = 16, seed: int = 0, soft: bool = True) -> Tensor:
    """Straight RGBA with hidden colours of every kind, uint8 levels in [-1, 1]."""
    g = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 4, side, side), generator=g)
    opacity = pixels[:, 3:]
    opacity[:, :, : side // 4] = 0
    if not soft:
        opacity[:] = (opacity >= 128) * 255
    return pixels.float() / 127.5 - 1


def test_every_colour_of_every_opacity_comes_back() -> None:
    """All 255 x 256 visible 8-bit values, from a file to a model and back."""
    colour, opacity = torch.meshgrid(torch.arange(256), torch.arange(1, 256), indexing="ij")
    pixels = torch.stack([colour, 255 - colour, colour, opacity])[None]
    back = levels(straight(premultiplied(pixels.float() / 127.5 - 1)))
    assert torch.equal(back.long(), pixels)


def test_hidden_colour_does_not_matter_going_in() -> None:
    images = sprites()
    other = torch.where(images[:, 3:] > -1, images, 1.0)
    other[:, 3] = images[:, 3]
    assert not torch.equal(images, other)
    assert torch.equal(premultiplied(images), premultiplied(other))
    assert torch.equal(without_hidden(images), without_hidden(other))


def test_what_is_not_rgba_stays_as_it_is() -> None:
    for channels in (1, 3):
        images = torch.rand(2, channels, 8, 8)
        assert premultiplied(images) is images
        assert without_hidden(images) is images


def test_it_agrees_with_pillow() -> None:
    """Pillow's own premultiplied mode, up to its rounding to 8 bits."""
    pixels = levels(sprites(1)[0]).permute(1, 2, 0).contiguous().numpy()
    theirs = np.asarray(Image.fromarray(pixels).convert("RGBa"))
    ours = levels(premultiplied(torch.tensor(pixels).permute(2, 0, 1)[None] / 127.5 - 1))
    assert np.abs(ours[0].permute(1, 2, 0).numpy().astype(int) - theirs.astype(int)).max() <= 1


def test_hidden_colour_comes_out_as_that_of_the_nearest_visible_pixel() -> None:
    images = torch.full((1, 4, 32, 32), -1.0)
    images[0, :, 4:12, 4:12] = torch.tensor([1.0, -1.0, -1.0, 1.0])[:, None, None]
    images[0, :, 20:28, 20:28] = torch.tensor([-1.0, 1.0, -1.0, 1.0])[:, None, None]
    out = straight(images)
    assert torch.equal(out[:, 3], images[:, 3])
    red, green = torch.tensor([1.0, -1, -1]), torch.tensor([-1.0, 1, -1])
    for row, column in ((3, 3), (2, 2), (12, 12), (3, 8), (0, 0)):
        assert torch.equal(out[0, :3, row, column], red), (row, column)
    for row, column in ((19, 19), (28, 28), (29, 20), (31, 31)):
        assert torch.equal(out[0, :3, row, column], green), (row, column)


def test_only_colours_of_the_picture_lie_under_what_is_transparent() -> None:
    """So the palette of pixel art stays as it is."""
    out = levels(straight(premultiplied(sprites(soft=False)))).permute(0, 2, 3, 1)
    for picture in out:
        seen = {tuple(p) for p in picture[picture[..., 3] > 0][:, :3].tolist()}
        assert {tuple(p) for p in picture[..., :3].reshape(-1, 3).tolist()} == seen


@pytest.mark.parametrize("side", [8, 13, 30])
def test_filters_make_no_fringe(side: int) -> None:
    """A red disc, filtered as a game engine does: straight, and half a pixel away."""
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    middle = (side - 1) / 2
    inside = ((row - middle) ** 2 + (column - middle) ** 2).sqrt() < side / 3
    images = torch.full((1, 4, side, side), -1.0)
    images[0, 0][inside] = images[0, 3][inside] = 1.0
    for picture, clean in ((straight(images), True), (images, False)):
        moved = F.avg_pool2d((picture + 1) / 2, 2, 1)
        red = moved[0, 0][moved[0, 3] > 0]
        assert bool((red > 0.999).all()) == clean


def test_binary_opacity_has_two_values_and_a_soft_edge_keeps_its_own() -> None:
    images = premultiplied(sprites())
    hard, soft = straight(images, binary=True), straight(images)
    assert set(hard[:, 3].unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(hard[:, 3] > 0, images[:, 3] >= 0)
    assert len(soft[:, 3].unique()) > 100
    seen = hard[:, 3:] > 0
    torch.testing.assert_close(hard[:, :3] * seen, soft[:, :3] * seen)


def test_a_picture_without_anything_is_black() -> None:
    assert bool((straight(torch.full((1, 4, 5, 9), -1.0)) == -1).all())


def test_values_of_a_net_that_no_picture_can_have() -> None:
    """Colour above opacity, and values outside of [-1, 1]."""
    out = straight(torch.tensor([3.0, -3.0, 0.5, 0.0]).view(1, 4, 1, 1).expand(1, 4, 4, 4))
    assert out[0, :, 0, 0].tolist() == [1.0, -1.0, 1.0, 0.0]


def test_both_maps_can_be_traced() -> None:
    class Both(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return straight(premultiplied(x))

    images = sprites(3)
    batch = torch.export.Dim("n")
    program = torch.export.export(Both(), (images,), dynamic_shapes=({0: batch},))
    more = sprites(5, seed=1)
    torch.testing.assert_close(program.module()(more), straight(premultiplied(more)))
