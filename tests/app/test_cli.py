"""The command line: small, frozen, quick to help, and one sentence for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from noisewise.app import cli
from noisewise.app.flags import COMMANDS, AdaptOptions, TrainOptions, parse, plain
from noisewise.training.settings.config import AdaptConfig, DistillConfig, TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe

# A new flag is a decision: it belongs here, in the docs and in the changelog.
FLAGS = {
    "inspect": "folder size crop background out json",
    "train": "folder out budget size classes kinds flips net lr seed device dry_run config json",
    "adapt": "run folder out budget rank start flips batch lr seed device config json",
    "distill": "run teacher budget lam batch lr seed device dry_run config json",
    "sample": "run num_images seed label teacher calls steps device out scale json",
    "evaluate": "run against num_images seed teacher calls device json",
    "report": "run out num_images json",
    "lr advise": "measurement batch hold lr batch0 plot json",
    "lr curves": "out epsilons signal json",
    "lr watch": "measurement every once json",
}


def shown_flags(command: str) -> set[str]:
    """The fields of a command's options that its help shows."""
    hidden = {
        f.name
        for f in fields(COMMANDS[command])
        if "Suppress" in str(COMMANDS[command].__annotations__.get(f.name, ""))
    }
    return {f.name for f in fields(COMMANDS[command])} - hidden


@pytest.mark.parametrize("command", list(COMMANDS))
def test_flags_are_frozen_and_few(command: str) -> None:
    assert shown_flags(command) == set(FLAGS[command].split())
    assert len(FLAGS[command].split()) - 1 <= 13  # the folder is no option


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_shows_every_flag(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    for name in shown_flags(command) - {"folder", "run", "measurement"}:
        assert f"--{name.replace('_', '-')}" in text
    assert "recipe" not in text.replace("the recipe's", "")


def test_help_needs_no_torch_and_no_half_second() -> None:
    """Processor time, since other work may share the machine."""
    program = (
        "import sys; from noisewise.app.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(99 if 'torch' in sys.modules else code)"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True)
    after = os.times()
    assert done.returncode == 0
    spent = after.children_user - before.children_user
    assert spent + after.children_system - before.children_system < 0.5
    done = subprocess.run([sys.executable, "-c", program, "train", "--help"], capture_output=True)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("frobnicate", "there is no command 'frobnicate'"),
        ("trian x", "perhaps you meant train"),
        ("train", "FOLDER is missing"),
        ("train x", "--out"),
        ("train x --out y --siz 8", "perhaps you meant --size"),
        ("train x --out y --size banana", "--size: 'banana' is no INT"),
        ("train x --out y --size 4", "4 pixels is too small"),
        ("train x --out y --budget 0m", "no time at all"),
        ("train x --out y --budget soon", "no budget"),
        ("train x --out y --net resnet", "invalid choice 'resnet'"),
        ("train x --out y --config /nowhere.json", "cannot be read"),
        ("sample x --steps 3", "add --teacher"),
        ("sample x -n 0", "at least 1"),
        ("sample x --teacher --steps 3 --calls 5", "give one of them"),
        ("evaluate x -n 3", "at least 16"),
        ("report x -n 3", "at least 64"),
        ("distill x --lam 3", "diverges"),
    ],
)
def test_bad_usage_is_one_sentence_and_code_2(
    words: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert err.startswith("noisewise")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_complaints_do_not_depend_on_the_terminal(encoding: str) -> None:
    """Boxes are drawn with other signs, or none, where UTF-8 is missing."""
    done = subprocess.run(
        [sys.executable, "-m", "noisewise", "train", "x", "--siz", "8"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 2
    assert done.stderr == (
        "noisewise train: Unrecognized options: --siz, 8; perhaps you meant --size.\n"
    )


def test_flags_override_the_file(tmp_path: Path) -> None:
    """Values: flag over file over class; lists become tuples, a recipe its class."""
    file = tmp_path / "c.json"
    file.write_text(
        json.dumps({"budget": "2h", "widths": [8, 16], "seed": 3, "recipe": {"ema_shares": [0.1]}})
    )
    words = ["pictures", "--out", "r", "--config", str(file), "--seed", "5"]
    options = parse("train", words)
    assert isinstance(options, TrainOptions)
    assert options.folder == "pictures"
    assert plain(options, TrainConfig) == TrainConfig(
        budget="2h", widths=(8, 16), seed=5, recipe=TeacherRecipe(ema_shares=(0.1,))
    )


def test_without_a_file_the_defaults_are_those_of_the_configuration() -> None:
    """The command line adds no opinion of its own."""
    train = parse("train", ["pictures", "--out", "r"])
    distill = parse("distill", ["r"])
    adapt = parse("adapt", ["r", "pictures", "--out", "new"])
    assert isinstance(train, TrainOptions)
    assert plain(train, TrainConfig) == TrainConfig()
    assert isinstance(adapt, AdaptOptions)
    assert plain(adapt, AdaptConfig) == AdaptConfig()
    assert not isinstance(distill, TrainOptions)
    assert plain(distill, DistillConfig) == DistillConfig()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"sise": 32}', "sise cannot be set"),
        ("[1]", "one JSON object"),
        ("{", "cannot be read as JSON"),
        ('{"recipe": {"nonsense": 1}}', "nonsense"),
        ('{"budget": "0s"}', "no time at all"),
    ],
)
def test_a_bad_file_is_named(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=says):
        parse("train", ["x", "--out", "r", "--config", str(file)])


def test_the_module_and_the_script_are_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "noisewise", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("noisewise ")
