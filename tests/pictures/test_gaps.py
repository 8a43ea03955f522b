"""Gaps on a sheet differ from the edges of its pictures, whatever these are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from noisewise.app.plots import svg
from noisewise.pictures.gaps import gap_level
from noisewise.training.files.sample_sheet import sheet
from noisewise.training.inspect import contact_sheet


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("level", [0, 20, 128, 235, 255])
def test_pictures_of_one_colour_can_be_told_apart(level: int, channels: int) -> None:
    images = np.full((9, 16, 16, channels), level, np.uint8)
    images[:, 4:12, 4:12] = 255 - level  # what is inside does not matter
    floats = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    sheets = (
        contact_sheet(images)[1, :-1],
        sheet(floats, columns=3)[16],
        np.asarray(svg.grid(images, columns=3).convert("L"))[16],
    )
    for line in sheets:  # through a gap, from the left to the right
        assert (np.abs(line.astype(int) - level) > 60).all()


def test_a_few_pictures_with_other_edges_do_not_decide() -> None:
    images = np.full((20, 8, 8, 3), 255, np.uint8)
    images[:3] = 128
    assert gap_level(images) == 0
    assert gap_level(255 - images) == 255
    red = np.zeros((4, 8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert gap_level(red) == 255, "no grey is like a pure colour, so the usual white is taken"


def test_transparent_edges_are_as_white_as_the_page() -> None:
    images = np.zeros((4, 8, 8, 4), np.uint8)
    assert gap_level(images) == 128
    images[..., 3] = 255
    assert gap_level(images) == 255


def test_gaps_of_a_full_sheet_are_opaque_and_empty_places_are_not() -> None:
    images = np.full((3, 8, 8, 1), 255, np.uint8)
    laid = np.asarray(svg.grid(images, columns=2).convert("RGBA"))
    assert laid.shape == (17, 17, 4)
    assert (laid[8, :, 3] == 255)[:8].all()
    assert (laid[10:, 10:, 3] == 0).all()
    assert svg.grid(images[:2], columns=2).mode == "L"
