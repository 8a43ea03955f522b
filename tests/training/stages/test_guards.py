"""Teacher training that breaks down for real: seen, gone back from, softened, told, bounded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

import noisewise
from noisewise.training.run.run import Run
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.batches import Batches
from noisewise.training.stages.guards import LossGuard
from noisewise.training.stages.loop import TrainingFailed
from tiny import blobs, build

RECIPE = TeacherRecipe(batch=16, distance_images=0, heldout_every=0.1, sampler_images=0)
CONFIG = TrainConfig(budget="1600images", recipe=RECIPE)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "blobs.npz"
    np.savez(path, images=blobs(128, 8))
    return path


def events(run: Run, kind: str) -> list[str]:
    return [r.event or "" for r in run.records() if r.kind == kind]


def test_a_poisoned_batch_is_gone_back_from_and_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch of pixels that are no numbers, as a broken memory would give."""
    flipped = Batches._flipped
    count = 0

    def poisoned(self: Batches, x0: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        return flipped(self, x0) * (float("nan") if count == 42 else 1.0)

    monkeypatch.setattr(Batches, "_flipped", poisoned)
    run = noisewise.train(data, tmp_path / "run", config=CONFIG, build=build)
    back = events(run, "went_back")
    assert len(back) == 1
    assert "loss is nan; learning rate halved (try 1 of 3)" in back[0]
    assert run.finished("teacher")
    assert torch.isfinite(run.teacher(build).sample(4)).all()
    rates = [(r.step, r.lr) for r in run.records() if r.lr]
    assert max(lr for step, lr in rates if step > 42) <= 0.51 * max(lr for _, lr in rates)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_rate_that_explodes_stops_after_the_stated_tries(
    data: Path, tmp_path: Path, optimizer: Literal["muon", "adamw"]
) -> None:
    wild = replace(CONFIG, lr=300.0, recipe=replace(RECIPE, optimizer=optimizer, clip=1e9))
    with pytest.raises(TrainingFailed, match=r"failed 4 times.*lower learning rate"):
        noisewise.train(data, tmp_path / "run", config=wild, build=build)
    run = Run.open(tmp_path / "run")
    assert len(events(run, "went_back")) == 3
    assert run.records()[-1].kind == "failed"
    assert "teacher training failed 4 times" in events(run, "failed")[-1]
    assert "in a new folder" in run.info["stages"]["teacher"]["failed"]
    assert not run.finished("teacher")


def test_the_best_teacher_outlives_a_breakdown(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken for good after half of the run; no checkpoint was due before."""
    flipped = Batches._flipped
    count, broken = 0, True

    def poisoned(self: Batches, x0: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        return flipped(self, x0) * (float("nan") if broken and count > 50 else 1.0)

    monkeypatch.setattr(Batches, "_flipped", poisoned)
    best = tmp_path / "run" / "checkpoints" / "best-teacher"
    with pytest.raises(TrainingFailed) as caught:
        noisewise.train(data, tmp_path / "run", config=CONFIG, build=build)
    assert str(caught.value).endswith(f"the best teacher so far is in {best}")
    assert torch.isfinite(noisewise.load(best, build=build).sample(4)).all()
    broken = False
    run = noisewise.train(data, tmp_path / "run", config=CONFIG, build=build)
    assert run.finished("teacher")
    assert "failed" not in run.info["stages"]["teacher"]


def test_a_hard_batch_and_a_falling_loss_are_no_trouble() -> None:
    guard = LossGuard()
    generator = np.random.default_rng(0)
    for step in range(500):
        loss = float(np.exp(-step / 100) * generator.lognormal(0.0, 0.5))
        assert guard.trouble(loss) is None
    assert guard.trouble(5 * guard.state["slow"]) is None


def test_a_climb_to_large_but_finite_losses_is_trouble() -> None:
    guard = LossGuard()
    said = [guard.trouble(0.5 * 1.5 ** max(0, step - 100)) for step in range(140)]
    first = next(step for step, text in enumerate(said) if text)
    assert 100 < first < 115
    guard.forget()
    assert guard.trouble(1e6) is None
