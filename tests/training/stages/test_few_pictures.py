"""Few pictures: when training changes them, with which reason, and what a run remembers of it."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import noisewise
from noisewise.nets.derive import build as build_net
from noisewise.pictures.pictures import Pictures
from noisewise.training.devices.engine import Engine
from noisewise.training.run.run_json import write_info
from noisewise.training.settings.augment import changes_of
from noisewise.training.settings.config import DistillConfig, TrainConfig
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe
from noisewise.training.stages.plan import TeacherPlan, plan_teacher

RECIPE = TeacherRecipe(batch=8, distance_images=0, sampler_images=0, noise_every=0)
CONFIG = TrainConfig(budget="64images", widths=(4, 4), kinds=0, recipe=RECIPE)


def textures(count: int = 40, channels: int = 3) -> np.ndarray:
    """Coarse noise: no side is up, and no hue is usual."""
    small = np.random.default_rng(0).integers(0, 256, (count, 4, 4, channels), dtype=np.uint8)
    return np.kron(small, np.ones((1, 2, 2, 1), np.uint8))


def planned(config: TrainConfig, images: np.ndarray | None = None) -> TeacherPlan:
    given = textures() if images is None else images
    pictures = Pictures(given, None, (), (), (), "", "textures", (), twins=())
    return plan_teacher(config, pictures, Engine.choose("cpu", threads=1))


def test_it_depends_on_how_often_each_picture_is_seen() -> None:
    """Of 40 pictures 32 are trained on: 1600 looks are 50 a picture."""
    few = planned(replace(CONFIG, budget="1599images"))
    assert (few.augment, few.dropout) == ({}, 0.0)
    assert "seen about 50 times, and 50 times would be many" in few.reasons["augment"]
    many = planned(replace(CONFIG, budget="1600images"))
    assert many.augment["changes"] == ["turns", "shifts", "hue"]
    assert many.augment["fill"] is None
    assert many.dropout == many.net["dropout"] == RECIPE.few_dropout
    told = many.to_dict()
    assert told["dropout"]["value"] == 0.1
    assert "50 times, which is many" in told["dropout"]["reason"]
    for words in ("turns: the pictures look the same", "hue: colours have all hues", "told"):
        assert words in told["augment"]["reason"]
    json.dumps(told)
    rare = replace(RECIPE, few_looks=1000.0, few_dropout=0.3, dropout=0.2)
    assert planned(replace(CONFIG, budget="1600images", recipe=rare)).dropout == 0.2


def test_what_the_pictures_do_not_allow_is_left_out() -> None:
    plan = planned(replace(CONFIG, budget="9000images"), textures(channels=1))
    assert plan.augment["changes"] == ["turns", "shifts"]
    assert "no hue: the pictures are grey" in plan.reasons["augment"]
    framed = np.full((40, 16, 16, 3), 200, np.uint8)
    framed[:, 4:12, 4:12] = textures()
    filled = planned(replace(CONFIG, budget="9000images"), framed)
    assert filled.augment["fill"] == pytest.approx([200 / 127.5 - 1] * 3)
    assert "the colour of 100% of borders" in filled.reasons["augment"]


def test_what_is_set_by_hand_is_made_and_no_more() -> None:
    by_hand = planned(replace(CONFIG, augment="hue,flips", flips="off"))
    assert by_hand.augment["changes"] == ["flips", "hue"]
    assert by_hand.dropout == 0.0
    assert by_hand.reasons["augment"].startswith("set by hand")
    mirrored = planned(replace(CONFIG, augment="hue,flips", flips="on"))
    assert mirrored.augment["changes"] == ["hue"]
    assert planned(replace(CONFIG, augment="flips", flips="on")).augment == {}
    none = planned(replace(CONFIG, budget="9000images", augment="none"))
    assert (none.augment, none.dropout) == ({}, 0.0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"augment": "wobble"}, "'wobble' is unknown; use auto, none, or a list of flips"),
        ({"augment": ""}, "unknown"),
        ({"augment": "flips,,"}, "'flips,,' has an empty place; use auto"),
        ({"augment": ",hue"}, "',hue' has an empty place"),
        ({"augment": "flips, ,hue"}, "has an empty place"),
        ({"augment": "none,flips"}, "'none' is unknown; use auto or none alone"),
        ({"augment": "auto,hue"}, "'auto' is unknown"),
        ({"augment": "hue", "shard": True}, "do not work together"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        TrainConfig(**wrong)


@pytest.mark.parametrize("name", ["hue", "channels"])
def test_grey_pictures_have_no_colours_to_change(name: str) -> None:
    with pytest.raises(ValueError, match=rf"augment has {name}, which changes colours"):
        planned(replace(CONFIG, augment=name), textures(channels=1))
    assert changes_of(name) == (name,)


# ------------------------------------------------------------------ runs
@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "textures.npz", images=textures())
    return tmp_path / "textures.npz"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(noisewise.load(folder / "teacher").denoiser.state_dict())


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(data: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, changed_share=0.5)
    config = replace(CONFIG, augment="turns,shifts,hue", recipe=recipe)
    whole = noisewise.train(data, tmp_path / "whole", config=config)
    calls = itertools.count()
    noisewise.train(data, tmp_path / "two", config=config, stop=lambda: next(calls) >= 3)
    noisewise.train(data, tmp_path / "two", config=config)
    assert same(weights(whole.path), weights(tmp_path / "two"))
    plain = noisewise.train(data, tmp_path / "plain", config=replace(config, augment="none"))
    assert not same(weights(whole.path), weights(plain.path))
    assert weights(whole.path).keys() == weights(plain.path).keys()  # nothing of it is saved
    with pytest.raises(ValueError, match="augment was 'turns,shifts,hue' and is now 'auto'"):
        noisewise.train(data, tmp_path / "two", config=replace(config, augment="auto"))


def test_its_teacher_is_distilled_as_any_other(data: Path, tmp_path: Path) -> None:
    run = noisewise.train(data, tmp_path / "run", config=replace(CONFIG, augment="shifts"))
    recipe = StudentRecipe(batch=8, distance_images=64)
    generator = noisewise.distill(run, config=DistillConfig(budget="16images", recipe=recipe))
    assert generator.sample(4).shape == (4, 3, 8, 8)


def test_a_run_of_before_goes_on_without_changes(data: Path, tmp_path: Path) -> None:
    """It was begun by a version that knew no changes, and its budget shows pictures often."""
    config = replace(CONFIG, budget="1600images")
    calls = itertools.count()
    stopped = noisewise.train(
        data, tmp_path / "run", config=replace(config, augment="none"),
        stop=lambda: next(calls) >= 3,
    )  # fmt: skip
    info = json.loads(json.dumps(stopped.info))
    del info["train"]["augment"], info["derived"]["augment"], info["derived"]["dropout"]
    for name in ("few_looks", "few_dropout", "changed_share", "shift_reach"):
        del info["train"]["recipe"][name]
    write_info(stopped.path, info, damaged=False)
    assert planned(config).augment  # a new run would change pictures
    plan = noisewise.plan(data, config, stopped.path)
    assert (plan.augment, plan.dropout) == ({}, 0.0)
    calls = itertools.count()
    noisewise.train(data, stopped.path, config=config, stop=lambda: next(calls) >= 3)


def test_a_net_of_the_user_is_told_nothing(data: Path, tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self, config: dict[str, Any]) -> None:
            super().__init__()
            self.inner = build_net(config)

        def forward(
            self, x: torch.Tensor, noise_level: torch.Tensor, condition: torch.Tensor | None = None
        ) -> torch.Tensor:
            return self.inner(x, noise_level, condition)

    calls = itertools.count()
    config = replace(CONFIG, budget="1600images")
    run = noisewise.train(
        data, tmp_path / "own", config=config, build=Own, stop=lambda: next(calls) >= 2
    )
    assert run.info["derived"]["augment"]["value"] == {}
    assert "net of your own" in run.info["derived"]["augment"]["reason"]
    with pytest.raises(ValueError, match="leave augment out"):
        noisewise.train(
            data, tmp_path / "other", config=replace(config, augment="shifts"), build=Own
        )
