"""The split: near-twins stay on one side, old runs keep theirs, flips do not count twins."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import noisewise
from noisewise.pictures.near_duplicates import near_duplicates
from noisewise.pictures.pictures import Pictures
from noisewise.pictures.split import groups_of
from noisewise.training.inspect import inspect
from noisewise.training.run.run import Run
from noisewise.training.run.run_json import write_info
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.training_set import TrainingSet

CONFIG = TrainConfig(
    budget="32images", widths=(4, 4), recipe=TeacherRecipe(batch=16, distance_images=0)
)


def in_memory(images: np.ndarray) -> Pictures:
    return Pictures(images, None, (), (), (), "", "", ())


def patches(num_images: int, seed: int = 0) -> np.ndarray:
    """Coarse noise of 16 x 16: no two are alike, and left and right do not matter."""
    coarse = np.random.default_rng(seed).integers(20, 200, (num_images, 4, 4, 1), dtype=np.uint8)
    return np.kron(coarse, np.ones((1, 4, 4, 1), np.uint8))


def with_twins(num_images: int, copies: int) -> np.ndarray:
    """Every picture, and `copies` slightly brighter ones of it; twins are `num_images` apart."""
    images = patches(num_images)
    return np.concatenate([images + 2 * np.uint8(i) for i in range(copies + 1)])


@pytest.mark.parametrize(("copies", "seed"), [(1, 0), (1, 5), (3, 0), (9, 1)])
def test_near_twins_stay_on_one_side(copies: int, seed: int) -> None:
    pictures = in_memory(with_twins(100, copies))
    training, held_out = pictures.split(seed)
    assert sorted([*training, *held_out]) == list(range(len(pictures)))
    wanted = min(64, len(pictures) // 5)
    assert wanted - copies <= len(held_out) <= wanted
    assert not {i % 100 for i in training} & {i % 100 for i in held_out}
    np.testing.assert_array_equal(held_out, in_memory(with_twins(100, copies)).split(seed)[1])
    assert not np.array_equal(held_out, pictures.split(seed + 1)[1])
    assert pictures.about_twins() == (
        "100 groups of near-twins: each is wholly in training or wholly held out"
    )
    plain = pictures.with_twins(()).split(seed)
    assert {i % 100 for i in plain[0]} & {i % 100 for i in plain[1]}, "twins divide without it"


def test_a_film_is_divided_and_says_so() -> None:
    """One group of all pictures cannot be held out whole; nor may it leave nothing to train on."""
    film = np.arange(120, dtype=np.uint8).reshape(-1, 1, 1, 1) + patches(1)[0] // 4
    pictures = in_memory(film)
    assert len(near_duplicates(film)) > 100
    training, held_out = pictures.split(0)
    assert len(held_out) == 24
    np.testing.assert_array_equal(held_out, pictures.with_twins(()).split(0)[1])
    assert "1 group of near-twins is too large to be held out whole" in pictures.about_twins()
    both = in_memory(np.concatenate([film, with_twins(20, 1)]))
    assert both.about_twins().startswith("20 groups of near-twins: each")
    assert len(training) + len(held_out) == 120


def test_pairs_join_to_groups_as_a_graph_does() -> None:
    """Against the powers of the matrix of neighbours."""
    generator = np.random.default_rng(0)
    for _ in range(20):
        marks = generator.integers(0, 40, 60)
        pairs = generator.integers(0, 60, (15, 2))
        linked = marks[:, None] == marks[None]
        linked[pairs[:, 0], pairs[:, 1]] = linked[pairs[:, 1], pairs[:, 0]] = True
        reached = np.linalg.matrix_power(linked.astype(float), 60) > 0
        found = groups_of(marks, [(int(a), int(b)) for a, b in pairs], largest=60).group
        np.testing.assert_array_equal(found[:, None] == found[None], reached)
        assert set(found) == set(range(found.max() + 1))


def test_without_twins_it_is_the_split_of_older_versions() -> None:
    """Computed with the version before near-twins were kept together."""
    marks = np.arange(60, dtype=np.uint8)
    marks[30:] //= 3
    held_out = in_memory(marks.reshape(-1, 1, 1, 1)).with_twins(()).split(7)[1]
    assert held_out.tolist() == [44, 43, 38, 36, 42, 12, 6, 29, 20, 3, 14, 37]
    noise = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1), dtype=np.uint8)
    noise[50:60] = noise[40:50]
    held_out = in_memory(noise).split(0)[1].tolist()
    assert held_out[:10] == [71, 4, 97, 68, 34, 6, 74, 13, 55, 45]
    assert held_out[10:] == [59, 24, 14, 86, 99, 83, 95, 49, 7, 23]


def test_a_run_stores_its_twins_and_an_old_run_has_none(tmp_path: Path) -> None:
    source = tmp_path / "twins.npz"
    np.savez(source, images=with_twins(60, 1))
    run = noisewise.train(source, tmp_path / "run", config=CONFIG)
    assert run.info["data"]["twins"] == [[i, i + 60] for i in range(60)]
    assert "60 groups of near-twins" in run.info["data"]["notes"][-1]
    side = TrainingSet.read(run)
    assert not {i % 60 for i in side.trained} & {i % 60 for i in side.held_out}
    assert run.info["data"]["num_held_out"] == len(side.held_out)
    # A run of a version before has no entry: it resumes with the split that it began with.
    del run.info["data"]["twins"]
    write_info(run.path, json.loads(json.dumps(run.info)), damaged=False)
    old = TrainingSet.read(Run(run.path))
    np.testing.assert_array_equal(old.held_out, run.pictures().with_twins(()).split(0)[1])
    seen: list[str | None] = []
    noisewise.train(source, run.path, "64images", config=CONFIG,
                    on_record=lambda record: seen.append(record.event))  # fmt: skip
    assert seen[0] == "resumed at step 2"
    assert Run(run.path).data.twins == ()


def test_twins_that_only_other_versions_find_do_not_move_a_run(tmp_path: Path) -> None:
    """The stored pairs count, not those that are found now."""
    source = tmp_path / "twins.npz"
    np.savez(source, images=with_twins(60, 1))
    run = noisewise.train(source, tmp_path / "run", config=CONFIG)
    run.info["data"]["twins"] = [[0, 1], [1, 2]]
    run.write()
    found = Run(run.path).pictures()
    assert found.twins == ((0, 1), (1, 2))
    assert all(
        any({a, b} <= set(side.tolist()) for side in found.split(0)) for a, b in pairwise(range(3))
    )


def test_a_resumed_run_keeps_its_flips(tmp_path: Path) -> None:
    source = tmp_path / "free.npz"
    np.savez(source, images=patches(80))
    run = noisewise.train(source, tmp_path / "run", config=CONFIG)
    derived = run.info["derived"]["flips"]
    assert derived["value"]
    derived["value"], derived["reason"] = False, "as an older version measured"
    run.write()
    config = replace(CONFIG, batch=8, lr=1e-3)
    run.info["train"]["lr"] = 1e-3
    run.write()
    after = noisewise.train(source, run.path, "64images", config=config)
    assert after.info["derived"]["batch"]["value"] == 8
    assert after.info["derived"]["flips"] == {
        "value": False,
        "reason": "as an older version measured",
    }


def test_inspect_says_what_the_split_does(tmp_path: Path) -> None:
    source = tmp_path / "twins.npz"
    np.savez(source, images=with_twins(60, 1))
    found = inspect(source)
    assert found.num_near == 60
    assert "  - 60 groups of near-twins: each is wholly in training" in found.text()
    assert found.to_dict()["twins"] == found.twins
    np.savez(source, images=patches(60))
    assert inspect(source).twins == ""


@pytest.mark.parametrize("copies", [0, 1, 2, 5])
def test_twins_do_not_decide_on_flips(copies: int) -> None:
    """A picture is near its twins and its mirror image is not, also where sides do not matter."""
    assert in_memory(with_twins(120, copies)).suggest_flip()[0]
    exact = np.concatenate([patches(120)] * (copies + 1))
    assert in_memory(exact).suggest_flip()[0]
    arrows = with_twins(120, copies)
    arrows[:, :, 8:] = arrows[:, :, 8:] // 4 + 150
    assert not in_memory(arrows).suggest_flip()[0]


def test_a_film_has_a_decision_on_flips() -> None:
    film = np.arange(120, dtype=np.uint8).reshape(-1, 1, 1, 1) + patches(1)[0] // 4
    assert not in_memory(film).suggest_flip()[0]
