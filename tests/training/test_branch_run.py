"""Branches of a run: each goes on from its checkpoint, and the run itself stays as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import noisewise
from noisewise.app import cli
from noisewise.scaling import Branching
from noisewise.training.branch_run import branch_run
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from tiny import blobs

RECIPE = TeacherRecipe(batch=8, distance_images=0, sampler_images=0, noise_every=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> noisewise.Run:
    folder = tmp_path_factory.mktemp("branch")
    np.savez(folder / "blobs.npz", images=blobs(48, 8))
    config = TrainConfig(recipe=RECIPE, widths=(8,), device="cpu", threads=1)
    return noisewise.train(folder / "blobs.npz", folder / "run", "128images", config=config)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_branches_go_on_from_the_checkpoint_and_leave_the_run_alone(
    run: noisewise.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, said = files(run.path), []
    found = branch_run(
        run.path,
        images=64,
        batches=(16,),
        powers=(0.5,),
        on_branch=lambda *told: said.append(told),
    )
    assert files(run.path) == before
    assert found.batch0 == 8
    assert found.seen == 128
    assert found.lr0 == RECIPE.lr
    assert [(t.batch, t.examples) for t in found.trials] == [(8, 64), (8, 51), (16, 64)]
    assert said[2] == (16, pytest.approx(RECIPE.lr * 2**0.5), 64)
    losses = [t.loss for t in found.trials]
    assert all(0 < loss < 10 for loss in losses)
    assert len(set(losses)) == 3  # they are different trainings
    again = branch_run(run.path, images=64, batches=(16,), powers=(0.5,))
    assert [t.loss for t in again.trials] == losses

    out = tmp_path / "b.json"
    words = ["lr", "branch", str(run.path), "--images", "64", "--batches", "16"]
    assert cli.main([*words, "--powers", "0.5", "--out", str(out)]) == 0
    assert "critical batch" in capsys.readouterr().out
    assert [t.loss for t in Branching.load(out).trials] == losses
    assert cli.main(["lr", "warmup", str(out), "--examples", "1000"]) == 0
    assert "1,000 examples take" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--images", "10"], "steps of batch"),
        (["--batches", "4"], "try larger ones"),
        (["--share", "2"], "share is 2"),
        (["--budget", "soon"], "not a length of time"),
        (["--out", "no/such/folder/x.json"], "cannot be written"),
    ],
)
def test_what_cannot_be_branched_is_refused_in_one_sentence(
    words: list[str], sentence: str, run: noisewise.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["lr", "branch", str(run.path), *words]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert "Traceback" not in told


def test_a_run_that_was_killed_has_seen_what_its_checkpoint_says(
    run: noisewise.Run, tmp_path: Path
) -> None:
    """Killed: run.json has no word about the stage yet."""
    shutil.copytree(run.path, tmp_path / "killed")
    killed = noisewise.Run(tmp_path / "killed")
    killed.info["stages"] = {}
    killed.write()
    found = branch_run(killed.path, images=64, batches=(16,), powers=(0.5,), seconds=0.001)
    assert found.seen == 128
    shutil.rmtree(killed.path / "checkpoints")
    with pytest.raises(ValueError, match="no checkpoint to branch from"):
        branch_run(killed.path, images=64, batches=(16,))
