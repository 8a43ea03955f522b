"""A configuration file: every value is of the type that is declared, or named in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from noisewise.app import cli
from noisewise.app.config_file import read_values
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"background": 5}, "background is 5; it takes a text"),
        ({"batch": "x"}, 'batch is "x"; it takes a whole number or null'),
        ({"batch": 1.5}, "batch is 1.5; it takes a whole number or null"),
        ({"lr": [1]}, "lr is [1]; it takes a number or null"),
        ({"lr_from": 5}, "lr_from is 5; it takes a text or null"),
        ({"seed": True}, "seed is true; it takes a whole number"),
        ({"classes": 1}, "classes is 1; it takes true or false"),
        ({"widths": [16, "b"]}, 'widths is [16, "b"]; it takes a list of values, each a whole'),
        ({"precision": "half"}, 'it takes "auto" or "float32" or "bfloat16"'),
        ({"recipe": 5}, "recipe is 5; it takes an object of values"),
        ({"recipe": {"noise_every": "a"}}, 'noise_every is "a"; it takes a whole number'),
        (
            {"recipe": {"betas": [0.9]}},
            "betas is [0.9]; it takes a list of 2 values, each a number",
        ),
        ({"recipe": {"foo": 1}}, "foo cannot be set; known are optimizer"),
        ({"foo": 1}, "foo cannot be set; known are budget"),
        ([1], "must hold one JSON object"),
    ],
)
def test_a_wrong_type_is_one_sentence(
    values: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(values))
    words = ["train", str(tmp_path), "--out", str(tmp_path / "run"), "--config", str(path)]
    assert cli.main(words) == 2
    complaint = capsys.readouterr().err.strip()
    assert said in complaint
    assert str(path) in complaint
    assert "\n" not in complaint
    assert not (tmp_path / "run").exists()


def test_right_values_are_read_and_built(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    recipe = {"betas": [0.9, 1], "ema_shares": [0.1], "optimizer": "adamw", "lr": 1}
    path.write_text(json.dumps({"lr": 1, "widths": [8], "kinds": None, "recipe": recipe}))
    found = TrainConfig(**read_values(TrainConfig, str(path), ()))
    built = TeacherRecipe(betas=(0.9, 1), ema_shares=(0.1,), optimizer="adamw", lr=1)
    assert found == TrainConfig(lr=1, widths=(8,), kinds=None, recipe=built)
