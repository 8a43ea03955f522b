"""Palettes: distances as Oklab defines them, clusters found, exact colours kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from noisewise.quality.oklab import oklab
from noisewise.quality.palettes import (
    CountedColours,
    all_colours,
    colour_error,
    counted_colours,
    few_colours,
    nearest_rows,
)


def test_oklab_has_the_published_values() -> None:
    """L, a, b of CSS Color 4's examples: pure red, green and blue."""
    primaries = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)
    published = torch.tensor(
        [[0.62796, 0.22486, 0.12585], [0.86644, -0.23389, 0.17950], [0.45201, -0.03246, -0.31153]]
    )
    assert torch.allclose(oklab(primaries), published, atol=2e-4)
    greys = torch.arange(256, dtype=torch.uint8)[:, None]
    found = oklab(greys)
    assert found[:, 1:].abs().max() < 1e-4, "greys have no hue"
    assert (found[1:, 0] > found[:-1, 0]).all()
    assert torch.equal(found, oklab(greys.expand(256, 3)))


def test_clusters_are_found_and_named_by_their_most_frequent_colour() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0, 0], [200, 40, 40], [40, 200, 40], [250, 250, 250]])
    pixels = np.repeat(centres, 400, 0)
    near = (np.repeat(centres, 100, 0) + rng.integers(-5, 6, (400, 3))).clip(0, 255)
    images = np.concatenate([pixels, near]).astype(np.uint8).reshape(1, 40, 50, 3)
    found = few_colours(counted_colours(images), 4)
    assert {tuple(c) for c in found.tolist()} == {tuple(c) for c in centres.tolist()}


def test_more_colours_are_nearer_and_all_of_them_occur() -> None:
    rng = np.random.default_rng(1)
    images = (rng.random((4, 64, 64, 3)) ** 2 * 255).astype(np.uint8)
    counted = counted_colours(images)
    assert counted.counts.sum() == 4 * 64 * 64
    known = {tuple(c) for c in counted.colours.tolist()}
    errors = []
    for number in (2, 8, 32, 128):
        colours = few_colours(counted, number)
        assert len(colours) <= number
        assert {tuple(c) for c in colours.tolist()} <= known
        assert (colours == few_colours(counted, number)).all(), "nothing is drawn at random"
        errors.append(colour_error(counted, colours))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.3 * errors[0]


def test_few_colours_are_kept_exactly() -> None:
    colours = np.random.default_rng(2).integers(0, 256, (40, 3)).astype(np.uint8)
    counted = CountedColours(colours, np.arange(40, 0, -1))
    found = few_colours(counted, 40)
    assert {tuple(c) for c in found.tolist()} == {tuple(c) for c in colours.tolist()}
    assert colour_error(counted, found) == 0
    light = oklab(torch.from_numpy(found))[:, 0]
    assert (light[1:] >= light[:-1]).all()


def test_all_colours_of_a_set() -> None:
    used = np.zeros((1 << 24) + 1, bool)
    assert all_colours(used).shape == (0, 3)
    used[[0xFF0000, 0x00FF00]] = True
    assert all_colours(used).tolist() == [[255, 0, 0], [0, 255, 0]]


def test_the_nearest_row_is_that_of_brute_force() -> None:
    g = torch.Generator().manual_seed(0)
    points, rows = torch.rand(300, 3, generator=g), torch.rand(40, 3, generator=g)
    which, square = nearest_rows(points, rows)
    apart = (points[:, None] - rows).square().sum(2)
    assert torch.equal(which, apart.argmin(1))
    assert torch.allclose(square, apart.amin(1))
    assert nearest_rows(rows, rows)[1].max() == 0


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_transparent_pixels_are_not_counted(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, channels)).astype(np.uint8)
    if channels == 4:
        images[..., 3] = np.arange(8) % 2 * 255
    expected = 64 if channels == 4 else 128
    assert counted_colours(images).counts.sum() == expected
