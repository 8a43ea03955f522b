"""The chain with the real nets, from a folder of pictures to pictures of the generator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import noisewise
from noisewise.training.settings.config import DistillConfig, TrainConfig
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe
from tiny import blobs

TEACH = TrainConfig(
    size=8,
    classes=True,
    widths=(16, 16),
    checkpoint_seconds=0.2,
    recipe=TeacherRecipe(batch=16, distance_images=64, sampler_images=32),
)
DISTIL = DistillConfig(recipe=StudentRecipe(batch=16, distance_images=64))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 60 pictures, among them files that are none."""
    root = tmp_path_factory.mktemp("pictures")
    for i, image in enumerate(blobs(120, 8)):
        place = root / ("left", "right")[i % 2]
        place.mkdir(exist_ok=True)
        Image.fromarray(np.repeat(image, 3, axis=2)).save(place / f"{i:03}.png")
    (root / "left" / "notes.txt").write_text("not a picture")
    (root / "left" / "broken.png").write_bytes(b"\x89PNG broken")
    return root


def test_five_lines_from_a_folder_to_pictures(folder: Path, tmp_path: Path) -> None:
    run = noisewise.train(folder, out=tmp_path / "run", budget="4s", config=TEACH)
    generator = noisewise.distill(run, budget="4s", config=DISTIL)
    pictures = generator.sample(64, seed=0)
    judged = noisewise.evaluate(run, num_images=64).to_dict()

    assert pictures.shape == (64, run.info["data"]["channels"], 8, 8)
    assert pictures.std() > 0.1
    stages = run.info["stages"]
    assert stages["teacher"]["finished"]
    assert json.loads(json.dumps(judged))["model"] == "generator"
    assert judged["copies"] is not None
    left, right = (generator.sample(32, label=name) for name in ("left", "right"))
    half = pictures.shape[-1] // 2
    assert left[..., :half].mean() > right[..., :half].mean()
    assert len(run.info["data"]["skipped"]) == 2
    distances = [
        r.distance for r in run.records() if r.stage == "teacher" and r.distance is not None
    ]
    assert distances


_TRAIN = """
import sys, noisewise
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
recipe = TeacherRecipe(batch=16, distance_images=64, sampler_images=32)
config = TrainConfig(size=8, classes=True, widths=(16, 16), checkpoint_seconds=0.01, recipe=recipe)
noisewise.train(sys.argv[1], sys.argv[2], "1600images", config=config)
"""


def test_killed_without_warning_it_resumes_to_the_same_weights(
    folder: Path, tmp_path: Path
) -> None:
    config = TrainConfig(
        size=8, classes=True, widths=(16, 16), checkpoint_seconds=0.01, recipe=TEACH.recipe
    )
    checkpoints = tmp_path / "killed" / "checkpoints"
    command = [sys.executable, "-c", _TRAIN, str(folder), str(tmp_path / "killed")]
    with subprocess.Popen(command) as process:
        while not list(checkpoints.glob("teacher-0*")) and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    assert not (tmp_path / "killed" / "teacher").exists()
    for name in ("killed", "whole"):
        noisewise.train(folder, tmp_path / name, "1600images", config=config)
    killed, whole = (
        (tmp_path / name / "teacher" / "model.safetensors").read_bytes()
        for name in ("killed", "whole")
    )
    assert killed == whole
    left = [p for p in os.listdir(checkpoints) if p.endswith(".tmp")]
    assert len(left) <= 1  # at most the half-written one of the moment of death
    assert torch.isfinite(noisewise.load(tmp_path / "killed").sample(2)).all()
