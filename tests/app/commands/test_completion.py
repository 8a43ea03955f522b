"""Completion scripts: the shells themselves are asked what they would offer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from noisewise.app import cli
from noisewise.app.commands.completion import script
from noisewise.app.commands.table import NAMES, every
from noisewise.app.flags import flags_of

SHELLS = [
    pytest.param(shell, marks=pytest.mark.skipif(not shutil.which(shell), reason=f"no {shell}"))
    for shell in ("bash", "fish")
]
ASK = """\
source {script}
ask() {{
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(stale); _tyro_noisewise
    printf '%s\\n' "${{COMPREPLY[@]}}"
}}
ask noisewise {words}
"""


def offered(shell: str, words: str, place: Path) -> set[str]:
    """What a shell offers after Tab, when these words stand there; the last may be begun."""
    path = place / f"noisewise.{shell}"
    path.write_text(script(shell))
    if shell == "bash":
        program = ASK.format(script=path, words=words if not words.endswith(" ") else f"{words}''")
        command = ["bash", "--norc", "-c", program]
    else:
        program = f"source {path}; complete -C 'noisewise {words}'"
        command = ["fish", "--no-config", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=place)
    assert done.stderr == ""
    return {line.partition("\t")[0] for line in done.stdout.splitlines() if line}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tr", {"train"}),
        ("train --ne", {"--net"}),
        ("train --net ", {"auto", "unet", "uvit", "vit"}),
        ("train x --crop p", {"pad"}),
        ("adapt r x --start ", {"lora-ga", "lora", "full"}),
        ("lr advise m.json --hold s", {"steps"}),
        ("lr watch m.json --o", {"--once"}),
        ("sample r --num", {"--num-images"}),
        ("completion ", {"bash", "zsh", "fish"}),
        ("lowrank m.npy --method ", {"svd", "id", "cur"}),
    ],
)
def test_what_is_offered(shell: str, words: str, expected: set[str], tmp_path: Path) -> None:
    assert offered(shell, words, tmp_path) == expected


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_every_flag_is_offered(shell: str, tmp_path: Path) -> None:
    assert set(NAMES) <= offered(shell, " ", tmp_path)
    assert {"advise", "curves", "watch"} <= offered(shell, "lr ", tmp_path)
    for name, command in every():
        flags = [flag for flag in flags_of(command.options) if flag.listed]
        expected = {spelling for flag in flags for spelling in flag.spellings}
        assert expected <= offered(shell, f"{name} -", tmp_path), name


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_splits_at_the_sign_of_equality(tmp_path: Path) -> None:
    assert offered("bash", "train --net = u", tmp_path) == {"unet", "uvit"}
    assert offered("bash", "train --net =", tmp_path) == {"auto", "unet", "uvit", "vit"}


@pytest.mark.parametrize("words", ["train ", "train --out ", "train --size ", "sample r -n "])
@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_completes_files_where_there_is_nothing_better(words: str, tmp_path: Path) -> None:
    """Nothing is offered, and the script asks bash to complete file names then."""
    assert offered("bash", words, tmp_path) == set()
    assert "complete -o default -F _noisewise noisewise" in script("bash")


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh")
def test_zsh_reads_its_script(tmp_path: Path) -> None:
    path = tmp_path / "noisewise.zsh"
    path.write_text(script("zsh"))
    subprocess.run(["zsh", "-f", "-n", str(path)], check=True)


def test_zsh_knows_every_flag() -> None:
    text = script("zsh")
    for name, command in every():
        block = text.partition(f'"{name}") _arguments')[2].partition(";;")[0]
        for flag in flags_of(command.options):
            for spelling in flag.spellings if flag.listed else ():
                assert f"{spelling}=[" in block or f"{spelling}[" in block, (name, spelling)


def test_the_command_prints_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert cli.main(["completion", shell]) == 0
        assert capsys.readouterr().out == script(shell) + "\n"
