"""Flags that cannot work are refused before a picture is read or drawn; long work shows itself."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

from noisewise.app import cli
from noisewise.app.terminal.progress import Progress
from noisewise.training.evaluate import evaluate

_WRONG = [
    ["--calls", "0"],
    ["--calls", "3"],
    ["--sampler", "ddim"],
    ["--teacher", "--sampler", "dpm"],
    ["--teacher", "--sampler", "heun", "--calls", "4"],
    ["--device", "cuda:99"],
    ["-n", "0"],
    ["--seed", "-1"],
]


@pytest.mark.parametrize("words", [*_WRONG, ["--against", "no"], ["--fid-weights", "no"]])
def test_evaluate_refuses_wrong_flags_first(
    words: list[str], distilled_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(distilled_run), *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1, "no word of drawing and judging"
    assert err.startswith("noisewise evaluate: ")


@pytest.mark.parametrize("words", [*_WRONG, ["--label", "no"], ["--out", "x.jpg"]])
def test_sample_refuses_wrong_flags_first(
    words: list[str], distilled_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sample", str(distilled_run), *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("noisewise sample: ")


@pytest.mark.parametrize("words", [["-n", "0"], ["--out", "x.png"], ["--out", "."]])
def test_report_refuses_wrong_flags_first(
    words: list[str], distilled_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", str(distilled_run), *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_without_the_pictures_nothing_is_said_of_drawing(
    distilled_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from noisewise.training.run.run import Run

    moved = Run(shutil.copytree(distilled_run, tmp_path / "moved"))
    moved.info["data"]["source"] = str(tmp_path / "gone")
    moved.write()
    assert cli.main(["evaluate", str(moved.path), "-n", "64"]) == 2
    err = capsys.readouterr().err
    assert "with --data FOLDER, or give other real pictures with --against" in err
    assert len(err.splitlines()) == 1


def test_evaluate_tells_its_parts_and_counts_what_it_draws(distilled_run: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    def on_part(part: str, done: int, total: int) -> None:
        seen.append((part, done, total))

    evaluate(distilled_run, num_images=64, on_part=on_part)
    parts = list(dict.fromkeys(part for part, _, _ in seen))
    assert parts == [
        *("reading the pictures", "preparing the tests for copies", "drawing", "judging"),
        "looking for copies",
    ]
    drawn = [done for part, done, total in seen if part == "drawing" and total == 64]
    assert drawn == sorted(drawn)
    assert (drawn[0], drawn[-1]) == (0, 64)


def test_a_part_is_a_line_every_half_minute_or_a_bar() -> None:
    out, now = io.StringIO(), [0.0]
    with Progress(out, clock=lambda: now[0]) as progress:
        for done in range(0, 2001, 100):
            progress.part("drawing", done, 2000, "pictures")
            now[0] += 4.0
        now[0] += 30.0
        progress.part("judging", 0, 0, "pictures")
    assert out.getvalue().splitlines() == [
        "drawing: 800 of 2,000 pictures",
        "drawing: 1,600 of 2,000 pictures",
        "judging",
    ]

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    with Progress(terminal) as progress:
        progress.part("drawing", 500, 2000, "pictures")
    assert "drawing" in terminal.getvalue()
    assert "25%" in terminal.getvalue()


def test_more_pictures_than_fit_into_memory_are_refused_before_the_first(
    distilled_run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = str(tmp_path / "many.png")
    assert cli.main(["sample", str(distilled_run), "-n", "99999999999", "--out", out]) == 2
    assert "99,999,999,999 pictures do not fit into memory at once; draw at most" in (
        capsys.readouterr().err
    )
