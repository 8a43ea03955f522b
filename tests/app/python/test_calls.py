"""The verbs as Python users call them: progress, interrupts that save, pictures in memory."""

from __future__ import annotations

import inspect
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import noisewise
from noisewise.app.python.interrupt import Interrupt
from noisewise.training.adapt import adapt
from noisewise.training.distill import distill
from noisewise.training.evaluate import evaluate
from noisewise.training.run.run import Run
from noisewise.training.settings.config import DistillConfig, TrainConfig
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe
from noisewise.training.stages.record import Record
from noisewise.training.train import train
from tiny import blobs, build

CONFIG = TrainConfig(
    recipe=TeacherRecipe(batch=16, distance_images=32, sampler_images=0), checkpoint_seconds=1e9
)
DISTIL = DistillConfig(recipe=StudentRecipe(batch=16, distance_images=32), checkpoint_seconds=1e9)
PICTURES = blobs(128, 8)


@pytest.mark.parametrize("verb", [train, distill, adapt, evaluate], ids=lambda verb: verb.__name__)
def test_the_calls_take_all_that_the_verbs_take(verb: Callable[..., Any]) -> None:
    """And say the same about it."""
    ours = getattr(noisewise, verb.__name__)
    assert ours is not verb
    given, known = inspect.signature(ours).parameters, inspect.signature(verb).parameters
    for name, parameter in known.items():
        assert given[name].default == parameter.default, name
        assert given[name].annotation == parameter.annotation, name
        assert given[name].kind == parameter.kind, name
    assert list(given)[: len(known)] == list(known)
    for name in given:
        assert f"        {name}:" in (ours.__doc__ or ""), name


def interrupt_at(step: int, times: int = 1) -> Callable[[Record], None]:
    """Presses Ctrl-C at a step."""

    def press(record: Record) -> None:
        if record.step == step and record.kind == "step":
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)

    return press


