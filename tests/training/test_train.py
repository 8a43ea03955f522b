from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import noisewise
from noisewise.training.evaluate import evaluate
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.run.run import Run
from noisewise.training.settings.config import DistillConfig, TrainConfig
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe
from noisewise.training.stages.loop import TrainingFailed
from noisewise.training.stages.record import Record
from tiny import blobs, build

TEACH = TrainConfig(
    budget="480images",
    recipe=TeacherRecipe(
        batch=16,
        distance_images=64,
        heldout_every=0.25,
        distance_every=0.5,
        sampler_images=0,
    ),
)
DISTIL = DistillConfig(
    budget="320images",
    recipe=StudentRecipe(batch=16, distance_images=64, distance_every=0.5),
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "blobs.npz"
    labels = np.arange(128) % 2
    np.savez(path, images=blobs(128, 8), labels=labels)
    return path


def train(data: Path, out: Path, config: TrainConfig = TEACH, **more: Callable) -> Run:  # pyrefly: ignore
    return noisewise.train(data, out, config=config, build=build, **more)  # pyrefly: ignore


def stop_after(records: int) -> Callable[[], bool]:
    counter = itertools.count()
    return lambda: next(counter) >= records


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_from_pictures_to_a_generator_without_the_pictures(data: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run")
    assert run.finished("teacher")
    expected = evaluate(run, num_images=64, build=build).to_dict()
    assert set(expected) >= {
        *("model", "num_images", "distance", "distance_low", "distance_high", "floor"),
        *("wasserstein", "copies", "seconds_per_image", "network_calls", "device"),
    }
    assert expected["network_calls"] == run.teacher(build).sampler.calls
    assert expected["copies"]["threshold"] == pytest.approx(1 / 3)
    data.unlink()  # distillation is data-free: only the teacher is read
    shutil.rmtree(tmp_path / "run" / "cache", ignore_errors=True)
    generator = noisewise.distill(run, config=DISTIL, build=build)
    assert run.finished("generator")
    assert isinstance(generator, Generator)
    pictures = generator.sample(5, seed=1)
    assert pictures.shape == (5, 1, 8, 8)
    assert pictures.abs().max() <= 1
    if generator.config.two_call_sigma is None:  # measured: a second call is not surely better
        with pytest.raises(ValueError, match="two calls are not offered"):
            generator.sample(2, calls=2)
    else:
        assert generator.sample(2, calls=2).shape == (2, 1, 8, 8)
    files = {p.relative_to(run.path).as_posix() for p in run.path.rglob("*") if p.is_file()}
    assert files >= {
        *("run.json", "log.jsonl", "teacher/config.json", "teacher/model.safetensors"),
        *("generator/config.json", "generator/model.safetensors", "generator/README.md"),
        *("checkpoints/teacher-0000030.safetensors", "checkpoints/generator-0000020.safetensors"),
        *("checkpoints/best-teacher/config.json", "checkpoints/best-generator/config.json"),
    }
    assert any(f.startswith("samples/teacher-") for f in files)
    assert any(f.startswith("samples/generator-") for f in files)
    assert not any(f.endswith((".tmp", ".pkl", ".pt")) for f in files)
    assert {r.stage for r in run.records()} == {"teacher", "generator"}
    loaded = noisewise.load(run.path, build=build)
    assert isinstance(loaded, Generator)
    torch.testing.assert_close(loaded.sample(5, seed=1), pictures)
    assert isinstance(noisewise.load(run.path, "teacher", build=build), Teacher)
    assert isinstance(noisewise.load(run.path / "teacher", build=build), Teacher)
    with pytest.raises(
        ValueError, match="are missing; say where they are now with --data FOLDER, or"
    ):
        evaluate(run, build=build)


def test_the_same_command_goes_on_and_ends_as_if_never_stopped(data: Path, tmp_path: Path) -> None:
    whole = train(data, tmp_path / "whole")
    half = train(data, tmp_path / "half", stop=stop_after(11))
    assert not half.finished("teacher")
    assert not (half.path / "teacher").exists()
    half = train(data, tmp_path / "half")
    assert half.finished("teacher")
    assert weights(half.path / "teacher") == weights(whole.path / "teacher")
    steps = [r.step for r in half.records() if r.loss is not None]
    assert steps == sorted(set(steps))
    noisewise.distill(whole, config=DISTIL, build=build)
    stopped = noisewise.distill(half, config=DISTIL, build=build, stop=stop_after(7))
    assert stopped.sample(1).shape == (1, 1, 8, 8)
    assert not Run.open(half.path).finished("generator")
    assert not (half.path / "generator").exists()
    noisewise.distill(half.path, config=DISTIL, build=build)
    assert weights(half.path / "generator") == weights(whole.path / "generator")


def test_a_finished_run_is_left_alone_and_a_larger_budget_goes_on(
    data: Path, tmp_path: Path
) -> None:
    run = train(data, tmp_path / "run")
    before, seen = weights(run.path / "teacher"), []
    train(data, tmp_path / "run", on_record=seen.append)
    assert weights(run.path / "teacher") == before
    (record,) = seen
    assert isinstance(record, Record)
    assert "already finished" in (record.event or "")
    noisewise.train(data, tmp_path / "run", "640images", config=TEACH, build=build)
    assert weights(run.path / "teacher") != before
    assert Run.open(run.path).info["stages"]["teacher"]["images"] == 640


def test_a_generator_of_an_older_teacher_is_distilled_anew(data: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run")
    noisewise.distill(run, config=DISTIL, build=build)
    seen: list[Record] = []
    noisewise.distill(run, config=DISTIL, build=build, on_record=seen.append)
    assert "already finished" in (seen[0].event or "")
    with pytest.raises(
        ValueError, match="seed was 0 and is now 3; use the same settings, or remove"
    ):
        noisewise.distill(run, seed=3, config=DISTIL, build=build)
    noisewise.train(data, run.path, "640images", config=TEACH, build=build)
    seen.clear()
    noisewise.distill(run.path, config=DISTIL, build=build, on_record=seen.append)
    assert len(seen) > 20


def test_a_crash_between_checkpoints_loses_nothing_that_was_saved(
    data: Path, tmp_path: Path
) -> None:
    class Crash(BaseException):
        pass

    def crash(record: Record) -> None:
        if record.step == 17:
            raise Crash

    saving = TrainConfig(budget=TEACH.budget, recipe=TEACH.recipe, checkpoint_seconds=1e-6)
    with pytest.raises(Crash):
        train(data, tmp_path / "crashed", saving, on_record=crash)
    assert not (tmp_path / "crashed" / "teacher").exists()
    crashed = train(data, tmp_path / "crashed", saving)
    whole = train(data, tmp_path / "whole")
    assert weights(crashed.path / "teacher") == weights(whole.path / "teacher")


def test_a_failed_distillation_keeps_the_best_so_far(data: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run")
    recipe = StudentRecipe(batch=16, distance_images=64, lr=1e4, fake_lr=1e4)
    wild = DistillConfig(budget="3200images", recipe=recipe)
    with pytest.raises(TrainingFailed, match="the best generator so far is in"):
        noisewise.distill(run, config=wild, build=build)
    assert torch.isfinite(noisewise.load(run.path, build=build).sample(2)).all()
    assert not Run.open(run.path).finished("generator")


def test_classes_from_labels(data: Path, tmp_path: Path) -> None:
    config = TrainConfig(budget="160images", classes=True, recipe=TEACH.recipe)
    run = train(data, tmp_path / "run", config)
    teacher = run.teacher(build)
    assert len(teacher.classes) == 2
    assert not torch.equal(teacher.sample(2, label=0), teacher.sample(2, label=1))
    generator = noisewise.distill(run, config=DISTIL, build=build)
    assert run.finished("generator")
    assert generator.sample(2, label=1).shape == (2, 1, 8, 8)


# ---------------------------------------------------------------------- refusals
def test_what_cannot_be_used_is_refused_and_leaves_no_trace(data: Path, tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.mkdir()
    (words / "a.txt").write_text("no picture")
    out = tmp_path / "out"
    for path, size, message in (
        (words, None, "picture"),
        (tmp_path / "nowhere", None, "nowhere"),
        (data, 10, "10"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            noisewise.train(path, out, size=size, build=build)
        assert "\n" not in str(caught.value)
        assert not out.exists()


def test_a_size_far_above_the_files_is_refused_but_a_run_that_began_with_it_resumes(
    data: Path, tmp_path: Path
) -> None:
    config = replace(TEACH, size=32, budget="64images")  # the files have 8 pixels
    with pytest.raises(ValueError, match="use --size 8, or add --allow-enlarging"):
        train(data, tmp_path / "run", config)
    assert not (tmp_path / "run").exists()
    train(data, tmp_path / "run", replace(config, allow_enlarging=True), stop=stop_after(2))
    assert train(data, tmp_path / "run", config).finished("teacher")


def test_distill_before_train_and_models_that_are_none(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a run; train one first"):
        noisewise.distill(tmp_path / "nothing")
    unfinished = train(data, tmp_path / "run", stop=stop_after(3))
    with pytest.raises(
        ValueError, match=r"no finished teacher yet; resume its training, .*--budget"
    ):
        noisewise.distill(unfinished)
    with pytest.raises(ValueError, match="use generator, teacher or auto"):
        noisewise.load(unfinished, "both")  # pyrefly: ignore[bad-argument-type]
    train(data, tmp_path / "run")
    path = tmp_path / "run" / "teacher" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged") as caught:
        noisewise.distill(tmp_path / "run", build=build)
    assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_is_one_sentence(data: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run", stop=stop_after(3))
    (path,) = run.checkpoints("teacher").paths()
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="damaged"):
        train(data, tmp_path / "run")


# ---------------------------------------------------------------------- the public names
def test_the_public_names_are_lazy_and_stay_callable() -> None:
    code = (
        "import sys, noisewise; assert 'torch' not in sys.modules;"
        "first = noisewise.train; assert callable(first); import noisewise.training.train;"
        "import noisewise.app.python.train as home;"
        "assert callable(noisewise.train) and noisewise.train is first;"
        "assert noisewise.train is home.train;"
        "assert 'inspect' in dir(noisewise)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = noisewise.nonsense  # pyrefly: ignore
