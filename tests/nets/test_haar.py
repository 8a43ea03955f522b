"""The Haar transform is a rotation, and its low-pass band is what averaging leaves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from noisewise.nets.bands import levels_for, measured_bands, usual_bands
from noisewise.nets.haar import haar, inverse_haar, low_pass


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(2, 1, 2, 2), (1, 3, 8, 12), (3, 4, 6, 4)])
def test_it_is_a_rotation_and_comes_back(shape: tuple[int, ...]) -> None:
    x = noise(*shape)
    low, details = haar(x)
    torch.testing.assert_close(inverse_haar(low, details), x)
    torch.testing.assert_close(low.square().sum() + details.square().sum(), x.square().sum())


def test_white_noise_stays_white_in_every_band() -> None:
    low, details = haar(noise(4, 3, 64, 64))
    for band in (low, details):
        assert band.std().item() == pytest.approx(1, abs=0.02)


def test_the_low_pass_band_is_the_mean_of_blocks_on_another_scale() -> None:
    x = noise(2, 3, 16, 16)
    torch.testing.assert_close(haar(haar(x)[0])[0], low_pass(x, 2))
    torch.testing.assert_close(low_pass(x, 2), 4 * F.avg_pool2d(x, 4))
    assert low_pass(x, 0) is x


def test_details_of_an_edge_are_where_the_edge_is() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[..., 1:] = 1.0  # a vertical edge inside the first column of blocks
    horizontal, vertical, diagonal = haar(x)[1][0]
    assert horizontal.tolist() == [[-1.0, 0.0], [-1.0, 0.0]]
    assert not vertical.any()
    assert not diagonal.any()


@pytest.mark.parametrize("sides", [(3, 4), (4, 5)])
def test_odd_sides_are_refused(sides: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot be halved: give even sides"):
        haar(torch.zeros(1, 1, *sides))


def test_bands_of_pictures_of_known_spectrum() -> None:
    """Blocks of 2 x 2 equal pixels have no finest details, and twice the spread below."""
    blocks = noise(256, 1, 8, 8).float() + 0.25
    found = measured_bands(blocks.repeat_interleave(2, 2).repeat_interleave(2, 3), 2)
    assert found.detail_sd[0] == pytest.approx((1e-3,))  # the least that a net can scale with
    assert found.detail_sd[1] == pytest.approx((2,), rel=0.03)
    assert found.coarse_sd == pytest.approx((2,), rel=0.03)
    assert found.mean == pytest.approx((0.25,), abs=0.05)


def test_the_axes_of_colour_are_those_of_fine_details() -> None:
    """Details along one direction in colour: it comes first, and the others have nothing left."""
    direction = torch.tensor([0.6, 0.0, 0.8])
    images = noise(64, 1, 8, 8).float() * direction.view(1, 3, 1, 1) + 0.1
    found = measured_bands(images, 1)
    assert torch.tensor(found.colours[0]).abs().tolist() == pytest.approx([0.6, 0, 0.8], abs=1e-3)
    assert found.detail_sd[0] == pytest.approx((1, 1e-3, 1e-3), rel=0.03)
    axes = torch.tensor(found.colours)
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3), rtol=0, atol=1e-4)


def test_bands_of_turned_pictures_are_the_same() -> None:
    images = noise(64, 2, 16, 48).float()
    images[:, :, :, 1:] += images[:, :, :, :-1].clone()  # neighbours in a row are alike
    lying, standing = measured_bands(images, 2), measured_bands(images.mT.contiguous(), 2)
    for one, other in zip(
        (*lying.detail_sd, lying.coarse_sd, lying.mean),
        (*standing.detail_sd, standing.coarse_sd, standing.mean),
        strict=True,
    ):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    assert torch.tensor(lying.power) == pytest.approx(torch.tensor(standing.power), rel=1e-2)


def test_levels_lead_to_at_most_32_pixels() -> None:
    sizes = (16, 28, 32, 36, 48, 64, 96, 100, 128, 192, 256, 512, 1024)
    assert [levels_for(s) for s in sizes] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5]
    assert usual_bands(256, 3, 3).levels == 3
    shapes = ((32, 48), (16, 64), (16, 65), (64, 96), (96, 64), (8, 512), (100, 400))
    assert [levels_for(s) for s in shapes] == [1, 0, 1, 2, 2, 1, 3]
    for shape in shapes:
        coarse = shape[0] * shape[1] / 4 ** levels_for(shape)
        assert coarse <= 32**2
