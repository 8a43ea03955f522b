"""A teacher from elsewhere: copied into a new run, distilled there, and nothing else is needed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import noisewise
from noisewise.app import cli
from noisewise.app.report.collect import report
from noisewise.diffusion import Preconditioned
from noisewise.training.borrowed_teacher import borrow
from noisewise.training.models.model_folder import load_model, save_model
from noisewise.training.models.models import Teacher
from noisewise.training.run.run import Run
from noisewise.training.settings.config import DistillConfig, TrainConfig
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe

DISTIL = DistillConfig(
    budget="320images", recipe=StudentRecipe(batch=16, distance_images=64, distance_every=0.5)
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a small teacher."""
    folder = tmp_path_factory.mktemp("source")
    images = np.random.default_rng(0).integers(0, 256, (96, 8, 8, 1)).astype(np.uint8)
    np.savez(folder / "noise.npz", images=images)
    recipe = TeacherRecipe(batch=16, distance_images=64, sampler_images=0)
    config = TrainConfig(budget="320images", widths=(8, 16), recipe=recipe)
    return noisewise.train(folder / "noise.npz", folder / "run", config=config)


def digest(run: Path) -> bytes:
    return (run / "generator" / "model.safetensors").read_bytes()


def test_a_copied_teacher_distils_to_the_same_weights(source: Run, tmp_path: Path) -> None:
    shutil.copytree(source.path, tmp_path / "own")
    noisewise.distill(tmp_path / "own", config=DISTIL)
    lone = tmp_path / "sent" / "teacher"
    shutil.copytree(source.path / "teacher", lone)
    for name, teacher in (("by_run", source.path), ("by_folder", lone)):
        generator = noisewise.distill(tmp_path / name, teacher=teacher, config=DISTIL)
        assert generator.sample(3, seed=0).shape == (3, 1, 8, 8)
        assert digest(tmp_path / name) == digest(tmp_path / "own")
        assert Run.open(tmp_path / name).finished("generator")
        report(Run.open(tmp_path / name), num_images=64)
    assert not source.finished("generator")
    # Again with the same teacher: the same run, already finished.
    noisewise.distill(tmp_path / "by_run", teacher=source.path, config=DISTIL)
    evaluated = cli.main(["evaluate", str(tmp_path / "by_folder"), "-n", "64"])
    assert evaluated == 2, "no pictures are known to a teacher that came alone"


def test_what_is_no_teacher_is_refused(source: Run, tmp_path: Path) -> None:
    own = tmp_path / "own"
    noisewise.distill(own, teacher=source.path, config=DISTIL)
    with pytest.raises(ValueError, match="neither a run nor a folder of a teacher"):
        noisewise.distill(tmp_path / "new", teacher=tmp_path, config=DISTIL)
    with pytest.raises(ValueError, match="contains a generator, not a teacher"):
        noisewise.distill(tmp_path / "new", teacher=own / "generator", config=DISTIL)
    assert not (tmp_path / "new").exists()
    other = tmp_path / "other"
    shutil.copytree(source.path, other)
    model = load_model(other / "teacher")
    with torch.no_grad():
        next(model.denoiser.parameters()).add_(1.0)
    assert isinstance(model.denoiser, Preconditioned)
    save_model(other / "teacher", model.denoiser, model.config)
    with pytest.raises(ValueError, match="has another teacher"):
        noisewise.distill(own, teacher=other, config=DISTIL)


def test_a_copy_that_a_kill_cut_short_is_made_whole(source: Run, tmp_path: Path) -> None:
    whole = borrow(tmp_path / "whole", source.path)
    cut = tmp_path / "cut"
    shutil.copytree(whole.path, cut)
    (cut / "teacher" / "config.json").unlink()
    again = borrow(cut, source.path)
    assert again.teacher_digest() == source.teacher_digest()
    assert again.teacher().config == source.teacher().config
    shutil.rmtree(cut / "teacher")
    assert borrow(cut, source.path).teacher_digest() == source.teacher_digest()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_copy_that_was_damaged_since_is_copied_again(
    source: Run, tmp_path: Path, name: str
) -> None:
    run = borrow(tmp_path / "run", source.path)
    path = run.path / "teacher" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    with pytest.raises(ValueError, match=name):
        run.teacher()
    borrow(run.path, source.path)
    assert path.read_bytes() == whole


def test_dry_run_writes_nothing(source: Run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["distill", str(tmp_path / "new"), "--teacher", str(source.path), "--dry-run", "--json"]
    assert cli.main(words) == 0
    assert "sigma_init" in json.loads(capsys.readouterr().out)["derived"]
    assert not (tmp_path / "new").exists()


class Odd(torch.nn.Module):
    """A denoiser that is right but at some noise levels, where it gives something else."""

    def __init__(self, low: float, high: float, gives: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.spread = torch.nn.Parameter(torch.tensor(0.5))
        self.low, self.high, self.gives = low, high, gives

    def forward(
        self, x: torch.Tensor, sigma: torch.Tensor, condition: torch.Tensor | None = None
    ) -> Any:  # noqa: ANN401
        found = x / (1 + (sigma / self.spread)[:, None, None, None] ** 2)
        return self.gives(found) if self.low <= float(sigma[0]) <= self.high else found


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (lambda x: x * float("nan"), "not finite"),
        (lambda x: x / 0, "not finite"),
        (lambda x: x[:, :, 1:], "must return a tensor of that shape"),
        (lambda x: x.mean(1), "must return a tensor of that shape"),
        (lambda x: (x,), "must return a tensor of that shape"),
        (lambda x: x @ torch.ones(3, 3), "failed"),
    ],
)
@pytest.mark.parametrize("where", [(0.0, 0.01), (0.2, 0.8), (50.0, 90.0)])
def test_a_denoiser_that_is_wrong_at_some_levels_is_refused_and_nothing_is_written(
    gives: Callable[[torch.Tensor], Any], message: str, where: tuple[float, float], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        noisewise.as_teacher(Odd(*where, gives), size=8, channels=1, sigma_data=0.5)
    good = noisewise.as_teacher(Odd(1.0, 0.0, gives), size=8, channels=1, sigma_data=0.5)
    bad = Teacher(Odd(*where, gives), good.config).eval()
    with pytest.raises(ValueError, match=message):
        noisewise.distill(tmp_path / "new", teacher=bad, config=DISTIL, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_teacher_whose_weights_are_no_numbers_is_refused(
    source: Run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(source.path / "teacher", tmp_path / "broken")
    model = load_model(tmp_path / "broken")
    with torch.no_grad():
        next(model.denoiser.parameters()).fill_(float("nan"))
    save_model(tmp_path / "broken", model.denoiser, model.config)
    words = ["distill", str(tmp_path / "new"), "--teacher", str(tmp_path / "broken")]
    assert cli.main([*words, "--budget", "32images"]) == 2
    said = capsys.readouterr().err
    assert "not finite" in said
    assert "Traceback" not in said
    assert not (tmp_path / "new").exists()
