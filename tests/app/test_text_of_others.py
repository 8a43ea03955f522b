"""Names that a terminal or a shell would obey, through the real command line."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from noisewise.app import cli
from noisewise.app.report.next_commands import next_commands
from noisewise.app.terminal.progress import Progress
from noisewise.training.run.run import Run

CLASSES = (
    "\x1b[31mred\x1b]0;title\x07",
    "a\nnote: b",
    "left\u202eright\u2066",
    "[red]x[on blue] $x^2$ <b>",
    "$(touch pwned)",
    "-rf",
    os.fsdecode(b"caf\xe9\x9b"),
)
PLACE = "$(touch pwned) '\x1b[31m\n noisewise\u202e"
Folders = tuple[Path, Path]  # of the pictures, and of the run


def assert_plain(text: str, allowed: str = "\n") -> None:
    odd = {c for c in text if not c.isprintable()} - set(allowed)
    assert not odd, (odd, text)


def words_of(line: str) -> list[str]:
    """The words that a shell makes of a line; nothing in it is run."""
    found = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True, timeout=60
    )
    return [os.fsdecode(word) for word in found.stdout.split(b"\0")[:-1]]


@pytest.fixture(scope="module")
def hostile(
    tmp_path_factory: pytest.TempPathFactory, settings: Callable[[str], list[str]]
) -> Folders:
    """A folder of pictures and a run, with such names; look, do not touch."""
    root = tmp_path_factory.mktemp("others") / PLACE
    pictures = root / "pictures\x1b[2J"
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (pictures / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC)
            image.save(pictures / name / f"\x1b]0;{i:03d}\u202e.png")
        (pictures / name / "broken\x1b[5m\n.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    run = root / "-run\x1b[31m"
    words = [str(pictures), "--out", str(run), "--budget", "500images", "--classes"]
    assert cli.main(["train", *words, *settings("train")]) == 0
    return pictures, run


def said(words: list[str], code: int, capfd: pytest.CaptureFixture[str]) -> tuple[str, str]:
    capfd.readouterr()
    assert cli.main(words) == code
    out, err = capfd.readouterr()
    assert_plain(out)
    assert_plain(err)
    return out, err


def test_what_is_in_a_folder_is_told_in_plain_lines(
    hostile: Folders, capfd: pytest.CaptureFixture[str]
) -> None:
    pictures, run = hostile
    out, _ = said(["inspect", str(pictures)], 0, capfd)
    assert r"12 \x1b[31mred\x1b]0;title\x07" in out
    assert r"a\nnote: b" in out
    assert "[red]x[on blue] $x^2$ <b>" in out
    out, _ = said(["inspect", str(pictures), "--json"], 0, capfd)
    named = json.loads(out)
    assert named["source"] == str(pictures)
    assert {"a\nnote: b", CLASSES[0], CLASSES[2]} <= set(named["classes"])
    out, _ = said(["train", str(pictures), "--dry-run", "--classes"], 0, capfd)
    assert r"\u202e" in out
    _, err = said(["train", str(pictures), "--out", str(run), "--budget", "500images"], 2, capfd)
    assert r"-run\x1b[31m" in err


def test_a_run_is_used_in_plain_lines(
    hostile: Folders, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pictures, run = hostile
    _, err = said(["sample", str(run), "-n", "1", "--label", "nothing\x1b[31m"], 2, capfd)
    assert r"\x1b[31mred" in err
    said(["sample", str(run), "-n", "1", "--label=-rf", "--out", "x.png"], 0, capfd)
    Path("x.png").unlink()
    _, err = said(["adapt", str(run), str(pictures / "no\x07"), "--out", "x"], 2, capfd)
    assert r"no\x07" in err
    _, err = said(["report", str(tmp_path / "none\x1b[1m\u202e")], 2, capfd)
    assert r"none\x1b[1m\u202e" in err
    _, err = said(["distill", str(run / "teacher" / "x\x9b")], 2, capfd)
    assert r"x\x9b" in err
    _, err = said(["evaluate", str(run), "-n", "64", "--against", str(tmp_path / "\x1b")], 2, capfd)
    assert r"\x1b" in err


def test_evaluate_and_the_page_are_plain(
    hostile: Folders, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, run = hostile
    said(["evaluate", str(run), "-n", "64"], 0, capfd)
    out, _ = said(["evaluate", str(run), "-n", "64", "--json"], 0, capfd)
    assert json.loads(out)["against"]
    page = tmp_path / "page\x07.html"
    out, _ = said(["report", str(run), "--out", str(page), "-n", "64"], 0, capfd)
    assert r"page\x07.html" in out
    text = page.read_text(encoding="utf-8")
    assert_plain(text)
    assert CLASSES[3] not in text  # its <b> would be one


def test_printed_commands_are_the_right_words_for_a_shell(
    hostile: Folders, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pictures, run = hostile
    copy = tmp_path / run.name
    shutil.copytree(run, copy)
    words = [str(pictures), "--out", str(copy), "--budget", "500images", "--classes"]
    capfd.readouterr()
    commands = dict(next_commands(Run(copy)))
    for line in commands.values():
        assert_plain(line)
    report = words_of(commands["Draw more pictures"])
    assert report[1:3] == ["sample", f"./{copy.name}"]  # in the folder that holds the run
    resumed = words_of(commands["Train longer"].splitlines()[-1])
    assert resumed[1:5] == ["train", pictures.name, "--out", f"./{copy.name}"]
    shutil.rmtree(copy / "teacher")
    _, err = said(["sample", str(copy), "-n", "1"], 2, capfd)
    line = err.partition("began with: ")[2].strip()
    assert words_of(line)[:5] == ["noisewise", "train", words[0], "--out", words[2]]
    assert not Path("pwned").exists()


def test_a_relative_run_that_looks_like_a_flag_can_be_copied(
    hostile: Folders,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    settings: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, run = hostile
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "-my run")
    words = [str(run.parent / "pictures\x1b[2J"), "--out=-my run", "--budget", "500images"]
    out, _ = said(["train", *words, "--classes", *settings("train")], 0, capfd)
    (last,) = [line for line in out.splitlines() if line.startswith("next: ")]
    shown = shlex.split(last.removeprefix("next: "))
    assert shown[-4:] == ["distill", "./-my run", "--budget", "500images"]
    capfd.readouterr()
    _, err = said([*shown[-4:-2], "--batch", "0"], 2, capfd)  # it is read as a folder
    assert "no flag" not in err


def test_tensor_names_are_plain_in_lines_and_in_pictures(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ["\x1b[31mw\n", "$_{x$", "_orig.w\u202e"]
    file = tmp_path / "w.safetensors"
    rng = np.random.default_rng(0)
    save_file({n: rng.normal(size=(6, 5)).astype(np.float32) for n in names}, file)
    plot = tmp_path / "plot.svg"
    words = ["lowrank", str(file), "--rank", "2", "--plot", str(plot)]
    out, _ = said(words, 0, capfd)
    assert r"\x1b[31mw\n" in out
    assert_plain(plot.read_text(encoding="utf-8"))
    out, _ = said([*words, "--json"], 0, capfd)
    assert {row["name"] for row in json.loads(out)["matrices"]} == set(names)


def test_the_trace_is_plain_too(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.exit_code(RuntimeError("bad\x1b[31m\nname"), "noisewise train") == 1
    monkeypatch.setenv("NOISEWISE_TRACE", "1")
    assert cli.exit_code(RuntimeError("bad\x1b[31m\nname"), "noisewise train") == 1
    _, err = capfd.readouterr()
    assert_plain(err)
    assert err.splitlines()[0].endswith(
        r"RuntimeError: bad\x1b[31m name (NOISEWISE_TRACE=1 shows where)."
    )


def test_stdout_of_few_letters_still_gives_json(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from noisewise.app.terminal.answer import say, show\n"
         "show({'a': 'caf\\u00e9 \\x9b'}, True, [])\nsay('caf\\u00e9')"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True,
    )  # fmt: skip
    first, second = done.stdout.decode("ascii").splitlines()
    assert json.loads(first) == {"a": "café \x9b"}
    assert second == r"caf\xe9"


class Terminal(io.StringIO):
    """Keeps what a terminal would be sent."""

    encoding = "utf-8"  # pyrefly: ignore[bad-override]

    def isatty(self) -> bool:
        return True


def test_names_are_literal_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    screen = Terminal()
    with Progress(screen) as progress:
        progress.part("drawing [red]of[/red] \x1b]0;title\x07 :smile:", 1, 2, "pictures")
        progress.note("[red]x[/red] :smile: \x1b[2J \u202e")
    sent = screen.getvalue()
    assert r"[red]x[/red] :smile: \x1b[2J \u202e" in sent
    assert r"drawing [red]of[/red] \x1b]0;title\x07 :smile:" in sent
    assert "\x1b[2J" not in sent
    assert "\x1b]0" not in sent
