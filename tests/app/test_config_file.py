"""Files of settings: a wrong value is named in one sentence; what is saved is read back."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noisewise.app import cli
from noisewise.app.command import Command
from noisewise.app.commands.table import load
from noisewise.app.config_file import read_values, save_settings, written
from noisewise.app.flags import plain
from noisewise.training.settings.config import AdaptConfig, DistillConfig, TrainConfig
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe

Config = TrainConfig | AdaptConfig | DistillConfig
PLACES = {"train": ["x"], "adapt": ["r", "x"], "distill": ["r"]}
CONFIGS: list[tuple[str, Config]] = [
    ("train", TrainConfig()),
    (
        "train",
        TrainConfig(
            budget="200000images", size=16, channels=3, crop="pad", background="#fe0", classes=True,
            kinds=0, flips="off", net="unet", widths=(8, 16), batch=7, lr_from="a \"b\" \\ c\n",
            seed=2**63, device="cuda:1", precision="float32", threads=3, checkpoint_seconds=0.5,
            shard=True, recipe=TeacherRecipe(betas=(0.5, 0.6), ema_shares=(0.1,)),
        ),
    ),
    ("train", TrainConfig(lr=1e-5, size="48x32")),
    ("adapt", AdaptConfig()),
    ("adapt", AdaptConfig(rank=3, start="lora", samples=99, crop="random", background="black",
                          recipe=TeacherRecipe(distance_images=9))),
    ("distill", DistillConfig()),
    ("distill", DistillConfig(lam=0.5, lr=1, recipe=StudentRecipe(lam=1e-7, t_falls=(0.1, 1.0)))),
]  # fmt: skip


def command(name: str) -> Command:
    found = load(name)
    assert isinstance(found, Command)
    return found


def read_back(verb: str, path: Path, *more: str) -> object:
    options = command(verb).read([*PLACES[verb], "--config", str(path), *more])
    return plain(options, {"train": TrainConfig, "adapt": AdaptConfig}.get(verb, DistillConfig))


# ---------------------------------------------------------------------- writing and reading back
@pytest.mark.parametrize("ending", ["json", "toml"])
@pytest.mark.parametrize(("verb", "config"), CONFIGS)
def test_what_is_saved_is_read_back(verb: str, config: Config, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"settings.{ending}"
    save_settings(str(path), config)
    assert read_back(verb, path) == config
    assert read_back(verb, path, "--seed", "5", "--batch", "9") == replace(config, seed=5, batch=9)


@pytest.mark.parametrize(("verb", "config"), CONFIGS)
def test_toml_holds_every_setting_that_is_set_and_names_the_others(
    verb: str, config: Config
) -> None:
    text = written("x.toml", config)
    set_ = {name: value for name, value in asdict(config).items() if value is not None}
    assert tomllib.loads(text) == json.loads(json.dumps(set_))
    for field in fields(config):
        assert f"{field.name} =" in text or f"[{field.name}]" in text
    assert "# Random seed." in text
    assert max(map(len, text.splitlines())) <= 100


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="utf-8"), min_size=1), st.floats(1e-300, 1e300))
def test_every_text_and_number_survives_both_formats(
    tmp_path: Path, text: str, number: float
) -> None:
    config = TrainConfig(lr_from=text, background=text, checkpoint_seconds=number)
    for ending in ("json", "toml"):
        path = tmp_path / f"x.{ending}"
        path.write_text(written(str(path), config), encoding="utf-8")
        assert read_back("train", path) == config


def test_a_name_that_is_not_utf8_fits_into_json_only(tmp_path: Path) -> None:
    config = TrainConfig(lr_from="runs/caf\udce9")
    path = tmp_path / "x.json"
    path.write_text(written(str(path), config), encoding="utf-8")
    assert read_back("train", path) == config
    with pytest.raises(ValueError, match=r"lr_from is not UTF-8; save the settings in a \.json"):
        written("x.toml", config)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.yaml", None, "name a file that ends in .json or .toml"),
        ("none/x.json", None, "there is no folder"),
        ("package.json", '{"name": "mine"}', "holds something else; name a new file"),
        ("notes.toml", "dear = ", "holds something else"),
    ],
)
def test_settings_are_written_over_nothing_else(
    name: str, content: str | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    words = ["train", str(tmp_path), "--dry-run", "--save-config", str(path)]
    assert cli.main(words) == 2
    assert says in capsys.readouterr().err
    assert (path.read_text() if path.exists() else None) == content


def test_settings_are_written_over_settings_and_by_one_of_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.toml"
    save_settings(str(path), TrainConfig(seed=1))
    save_settings(str(path), TrainConfig(seed=2))
    monkeypatch.setenv("RANK", "1")
    save_settings(str(path), TrainConfig(seed=3))
    save_settings(None, TrainConfig())
    assert read_back("train", path) == TrainConfig(seed=2)
    assert list(tmp_path.iterdir()) == [path]


# ---------------------------------------------------------------------- reading
@pytest.mark.parametrize("ending", ["json", "toml"])
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
        ({"recipe": {"noise_every": "a"}}, 'recipe.noise_every is "a"; it takes a whole number'),
        (
            {"recipe": {"betas": [0.9]}},
            "recipe.betas is [0.9]; it takes a list of 2 values, each a number",
        ),
        ({"recipe": {"foo": 1}}, "recipe.foo cannot be set; settings are optimizer"),
        ({"recipe": {"clip": 0}}, "recipe: clip is 0; it must be above 0"),
        ({"foo": 1}, "foo cannot be set; settings are"),
        ({"json": True}, "json cannot be set"),
        ({"budget": "0s"}, "'0s' is no time at all"),
        ({"size": 4}, "size 4 cannot be used"),
        ({"size": "4x32"}, "size 4x32 cannot be used (nets need sides that are"),
        ({"size": "48x"}, "size takes a side in pixels or WIDTHxHEIGHT"),
        ({"size": [32, 48]}, "size is [32, 48]; it takes a text or a whole number or null"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_file_and_value(
    values: dict[str, Any], said: str, ending: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / f"c.{ending}"
    path.write_text(json.dumps(values) if ending == "json" else as_toml(values))
    complaint = complaint_about(path, tmp_path, capsys)
    assert said in complaint


def as_toml(values: dict[str, Any]) -> str:
    """Inline tables: a second way to write nested values."""

    def one(value: object) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k} = {one(v)}" for k, v in value.items()) + "}"
        return json.dumps(value)

    return "\n".join(f"{name} = {one(value)}" for name, value in values.items())


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.json", "[1]", "must hold one JSON object"),
        ("c.json", "{", "cannot be read as JSON: Expecting property name"),
        ("c.json", '{"seed": 1,\n "seed": 2}', "seed is set twice"),
        ("c.json", '{"seed": 1,\n oops}', "line 2 column 2"),
        ("c.toml", "seed = 1\nbatch = \n", "at line 2, column 9"),
        ("c.toml", "seed = 1\nseed = 2\n", "Cannot overwrite a value (at line 2"),
        ("c.toml", '{"seed": 1}', "cannot be read as TOML"),
        ("c.toml", "lr_from = 2020-01-01", 'lr_from is "2020-01-01"; it takes a text or null'),
        ("c.toml", "[recipe.inner]\nx = 1", "recipe.inner cannot be set"),
        ("folder.json", None, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(
    name: str, text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if text is None:
        path.mkdir()
    else:
        path.write_text(text)
    assert said in complaint_about(path, tmp_path, capsys)


def complaint_about(path: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> str:
    words = ["train", str(place), "--out", str(place / "run"), "--config", str(path)]
    assert cli.main(words) == 2
    complaint = capsys.readouterr().err.strip()
    assert str(path) in complaint
    assert "\n" not in complaint
    assert not (place / "run").exists()
    return complaint


def test_right_values_are_read_and_built(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    recipe = {"betas": [0.9, 1], "ema_shares": [0.1], "optimizer": "adamw", "lr": 1}
    path.write_text(json.dumps({"lr": 1, "widths": [8], "kinds": None, "recipe": recipe}))
    found = TrainConfig(**read_values(TrainConfig, str(path)))
    built = TeacherRecipe(betas=(0.9, 1), ema_shares=(0.1,), optimizer="adamw", lr=1)
    assert found == TrainConfig(lr=1, widths=(8,), kinds=None, recipe=built)


def test_what_a_recipe_leaves_out_keeps_the_default_of_the_command(tmp_path: Path) -> None:
    """Adapting has a recipe of its own: one constant in a file does not change the others."""
    path = tmp_path / "c.toml"
    path.write_text("[recipe]\nclip = 2.0\n")
    usual = AdaptConfig().recipe
    assert usual != TeacherRecipe()
    assert read_back("adapt", path) == AdaptConfig(recipe=replace(usual, clip=2.0))
    assert read_back("train", path) == TrainConfig(recipe=TeacherRecipe(clip=2.0))


def test_flags_go_before_the_file_and_the_file_before_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"budget": "2h", "widths": [8, 16], "seed": 3, "kinds": 4}))
    found = read_back("train", path, "--seed", "5", "--kinds", "None")
    assert found == TrainConfig(budget="2h", widths=(8, 16), seed=5)


def test_a_file_may_name_pictures_and_run_too(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('folder = "my pictures"\nout = "runs/mine"\n')
    options = command("train").read(["--config", str(path)])
    assert (options.folder, options.out) == ("my pictures", "runs/mine")
