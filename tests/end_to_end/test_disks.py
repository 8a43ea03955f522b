"""Disks that fill and folders that are closed: one sentence, code 2, and nothing saved is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from killing import Workshop, traces
from noisewise.app import cli
from noisewise.training.run.run import Run
from small_disk import fill, small_disk
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
