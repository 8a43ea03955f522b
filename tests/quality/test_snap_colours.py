"""Pictures on a palette: every pixel, the nearest colour, few of them, alpha untouched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from noisewise.quality.oklab import oklab
from noisewise.quality.snap_colours import (
    colours_a_picture,
    on_palette,
    snapped_to,
    snapped_to_in_graph,
)


def random_palette(count: int, seed: int = 0, grey: bool = False) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    found = torch.randint(0, 256, (count, 3), generator=g).byte()
    return found[:, :1].expand(-1, 3).clone() if grey else found


def random_pictures(channels: int, count: int = 5, seed: int = 1) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 12, 10, channels), generator=g).byte()


def as_floats(pixels: Tensor) -> Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [2, 16, 300])
@pytest.mark.parametrize(("tolerance", "most"), [(0.0, None), (0.05, None), (0.0, 3), (0.05, 3)])
def test_every_pixel_is_on_the_palette(
    channels: int, size: int, tolerance: float, most: int | None
) -> None:
    colours = random_palette(size, grey=channels == 1)
    pixels = random_pictures(channels)
    found = snapped_to(pixels, colours, tolerance, most)
    assert found.shape == pixels.shape
    assert on_palette(found, colours) == 1.0
    if most is not None:
        assert colours_a_picture(found).max() <= most
    floats = snapped_to(as_floats(pixels), colours, tolerance, most)
    assert floats.dtype == torch.float32
    assert torch.equal(floats, as_floats(found))
    assert on_palette(floats, colours) == 1.0


@pytest.mark.parametrize("channels", [1, 3])
def test_the_nearest_colour_is_taken(channels: int) -> None:
    colours, pixels = random_palette(40, grey=channels == 1), random_pictures(channels)
    apart = (oklab(pixels)[..., None, :] - oklab(colours)).square().sum(-1)
    expected = colours[:, :channels][apart.argmin(-1)]
    assert torch.equal(snapped_to(pixels, colours), expected)


def test_pictures_on_the_palette_stay_as_they_are() -> None:
    colours = random_palette(256)
    g = torch.Generator().manual_seed(3)
    pixels = colours[torch.randint(0, 256, (4, 16, 16), generator=g)]
    assert torch.equal(snapped_to(pixels, colours), pixels)
    blues = torch.stack([torch.full((256,), 255), torch.full((256,), 255), torch.arange(256)], 1)
    yellow = blues.byte().view(1, 16, 16, 3)  # neighbours are nearer than float32 can add
    assert torch.equal(snapped_to(yellow, blues.byte()), yellow)


def test_noise_on_a_picture_of_few_colours_is_taken_off() -> None:
    inks = torch.tensor([[20, 20, 30], [200, 60, 50], [240, 230, 210], [60, 160, 90]]).byte()
    g = torch.Generator().manual_seed(0)
    clean = inks[torch.randint(0, 4, (6, 16, 16), generator=g)]
    eye = torch.tensor([250, 40, 200]).byte()  # one pixel
    clean[:, 5, 5] = eye
    noisy = (clean + 3.0 * torch.randn(clean.shape, generator=g)).clamp(0, 255).round().byte()
    around = (inks.int() + torch.randint(-9, 10, (200, 4, 3), generator=g)).view(-1, 3)
    palette = torch.cat([inks.int(), eye.int()[None], around]).clamp(0, 255).byte()
    before, found = snapped_to(noisy, palette), snapped_to(noisy, palette, tolerance=0.02)
    assert colours_a_picture(before).min() > 25
    assert (colours_a_picture(found) == 5).all()
    assert (found[:, 5, 5] == eye).all(), "the eye is still there"
    assert (found.int() - clean.int()).abs().max() <= 20


def test_a_larger_tolerance_leaves_fewer_colours() -> None:
    colours, pixels = random_palette(200), random_pictures(3, 8)
    counts = [
        float(np.mean(colours_a_picture(snapped_to(pixels, colours, tolerance))))
        for tolerance in (0.0, 0.02, 0.05, 0.1, 0.2)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < 0.5 * counts[0]


def test_alpha_is_left_alone_and_hidden_colours_do_not_count() -> None:
    colours, pixels = random_palette(30), random_pictures(4)
    pixels[..., 3] = torch.tensor([0, 128, 255, 0, 255, 255, 0, 0, 7, 255]).byte()
    found = snapped_to(pixels, colours, tolerance=0.05)
    assert torch.equal(found[..., 3], pixels[..., 3])
    hidden = pixels[..., 3] == 0
    assert torch.equal(found[hidden], pixels[hidden]), "what nobody sees stays as it was"
    other = pixels.clone()
    other[..., :3][hidden] = 77
    again = snapped_to(other, colours, tolerance=0.05)
    assert torch.equal(again[~hidden], found[~hidden])
    assert on_palette(found, colours) == 1.0
    empty = torch.zeros(2, 4, 4, 4, dtype=torch.uint8)
    assert torch.equal(snapped_to(empty, colours, 0.05, 2), empty)
    assert colours_a_picture(empty).tolist() == [0, 0]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_graph_takes_the_same_colours(channels: int) -> None:
    colours, pixels = random_palette(60, grey=channels == 1), random_pictures(channels)
    images = as_floats(pixels)
    apart = (snapped_to_in_graph(images, colours) != snapped_to(images, colours)).float().mean()
    assert apart < 1e-3


def test_pictures_do_not_depend_on_their_neighbours_in_a_batch() -> None:
    colours, pixels = random_palette(120), random_pictures(3, 40)
    whole = snapped_to(pixels, colours, 0.05)
    alone = torch.cat([snapped_to(part, colours, 0.05) for part in pixels.split(1)])
    assert torch.equal(whole, alone)


@pytest.mark.parametrize(
    ("images", "colours"),
    [
        (torch.zeros(2, 8, 8), random_palette(2)),
        (torch.zeros(2, 2, 8, 8), random_palette(2)),
        (torch.zeros(2, 3, 8, 8), random_palette(2)[:0]),
        (torch.full((1, 3, 4, 4), float("nan")), random_palette(2)),
    ],
)
def test_what_does_not_fit_is_refused(images: Tensor, colours: Tensor) -> None:
    with pytest.raises(ValueError, match="give"):
        snapped_to(images, colours)
