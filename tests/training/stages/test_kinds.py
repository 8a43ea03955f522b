"""Kinds: pictures without classes are sorted by likeness and drawn as often as they occur."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import noisewise
from noisewise.pictures.pictures import Pictures
from noisewise.training.devices.engine import Engine
from noisewise.training.files.atomic import load_state, save_state
from noisewise.training.run.kinds_file import NAME
from noisewise.training.run.run import Run
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.kinds import (
    find_centres,
    nearest_centre,
    num_kinds,
    sorted_into_kinds,
    sorted_like,
)
from noisewise.training.stages.plan import plan_teacher
from tiny import blobs, build, tiny_pictures

RECIPE = TeacherRecipe(batch=16, distance_images=0, sampler_images=0)
FOUR = TrainConfig(budget="64images", kinds=4, recipe=RECIPE)


def shades(counts: tuple[int, ...]) -> Pictures:
    """So many pictures of each shade of grey, mixed, with a little noise."""
    generator = np.random.default_rng(0)
    levels = np.linspace(30, 220, len(counts))
    truth = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    noise = generator.normal(0, 4, (len(truth), 8, 8, 1))
    images = (levels[truth][:, None, None, None] + noise).astype(np.uint8)
    return replace(tiny_pictures(len(truth)), images=images, labels=truth, classes=("a", "b", "c"))


def test_centres_are_the_means_of_separate_clouds() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0], [4.5, 20.0]])
    which = torch.arange(500) % 5
    points = truth[which] + 0.3 * torch.randn(500, 2, generator=generator)
    centres = find_centres(points, 5, generator)
    means = torch.stack([points[which == k].mean(0) for k in range(5)])
    order = torch.cdist(means, centres).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4]
    torch.testing.assert_close(centres[order], means)


def test_the_centres_lie_still_and_are_nearer_than_random_ones() -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(600, 3, generator=generator)
    centres = find_centres(points, 8, generator)
    labels = nearest_centre(points, centres)
    means = torch.stack([points[labels == k].mean(0) for k in range(8)])
    assert (means - centres).norm(dim=1).max() < 0.05

    def spread(of: torch.Tensor) -> float:
        return float(torch.cdist(points, of).amin(1).square().mean())

    assert spread(centres) < 0.8 * spread(points[torch.randperm(600, generator=generator)[:8]])


def test_kinds_are_the_shades_largest_first() -> None:
    pictures = shades((100, 300, 200))
    found = sorted_into_kinds(pictures, replace(FOUR, kinds=3))
    assert found.classes == ("kind 1", "kind 2", "kind 3")
    assert found.label_histogram == (300, 200, 100)
    assert pictures.labels is not None
    assert found.labels is not None
    assert found.labels.tolist() == [{1: 0, 2: 1, 0: 2}[k] for k in pictures.labels.tolist()]
    assert found.kinds == "set by hand"
    assert found.fingerprint == pictures.fingerprint


def test_the_same_seed_gives_the_same_kinds() -> None:
    pictures = tiny_pictures(200)
    first, again = (sorted_into_kinds(pictures, replace(FOUR, seed=3)).labels for _ in range(2))
    assert first is not None
    assert again is not None
    assert first.tolist() == again.tolist()


def test_equal_pictures_are_one_kind() -> None:
    flat = replace(tiny_pictures(50), images=np.full((50, 8, 8, 1), 7, np.uint8))
    found = sorted_into_kinds(flat, FOUR)
    assert found.label_histogram == (50,)


@pytest.mark.parametrize("config", [TrainConfig(classes=True), TrainConfig(kinds=0), TrainConfig()])
def test_nothing_is_sorted_where_classes_are_learnt_or_pictures_are_few(
    config: TrainConfig,
) -> None:
    pictures = tiny_pictures(96)
    assert sorted_into_kinds(pictures, config) is pictures


def test_the_number_follows_the_number_of_pictures() -> None:
    config = TrainConfig()
    assert [num_kinds(config, n)[0] for n in (399, 400, 1631, 60_000)] == [0, 2, 8, 32]
    with pytest.raises(ValueError, match="96 pictures are too few for 200 kinds"):
        num_kinds(TrainConfig(kinds=200), 96)


def test_the_plan_conditions_on_kinds_and_says_why() -> None:
    pictures = sorted_into_kinds(tiny_pictures(96), FOUR)
    plan = plan_teacher(FOUR, pictures, Engine.choose("cpu"))
    assert plan.classes == ("kind 1", "kind 2", "kind 3", "kind 4")
    assert plan.reasons["classes"] == "kinds of similar pictures: set by hand"
    assert plan_teacher(FOUR, tiny_pictures(96), Engine.choose("cpu")).classes == ()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "blobs.npz"
    np.savez(path, images=blobs(128, 8))
    return path


def test_a_run_draws_each_kind_as_often_as_there_are_pictures(data: Path, tmp_path: Path) -> None:
    run = noisewise.train(data, tmp_path / "run", config=FOUR, build=build)
    teacher = run.teacher(build)
    histogram = torch.tensor(teacher.config.label_histogram)
    assert histogram.sum() == 128
    labels = teacher.labels(0, 0, 8192, None)
    assert labels is not None
    share, wanted = torch.bincount(labels, minlength=4) / 8192, histogram / 128
    assert ((share - wanted).abs() < 4 * (wanted / 8192).sqrt()).all()
    assert teacher.sample(3, label="kind 2").shape == (3, 1, 8, 8)
    again = noisewise.train(data, tmp_path / "run", config=FOUR, build=build)
    assert again.finished("teacher")
    assert teacher.config.stats["kinds"] == "set by hand"


def test_other_pictures_are_sorted_as_the_teacher_draws_its_kinds() -> None:
    pictures = sorted_into_kinds(shades((100, 300, 200)), replace(FOUR, kinds=3))

    class Drawing:
        """Draws flat pictures of each kind's shade."""

        config = SimpleNamespace(stats={"kinds": "by hand"}, classes=pictures.classes)

        def sample(self, count: int, seed: int, label: int) -> torch.Tensor:
            shade = {0: 125, 1: 220, 2: 30}[label] / 127.5 - 1
            return torch.full((count, 1, 8, 8), shade)

    again = sorted_like(Drawing(), shades((30, 50, 20)))  # pyrefly: ignore[bad-argument-type]
    assert again.label_histogram == (50, 20, 30)
    assert again.classes == pictures.classes
    Drawing.config.stats = {}
    untold = shades((30, 50, 20))
    assert sorted_like(Drawing(), untold) is untold  # pyrefly: ignore[bad-argument-type]


