"""Whether pictures may be turned or recoloured: textures may, things that stand may not."""

from __future__ import annotations

import numpy as np
import pytest

from noisewise.pictures.hues import suggest_hue
from noisewise.pictures.pictures import Pictures
from noisewise.pictures.resemblance import Resemblance
from noisewise.pictures.turns import suggest_turns


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def textures(count: int, height: int = 16, width: int = 16) -> np.ndarray:
    """Coarse noise in all colours: no side is up, and no hue is usual."""
    small = generator().integers(0, 256, (count, height // 4, width // 4, 3), dtype=np.uint8)
    return np.kron(small, np.ones((1, 4, 4, 1), np.uint8))


def figures(count: int, hues: str = "all") -> np.ndarray:
    """Wide at the bottom, narrow at the top, on white; each in one colour."""
    images = np.full((count, 16, 16, 3), 255, np.uint8)
    random = generator(1)
    for image in images:
        colour = random.integers(0, 256, 3) if hues == "all" else (230, random.integers(0, 90), 20)
        for row in range(3, 15):
            half = (row - 2) * int(random.integers(2, 4)) // 5 + 1
            image[row, 8 - half : 8 + half] = colour
    return images


@pytest.mark.parametrize("count", [30, 150, 500])
def test_textures_may_be_turned_and_figures_may_not(count: int) -> None:
    assert suggest_turns(Resemblance(textures(count)))[0]
    turned, why = suggest_turns(Resemblance(figures(count)))
    assert not turned
    assert "way up" in why or "away from the set" in why


def test_figures_turned_by_chance_look_the_same_from_every_side() -> None:
    images = figures(400)
    turns = generator(2).integers(0, 4, len(images))
    anyhow = np.stack([np.rot90(image, k) for image, k in zip(images, turns, strict=True)])
    assert suggest_turns(Resemblance(anyhow))[0]


def test_other_shapes_are_turned_upside_down_alone() -> None:
    assert suggest_turns(Resemblance(textures(100, 16, 32)))[0]
    assert not suggest_turns(Resemblance(figures(100)[:, :, 4:12]))[0]


def test_too_few_pictures_tell_nothing() -> None:
    assert suggest_turns(Resemblance(textures(12))) == (
        False,
        "12 pictures do not show whether they have a right way up",
    )


@pytest.mark.parametrize("count", [30, 150, 500])
def test_hues_may_change_where_all_occur(count: int) -> None:
    assert suggest_hue(Resemblance(figures(count)))[0]
    changed, why = suggest_hue(Resemblance(figures(count, "red")))
    assert not changed
    assert "one hue" in why


@pytest.mark.parametrize("channels", [1, 3])
def test_greys_have_no_hue(channels: int) -> None:
    grey = np.repeat(textures(60)[..., :1], channels, axis=3)
    assert suggest_hue(Resemblance(grey)) == (False, "the pictures are grey")


def test_alpha_is_no_colour() -> None:
    alpha = generator(3).integers(0, 2, (200, 16, 16, 1), dtype=np.uint8) * 255
    assert suggest_hue(Resemblance(np.concatenate([figures(200), alpha], 3)))[0]
    assert not suggest_hue(Resemblance(np.concatenate([figures(200, "red"), alpha], 3)))[0]


def test_pictures_suggest_both() -> None:
    found = Pictures(textures(60), None, (), (), (), "", "", ()).suggest_changes()
    assert {name: used for name, (used, _) in found.items()} == {"turns": True, "hue": True}
