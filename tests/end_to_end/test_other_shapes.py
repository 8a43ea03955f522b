"""The chain with the real nets on pictures of 24 x 16: a folder, a teacher, one call, a report."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import noisewise
from noisewise.app import cli
from noisewise.training.settings.config import AdaptConfig, DistillConfig, TrainConfig
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe
from tiny import blobs, build

RECIPE = TeacherRecipe(batch=16, distance_images=16, sampler_images=0, num_steps=2, noise_every=0)
TEACH = TrainConfig(classes=True, widths=(8, 8), threads=1, recipe=RECIPE)
DISTIL = DistillConfig(
    threads=1, recipe=StudentRecipe(batch=16, distance_images=32, two_call_sigmas=(0.3,))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 24 pictures of 48 x 32 pixels: a bright spot at the left or at the right."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(48):
        picture = rng.integers(0, 40, (32, 48)).astype(np.uint8)
        top, left = rng.integers(0, 24), rng.integers(0, 16) + (i % 2) * 24
        picture[top : top + 8, left : left + 8] = 200 + rng.integers(0, 50)
        place = root / ("left", "right")[i % 2]
        place.mkdir(exist_ok=True)
        Image.fromarray(picture).save(place / f"{i:03}.png")
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> noisewise.Run:
    """A run with teacher and generator."""
    place = tmp_path_factory.mktemp("runs") / "wide"
    run = noisewise.train(folder, place, "96images", size="24x16", config=TEACH)
    noisewise.distill(run, "48images", config=DISTIL)
    return noisewise.Run(place)


def test_every_step_of_the_chain_keeps_the_shape(
    run: noisewise.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = json.loads((run.path / "run.json").read_text())
    assert info["train"]["size"] == info["data"]["size"] == "24x16"
    assert info["derived"]["size"]["value"] == info["derived"]["net"]["value"]["size"] == "24x16"
    assert run.data.size == (16, 24)
    assert "24 x 16" in repr(run)
    for which in ("teacher", "generator"):
        assert json.loads((run.path / which / "config.json").read_text())["size"] == "24x16"
        model = noisewise.load(run, which)  # pyrefly: ignore[bad-argument-type]
        assert model.size == (16, 24)
        pictures = model.sample(3, seed=1, label="left")
        assert pictures.shape == (3, 1, 16, 24)
        assert torch.equal(model.sample(3, seed=1, label="left")[2:], pictures[2:])
    assert "[64, 1, 16, 24]" in (run.path / "generator" / "README.md").read_text()
    teacher = run.teacher()
    assert teacher.sample(2, sampler="dpmpp_2m", guidance=1.5).shape == (2, 1, 16, 24)
    with pytest.raises(ValueError, match=r"takes \[n, 1, 16, 24\]"):
        run.generator()(torch.zeros(1, 1, 24, 16), torch.zeros(1, dtype=torch.int64))
    for sheet in (run.path / "samples").glob("*.png"):
        with Image.open(sheet) as image:
            assert ((image.width + 1) % 25, (image.height + 1) % 17) == (0, 0)
    words = ["sample", str(run.path), "-n", "2", "--out", str(tmp_path / "files"), "--scale", "2"]
    assert cli.main(words) == 0
    capsys.readouterr()
    with Image.open(tmp_path / "files" / "seed-0-00001.png") as image:
        assert image.size == (48, 32)


def test_its_pictures_are_judged_and_shown(run: noisewise.Run, folder: Path) -> None:
    judged = noisewise.evaluate(run, folder, num_images=16).to_dict()
    assert judged["floors"]["value"] > 1  # after six steps
    assert judged["copies"]["fraction"] == 0
    page = noisewise.report(run, num_images=64).read_text()
    assert "24&#215;16 grey pictures" in page
    assert 'style="aspect-ratio: 24 / 16"' in page
    found = re.search(r'class="film" data-columns="(\d+)" data-rows="(\d+)"', page)
    assert found is not None
    assert found.groups() == ("8", "4")  # 32 pictures on a sheet
    assert "generated. Below: with the places" in page


def test_it_resumes_in_the_same_shape_alone(run: noisewise.Run, folder: Path) -> None:
    config = replace(TEACH, budget="96images")
    before = (run.path / "teacher" / "model.safetensors").read_bytes()
    for same in ("24x16", (16, 24), "24 X 16"):
        noisewise.train(folder, run.path, size=same, config=config)
    assert (run.path / "teacher" / "model.safetensors").read_bytes() == before
    for other in ("16x24", 16, None):
        with pytest.raises(ValueError, match="size was '24x16' and is now"):
            noisewise.train(folder, run.path, config=replace(config, size=other))


def test_another_folder_comes_to_the_shape_of_the_teacher(
    run: noisewise.Run, tmp_path: Path
) -> None:
    np.savez(tmp_path / "blobs.npz", images=blobs(40, 20), labels=np.arange(40) % 2)
    config = AdaptConfig(
        start="full", batch=16, threads=1, recipe=replace(RECIPE, optimizer="adamw")
    )
    plain = noisewise.train(
        tmp_path / "blobs.npz", tmp_path / "old", "32images", size="24x16",
        config=replace(TEACH, classes=False, kinds=0),
    )  # fmt: skip
    np.savez(tmp_path / "more.npz", images=blobs(40, 28, seed=3))
    moved = noisewise.adapt(
        plain, tmp_path / "more.npz", tmp_path / "new", "32images", config=config
    )
    assert moved.data.size == (16, 24)
    assert any("not of the shape 24x16" in note for note in moved.data.notes)
    assert moved.teacher().sample(2).shape == (2, 1, 16, 24)


def test_a_net_of_bands_learns_coarse_scales_first_in_the_shape_too(tmp_path: Path) -> None:
    """Above a mean side of 32: halved on both sides, with noise levels shifted for the pictures."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 6, 12, 1)).astype(np.uint8).repeat(8, 1).repeat(8, 2)
    np.savez(tmp_path / "blocks.npz", images=images + rng.integers(0, 9, images.shape).astype("u1"))
    recipe = replace(RECIPE, batch=8, distance_images=0)
    config = TrainConfig(widths=(4, 4, 8), kinds=0, threads=1, batch=8, recipe=recipe)
    run = noisewise.train(
        tmp_path / "blocks.npz", tmp_path / "run", "64images", size="80x40", config=config
    )
    derived = {name: item["value"] for name, item in run.info["derived"].items()}
    assert derived["net"]["name"] == "pyramid"
    assert [scale["side"] for scale in derived["scales"]] == ["40x20"]
    assert 1 < derived["noise_scale"] <= (80 * 40) ** 0.5 / 32
    assert run.teacher().sample(2).shape == (2, 1, 40, 80)


def test_a_square_by_two_sides_is_the_square_by_one_bit_for_bit(tmp_path: Path) -> None:
    np.savez(tmp_path / "blobs.npz", images=blobs(64, 12))
    config = replace(TEACH, classes=False, kinds=0)
    weights = []
    for i, size in enumerate((8, "8x8", (8, 8))):
        run = noisewise.train(
            tmp_path / "blobs.npz", tmp_path / str(i), "64images", size=size, config=config,
            build=build,
        )  # fmt: skip
        assert run.info["train"]["size"] == run.info["data"]["size"] == 8
        weights.append((run.path / "teacher" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] == weights[2]
