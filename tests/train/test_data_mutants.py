"""Damaged pictures: none crashes or hangs, each is used or named with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutations import write_mutants
from noisewise.train.data import load_pictures
from noisewise.train.inspection import inspect
from picture_files import write_pictures


@pytest.mark.parametrize(
    ("count", "seed"), [(80, 0), pytest.param(1000, 1, marks=pytest.mark.slow)]
)
def test_every_mutant_is_used_or_named(tmp_path: Path, count: int, seed: int) -> None:
    folder = write_pictures(tmp_path / "x", count=count)  # sound ones, so that enough is left
    names = write_mutants(folder / "mutants", count, seed)
    pictures = load_pictures(folder, size=32)
    used = {name.removeprefix("mutants/") for name in pictures.names}
    left = {item.name.removeprefix("mutants/"): item.reason for item in pictures.skipped}
    assert set(names) <= used | left.keys()
    assert not used & left.keys()
    assert all(left.values())
    assert len(used & set(names)) > count // 20, "some damage is harmless"
    assert len(left) > count // 4, "most is not"
    found = inspect(folder)
    assert found.num_pictures + sum(item.count for item in found.skipped) == 2 * count
