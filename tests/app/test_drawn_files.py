"""Several calls of sample that write into one folder at once."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisewise.app.drawn_files import write_folder

COUNT = 30


def at_once(out: Path, seeds: Sequence[int], overwrite: bool = False) -> list[str]:
    """Each call draws pictures of its own brightness; what those say that are refused."""
    start, said = threading.Barrier(len(seeds)), []

    def call(number: int) -> None:
        pictures = np.full((COUNT, 8, 8, 1), 10 * number, np.uint8)
        start.wait()
        try:
            write_folder(pictures, out, 1, seeds[number], {"number": number}, overwrite)
        except ValueError as error:
            said.append(str(error))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(seeds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


def brightness(out: Path, seed: int) -> set[int]:
    """Of all pictures of a seed, and of the call that the note beside them names."""
    files = [out / f"seed-{seed}-{i:05d}.png" for i in range(COUNT)]
    number = json.loads((out / f"seed-{seed}.json").read_text())["number"]
    return {int(np.asarray(Image.open(file)).max()) for file in files} | {10 * number}


def test_other_seeds_do_not_meet(tmp_path: Path) -> None:
    assert not at_once(tmp_path / "out", [0, 1, 2, 3])
    assert len(os.listdir(tmp_path / "out")) == 4 * (COUNT + 1)
    assert [brightness(tmp_path / "out", seed) for seed in range(4)] == [{0}, {10}, {20}, {30}]


@pytest.mark.parametrize("overwrite", [False, True])
def test_pictures_of_one_seed_are_of_one_call(tmp_path: Path, overwrite: bool) -> None:
    said = at_once(tmp_path / "out", [7, 7, 7], overwrite)
    assert len(said) == (0 if overwrite else 2)
    assert all("already holds pictures of seed 7" in text for text in said)
    assert len(brightness(tmp_path / "out", 7)) == 1
    assert len(os.listdir(tmp_path / "out")) == COUNT + 1


def test_what_a_killed_call_left_is_removed_and_what_is_written_stays(tmp_path: Path) -> None:
    left, busy = tmp_path / ".new-seed-7-left", tmp_path / ".new-seed-7-busy"
    for folder in (left, busy):
        folder.mkdir()
        (folder / "seed-7-00000.png").touch()
    handle = os.open(busy, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        assert not at_once(tmp_path, [1])
        assert not left.exists()
        assert busy.exists()
    finally:
        os.close(handle)