def test_a_run_from_before_there_were_kinds_goes_on_without(data: Path, tmp_path: Path) -> None:
    config = TrainConfig(budget="64images", kinds=0, recipe=RECIPE)
    np.savez(data, images=blobs(450, 8))
    run = noisewise.train(data, tmp_path / "run", config=config, build=build)
    path = run.path / "run.json"
    info = json.loads(path.read_text())
    del info["train"]["kinds"], info["seal"]
    path.write_text(json.dumps(info))
    config = replace(config, kinds=None, budget="128images")
    noisewise.train(data, run.path, config=config, build=build)
    assert run.teacher(build).config.classes == ()
    fresh = noisewise.train(data, tmp_path / "new", config=config, build=build)
    assert fresh.teacher(build).config.classes == ("kind 1", "kind 2")


@pytest.fixture
def stopped(data: Path, tmp_path: Path) -> Run:
    """A training with kinds that was stopped half-way."""
    counter = itertools.count()
    return noisewise.train(
        data, tmp_path / "run", config=FOUR, build=build, stop=lambda: next(counter) >= 2
    )


def test_a_run_goes_on_with_the_kinds_that_it_keeps(stopped: Run, data: Path) -> None:
    """Numbered otherwise, as another torch might: what the run was begun with counts."""
    path = stopped.path / NAME
    kept = load_state(path)
    before = torch.bincount(kept["labels"], minlength=4)
    save_state(path, {**kept, "labels": 3 - kept["labels"]})
    run = noisewise.train(data, stopped.path, config=FOUR, build=build)
    assert run.teacher(build).config.label_histogram == tuple(before.flip(0).tolist())
    assert len(set(before.tolist())) > 1


def test_damaged_kinds_are_found_again_or_refused(stopped: Run, data: Path, tmp_path: Path) -> None:
    path = stopped.path / NAME
    whole = path.read_bytes()
    shutil.copytree(stopped.path, tmp_path / "other")
    path.write_bytes(whole[:-9])
    run = noisewise.train(data, stopped.path, config=FOUR, build=build)
    assert path.read_bytes() == whole
    assert load_state(path)["labels"].bincount().tolist() == list(
        run.teacher(build).config.label_histogram
    )
    other = Run.open(tmp_path / "other")
    other.info["data"]["kinds"] = "0" * 32  # as if this torch sorted otherwise
    other.write()
    (other.path / NAME).write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=r"damaged .*gives other kinds than before"):
        noisewise.train(data, other.path, config=FOUR, build=build)
