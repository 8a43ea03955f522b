"""The command line: small, frozen, quick to help, and one sentence for every mistake."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from inspect import get_annotations
from itertools import combinations
from pathlib import Path

import pytest

from noisewise.app import cli
from noisewise.app.command import Command, Group
from noisewise.app.commands import table
from noisewise.app.flags import flags_of, plain, texts_of
from noisewise.training.settings.config import AdaptConfig, DistillConfig, TrainConfig

# A new flag is a decision: it belongs here, in the docs and in the changelog.
FLAGS = {
    "inspect": "folder size crop background crops out palette_out json",
    "train": "folder out budget size classes start_from augment flips crop background crops "
    "palette net batch lr seed device dry_run config save_config log_to json",
    "adapt": "run folder out budget rank start size augment flips crop background crops palette "
    "batch lr seed device dry_run config save_config log_to json",
    "distill": "run teacher data budget calls student rank guidance data_weight lam weight through "
    "batch lr seed device dry_run config save_config log_to json",
    "sample": "run num_images seed label larger teacher calls sampler guidance steps palette "
    "device out overwrite scale json",
    "evaluate": "run against data fid_weights num_images seed teacher calls sampler guidance "
    "device json",
    "report": "run out data num_images license note json",
    "export": "run out to teacher overwrite license note push json",
    "lr advise": "measurement batch hold lr batch0 unit epsilon ema verbose plot json",
    "lr branch": "run images batches powers lr share tolerance budget data out json",
    "lr warmup": "found most power examples json",
    "lr curves": "out epsilons signal json",
    "lr watch": "measurement every once json",
    "lowrank": "file tol rank method accurate failure_probability memory only write plot seed json",
    "powers": "expressions explain level plot json",
    "theory": "out json",
    "completion": "shell",
}
COMMANDS = dict(table.every())
FOLDERS = sorted(path.stem for path in Path(table.__file__).parent.glob("*.py"))


def command(name: str) -> Command:
    found = table.load(name)
    assert isinstance(found, Command)
    return found


# ---------------------------------------------------------------------- the table and the help
def test_every_command_is_in_the_table_and_every_file_is_a_command() -> None:
    """A command is one file or two; the second one is named here."""
    second = {"mapped_arrays", "matrix_files", "lowrank_rows", "factor_files"}
    assert sorted({*table.NAMES, *second, "table", "__init__"}) == FOLDERS
    assert list(COMMANDS) == list(FLAGS)


@pytest.mark.parametrize("name", FLAGS)
def test_flags_are_frozen_and_few(name: str) -> None:
    shown = {flag.name for flag in flags_of(COMMANDS[name].options) if flag.listed}
    assert shown == set(FLAGS[name].split())
    assert len(shown) <= 22


@pytest.mark.parametrize("name", FLAGS)
def test_help_shows_every_flag_and_ends_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) <= 61
    assert max(map(len, lines)) <= 100
    for flag in flags_of(COMMANDS[name].options):
        texts = texts_of(COMMANDS[name].options)
        if not flag.listed:
            assert not any(spelling in text for spelling in flag.spellings)
            continue
        assert all(spelling in text for spelling in flag.spellings)
        assert texts[flag.name].split()[0] in text
    last = [line.strip() for line in lines[lines.index("") :] if line.startswith("  ")][-1]
    assert f"noisewise {name} " in last
    *_, example = COMMANDS[name].examples
    assert last == example


@pytest.mark.parametrize("name", FLAGS)
def test_an_example_can_be_read(name: str) -> None:
    for example in COMMANDS[name].examples:
        words = shlex.split(example.partition(">")[0], comments=True)
        if words[0] == "noisewise":
            assert words[1:3][: len(name.split())] == name.split()
            COMMANDS[name].read(words[1 + len(name.split()) :])


@pytest.mark.parametrize("name", FLAGS)
def test_the_usage_names_flags_that_exist(name: str) -> None:
    words = COMMANDS[name].usage.split()
    spellings = {s: flag for flag in flags_of(COMMANDS[name].options) for s in flag.spellings}
    for word in words:
        assert not word.startswith("--") or word in spellings
    needed = [f for f in flags_of(COMMANDS[name].options) if f.shown.positional]
    assert [flag.value for flag in needed] == list(dict.fromkeys(words))[: len(needed)]


def test_the_overview_names_every_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    for name in table.NAMES:
        found = table.load(name)
        assert f"\n  {name} " in text
        assert found.summary in text
        assert found.usage in text
    assert max(map(len, text.splitlines())) <= 100
    for words in (["--help"], ["-h"], ["help"]):
        assert cli.main(words) == 0
        assert capsys.readouterr().out == text


def test_help_of_a_group_and_help_in_front(capsys: pytest.CaptureFixture[str]) -> None:
    group = table.load("lr")
    assert isinstance(group, Group)
    assert cli.main(["lr"]) == 0
    text = capsys.readouterr().out
    assert all(f" {part.name} " in text and part.summary in text for part in group.parts)
    assert cli.main(["lr", "--help"]) == 0
    assert capsys.readouterr().out == text
    assert cli.main(["help", "lr", "advise"]) == 0
    text = capsys.readouterr().out
    assert cli.main(["lr", "advise", "--batch", "x", "--help"]) == 0
    assert capsys.readouterr().out == text


def test_help_needs_no_torch_and_no_half_second() -> None:
    """Processor time, since other work may share the machine."""
    program = (
        "import sys; from noisewise.app.cli import main; code = main(sys.argv[1:]); "
        "slow = {'torch', 'numpy', 'PIL'} | ({'tyro'} if sys.argv[1] == '--help' else set()); "
        "sys.exit(99 if slow & set(sys.modules) else code)"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True)
    after = os.times()
    assert done.returncode == 0
    spent = after.children_user - before.children_user
    assert spent + after.children_system - before.children_system < 0.5
    for name in [*FLAGS, "lr"]:
        words = [sys.executable, "-c", program, *name.split(), "--help"]
        assert subprocess.run(words, capture_output=True).returncode == 0, name


# ---------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("words", "says"),
    [
        # the command
        ("frobnicate", "there is no command 'frobnicate'; commands are inspect, train"),
        ("trian x", "perhaps you meant train"),
        ("--sample", "there is no command '--sample'; perhaps you meant sample"),
        ("lr find", "commands are advise, branch, warmup, curves, watch"),
        ("lr advice m.json", "perhaps you meant advise"),
        # an unknown flag, with the near one
        ("train x --out y --siz 8", "there is no flag --siz; perhaps you meant --size"),
        ("train x --out y -size 8", "there is no flag -size; perhaps you meant --size"),
        ("train x --out y --checkpoint 8", "perhaps you meant --checkpoint-seconds"),
        ("adapt x y --out z --ranks 8", "perhaps you meant --rank"),
        ("inspect x --frobnicate", "there is no flag --frobnicate; --help lists all flags"),
        ("report x -o y", "there is no flag -o"),
        ("train x --out y --recipe 5", "set recipe in a file, with --config FILE"),
        # something missing
        ("train", "FOLDER is missing; write: noisewise train FOLDER --out RUN"),
        ("train x", "name a folder for the run: --out RUN, for example --out runs/mine"),
        ("adapt x", "FOLDER is missing; write: noisewise adapt RUN FOLDER --out RUN"),
        ("adapt", "RUN and FOLDER are missing"),
        ("lr advise", "--batch FLOAT is missing; write: noisewise lr advise FILE"),
        ("lr curves", "--out FILE is missing"),
        ("completion", "bash|zsh|fish is missing"),
        ("train x --out", "--out needs a value; write --out RUN"),
        ("train x --size --out y", "--size needs a value; write --size SIZE"),
        ("train x --kinds --out y", "--kinds needs a value; write --kinds INT"),
        ("sample x --label -round", "or --label=VALUE if the value begins with a hyphen"),
        ("lr curves --out x --epsilons", "--epsilons takes one to eight numbers"),
        ("evaluate x -n", "--num-images needs a value; write --num-images INT"),
        ("sample x --out=", "--out is empty"),
        # a value of the wrong type
        ("train x --out y --batch banana", "--batch takes a whole number, not 'banana'"),
        ("train x --out y --batch 1.5", "--batch takes a whole number, not '1.5'"),
        ("train x --out y --lr fast", "--lr takes a number, not 'fast'"),
        ("train x --out y --seed none", "--seed takes a whole number, not 'none'"),
        ("train x --out y --kinds none", "a whole number, not 'none'; perhaps you meant None"),
        ("lr curves --out x.svg --epsilons 0,1", "several with spaces between, not '0,1'"),
        # a word that is not one of the choices
        ("train x --out y --net resnet", "takes auto, unet, pyramid, uvit or vit, not 'resnet'"),
        ("train x --out y --net une", "perhaps you meant unet"),
        (
            "inspect x --crop center",
            "--crop takes auto, centre, random or pad, not 'center'; perhaps",
        ),
        ("completion tcsh", "takes bash, zsh or fish, not 'tcsh'"),
        # too much
        ("inspect my pictures", "'pictures' is one word too many; put a name with spaces in"),
        ("train x --classes true --out y", "'true' is one word too many; --classes takes no value"),
        ("train x --out y --classes=yes", "--classes takes no value; write --classes alone"),
        # values that the command refuses
        ("train x --out y --size 4", "size 4 cannot be used (nets need a multiple of 4, at least"),
        ("train x --out y --size -8", "size -8 cannot be used (nets need a multiple of 4, at"),
        ("train x --out y --size banana", "a side in pixels or WIDTHxHEIGHT, such as 32 or 48x32"),
        ("train x --out y --size 1.5", "such as 32 or 48x32, not '1.5'"),
        ("train x --out y --size 48x", "not '48x'"),
        ("train x --out y --size x", "not 'x'"),
        ("train x --out y --size 48x32x3", "not '48x32x3'"),
        ("train x --out y --size 0x32", "size 0x32 cannot be used (nets need sides that are"),
        ("train x --out y --size 7x40", "use 8x40"),
        ("train x --out y --size -48x32", "size -48x32 cannot be used"),
        ("inspect . --size 48x", "not '48x'"),
        ("inspect . --size 48x30", "size 48x30 cannot be used (nets need sides that are multiples"),
        ("inspect . --size 7x40", "use 8x40"),
        ("train . --out y/z --size 50x30", "use 48x28 or 52x32"),
        ("train x --out y --batch -8", "a batch of -8 images is too small"),
        ("train x --out y --lr -1e-3", "learning rate -0.001 trains nothing"),
        ("train x --out y --lr=-inf", "learning rate -inf trains nothing"),
        ("train x --out y --seed -1", "seed -1 does not work"),
        ("train x --out y --seed 99999999999999999999", "use 0 to 18446744073709551615"),
        ("train x --out y --budget 0m", "no time at all"),
        ("train x --out y --budget soon", "no budget"),
        ("train x --out y --config /nowhere.json", "cannot be read"),
        ("train x --out y --save-config x.yaml", "name a file that ends in .json or .toml"),
        ("sample x --steps 3", "add --teacher"),
        ("sample x -n 0", "0 pictures cannot be drawn; use 1 or more"),
        ("sample x --teacher --steps 3 --calls 5", "leave one out"),
        ("sample x --scale 65", "a scale of 65 does not work; use 1 to 64"),
        ("evaluate x -n 3", "use 16 or more"),
        ("report x -n3", "use 64 or more"),
        ("distill x --lam 3", "diverges"),
        ("adapt x y --out z --rank 0", "rank 0 adapts nothing"),
        ("lr curves --out x.svg --epsilons -1", "--epsilons takes one to eight numbers, 0 or more"),
        ("lowrank x.npy", "--tol 0.1 or --rank 50"),
        ("powers 2^3", "give two powers"),
    ],
)  # fmt: skip
def test_bad_usage_is_one_sentence_and_code_2(
    words: str, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert err.startswith("noisewise")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["inspect", ""], "FOLDER is empty"),
        (["train", " ", "--out", "y"], "FOLDER is empty"),
        (["train", "x", "--out", "y", "--size", "8 pixels"], "not '8 pixels'"),
        (["train", "x", "--out", "y", "--size", "8\n9"], r"not '8\n9'"),
        (["train", "x", "--out", "y", "--size", "9" * 5000], f"not '{'9' * 57}...'"),
        (["train", "x", "--out", "y", "--net", "z" * 5000], f"not '{'z' * 57}...'"),
        (["inspect", "x", "my other pictures"], "'my other pictures' is one word too many"),
        (["train", "x", "--out", "y", "--", "--size", "8"], "'--size' is one word too many"),
        (["train", "x", "--a" * 300], "there is no flag --a--a"),
        (["train", "x", "--b\udce9", "8"], r"'--b\udce9' is one word too many"),
        (["b\udce9"], "there is no command"),
    ],
)
def test_odd_words_are_one_sentence_too(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
    assert len(err) < 400


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_complaints_do_not_depend_on_the_terminal(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "noisewise", "train", "x", "--siz", "8"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 2
    assert done.stderr == "noisewise train: there is no flag --siz; perhaps you meant --size\n"


def test_only_some_commands_run_in_several_processes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    several = [name for name, found in COMMANDS.items() if found.several_processes]
    assert several == ["train", "distill"]
    assert cli.main(["powers", "2^3", "3^2"]) == 2
    err = capsys.readouterr().err
    assert "only train and distill run in several processes; start this command without" in err
    assert cli.main(["powers", "--help"]) == 0


# ---------------------------------------------------------------------- values
def test_without_flags_the_defaults_are_those_of_the_configuration() -> None:
    """The command line adds no opinion of its own."""
    train = command("train").read(["pictures", "--out", "r"])
    distill = command("distill").read(["r"])
    adapt = command("adapt").read(["r", "pictures", "--out", "new"])
    assert plain(train, TrainConfig) == TrainConfig()
    assert plain(adapt, AdaptConfig) == AdaptConfig()
    assert plain(distill, DistillConfig) == DistillConfig()


def test_a_default_and_its_text_are_written_once() -> None:
    """An option of a command that is a setting of the library declares nothing of its own."""
    for found in COMMANDS.values():
        own = [set(get_annotations(cls)) for cls in found.options.__mro__]
        twice = {name for one, other in combinations(own, 2) for name in one & other}
        assert twice <= {"num_images"}  # 64 to look at, 2000 to measure


def test_the_module_and_the_script_are_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "noisewise", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("noisewise ")
