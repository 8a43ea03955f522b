"""What is printed shows no character that a terminal obeys, and means the same as before."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest

from noisewise.plain_text import json_text, one_line, printable, shell_words

OBEYED = [
    *map(chr, (*range(0x20), *range(0x7F, 0xA0))),
    *map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x2028, 0x2029)),
    *("\ufeff", "\udce9", "\ud800", "\U000e0041", "\ue000", "\uffff"),
]
NAMES = [
    *("plain", "two  words", "-rf", "--out", "$(touch pwned)", "`id`", "it's", 'say "x"', "a\\nb"),
    *("!x", "~", "*.png", "a;b", "#1", "{a,b}", "\u00e9\u4e2d\U0001f600", "", "=x", "a\\"),
]


def mixed(count: int) -> list[str]:
    """Names of plain, quoted, obeyed and foreign characters in any order."""
    rng = random.Random(0)
    letters = [*OBEYED[1:], *"'\"\\$`!7 0-aé中"]  # no name has a NUL
    letters = [x for x in letters if x not in ("\ud800", "\uffff")]  # and no file name has these
    return ["".join(rng.choices(letters, k=rng.randrange(1, 9))) for _ in range(count)]


@pytest.mark.parametrize("character", OBEYED, ids=ascii)
def test_what_a_terminal_obeys_is_an_escape(character: str) -> None:
    for shown in (printable(f"a{character}b"), one_line(f"a{character}b"), json_text(character)):
        assert shown.isprintable()
        assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_letters_of_all_scripts_stay() -> None:
    for text in ("café", "中文", "Ελλάδα", "हिन्दी", "עברית", "\U0001f600", "a b"):
        assert printable(text) == text
        assert json.dumps(text, ensure_ascii=False) == json_text(text)


def test_json_means_the_same() -> None:
    values = {name: [name, None, 1.5] for name in (*NAMES, *OBEYED, *mixed(200))}
    for indent in (None, 2):
        text = json_text(values, indent=indent)
        assert json.loads(text) == values
        assert text.replace("\n", "").isprintable()
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text(float("nan"), allow_nan=False)


def test_printable_words_are_read_by_shlex() -> None:
    assert shlex.split(shell_words(*NAMES)) == NAMES


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_every_word_is_read_by_a_shell(tmp_path: Path) -> None:
    words = [*NAMES, *OBEYED[1:38], *mixed(300)]
    line = shell_words(*words)
    assert line.isprintable()
    script = f"printf '%s\\0' {line}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, check=True, cwd=tmp_path, timeout=60
    )
    assert [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]] == words
    assert not list(tmp_path.iterdir())


def test_a_path_is_never_a_flag() -> None:
    assert shell_words("-rf", Path("-rf"), Path("a/-rf"), Path("/x")) == "-rf ./-rf a/-rf /x"
