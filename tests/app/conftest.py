"""Tiny real runs that the tests of this floor share, trained once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisewise.app import cli


def draw_pictures(count: int, size: int = 16) -> np.ndarray:
    """Coloured discs on black, uint8 [count, size, size, 3]; no two alike."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    centre = rng.uniform(size * 0.3, size * 0.7, (count, 2, 1, 1))
    radius = rng.uniform(size * 0.15, size * 0.35, (count, 1, 1))
    inside = (y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2 < radius**2
    colour = rng.integers(80, 256, (count, 1, 1, 3))
    return np.where(inside[..., None], colour, 0).astype(np.uint8)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 120 pictures in two classes, with two files that are no pictures."""
    root = tmp_path_factory.mktemp("pictures")
    for i, picture in enumerate(draw_pictures(120)):
        place = root / ("round" if i % 2 else "rounder")
        place.mkdir(exist_ok=True)
        Image.fromarray(picture).save(place / f"{i:03d}.png")
    (root / "round" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    (root / "readme.txt").write_text("discs")
    return root


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """Flags for a tiny net and tiny measurements, by way of --config."""
    place = tmp_path_factory.mktemp("settings")
    values = {
        "train": {
            "widths": [8, 16],
            "batch": 32,
            "threads": 1,
            "recipe": {
                "distance_images": 64,
                "num_steps": 3,
                "sampler_images": 0,
                "heldout_every": 0.2,
            },
        },
        "distill": {
            "batch": 32,
            "threads": 1,
            "recipe": {"distance_images": 128, "two_call_sigmas": [0.3]},
        },
    }
    for name, value in values.items():
        (place / f"{name}.json").write_text(json.dumps(value))
    return lambda command: ["--config", str(place / f"{command}.json")]


@pytest.fixture(scope="session")
def teacher_run(
    tmp_path_factory: pytest.TempPathFactory,
    folder: Path,
    settings: Callable[[str], list[str]],
) -> Path:
    """A run with a teacher; look, do not touch."""
    out = tmp_path_factory.mktemp("runs") / "discs"
    words = [str(folder), "--out", str(out), "--budget", "1000images", *settings("train")]
    assert cli.main(["train", *words]) == 0
    return out


@pytest.fixture(scope="session")
def distilled_run(
    tmp_path_factory: pytest.TempPathFactory,
    teacher_run: Path,
    settings: Callable[[str], list[str]],
) -> Path:
    """A run with a teacher and a generator; look, do not touch."""
    import shutil

    out = tmp_path_factory.mktemp("runs") / "distilled"
    shutil.copytree(teacher_run, out)
    assert cli.main(["distill", str(out), "--budget", "320images", *settings("distill")]) == 0
    return out
