"""Icons of the background's colour vanish: they are noticed, and another background is proposed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisewise.pictures.pictures import load_pictures

WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (128, 128, 128)


def icon(seed: int, colour: tuple[int, ...], side: int = 32) -> Image.Image:
    """A shape of one colour; its edge has alpha between 0 and 255."""
    rng = np.random.default_rng(seed)
    alpha = Image.fromarray(rng.integers(0, 2, (4, 4), np.uint8) * 255)
    image = Image.new("RGBA", (side, side), (*colour, 0))
    image.putalpha(alpha.resize((side, side), Image.Resampling.BILINEAR))
    return image


def write(folder: Path, *colours: tuple[int, ...], count: int = 24, side: int = 32) -> Path:
    folder.mkdir()
    for i in range(count):
        icon(i, colours[i % len(colours)], side).save(folder / f"{i:02}.png")
    return folder


def vanished(path: Path, background: str = "white") -> list[str]:
    notes = load_pictures(path, background=background).notes
    return [note for note in notes if "vanish" in note]


def test_white_icons_on_white_are_no_pictures_and_the_way_out_works(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", WHITE)
    with pytest.raises(
        ValueError,
        match=r"only 1 of the 24 .*24 pictures vanish on a white .*"
        r"try --background black\.$",
    ):
        load_pictures(folder, background="white")
    assert not vanished(folder, "black")
    assert load_pictures(folder, background="black").images.std() > 50
    with pytest.raises(ValueError, match=r"vanish on a black .* --background white"):
        load_pictures(write(tmp_path / "y", BLACK), background="black")


def test_a_part_of_a_set(tmp_path: Path) -> None:
    some = write(tmp_path / "some", (250, 250, 250), (200, 0, 0), (0, 0, 200))
    (note,) = vanished(some)
    assert note.startswith("8 pictures vanish on a white background")
    assert "--background black" in note
    (note,) = vanished(write(tmp_path / "both", WHITE, BLACK, (200, 0, 0)))
    assert note.endswith("try --background gray"), "black would hide the others"
    assert not vanished(write(tmp_path / "dark", BLACK))


def test_large_icons_and_arrays(tmp_path: Path) -> None:
    large = write(tmp_path / "large", WHITE, (0, 90, 0), count=40, side=600)
    assert vanished(large)[0].startswith("20 pictures vanish")
    both = [np.asarray(icon(i, (WHITE, BLACK)[i % 2])) for i in range(40)]
    np.save(tmp_path / "a.npy", np.stack(both))
    assert vanished(tmp_path / "a.npy")[0].startswith("20 pictures vanish")


def test_what_does_not_vanish(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    for i in range(24):
        image = icon(i, WHITE)
        image.paste((255, 0, 0, 255), (i % 20, 4, i % 20 + 8, 12))  # a red part is seen
        image.save(folder / f"a{i:02}.png")
        paper = np.full((32, 32, 4), 255, np.uint8)  # nearly opaque, nearly white paper
        paper[i % 30, i % 7, 3] = 250
        paper[i // 2, 3, :3] = 240 - i // 4
        Image.fromarray(paper).save(folder / f"b{i:02}.png")
    assert not vanished(folder)