def test_an_interrupt_saves_and_says_how_to_resume(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"saved at step (\d+); to resume, call again: "):
        noisewise.train(
            PICTURES,
            tmp_path / "run",
            "640images",
            config=CONFIG,
            build=build,
            on_record=interrupt_at(7),
        )
    assert signal.getsignal(signal.SIGINT) is handler
    run = Run(tmp_path / "run")
    assert run.stage("teacher").stopped
    assert run.stage("teacher").steps == 7
    resumed: list[Record] = []
    calls = {"config": CONFIG, "build": build}
    run = noisewise.train(
        PICTURES, tmp_path / "run", "640images", on_record=resumed.append, **calls
    )
    assert resumed[0].kind == "resumed"
    assert resumed[0].step == 7
    assert run.finished("teacher")
    whole = noisewise.train(PICTURES, tmp_path / "whole", "640images", **calls)
    one, other = (found.teacher(build).state_dict() for found in (run, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_distillation_is_interrupted_in_the_same_way(tmp_path: Path) -> None:
    calls = {"config": CONFIG, "build": build}
    run = noisewise.train(PICTURES, tmp_path / "run", "320images", **calls)
    with pytest.raises(KeyboardInterrupt, match=r"saved at step 3; .*noisewise\.distill\("):
        noisewise.distill(run, "320images", config=DISTIL, build=build, on_record=interrupt_at(3))
    assert run.stage("generator").stopped


def test_a_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match="stopped at once"):
        noisewise.train(
            PICTURES,
            tmp_path / "run",
            "640images",
            config=CONFIG,
            build=build,
            on_record=interrupt_at(5, times=2),
        )
    resumed: list[Record] = []
    calls = {"config": CONFIG, "build": build, "on_record": resumed.append}
    noisewise.train(PICTURES, tmp_path / "run", "640images", **calls)
    assert resumed[0].step == 5  # between two steps nothing is half done, so it was saved


def test_an_interrupt_that_a_callback_raises_saves_too(tmp_path: Path) -> None:
    def fall(record: Record) -> None:
        if record.step == 6:
            raise KeyboardInterrupt

    calls = {"config": CONFIG, "build": build}
    with pytest.raises(KeyboardInterrupt):
        noisewise.train(PICTURES, tmp_path / "run", "640images", on_record=fall, **calls)
    resumed: list[Record] = []
    noisewise.train(PICTURES, tmp_path / "run", "640images", on_record=resumed.append, **calls)
    assert resumed[0].step == 6


def test_handlers_of_others_stay() -> None:
    """Of a program that handles interrupts itself, and outside of the main thread."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGINT)
            assert not interrupt()
        assert pressed == [1]
    finally:
        signal.signal(signal.SIGINT, before)
    found: list[bool] = []

    def elsewhere() -> None:
        with Interrupt() as interrupt:
            found.append(interrupt())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [False]


def test_a_stop_of_the_caller_stops_without_an_interrupt(tmp_path: Path) -> None:
    steps: list[int] = []
    run = noisewise.train(
        PICTURES,
        tmp_path / "run",
        "640images",
        config=CONFIG,
        build=build,
        on_record=lambda record: steps.append(record.step),
        stop=lambda: len(steps) > 4,
    )
    assert not run.finished("teacher")


def test_progress_is_shown_when_it_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here is no terminal: nothing unless it is asked for, and never anything on stdout."""
    calls = {"config": CONFIG, "build": build}
    for progress, words in ((None, ""), (False, ""), (True, "teacher: done after")):
        seen: list[Record] = []
        place = tmp_path / f"{progress}"
        noisewise.train(
            PICTURES, place, "160images", progress=progress, on_record=seen.append, **calls
        )
        said = capsys.readouterr()
        assert said.out == ""
        assert (words in said.err) if words else said.err == ""
        assert seen[-1].kind == "finished"


def ways() -> dict[str, Any]:
    pictures = [Image.fromarray(pixels[..., 0]) for pixels in PICTURES]
    labels = [i % 2 for i in range(len(PICTURES))]
    return {
        "array": PICTURES,
        "tensor": torch.from_numpy(PICTURES).permute(0, 3, 1, 2).float() / 255,
        "list": pictures,
        "dataset": list(zip(pictures, labels, strict=True)),
    }


@pytest.mark.parametrize("way", ["array", "tensor", "list", "dataset"])
def test_pictures_in_memory_train_resume_and_are_evaluated(way: str, tmp_path: Path) -> None:
    calls = {"config": CONFIG, "build": build}
    with pytest.raises(KeyboardInterrupt):
        noisewise.train(
            ways()[way], tmp_path / "run", "320images", on_record=interrupt_at(4), **calls
        )
    run = noisewise.train(ways()[way], tmp_path / "run", "320images", **calls)
    assert run.finished("teacher")
    given = [path.name for path in (run.path / "cache").iterdir() if path.name.startswith("given")]
    source = run.source()
    assert source is not None
    assert given == [source.name]
    assert source.parent == run.path / "cache"
    (run.path).rename(tmp_path / "moved")  # with the run, the pictures move
    moved = Run(tmp_path / "moved")
    assert moved.source() == tmp_path / "moved" / "cache" / given[0]
    assert len(moved.pictures()) == 128
    assert noisewise.evaluate(moved, num_images=32, build=build).num_images == 32


def test_other_pictures_in_the_same_run_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    calls = {"config": CONFIG, "build": build}
    run = noisewise.train(PICTURES, tmp_path / "run", "160images", **calls)
    before = sorted((run.path / "cache").iterdir())
    with pytest.raises(ValueError, match="was trained on other pictures"):
        noisewise.train(blobs(128, 8, seed=1), tmp_path / "run", "160images", **calls)
    assert sorted((run.path / "cache").iterdir()) == before
    with pytest.raises(ValueError, match="name a folder for the run, out='runs/mine'"):
        noisewise.train(PICTURES)
    with pytest.raises(ValueError, match="there are no pictures"):
        noisewise.train([], tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_pictures_in_memory_can_be_inspected_and_planned() -> None:
    found = noisewise.inspect(PICTURES)
    assert found.num_pictures == 128
    assert "pictures in memory" in repr(found)
    assert noisewise.plan(torch.from_numpy(PICTURES), CONFIG).size == 8


def test_a_list_of_names_is_no_list_of_pictures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the first item holds a str in place of a picture"):
        noisewise.train(["a.png", "b.png"], tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert np.asarray(PICTURES).dtype == np.uint8
