"""Folders with very many names, and with odd ones: bounded memory, and an answer that fits a page.

`make torture` has 100,000 names; here are fewer, in the same tests.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forked import Ended, run

MANY = 1_000
_PER_NAME, _PER_PICTURE = 4_000, 8_000  # bytes of memory
_SLACK = 80 * 2**20  # bytes by which the same command differs from one time to the next
_ANSWER = 20_000  # letters
_PICTURES = 64


def pictures(root: Path, count: int = _PICTURES) -> Path:
    """Some small pictures."""
    root.mkdir()
    generator = np.random.default_rng(0)
    for i in range(count):
        pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"picture-{i:03}.png")
    return root


def both(folder: Path) -> list[Ended]:
    """What each command says that reads all names."""
    return [run("inspect", folder), run("train", folder, "--dry-run", "--budget", "10000images")]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """The memory of both commands for a folder of a few pictures."""
    ends = both(pictures(tmp_path_factory.mktemp("few") / "pictures"))
    for end in ends:
        end.ended()
    return [end.memory for end in ends]


def check(
    folder: Path, few: list[int], count: int, refused: str = "", each: int = _PER_NAME
) -> list[Ended]:
    """Both commands end, or refuse with that sentence, and take little for each name."""
    ends = both(folder)
    for end, usual in zip(ends, few, strict=True):
        if refused:
            end.refused(refused)
        else:
            end.ended()
        assert len(end.out) + len(end.err) < _ANSWER
        more = end.memory - usual
        assert more < each * count + _SLACK
    return ends


SIZES = [MANY, pytest.param(100_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", SIZES)
def test_empty_files(count: int, few: list[int], tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures")
    for i in range(count):
        (folder / f"{i:06}.png").touch()
    check(folder, few, count, f"{count} of {count + _PICTURES} pictures cannot be used")


@pytest.mark.parametrize("count", SIZES)
def test_side_files_with_odd_names(count: int, few: list[int], tmp_path: Path) -> None:
    """Names of 255 bytes, and bytes that are not UTF-8; captions, so that nothing is broken."""
    folder = os.fsencode(pictures(tmp_path / "pictures"))
    start = b"caf\xe9-" if sys.platform == "linux" else b"cafe-"
    for i in range(count):
        name = start + b"%06d-" % i + (b"\n\x1b[31m" if i % 2 else b"x" * 200)
        with open(os.path.join(folder, name[:251] + b".txt"), "wb") as file:
            file.write(b"a caption")
    for end in check(Path(os.fsdecode(folder)), few, count):
        assert "\x1b" not in end.out + end.err


@pytest.mark.parametrize("count", SIZES)
def test_links_to_the_same_pictures(count: int, few: list[int], tmp_path: Path) -> None:
    """Hard links are pictures of their own; all are read, and counted as copies."""
    folder = pictures(tmp_path / "pictures")
    for i in range(count):
        os.link(folder / f"picture-{i % _PICTURES:03}.png", folder / f"{i:06}.png")
    ends = check(folder, few, count, each=_PER_PICTURE)
    assert f"{count + _PICTURES} usable pictures" in ends[0].out


@pytest.mark.parametrize("count", SIZES)
def test_a_folder_for_each_picture(count: int, few: list[int], tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures")
    for i in range(count):
        (folder / f"{i:06}").mkdir()
    check(folder, few, count)
