"""The palette of a teacher: of the folder, of a person, or none; as many colours as real ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from coloured_sets import INKS, icons, own_palettes, photographs, sprites
from noisewise.pictures.pictures import Pictures
from noisewise.quality.colours import count_colours
from noisewise.quality.snap_colours import colours_a_picture, on_palette
from noisewise.training.models.palette import TOLERANCE, Palette
from noisewise.training.settings.config import AdaptConfig, TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.choose_palette import (
    choose_tolerance,
    folder_palette,
    plan_palette,
)
from tiny import tiny_pictures

AUTO, NONE = TrainConfig(), TrainConfig(palette="none")
BY_HAND = TrainConfig(palette="#000000 #ffffff")


def as_set(images: np.ndarray) -> Pictures:
    return replace(tiny_pictures(), images=images, labels=None, classes=())


def test_a_folder_with_a_palette_gives_it() -> None:
    found = plan_palette(AUTO, as_set(sprites(60)))
    assert set(found.colours) == {tuple(ink) for ink in INKS.tolist()}
    assert found.typical == found.most == 6
    assert found.tolerance == TOLERANCE
    assert "one palette" in found.reason
    assert found.way == "end"
    other = TrainConfig(recipe=TeacherRecipe(palette_way="inside"))
    assert plan_palette(other, as_set(sprites(60))).way == "inside"
    opaque = np.full((60, *sprites(60).shape[1:3], 1), 255, np.uint8)
    rgba = np.concatenate([sprites(60), opaque], 3)
    assert plan_palette(other, as_set(rgba)).way == "inside"


def test_pictures_with_palettes_of_their_own_get_one_that_is_near_to_all() -> None:
    images = own_palettes(120)
    found = plan_palette(AUTO, as_set(images))
    assert 100 < len(found.colours) <= 1024
    assert found.typical == 6
    known = {tuple(c) for c in images.reshape(-1, 3).tolist()}
    assert set(found.colours) <= known


@pytest.mark.parametrize("images", [icons(30), photographs(60), photographs(60, 1)])
def test_other_folders_have_none(images: np.ndarray) -> None:
    found = plan_palette(AUTO, as_set(images))
    assert not found
    assert found.reason.startswith("none in these pictures")


def test_what_a_person_says_counts() -> None:
    assert not plan_palette(NONE, as_set(sprites(60)))
    found = plan_palette(BY_HAND, as_set(sprites(60)))
    assert found.colours == ((0, 0, 0), (255, 255, 255))
    assert found.by_hand
    assert found.typical == 6, "as few colours as the folder's pictures have"
    on_photographs = plan_palette(BY_HAND, as_set(photographs(60)))
    assert (on_photographs.typical, on_photographs.most, on_photographs.tolerance) == (0, 0, 0.0)
    with pytest.raises(ValueError, match="grey and the palette has colours"):
        plan_palette(TrainConfig(palette="#000000 #ff0000"), as_set(photographs(60, 1)))


def test_an_adapted_teacher_keeps_what_a_person_gave() -> None:
    by_hand = Palette(((0, 0, 0), (255, 0, 0)), by_hand=True)
    auto = AdaptConfig()
    assert plan_palette(auto, as_set(sprites(60)), by_hand).colours == by_hand.colours
    measured = replace(by_hand, by_hand=False)
    assert len(plan_palette(auto, as_set(sprites(60)), measured).colours) == len(INKS)
    assert not plan_palette(AdaptConfig(palette="none"), as_set(sprites(60)), by_hand)


def test_a_palette_for_a_file_has_at_most_so_many_colours() -> None:
    images = icons(30)
    found = folder_palette(images, count_colours(images), 256)
    assert 128 < len(found) <= 256
    whole = sprites(60)
    assert len(folder_palette(whole, count_colours(whole), 256)) == len(INKS)
    assert len(folder_palette(whole, count_colours(whole), 8)) <= 8


def noisy(spread: float) -> tuple[Tensor, Palette]:
    """Sprites with noise, and their palette among many colours that are near to it."""
    rng = np.random.default_rng(0)
    clean = sprites(40)
    dirty = (clean + rng.normal(0, spread, clean.shape)).clip(0, 255).astype(np.uint8)
    near = (INKS[:, None].astype(int) + rng.integers(-16, 17, (24, 20, 3))).clip(0, 255)
    colours = np.unique(np.concatenate([INKS, near.reshape(-1, 3)]), axis=0)
    known = tuple((int(r), int(g), int(b)) for r, g, b in colours)
    images = torch.from_numpy(dirty).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images, Palette(known, most=64, typical=6, tolerance=TOLERANCE)


@pytest.mark.parametrize("spread", [2.0, 5.0, 9.0])
def test_the_tolerance_gives_as_many_colours_as_real_pictures_have(spread: float) -> None:
    images, palette = noisy(spread)
    raw = np.median(colours_a_picture(replace(palette, tolerance=0.0).applied(images)))
    assert raw > 12
    found = choose_tolerance(images, palette)
    count = np.median(colours_a_picture(found.applied(images)))
    assert 5 <= count <= 8
    assert on_palette(found.applied(images), found.tensor) == 1.0


def test_without_a_typical_number_nothing_is_chosen() -> None:
    images, palette = noisy(2.0)
    free = replace(palette, typical=0)
    assert choose_tolerance(images, free) == free
    assert choose_tolerance(images, Palette()) == Palette()
