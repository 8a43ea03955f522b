"""Disks that fill and folders that are closed: one sentence, code 2, and nothing saved is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from killing import Workshop, traces
from noisewise.app import cli
from noisewise.training.run.run import Run
from small_disk import close_disk, fill, small_disk
from tiny import blobs

BUDGET = "480images"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Pictures, and a run on a disk with room enough."""
    shop = Workshop.make(tmp_path_factory.mktemp("disks"))
    assert cli.main(shop.command("train", shop.root / "whole", BUDGET)[3:]) == 0
    return shop


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """Give a command that has to end with code 2, and return its sentence."""

    def give(command: list[str]) -> str:
        capsys.readouterr()
        assert cli.main(command[command.index("-m") + 2 :]) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return said.strip().splitlines()[-1]

    return give


@pytest.mark.parametrize("kilobytes", [300, pytest.param(700, marks=pytest.mark.slow)])
def test_a_disk_that_fills_in_the_middle_of_training(
    shop: Workshop, tmp_path: Path, kilobytes: int, refused: Callable[[list[str]], str]
) -> None:
    with small_disk(tmp_path / "disk", 4000) as disk:
        run = disk / "run"
        ballast = fill(disk, kilobytes)
        said = refused(shop.command("train", run, BUDGET))
        assert "No space left on device" in said
        assert not list(run.rglob("*.tmp"))
        ballast.unlink()
        assert cli.main(shop.command("train", run, BUDGET)[3:]) == 0
        assert traces(run, "teacher") == traces(shop.root / "whole", "teacher")


def sample(run: Path, out: Path, *words: str) -> list[str]:
    return ["-m", "noisewise", "sample", str(run), "--out", str(out), *words]


def test_a_full_disk_cuts_no_sheet_that_was_drawn_before(
    shop: Workshop, tmp_path: Path, refused: Callable[[list[str]], str]
) -> None:
    run = shop.root / "whole"
    with small_disk(tmp_path / "disk", 400) as disk:
        sheet = disk / "sheet.png"
        assert cli.main(sample(run, sheet, "-n", "9")[2:]) == 0
        before = sheet.read_bytes()
        fill(disk, 0)
        # Larger than the room that the old sheet takes.
        said = refused(sample(run, sheet, "-n", "400", "--scale", "4"))
        assert "No space left on device" in said
        assert "what was saved before is kept" in said
        assert sheet.read_bytes() == before
        assert sorted(p.name for p in disk.iterdir()) == [".ballast", "sheet.png"]


def test_a_full_disk_deletes_no_pictures_of_an_earlier_call(
    shop: Workshop, tmp_path: Path, refused: Callable[[list[str]], str]
) -> None:
    run = shop.root / "whole"
    with small_disk(tmp_path / "disk", 400) as disk:
        many = disk / "many"
        assert cli.main(sample(run, many, "-n", "8")[2:]) == 0
        before = {path.name: path.read_bytes() for path in many.iterdir()}
        assert len(before) == 9
        ballast = fill(disk, 0)
        for words in (["--overwrite", "-n", "4"], ["--seed", "1"]):
            assert "No space left on device" in refused(sample(run, many, *words))
            assert {path.name: path.read_bytes() for path in many.iterdir()} == before
        assert "No space left" in refused(sample(run, disk / "new"))
        assert not (disk / "new").exists()
        ballast.unlink()
        assert cli.main(sample(run, many, "-n", "4", "--overwrite")[2:]) == 0
        after = {path.name: path.read_bytes() for path in many.iterdir()}
        assert set(after) == {"seed-0.json", *(f"seed-0-0000{i}.png" for i in range(4))}
        assert all(after[name] == before[name] for name in after if name.endswith(".png"))


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_run_on_a_disk_that_takes_nothing_is_evaluated_without_a_cache(
    shop: Workshop, tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "-n", "16", "--json"]
    with small_disk(tmp_path / "disk", 4000) as disk:
        run = disk / "run"
        shutil.copytree(shop.root / "whole", run, ignore=shutil.ignore_patterns("cache"))
        fill(disk, 0)
        if how == "read-only":
            close_disk(disk)
        capsys.readouterr()
        assert cli.main([*words, str(run)]) == 0
        assert '"copies": {' in capsys.readouterr().out  # so the training pictures were read
        if how == "read-only":
            assert cli.main(["sample", str(run), "-n", "4"]) == 2
            assert "Read-only file system" in capsys.readouterr().err


def test_a_picture_folder_that_cannot_be_used_is_not_called_gone(
    shop: Workshop, tmp_path: Path, refused: Callable[[list[str]], str]
) -> None:
    other = Workshop.make(tmp_path / "other")
    assert cli.main(other.command("train", tmp_path / "run", "16images")[3:]) == 0
    shutil.rmtree(tmp_path / "run" / "cache")
    (other.root / "blobs.npz").write_bytes(b"PK")
    said = refused(["-m", "noisewise", "evaluate", str(tmp_path / "run")])
    assert "cannot be used" in said
    assert "cannot be read as a NumPy file" in said
    assert "give other real pictures with --against" in said


def closed(folder: Path) -> None:
    """Take the right to write away, from root too where the system can."""
    folder.chmod(0o555)
    if os.geteuid() == 0:
        done = subprocess.run(["chattr", "+i", str(folder)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("root cannot be kept from writing here")


def opened(folder: Path) -> None:
    if os.geteuid() == 0:
        subprocess.run(["chattr", "-i", str(folder)], capture_output=True, check=False)
    folder.chmod(0o755)


def test_a_folder_that_cannot_be_written(
    shop: Workshop, tmp_path: Path, refused: Callable[[list[str]], str]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    closed(home)
    try:
        said = refused(shop.command("train", home / "run", BUDGET))
        assert "cannot be read or written" in said
        assert list(home.iterdir()) == []
    finally:
        opened(home)


def test_a_second_process_and_changed_pictures_are_refused(
    shop: Workshop, tmp_path: Path, refused: Callable[[list[str]], str]
) -> None:
    whole = shop.root / "whole"
    before = (whole / "run.json").read_bytes()
    with Run.open(whole).locked():
        said = refused(shop.command("train", whole, "960images"))
    assert f"another process (number {os.getpid()}) is training in" in said
    other = Workshop.make(tmp_path / "other")
    np.savez(other.root / "blobs.npz", images=blobs(64, 8, seed=1))
    said = refused(other.command("train", whole, BUDGET))
    assert "was trained on other pictures (it had 64," in said
    assert (whole / "run.json").read_bytes() == before
