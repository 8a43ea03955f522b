"""What a command prints when it ends: a result, or how to resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import noisewise
from noisewise.app.terminal.signals import Stop
from noisewise.app.terminal.training import show_result
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe

RECIPE = TeacherRecipe(batch=16, distance_images=0, sampler_images=0)


def config(budget: str) -> TrainConfig:
    return TrainConfig(budget=budget, widths=(8, 16), kinds=0, recipe=RECIPE)


def test_a_longer_training_that_was_stopped_is_not_a_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The finished model of the smaller budget is there, but what was asked for is not."""
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1)).astype(np.uint8)
    np.savez(tmp_path / "noise.npz", images=images)
    words = ["train", "noise.npz", "--out", "run"]
    run = noisewise.train(tmp_path / "noise.npz", tmp_path / "run", config=config("160images"))
    assert show_result(run, "teacher", Stop(), False, words) == 0
    assert "next: " in capsys.readouterr().out
    asked = iter([False] * 3 + [True] * 9)
    longer = noisewise.train(
        tmp_path / "noise.npz",
        tmp_path / "run",
        config=config("1600images"),
        stop=lambda: next(asked),
    )
    assert longer.finished("teacher")
    assert show_result(longer, "teacher", Stop(), False, words) != 0
    said = capsys.readouterr()
    assert "Saved. To resume: " in said.err
    assert said.out == ""
