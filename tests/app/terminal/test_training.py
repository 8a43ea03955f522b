"""What a command prints when it ends: a result, or how to resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import noisewise
from noisewise.app.terminal.came_to import came_to_lines
from noisewise.app.terminal.signals import Stop
from noisewise.app.terminal.training import beside, show_result
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
    said = capsys.readouterr().out
    assert "next: " in said
    assert [line.split(":")[0] for line in said.splitlines()] == [
        *("teacher", "trained", "kept", "sampler", "next", "also"),
    ]
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


def test_a_finished_stage_has_a_short_line_for_each_thing() -> None:
    floors = {"value": 4.0, "low": 3.0, "high": 5.0, "chance": 2.0}
    floors |= {"num_images": 256, "num_real": 300}
    stage = {
        "steps": 100, "images": 6400, "seconds": 60.0, "budget": "1m", "ema_share": 0.2,
        "heldout_loss": 0.31, "kept_after_images": 3200, "floors": floors, "distance": 0.1,
        "distance_against": "held-out pictures",
    }  # fmt: skip
    lines = came_to_lines(stage, "heun, 7 calls", two_calls=True)
    assert [line.split(":")[0] for line in lines] == [
        *("trained", "kept", "sampler", "floors", "second call"),
    ]
    assert "floors: 4.0 (3.0 to 5.0), 1 or less is best, from held-out pictures" in lines[3]
    few = stage | {"floors": floors | {"value": 0.0, "low": -3.0, "high": 9.0, "num_real": 20}}
    assert "cannot tell with 20 pictures" in came_to_lines(few)[2]  # and no 0.0, which is praise
    assert "from 3,200 of 6,400 images; later ones were worse" in lines[1]
    assert not any("distance" in line for line in lines)
    assert max(len(line.split()) for line in lines) < 30


def test_a_slow_training_says_so_at_its_end() -> None:
    stage = {"steps": 1, "images": 8, "seconds": 1.0, "budget": "1s"}
    slow = came_to_lines(stage | {"speed": {"mean": 6.0, "possible": 557.0}})
    assert slow[1].startswith("slow: 6 images/s on average, where 557 are possible; another prog")
    assert len(came_to_lines(stage | {"speed": {"mean": 400.0, "possible": 557.0}})) == 1


def test_a_stage_of_an_older_version_shows_its_distance() -> None:
    stage = {"steps": 1, "images": 8, "seconds": 1.0, "budget": "1s", "distance": 0.1234}
    assert came_to_lines(stage)[-1] == "distance: 0.1234"


@pytest.mark.parametrize(
    ("run", "shown"), [("mine", "mine.png"), (".", "../a.png"), ("..", "../../sets.png")]
)
def test_a_file_beside_a_run_has_its_name(
    run: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sets" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "sets" / "a")
    assert str(beside(Path(run), ".png")) == shown
