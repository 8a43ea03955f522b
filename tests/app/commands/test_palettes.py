"""Palettes at the command line: measured, remembered, replaced, written; bad ones refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import noisewise
from noisewise.app import cli
from noisewise.pictures.palette_files import read_palette
from noisewise.quality.snap_colours import on_palette
from noisewise.training.models.palette import Palette


def rgb(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("ending", ["gpl", "pal", "hex", "png"])
def test_inspect_tells_and_writes_the_palette(
    ending: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / f"discs.{ending}"
    assert cli.main(["inspect", str(folder), "--palette-out", str(out)]) == 0
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("  colours")]
    assert line.endswith("one palette")
    assert "2 a picture" in line
    assert f"Palette: {out}" in printed
    colours = {tuple(c) for path in folder.rglob("[0-9]*.png") for c in rgb(path).reshape(-1, 3)}
    assert set(read_palette(out)) == colours


def test_inspect_tells_it_to_programs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["colours"]["verdict"] == "one palette"
    assert found["colours"]["median"] == 2
    assert found["palette"] == []


def test_both_models_draw_on_the_palette_of_the_folder(distilled_run: Path) -> None:
    for which in ("teacher", "generator"):
        model = noisewise.load(distilled_run, which)
        palette = model.config.palette
        assert 100 < len(palette.colours) <= 121
        assert on_palette(model.sample(16), palette.tensor) == 1.0
    noted = noisewise.Run(distilled_run).info
    assert noted["train"]["palette"] == "auto"
    assert "one palette" in noted["derived"]["palette"]["reason"]


def test_single_pictures_are_indexed_and_equal(distilled_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "many"
    assert cli.main(["sample", str(distilled_run), "-n", "6", "--out", str(out)]) == 0
    model = noisewise.load(distilled_run)
    expected = model.sample(6, seed=0)
    entries = [level for colour in model.config.palette.colours for level in colour]
    for i in range(6):
        with Image.open(out / f"seed-0-{i:05d}.png") as image:
            assert image.mode == "P"
            listed = image.getpalette() or []
        assert listed[: len(entries)] == entries, "one list for all pictures"
        drawn = torch.from_numpy(rgb(out / f"seed-0-{i:05d}.png").copy())
        assert torch.equal(drawn.permute(2, 0, 1).float() / 127.5 - 1, expected[i])
    noted = json.loads((out / "seed-0.json").read_text())
    assert "colours" in noted["palette"]


def test_the_sheet_is_indexed_and_equal(distilled_run: Path, tmp_path: Path) -> None:
    words = ["sample", str(distilled_run), "-n", "5"]
    for name, more in (("small", []), ("large", ["--scale", "3"])):
        assert cli.main([*words, *more, "--out", str(tmp_path / f"{name}.png")]) == 0
    with Image.open(tmp_path / "small.png") as small, Image.open(tmp_path / "large.png") as large:
        assert small.mode == large.mode == "P"
        a, b = np.asarray(small.convert("RGBA")), np.asarray(large.convert("RGBA"))
    assert (a.repeat(3, 0).repeat(3, 1) == b).all()
    assert (a[..., 3] == 0).any(), "the empty place of a sheet of five is transparent"
    picture = noisewise.load(distilled_run).sample(1, seed=0)[0]
    first = torch.from_numpy(a[:16, :16, :3].copy()).permute(2, 0, 1).float() / 127.5 - 1
    assert torch.equal(first, picture)


def test_another_palette_for_drawing(
    distilled_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two.hex").write_text("102030\nf0e0d0\n")
    words = ["sample", str(distilled_run), "-n", "4", "--json", "--palette"]
    out = tmp_path / "two.png"
    assert cli.main([*words, str(tmp_path / "two.hex"), "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["palette"].startswith("2 colours")
    with Image.open(out) as image:
        drawn = torch.from_numpy(np.asarray(image.convert("RGBA")).copy())[None]
    pictures = drawn[:, :16, :16, :3]
    assert on_palette(pictures, Palette(((16, 32, 48), (240, 224, 208))).tensor) == 1.0
    plain = tmp_path / "plain.png"
    assert cli.main([*words, "none", "--out", str(plain)]) == 0
    with Image.open(plain) as image:
        assert image.mode != "P"


def test_a_palette_by_hand_is_remembered_without_its_file(
    folder: Path,
    tmp_path: Path,
    settings: Callable[[str], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    palette, out = tmp_path / "secret" / "mine.gpl", tmp_path / "run"
    palette.parent.mkdir()
    palette.write_text("GIMP Palette\n10 20 30\n200 100 50\n")
    words = ["train", str(folder), "--out", str(out), "--budget", "320images"]
    given = [*words, "--palette", str(palette), *settings("train")]
    assert cli.main([*given, "--dry-run"]) == 0
    assert "set by hand" in capsys.readouterr().out
    assert cli.main(given) == 0
    assert "secret" not in (out / "run.json").read_text()
    assert noisewise.Run(out).info["train"]["palette"] == "#0a141e #c86432"
    shutil.rmtree(palette.parent)
    model = noisewise.load(out)
    assert on_palette(model.sample(8), Palette(((10, 20, 30), (200, 100, 50))).tensor) == 1.0
    same = [*words, "--palette", "#0a141e #c86432", *settings("train")]
    assert cli.main(same) == 0, "the colours are the setting, not the file"
    other = [*words, "--palette", "none", *settings("train")]
    assert cli.main(other) == 2
    assert "palette was '#0a141e #c86432' and is now 'none'" in capsys.readouterr().err


def test_a_run_of_an_older_version_goes_on_without_a_palette(
    folder: Path, tmp_path: Path, settings: Callable[[str], list[str]]
) -> None:
    out = tmp_path / "run"
    words = ["train", str(folder), "--out", str(out), *settings("train")]
    assert cli.main([*words, "--budget", "320images"]) == 0
    assert noisewise.load(out).config.palette
    run = noisewise.Run(out)
    del run.info["train"]["palette"]
    run.write()
    for path in (out / "teacher", out / "checkpoints"):
        shutil.rmtree(path)
    run.info["stages"] = {}
    run.write()
    assert cli.main([*words, "--budget", "640images"]) == 0
    assert not noisewise.load(out).config.palette


BAD = {
    "one.hex": b"ff0000\n",
    "empty.gpl": b"",
    "broken.pal": b"JASC-PAL\n0100\n7\n1 2 3\n",
    "broken.png": b"\x89PNG",
    "many.hex": b"\n".join(f"{i:06x}".encode() for i in range(300)),
    "ending.aco": b"\0\1",
}


@pytest.mark.parametrize("name", [*BAD, "missing.gpl"])
@pytest.mark.parametrize("command", ["train", "sample"])
def test_a_bad_palette_is_one_sentence_and_exit_code_2(
    name: str,
    command: str,
    folder: Path,
    teacher_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, out = tmp_path / name, tmp_path / "out"
    if name in BAD:
        path.write_bytes(BAD[name])
    source = folder if command == "train" else teacher_run
    assert cli.main([command, str(source), "--out", str(out), "--palette", str(path)]) == 2
    printed, error = capsys.readouterr()
    assert printed == ""
    assert len(error.splitlines()) == 1
    assert error.startswith(f"noisewise {command}: the palette ")
    assert not out.exists()


def test_an_unknown_ending_to_write_is_refused_before_pictures_are_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.ase"
    assert cli.main(["inspect", str(folder), "--palette-out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "ends in .gpl, .pal, .hex or .png" in error
    assert len(error.splitlines()) == 1
    assert not out.exists()
