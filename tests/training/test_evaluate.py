"""`evaluate` reads from a run what `measure` takes as values, and both give the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import noisewise
from noisewise.quality.copies import copy_test
from noisewise.quality.distance import distance, sliced_wasserstein
from noisewise.quality.eight_bits import rounded
from noisewise.quality.near_copies import NearCopyReference, NearCopyTest
from noisewise.quality.precision_recall import precision_recall
from noisewise.quality.told_apart import told_apart
from noisewise.quality.verdict import verdict
from noisewise.training.evaluate import (
    CopyTests,
    Measured,
    RealPictures,
    TrainingSet,
    evaluate,
    measure,
)
from noisewise.training.look import look_at
from noisewise.training.models.models import Teacher
from noisewise.training.run.run import Run
from noisewise.training.settings.config import EvaluateConfig, TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from tiny import blobs, build, tiny_pictures

NUM_IMAGES = 40


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of a tiny teacher."""
    folder = tmp_path_factory.mktemp("evaluate")
    np.savez(folder / "blobs.npz", images=blobs(128, 8))
    recipe = TeacherRecipe(batch=16, distance_images=0, sampler_images=0)
    config = TrainConfig(budget="160images", recipe=recipe)
    return noisewise.train(folder / "blobs.npz", folder / "run", config=config, build=build)


def test_every_number_is_that_of_the_plain_functions(run: Run) -> None:
    """The model, the pictures and the four measures called one by one give each digit."""
    found = evaluate(run, num_images=NUM_IMAGES, seed=3, build=build)
    model, pictures = run.teacher(build), run.pictures()
    trained, held_out = pictures.split(run.info["seed"])
    drawn, real = model.sample(NUM_IMAGES, 3), pictures.tensor(trained)  # too few are held out
    expected = distance(drawn, real)
    assert (found.distance, found.distance_low, found.distance_high, found.floor) == (
        *(expected.value, expected.low, expected.high, expected.floor),
    )
    levels = sliced_wasserstein(drawn, real, generator=torch.Generator().manual_seed(0))
    assert found.wasserstein == tuple(levels)
    flips = pictures.suggest_flip()[0]
    copies = copy_test(drawn, real, pictures.tensor(held_out), flips=flips)
    assert found.copies is not None
    near = found.copies.pop("near")
    assert found.copies == {
        "fraction": copies.fraction,
        "low": copies.low,
        "high": copies.high,
        "threshold": copies.threshold,
        "held_out_fraction": copies.held_out_fraction,
    }
    reference = NearCopyReference(
        rounded(real), rounded(pictures.tensor(held_out)), flips=flips, false_alarms=0.05
    )
    test = reference.test(rounded(drawn))
    assert (near["fraction"], near["power"], near["says"]) == (
        *(test.fraction, test.power, test.verdict),
    )
    assert found.against == f"{len(trained)} training pictures (too few are held out)"
    assert found.network_calls == model.sampler.calls


def test_what_people_see_is_that_of_the_plain_functions(run: Run) -> None:
    """The verdict and its numbers; 40 pictures are enough to see bad ones."""
    found = evaluate(run, num_images=NUM_IMAGES, seed=3, build=build)
    drawn, training = run.teacher(build).sample(NUM_IMAGES, 3), TrainingSet.read(run)
    real = training.pictures.tensor(training.trained)
    told, both = told_apart(drawn, real), precision_recall(drawn, real)
    assert found.told_apart == {"share": told.accuracy, "low": told.low, "high": told.high}
    assert (found.precision, found.recall) == (both.precision, both.recall)
    floors = training.real(run.teacher(build)).judge.measure(drawn)
    assert {**found.floors, "seconds": 0} == {**floors.to_dict(), "seconds": 0}
    assert found.verdict == verdict(floors, told).word == "poor"
    assert found.fid is found.kid is None


def test_damage_is_seen_and_real_pictures_are_not_called_poor() -> None:
    """The distance in one set of features cannot say how many floors a fault is; the look can."""
    images = torch.from_numpy(blobs(1000)).permute(0, 3, 1, 2) / 127.5 - 1
    real = RealPictures(images[:500], "500 pictures")
    clean, noisy = look_at(images[500:], real), look_at(0.5 * images[500:], real)
    assert clean.verdict.word in ("as real", "close")
    assert noisy.verdict.word == "poor"
    assert clean.floors.value < 1.5 < noisy.floors.value
    assert {"verdict", "floors", "told_apart", "flat_area"} <= set(noisy.to_dict())


