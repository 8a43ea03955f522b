"""What `distill` refuses about several calls, adapters and pictures leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import noisewise
from noisewise.app.cli import main
from noisewise.app.report.charts import learning_curves
from noisewise.app.report.collect import _points, _teacher_steps
from noisewise.app.report.facts import Facts
from noisewise.training.models.models import Generator
from noisewise.training.run.run import Run
from noisewise.training.settings.config import DistillConfig, TrainConfig
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe

QUICK = StudentRecipe(batch=16, distance_images=16, two_call_sigmas=(0.3,))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a small teacher and its pictures."""
    folder = tmp_path_factory.mktemp("choices")
    source = np.random.default_rng(0)
    at = source.uniform(2, 6, (80, 2, 1, 1))
    rows, columns = np.mgrid[:8, :8]
    dots = np.exp(-((rows - at[:, 0]) ** 2 + (columns - at[:, 1]) ** 2) / 3)
    np.savez(folder / "dots.npz", images=(255 * dots[..., None]).astype(np.uint8))
    recipe = TeacherRecipe(sampler_images=0, distance_images=0)
    config = TrainConfig(
        budget="64images", device="cpu", threads=1, widths=(8, 8), kinds=0, recipe=recipe
    )
    noisewise.train(folder / "dots.npz", out=folder / "run", config=config, progress=False)
    return folder / "run"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--calls", "3"], "use --calls 1, 2 or 4"),
        (["--rank", "4"], "add --student lora"),
        (["--student", "lora", "--rank", "4000"], "above the width"),
        (["--data-weight", "2"], "data weight of 2"),
        (["--guidance", "1.5"], "leave --guidance out"),
        (["--guidance", "0.5"], "use 1 for none, up to 5"),
        (["--guidance", "nan"], "use 1 for none, up to 5"),
        (["--guidance", "50"], "use 1 for none, up to 5"),
        (["--data-term", "sida"], "add --data-weight 0.5"),
        (["--data-term", "gan", "--data-weight", "0.5"], "realuid"),
        (["--data-term", "sida", "--data-weight", "0.5", "--through", "none"], "--through both"),
        (["--data", "dots.npz"], "add --data-weight"),
        (["--data-weight", "0.1", "--data", "nowhere"], "leave --data-weight out"),
    ],
)
def test_a_refusal_is_a_sentence_and_writes_nothing(
    run: Path,
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "lora" in words:
        pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")
    monkeypatch.chdir(tmp_path)
    code = main(["distill", "new", "--teacher", str(run), "--budget", "32images", *words])
    said = " ".join(capsys.readouterr().err.split())
    assert code == 2
    assert message in said
    assert not list(tmp_path.iterdir())


def test_pictures_of_nobody_are_refused_for_a_model_from_python(run: Path, tmp_path: Path) -> None:
    config = DistillConfig(data_weight=0.1, budget="32images")
    with pytest.raises(ValueError, match="give a run as the teacher"):
        noisewise.distill(tmp_path / "new", teacher=Run(run).teacher(), config=config)
    assert not list(tmp_path.iterdir())


def of(**more: Any) -> DistillConfig:  # noqa: ANN401
    return DistillConfig(budget="64images", device="cpu", threads=1, recipe=QUICK, **more)


def test_a_run_of_all_of_it_resumes_only_as_it_was(run: Path, tmp_path: Path) -> None:
    config = of(calls=2, data_weight=0.06)
    made = noisewise.distill(tmp_path / "new", teacher=run, config=config, progress=False)
    assert made.network_calls() == 2
    again = noisewise.load(tmp_path / "new")
    assert isinstance(again, Generator)
    assert (again.sample(3) == made.sample(3)).all()
    with pytest.raises(ValueError, match="calls was 2 and is now 1"):
        noisewise.distill(tmp_path / "new", config=of(data_weight=0.06), progress=False)
    noted = Run(tmp_path / "new").info["stages"]["generator"]
    assert set(noted["floors_by_call"]) == {"1", "2"}


def test_an_adversary_draws_and_is_noted(run: Path, tmp_path: Path) -> None:
    config = of(data_weight=0.5, data_term="sida")
    made = noisewise.distill(tmp_path / "new", teacher=run, config=config, progress=False)
    assert made.sample(2).isfinite().all()
    with pytest.raises(ValueError, match="data_term was 'sida' and is now 'realuid'"):
        noisewise.distill(tmp_path / "new", config=of(data_weight=0.5), progress=False)


def test_the_teacher_in_few_steps_is_in_the_log_and_the_report(run: Path, tmp_path: Path) -> None:
    config = replace(of(), budget="704images")  # 16 pictures in 43 calls each
    noisewise.distill(tmp_path / "new", teacher=run, config=config, progress=False)
    records = [r for r in Run(tmp_path / "new").records() if r.stage == "generator"]
    (rows,) = [r.teacher_steps for r in records if r.teacher_steps]
    assert [row[0] for row in rows] == [1, 2, 4, 8, 18]
    assert all(row[2] > 0 for row in rows)
    assert rows[-1][1] < rows[0][1], "18 steps are nearer to its own pictures than one"
    timed = [r for r in records if r.milliseconds]
    assert len(timed) == 2
    steps = _teacher_steps(records)
    assert [row[0] for row in steps] == [1, 2, 4, 8, 18]
    *before, last = _points(records)
    assert last.floors is None, "a run this short has no floors of its generator"
    points = (*before, replace(last, floors=steps[1][1]))
    facts = Facts("new", "new", 8, 1, 80, "dots", True, True, points=points)
    ms = timed[-1].milliseconds
    page = learning_curves(replace(facts, teacher_steps=steps, generator_milliseconds=ms))
    assert "What one call is worth" in page
    assert "The generator is worth" in page
    assert "teacher, 1, 2, 4, 8 and 18 steps" in page


def test_the_same_seed_gives_the_same_generator(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")
    config = of(calls=2, student="lora", rank=2, data_weight=0.06)
    one, two = (
        noisewise.distill(tmp_path / name, teacher=run, config=config, progress=False)
        for name in ("one", "two")
    )
    assert (one.sample(4) == two.sample(4)).all()
    assert not any("lora" in name for name in one.state_dict())
