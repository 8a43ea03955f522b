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
        ("train --net ", {"auto", "pyramid", "unet", "uvit", "vit"}),
        ("train x --crop p", {"pad"}),
        ("adapt r x --start ", {"lora-ga", "lora", "full"}),
        ("lr advise m.json --hold s", {"steps"}),
        ("lr watch m.json --o", {"--once"}),
        ("sample r --num", {"--num-images"}),
        ("lowrank m.npy --method ", {"svd", "id", "cur"}),
    ],
)
def test_what_is_offered(shell: str, words: str, expected: set[str], tmp_path: Path) -> None:
    files = {"noisewise.fish"} if shell == "fish" else set()  # fish adds names of files
    assert expected <= offered(shell, words, tmp_path) <= expected | files


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_every_flag_is_offered(shell: str, tmp_path: Path) -> None:
    assert set(NAMES) <= offered(shell, " ", tmp_path)
    assert {"advise", "curves", "watch"} <= offered(shell, "lr ", tmp_path)
    for name, command in every():
        flags = [flag for flag in flags_of(command.options) if flag.listed]
        expected = {spelling for flag in flags for spelling in flag.spellings}
        assert expected <= offered(shell, f"{name} -", tmp_path), name


@pytest.mark.parametrize("words", ["train my", "train --out ", "adapt runs/a p"])
@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_completes_files_where_there_is_nothing_better(words: str, tmp_path: Path) -> None:
    """The script names files, or offers nothing and asks bash to complete names of files."""
    assert offered("bash", words, tmp_path) <= {"noisewise.bash"}
    assert "complete -o default -F _tyro_noisewise noisewise" in script("bash")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_script_asks_for_files_where_tyro_offers_nothing(shell: str) -> None:
    """Fails when a later tyro writes another script: then `completion` has to follow."""
    assert "in completions or ['__TYRO_COMPLETE_FILES__']:" in script(shell)
    assert "complete --command 'noisewise' --arguments" in script("fish")


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh")
def test_zsh_reads_its_script(tmp_path: Path) -> None:
    path = tmp_path / "noisewise.zsh"
    path.write_text(script("zsh"))
    subprocess.run(["zsh", "-f", "-n", str(path)], check=True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_script_has_every_flag(shell: str) -> None:
    text = script(shell)
    for _, command in every():
        spellings = {s for flag in flags_of(command.options) if flag.listed for s in flag.spellings}
        assert all(f"'{spelling}'" in text for spelling in spellings)


def test_the_command_prints_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert cli.main(["completion", shell]) == 0
        assert capsys.readouterr().out == script(shell)
