"""A model with a palette: it survives its files, and every picture that it draws is on it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from export_models import PYRAMID, UNET, models
from noisewise.pictures.alpha import Alpha
from noisewise.pictures.palette_files import Colours
from noisewise.quality.snap_colours import colours_a_picture, on_palette
from noisewise.training.models.model_config import Flats, ModelConfig, SamplerSettings
from noisewise.training.models.model_folder import load_model, save_model
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.models.palette import MOST_COLOURS, Palette
from noisewise.training.settings.recipes import PaletteWay

INKS: Colours = ((0, 0, 0), (90, 20, 30), (200, 120, 60), (20, 90, 160), (250, 240, 230))
FEW = Palette(INKS, most=3, typical=3, tolerance=0.02, reason="of a test")
COLOUR = {**PYRAMID, "size": 16}


def drawing(palette: Palette) -> tuple[Teacher, Generator]:
    return models(COLOUR, "bands", palette=palette)


@pytest.mark.parametrize("way", ["end", "again", "inside"])
def test_every_pixel_of_a_teacher_is_on_the_palette(way: PaletteWay) -> None:
    teacher, _ = drawing(replace(FEW, way=way))
    pictures = teacher.sample(5)
    assert on_palette(pictures, FEW.tensor) == 1.0
    assert colours_a_picture(pictures).max() <= 3
    assert torch.equal(teacher.sample(2), pictures[:2]), "a picture does not depend on the others"
    plain, _ = drawing(Palette())
    more = 2 if way == "again" else 0
    assert teacher.network_calls() == plain.network_calls() + more
    assert not torch.equal(plain.sample(5), pictures)


@pytest.mark.parametrize("alpha", ["binary", "soft"])
@pytest.mark.parametrize("way", ["end", "again", "inside"])
def test_every_visible_pixel_of_rgba_is_on_the_palette(way: PaletteWay, alpha: Alpha) -> None:
    net = {"name": "unet", "channels": 4, "size": 8, "widths": [8, 8], "blocks": [1, 1]}
    low = SamplerSettings(num_steps=6, sigma_min=0.05)
    palette = replace(FEW, way=way)
    pictures = models(net, palette=palette, alpha=alpha, sampler=low)[0].sample(4)
    assert on_palette(pictures, FEW.tensor) == 1.0
    assert colours_a_picture(pictures).max() <= 3
    assert (alpha == "binary") == bool((pictures[:, 3].abs() == 1).all())


def test_the_ways_differ() -> None:
    ways: tuple[PaletteWay, ...] = ("end", "again", "inside")
    low = SamplerSettings(num_steps=8, sigma_min=0.05)  # the lean needs calls at little noise
    many = Palette(tuple((i * 4, 255 - i * 3, i * 37 % 256) for i in range(64)))
    drawn = [
        models(COLOUR, "bands", palette=replace(many, way=way), sampler=low)[0].sample(4)
        for way in ways
    ]
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_every_pixel_of_a_generator_is_on_the_palette() -> None:
    _, generator = drawing(FEW)
    assert on_palette(generator.sample(5), FEW.tensor) == 1.0
    teacher = drawing(FEW)[0]
    two = Generator(
        generator.denoiser, replace(generator.config, two_call_sigma=0.3), lambda: teacher
    )
    assert on_palette(two.sample(3, calls=2), FEW.tensor) == 1.0
    assert on_palette(two(two.noise(0, 0, 2)), FEW.tensor) < 1, "the module itself is the bare net"


def test_flats_do_not_leave_the_palette() -> None:
    flats = Flats(((1, 2, 3), (250, 240, 230)), 0.5, 40.0, "near black is no colour of it")
    teacher, _ = models(COLOUR, "bands", palette=FEW, flats=flats)
    assert on_palette(teacher.sample(4), FEW.tensor) == 1.0


def test_larger_pictures_are_on_it_too() -> None:
    teacher, _ = drawing(FEW)
    assert on_palette(teacher.sample(1, larger=(24, 32)), FEW.tensor) == 1.0


def test_another_palette_for_drawing(tmp_path: Path) -> None:
    teacher, _ = drawing(FEW)
    before = teacher.sample(3)
    (tmp_path / "two.hex").write_text("ff0000\n0000ff\n")
    teacher.set_palette(str(tmp_path / "two.hex"))
    both = Palette(((255, 0, 0), (0, 0, 255))).tensor
    assert on_palette(teacher.sample(3), both) == 1.0
    teacher.set_palette("none")
    assert colours_a_picture(teacher.sample(3)).min() > 20
    teacher.set_palette("#ff0000 #0000ff")
    assert on_palette(teacher.sample(3), both) == 1.0
    assert torch.equal(drawing(FEW)[0].sample(3), before)


def test_a_grey_model_takes_greys_alone() -> None:
    teacher, _ = models(UNET)
    teacher.set_palette("#000000 #808080 #ffffff")
    greys = Palette(((0, 0, 0), (128, 128, 128), (255, 255, 255))).tensor
    assert on_palette(teacher.sample(3), greys) == 1.0
    with pytest.raises(ValueError, match="pictures are grey and the palette has colours"):
        teacher.set_palette("#000000 #ff0000")


def test_a_palette_survives_the_model_folder(tmp_path: Path) -> None:
    colours = tuple((i % 256, i // 256, 7) for i in range(MOST_COLOURS))
    for palette in (FEW, Palette(colours, way="inside", soft=0.2, by_hand=True), Palette()):
        teacher, _ = drawing(palette)
        save_model(tmp_path / "teacher", teacher.denoiser, teacher.config)
        loaded = load_model(tmp_path / "teacher")
        assert loaded.config.palette == palette
        assert torch.equal(loaded.sample(2), teacher.sample(2))


def test_a_model_of_an_older_version_has_none() -> None:
    values = drawing(FEW)[0].config.to_dict()
    del values["palette"]
    assert ModelConfig.from_dict(values).palette == Palette()


@pytest.mark.parametrize(
    "bad",
    [
        {"colours": "#00"},
        {"colours": "black white"},
        {"colours": "#00000000 #ffffff"},
        {"colours": " ".join(["#000000"] * (MOST_COLOURS + 1))},
        {"colours": "#000000 #ffffff", "tolerance": 7},
        {"colours": "#000000 #ffffff", "tolerance": "wide"},
        {"colours": "#000000 #ffffff", "most": -1},
        {"colours": "#000000 #ffffff", "way": "somehow"},
        {"colours": "#000000 #ffffff", "way": ["end"]},
        {"colours": "#000000 #ffffff", "soft": 0},
        "#000000",
        7,
    ],
)
def test_a_bad_palette_in_a_model_file_is_refused(bad: Any) -> None:  # noqa: ANN401
    values = json.loads(json.dumps(drawing(FEW)[0].config.to_dict() | {"palette": bad}))
    with pytest.raises(ValueError, match=r"config\.json does not describe a model"):
        ModelConfig.from_dict(values)