def test_fid_is_refused_before_anything_is_drawn(run: Run) -> None:
    """Nothing is downloaded, so a path that is wrong is an error at once."""
    config = EvaluateConfig(fid_weights="nowhere.pth")
    with pytest.raises(ValueError, match=r"nowhere\.pth does not exist: FID and KID need weights-"):
        evaluate(run, config=config, build=build)


def test_one_set_of_real_pictures_serves_any_number_of_models(run: Run) -> None:
    """What was prepared for the first model is as good for the second."""
    training = TrainingSet.read(run)
    real, copies = training.real(), CopyTests.of(training)
    model = run.teacher(build)
    assert isinstance(model, Teacher)
    config = EvaluateConfig(num_images=NUM_IMAGES)
    first, second = (measure(model, real, copies, config) for _ in range(2))
    assert first.look.floors.to_dict()["parts"] == second.look.floors.to_dict()["parts"]
    assert first.distance == second.distance
    assert first.copies is not None
    assert second.copies is not None
    assert torch.equal(first.copies.distance, second.copies.distance)
    assert torch.equal(first.pictures, model.sample(NUM_IMAGES, 0))
    assert second.near_copies is not None
    without = measure(model, real, None, config)
    assert without.copies is without.near_copies is None


def test_the_verdict_says_when_pictures_are_near_copies() -> None:
    """Training pictures with a little noise: the judge finds nothing, the reason names them."""
    images = torch.from_numpy(blobs(400)).permute(0, 3, 1, 2) / 127.5 - 1
    training, new = images[:200], images[200:]
    near = NearCopyReference(training, new, false_alarms=0.05)
    noise = 0.02 * torch.randn(training.shape, generator=torch.Generator().manual_seed(0))
    look = look_at(rounded(training + noise), RealPictures(training, "200 pictures"))
    copied, fresh = near.test(rounded(training + noise)), near.test(new)

    def reason(test: NearCopyTest) -> str:
        exact = copy_test(training, training, None)
        return str(Measured(training, 0.1, look, exact, test).to_dict()["verdict_reason"])

    assert copied.low > copied.allowed
    assert "of them are training pictures with small changes" in reason(copied)
    assert "training pictures with small changes" not in reason(fresh)


def test_other_real_pictures_can_be_given(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", images=blobs(64, 8, seed=5))
    found = evaluate(run, tmp_path / "other.npz", num_images=NUM_IMAGES, build=build)
    assert found.against == f"64 pictures of {tmp_path / 'other.npz'}"
    assert found.distance != evaluate(run, num_images=NUM_IMAGES, build=build).distance
    assert found.copies is not None


@pytest.mark.parametrize("count", [256, 255])
def test_few_held_out_pictures_are_not_measured_against(
    count: int, training_set: Callable[[int], TrainingSet]
) -> None:
    real = training_set(count).real()
    assert isinstance(real, RealPictures)
    assert real.name.startswith("256 held-out" if count == 256 else "1025 training")


@pytest.fixture
def training_set() -> Callable[[int], TrainingSet]:
    """1,280 small pictures, of which some are held out."""
    pictures, order = tiny_pictures(1280), np.arange(1280)
    return lambda held_out: TrainingSet(pictures, order[held_out:], order[:held_out], flips=False)


def test_kinds_that_noisewise_found_have_shares_too(tmp_path: Path) -> None:
    """Most folders have no classes; their kinds are stored beside the run, not in the pictures."""
    np.savez(tmp_path / "blobs.npz", images=blobs(128, 8))
    recipe = TeacherRecipe(batch=16, distance_images=0, sampler_images=0)
    config = TrainConfig(budget="160images", recipe=recipe, kinds=2)
    sorted_run = noisewise.train(tmp_path / "blobs.npz", tmp_path / "run", config=config)
    assert sorted_run.pictures().labels is None
    found = evaluate(sorted_run, num_images=NUM_IMAGES)
    assert found.class_shares is not None
    assert [one["name"] for one in found.class_shares] == ["kind 1", "kind 2"]
    assert sum(one["real"] for one in found.class_shares) == pytest.approx(1)


def test_other_pictures_say_how_they_were_read(run: Run, tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (40, 10, 12, 3)).astype(np.uint8)
    np.savez(tmp_path / "colour.npz", images=colour)
    other = evaluate(run, tmp_path / "colour.npz", num_images=NUM_IMAGES, build=build)
    assert "(" in other.against  # turned grey, cut and reduced: not the same pictures any more
    own = evaluate(run, run.source(), num_images=NUM_IMAGES, build=build)
    assert "training pictures are among them" in own.against
    with pytest.raises(ValueError, match=r"noisewise\.quality\.Judge"):
        evaluate(run, torch.zeros(4, 1, 8, 8), build=build)  # pyrefly: ignore
