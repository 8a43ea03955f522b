"""A teacher moved to another folder: a run that the rest of the house understands."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import noisewise
from noisewise.diffusion import Preconditioned
from noisewise.pictures.pictures import load_pictures
from noisewise.training.adapt import adapt, adapted_net, plan_adaptation, start_gradients
from noisewise.training.settings.config import AdaptConfig, DistillConfig, TrainConfig
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe
from tiny import blobs, build

peft = pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")

from noisewise.adapters import Gradients  # noqa: E402
from noisewise.adapters.layers import factors, lora_layers  # noqa: E402

RECIPE = TeacherRecipe(
    optimizer="adamw", distance_images=32, sampler_images=0, num_steps=2, heldout_every=0.25
)
CONFIG = AdaptConfig(budget="640images", rank=2, batch=32, samples=64, threads=1, recipe=RECIPE)


def folder_of(pictures: np.ndarray, place: Path, classes: tuple[str, ...] = ()) -> Path:
    for i, picture in enumerate(pictures):
        sub = place / classes[i % 2] if classes else place
        sub.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture[:, :, 0]).save(sub / f"{i:03d}.png")
    return place


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same squares, upside down and dark on bright."""
    return folder_of(255 - blobs(96, seed=5)[:, ::-1], tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> noisewise.Run:
    place = tmp_path_factory.mktemp("old")
    pictures = folder_of(blobs(96), place / "pictures")
    config = TrainConfig(budget="3200images", batch=32, threads=1, recipe=RECIPE)
    return noisewise.train(pictures, place / "run", config=config, build=build)


def weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def started(
    run: noisewise.Run, folder: Path, place: Path, rank: int
) -> tuple[torch.nn.Module, Gradients]:
    """The adapted net before its first step, and the gradients behind it."""
    teacher = run.teacher(build)
    assert isinstance(teacher.denoiser, Preconditioned)
    pictures = load_pictures(folder, 8, 1, place / "pictures")
    full = start_gradients(
        teacher.denoiser, pictures, plan_adaptation(teacher, pictures, CONFIG), CONFIG
    )
    found = []

    def gradients(config: object) -> Gradients:
        found.append(full(config))
        return found[0]

    return adapted_net(teacher.denoiser, "lora-ga", rank, gradients), found[0]


def test_a_stopped_adaptation_resumes_with_a_smaller_batch(
    old: noisewise.Run, other: Path, tmp_path: Path
) -> None:
    """This is the way out where memory ran out."""
    config, count = replace(CONFIG, start="lora", budget="160images"), iter(range(9))
    out = tmp_path / "new"
    adapt(old, other, out, config=config, build=build, stop=lambda: next(count) >= 2)
    run = adapt(old, other, out, config=replace(config, batch=16), build=build)
    assert run.finished("teacher")
    assert [r.images for r in run.records() if r.loss][-1] == 160


@pytest.mark.parametrize("start", ["lora-ga", "lora", "full"])
def test_the_adapted_teacher_learns_the_new_set(
    start: str, old: noisewise.Run, other: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, start=start)  # pyrefly: ignore
    records = []
    run = adapt(old, other, tmp_path / "new", config=config, on_record=records.append, build=build)
    assert run.finished("teacher")
    losses = [r.heldout_loss for r in records if r.heldout_loss is not None]
    assert losses[-1] < losses[0]
    assert run.info["adapt"]["start"] == start
    before, after = old.teacher(build).denoiser, run.teacher(build).denoiser
    assert before.state_dict().keys() == after.state_dict().keys()
    assert run.teacher(build).sample(4).shape == (4, 1, 8, 8)
    if start == "lora-ga":
        noise = started(old, other, tmp_path, 2)[1].total
        assert noise is not None
        assert 0 < noise.g2 < noise.squared_norm  # neither end of [0, 1], where it is cut off
        share = noise.g2 / noise.squared_norm
        assert run.info["adapt"]["gradient_signal"] == pytest.approx(share, rel=1e-3)
    if start == "full":
        assert not (run.path / "adapter").exists()
        return
    # what lies in adapter/ is the whole difference, of rank 2 at most
    net = peft.PeftModel.from_pretrained(copy.deepcopy(before.net), str(run.path / "adapter"))
    x, level = torch.randn(3, 1, 8, 8), torch.zeros(3)
    with torch.no_grad():
        assert isinstance(after, Preconditioned)
        torch.testing.assert_close(net(x, level), after.net(x, level), atol=1e-5, rtol=1e-4)
    for p, q in zip(before.parameters(), after.parameters(), strict=True):
        rank = int(torch.linalg.matrix_rank((q - p).flatten(1), rtol=1e-3)) if p.ndim > 1 else 0
        assert rank <= 2


def test_an_adapted_run_is_distilled_and_sampled_like_any_other(
    old: noisewise.Run, other: Path, tmp_path: Path
) -> None:
    run = adapt(old, other, tmp_path / "new", config=CONFIG, build=build)
    recipe = StudentRecipe(distance_images=64, two_call_sigmas=(0.3,))
    config = DistillConfig(budget="320images", batch=32, threads=1, recipe=recipe)
    generator = noisewise.distill(run, config=config, build=build)
    assert generator.sample(2).shape == (2, 1, 8, 8)
    found = noisewise.evaluate(noisewise.Run.open(run.path), num_images=32, build=build)
    assert found.model == "generator"
    assert found.copies is not None


def test_stopped_and_gone_on_it_is_the_same_as_in_one_piece(
    old: noisewise.Run, other: Path, tmp_path: Path
) -> None:
    whole = adapt(old, other, tmp_path / "whole", config=CONFIG, build=build)
    asked = iter([False] * 7 + [True] * 9)
    part = adapt(
        old, other, tmp_path / "parts", config=CONFIG, stop=lambda: next(asked), build=build
    )
    assert not part.finished("teacher")
    part = adapt(old, other, tmp_path / "parts", config=CONFIG, build=build)
    for p, q in zip(weights(whole.teacher(build)), weights(part.teacher(build)), strict=True):
        assert torch.equal(p, q)
    # finished: the same call changes nothing, a larger budget goes on
    events = []
    again = adapt(
        old, other, tmp_path / "parts", config=CONFIG, on_record=events.append, build=build
    )
    assert "already finished" in (events[0].event or "")
    for p, q in zip(weights(again.teacher(build)), weights(part.teacher(build)), strict=True):
        assert torch.equal(p, q)
    longer = adapt(old, other, tmp_path / "parts", "960images", config=CONFIG, build=build)
    assert longer.info["stages"]["teacher"]["steps"] == 30


def test_a_stop_is_heeded_while_the_first_gradient_is_computed(
    old: noisewise.Run, other: Path, tmp_path: Path
) -> None:
    """Nothing is trained and nothing saved; the same call then does what it would have done."""
    asked: list[int] = []

    def third_time() -> bool:
        asked.append(len(asked))
        return len(asked) >= 3

    run = adapt(old, other, tmp_path / "new", config=CONFIG, stop=third_time, build=build)
    assert not run.finished("teacher")
    assert run.checkpoints("teacher").paths() == []
    assert len(asked) == 3, "64 samples are eight batches"
    again = adapt(old, other, tmp_path / "new", config=CONFIG, build=build)
    whole = adapt(old, other, tmp_path / "whole", config=CONFIG, build=build)
    assert again.teacher_digest() == whole.teacher_digest()


def test_the_start_keeps_the_function_and_looks_along_the_gradient(
    old: noisewise.Run, other: Path, tmp_path: Path
) -> None:
    denoiser = old.teacher(build).denoiser
    made, grads = started(old, other, tmp_path, 2)
    x, sigma = torch.randn(2, 1, 8, 8), torch.tensor([0.3, 2.0])
    assert torch.equal(made(x, sigma), denoiser(x, sigma))
    free = [p for p in made.parameters() if p.requires_grad]
    assert 0 < sum(p.numel() for p in free) < sum(p.numel() for p in denoiser.parameters())
    layers = lora_layers(made.net)  # pyrefly: ignore
    assert layers.keys() == grads.keys()
    for name, layer in layers.items():
        a, _ = factors(layer, "default")
        first = torch.linalg.svd(grads[name], full_matrices=False).Vh[: len(a)]
        outside = float((a - a @ first.mT @ first).norm() / a.norm())
        assert outside < 1e-2, name  # random rows would lie outside for the most part


def test_what_does_not_fit_is_refused(old: noisewise.Run, other: Path, tmp_path: Path) -> None:
    adapt(old, other, tmp_path / "new", config=CONFIG, build=build)
    with pytest.raises(ValueError, match="rank was 2 and is now 3"):
        adapt(old, other, tmp_path / "new", rank=3, config=CONFIG, build=build)
    with pytest.raises(ValueError, match="contains the teacher itself"):
        adapt(old, other, old.path, config=CONFIG, build=build)
    with pytest.raises(ValueError, match="is not a run"):
        adapt(tmp_path / "nothing", other, tmp_path / "x", config=CONFIG, build=build)
    with pytest.raises(ValueError, match="start 'lora-gb' is unknown"):
        AdaptConfig(start="lora-gb")  # pyrefly: ignore
    with pytest.raises(ValueError, match="rank 0 adapts nothing"):
        AdaptConfig(rank=0)
    assert not (tmp_path / "x").exists()


def test_a_teacher_with_classes_needs_the_same_ones(tmp_path: Path) -> None:
    pictures = folder_of(blobs(64), tmp_path / "a", ("left", "right"))
    config = TrainConfig(budget="640images", batch=32, threads=1, classes=True, recipe=RECIPE)
    run = noisewise.train(pictures, tmp_path / "run", config=config, build=build)
    others = folder_of(blobs(64, seed=3), tmp_path / "b", ("up", "down"))
    with pytest.raises(ValueError, match="the teacher has 2 classes"):
        adapt(run, others, tmp_path / "x", config=CONFIG, build=build)
    alike = folder_of(255 - blobs(64, seed=3), tmp_path / "c", ("left", "right"))
    found = adapt(run, alike, tmp_path / "y", config=CONFIG, build=build)
    assert found.teacher(build).classes == ("left", "right")
    assert found.teacher(build).sample(2, label="right").shape == (2, 1, 8, 8)


# ------------------------------------------------------------------ changed pictures
@pytest.fixture(scope="module")
def real_net(tmp_path_factory: pytest.TempPathFactory) -> noisewise.Run:
    """A net of noisewise, which can be told of changes."""
    place = tmp_path_factory.mktemp("real")
    pictures = folder_of(blobs(48), place / "pictures")
    config = TrainConfig(
        budget="64images", batch=16, widths=(8, 8), kinds=0, threads=1, recipe=RECIPE
    )
    return noisewise.train(pictures, place / "run", config=config)


@pytest.mark.parametrize("start", ["lora", "full"])
def test_an_adaptation_changes_pictures_if_it_is_asked_to(
    start: str, real_net: noisewise.Run, other: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, start=start, budget="96images", batch=16)  # pyrefly: ignore
    changed = replace(config, augment="turns,shifts")
    count = iter(range(99))
    out = tmp_path / "changed"
    adapt(real_net, other, out, config=changed, stop=lambda: next(count) >= 2)
    run = adapt(real_net, other, out, config=changed)
    noted = run.info["derived"]["augment"]
    assert noted["value"]["changes"] == ["turns", "shifts"]
    assert noted["reason"].startswith("set by hand")
    plain = adapt(real_net, other, tmp_path / "plain", config=config)
    assert plain.info["derived"]["augment"]["value"] == {}
    pair = run.teacher().state_dict(), plain.teacher().state_dict()
    assert pair[0].keys() == pair[1].keys(), "what tells the net of changes is in no model"
    assert any(not torch.equal(pair[0][name], pair[1][name]) for name in pair[0])


def test_changes_that_cannot_be_are_refused(
    old: noisewise.Run, other: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="is not told of changes; leave augment out"):
        adapt(old, other, tmp_path / "new", config=replace(CONFIG, augment="turns"), build=build)
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="has an empty place"):
        replace(CONFIG, augment="turns,")
