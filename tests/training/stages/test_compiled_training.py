"""A run long enough to try compiling: trained for real, stopped, gone on with, and loaded."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import noisewise
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages import teacher


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # compilers warn of many things
def test_a_run_that_tries_compiling_is_an_ordinary_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Twenty minutes are too long for a test.
    monkeypatch.setattr(teacher, "long_enough", lambda config, device, seconds: True)
    images = np.random.default_rng(0).integers(0, 256, (96, 16, 16, 1)).astype(np.uint8)
    np.savez(tmp_path / "noise.npz", images=images)
    config = TrainConfig(
        budget="150s", widths=(16, 32), recipe=TeacherRecipe(distance_images=64, sampler_images=32)
    )
    events: list[str | None] = []
    steps = itertools.count()
    for stop in (lambda: next(steps) > 20, None):  # stopped after some steps, then gone on with
        run = noisewise.train(
            tmp_path / "noise.npz",
            tmp_path / "run",
            config=config,
            stop=stop,
            on_record=lambda record: events.append(record.event),
        )
    tried = [event for event in events if event and "ms per step compiled" in event]
    assert tried
    assert run.finished("teacher")
    names = set(run.teacher().denoiser.state_dict())
    assert not any("_orig_mod" in name for name in names)
    assert noisewise.load(run).sample(4, seed=0).isfinite().all()
