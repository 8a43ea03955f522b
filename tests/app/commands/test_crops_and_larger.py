"""From large scans to a large texture on the command line: --crops, --keep-whole, --larger."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import noisewise
from noisewise.app import cli
from noisewise.app.report.resume_command import again
from noisewise.training.run.run import Run
from noisewise.training.training_set import TrainingSet

Settings = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scans of a coarse texture, and two pictures that are too small."""
    root = tmp_path_factory.mktemp("scans")
    for i in range(10):
        coarse = np.random.default_rng(i).integers(0, 256, (20, 15, 3), dtype=np.uint8)
        size = (60, 80) if i < 8 else (12, 20)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(root / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def texture_run(tmp_path_factory: pytest.TempPathFactory, scans: Path, settings: Settings) -> Path:
    out = tmp_path_factory.mktemp("runs") / "texture"
    words = ["train", str(scans), "--out", str(out), "--budget", "200images", "--size", "16"]
    assert cli.main([*words, "--crops", "12", *settings("train")]) == 0
    return out


def failed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence with which a command refuses."""
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    return err


# ------------------------------------------------------------------------------------------ crops
def test_a_run_notes_its_crops_and_resumes_with_them(
    texture_run: Path, scans: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(texture_run)
    assert (run.info["train"]["crops"], run.info["train"]["keep_whole"]) == (12, False)
    assert run.data.num_pictures == 96
    assert run.info["derived"]["crops"] == {
        "value": 12,
        "reason": "most of each picture, set by hand: 96 pieces of 16 x 16 pixels from 8 pictures",
    }
    assert "96 crops of 16 x 16 pixels at their own scale, from 8 pictures" in run.data.notes
    side = TrainingSet.read(run)
    names = [{side.pictures.names[i] for i in part} for part in (side.trained, side.held_out)]
    assert not names[0] & names[1]
    assert "--crops 12" in again(run, "30m")
    capsys.readouterr()
    words = ["train", str(scans), "--out", str(texture_run), "--budget", "200images"]
    words += ["--size", "16", *settings("train")]
    assert "crops was 12 and is now 0" in failed(words, capsys)
    assert cli.main([*words, "--crops", "12"]) == 0


def test_the_dry_run_and_inspect_tell_of_crops(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(scans), "--size", "16", "--crops", "12", "--dry-run"]
    assert cli.main([*words, "--budget", "99images", "--json"]) == 0
    derived = json.loads(capsys.readouterr().out)["derived"]
    assert derived["crops"]["value"] == 12
    assert cli.main(["train", str(scans), "--size", "16", "--budget", "99images", "--dry-run"]) == 2
    capsys.readouterr()
    sheet = tmp_path / "sheet.png"
    words = ["inspect", str(scans), "--size", "16", "--crops", "12", "--out", str(sheet)]
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert "96 usable pieces of 8 pictures of 10 files" in text
    assert "2 smaller than the crops: 8.png, 9.png" in text
    assert "use 96 pieces at 16 x 16 pixels" in text
    assert "all crops of a picture are trained on, or all are held out" in text
    assert sheet.exists()
    assert cli.main(["inspect", str(scans), "--size", "16", "--crops", "3", "--keep-whole"]) == 0
    assert "24 crops of 16 x 16 pixels at their own scale and 10 pictures as a whole" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("command", ["train", "inspect"])
def test_crops_that_cannot_be_cut_are_one_sentence(
    command: str, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [command, str(scans)] + (["--dry-run"] if command == "train" else [])
    assert "crops of 64 x 64 pixels are larger than all 10" in failed(
        [*words, "--size", "64", "--crops", "4"], capsys
    )
    assert "-4 crops do not work" in failed([*words, "--crops", "-4"], capsys)
    assert "keep_whole goes with crops" in failed([*words, "--keep-whole"], capsys)
    assert "--crops takes a whole number" in failed([*words, "--crops", "many"], capsys)


def test_others_are_compared_in_the_same_way(texture_run: Path, tmp_path: Path) -> None:
    """Large ones are cut, and pieces of the right size are taken as they are."""
    run = Run(texture_run)
    large, pieces = tmp_path / "large.npz", tmp_path / "pieces.npz"
    images = np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3), dtype=np.uint8)
    np.savez(large, images=images)
    np.savez(pieces, images=images[:, :16, :16])
    assert len(run.other_pictures(large, 16, 3)) == 240
    assert len(run.other_pictures(pieces, 16, 3)) == 20


# ----------------------------------------------------------------------------------------- larger
def test_a_large_texture_is_one_picture_of_its_size(
    texture_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "large.png"
    words = ["sample", str(texture_run), "--larger", "70x41", "--out", str(out)]
    capsys.readouterr()
    assert cli.main([*words, "--teacher", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["num_images"], values["height"], values["width"]) == (1, 41, 70)
    first = np.asarray(Image.open(out))
    assert first.shape[:2] == (41, 70)
    assert cli.main(words) == 0, "a run without a generator needs no --teacher"
    text = capsys.readouterr().out
    assert "1 70 x 41 picture of the teacher, 5 network calls for each window of 16 x 16" in text
    np.testing.assert_array_equal(np.asarray(Image.open(out)), first)
    teacher = noisewise.load(texture_run, "teacher")
    same = teacher.sample(1, larger=(41, 70))
    assert same.shape == (1, 3, 41, 70)
    folder = tmp_path / "several"
    assert cli.main([*words[:-1], str(folder), "-n", "2", "--sampler", "dpmpp_2m"]) == 0
    shapes = [np.asarray(Image.open(path)).shape for path in sorted(folder.glob("*.png"))]
    assert shapes == [(41, 70, 3), (41, 70, 3)]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--larger", "41x"], "'41x' is no size; write a side in pixels or WIDTHxHEIGHT, such as"),
        (["--larger", "8"], "8 x 8 pixels are fewer than the model draws: use at least 16 x 16"),
        (["--larger", "70x8"], "70 x 8 pixels are fewer than the model draws: use at least 16 x"),
        (["--larger", "9000x9000"], "are too much at once; use at most 4096 x 4096"),
        (["--larger", "64x64", "-n", "0"], "0 pictures cannot be drawn"),
    ],
)
def test_sizes_that_cannot_be_drawn_are_one_sentence(
    more: list[str], says: str, texture_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert says in failed(["sample", str(texture_run), *more], capsys)


def test_a_generator_says_that_the_teacher_draws_larger(
    distilled_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    says = failed(["sample", str(distilled_run), "--larger", "32x32"], capsys)
    assert "a generator draws in one call" in says
    assert "--teacher" in says
