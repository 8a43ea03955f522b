"""Sprites with transparency: from a folder to pictures that go into a game, and back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import noisewise
from noisewise.app.cli import main
from noisewise.export import write as export
from noisewise.pictures.pictures import load_pictures
from noisewise.quality.premultiplied import premultiplied
from noisewise.training.models.model_config import Flats, ModelConfig, finished
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.settings.config import AdaptConfig, DistillConfig, TrainConfig
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe
from noisewise.training.train import plan
from tests.pictures.test_alpha import soft, sprite, sprites, write

CONFIG = TrainConfig(
    budget="160images",
    net="unet",
    widths=(4, 4),
    recipe=TeacherRecipe(batch=16, distance_images=32, sampler_images=32),
)
DISTIL = DistillConfig(
    budget="96images",
    recipe=StudentRecipe(batch=16, distance_images=32, two_call_sigmas=(0.3,)),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sprites, `x`, and a run with both stages, `run`."""
    folder = tmp_path_factory.mktemp("sprites")
    sprites(folder / "x", 48)
    noisewise.train(folder / "x", folder / "run", config=CONFIG)
    noisewise.distill(folder / "run", config=DISTIL)
    return folder


def test_both_models_draw_sprites_with_hard_edges(made: Path) -> None:
    for which in ("teacher", "generator"):
        model = noisewise.load(made / "run", which)
        assert (model.channels, model.config.alpha) == (4, "binary")
        pictures = model.sample(6, seed=1)
        assert pictures.shape == (6, 4, 16, 16)
        assert set(pictures[:, 3].unique().tolist()) <= {-1.0, 1.0}
        assert model.grid(4).mode == "RGB"
        assert "RGBA" in repr(model)


def test_the_plain_tensor_is_still_there(made: Path) -> None:
    generator = noisewise.load(made / "run")
    assert isinstance(generator, Generator)
    plain = generator(generator.noise(1, 0, 6))
    assert len(plain[:, 3].unique()) > 100
    assert torch.equal(generator.config.finished(plain), generator.sample(6, seed=1))


def test_a_second_call_goes_through(made: Path) -> None:
    generator = noisewise.load(made / "run")
    assert isinstance(generator, Generator)
    generator.config = replace(generator.config, two_call_sigma=0.3)
    pictures = generator.sample(3, calls=2)
    assert set(pictures[:, 3].unique().tolist()) <= {-1.0, 1.0}


def test_files_have_real_transparency(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = str(made / "run"), made / "out"
    assert main(["sample", run, "-n", "20", "--out", str(out)]) == 0
    assert main(["sample", run, "-n", "4", "--out", str(made / "sheet.png")]) == 0
    with Image.open(made / "sheet.png") as sheet:  # on a palette, so with one clear colour
        assert sheet.mode == "P"
        assert sheet.convert("RGBA").getchannel("A").getextrema() == (0, 255)
    with Image.open(out / "seed-0-00000.png") as image:
        assert (image.mode, image.size) == ("P", (16, 16))
        pixels = np.asarray(image.convert("RGBA"))
    drawn = noisewise.load(made / "run").sample(1, seed=0)[0].permute(1, 2, 0)
    assert np.array_equal(pixels, ((drawn + 1) * 127.5).round().byte().numpy())
    capsys.readouterr()
    assert main(["evaluate", run, "-n", "16", "--against", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_images"] == 16


def test_the_report_shows_them_on_a_checkerboard(made: Path) -> None:
    assert main(["report", str(made / "run"), "-n", "64"]) == 0
    page = (made / "run" / "report.html").read_text()
    assert 'class="pixels clear"' in page
    assert "img.clear { background: repeating-conic-gradient" in page
    assert "transparency is kept" in page
    sheet = next((made / "run" / "samples").glob("*.png"))
    with Image.open(sheet) as image:
        assert image.mode == "RGB"


def test_exports_give_straight_pictures(made: Path) -> None:
    export(made / "run", "pt2", made / "g.pt2")
    program = torch.export.load(made / "g.pt2", extra_files=(extra := {"noisewise.json": ""}))
    said = json.loads(extra["noisewise.json"])
    assert (said["channel_order"], said["alpha"], said["colour"]) == ("RGBA", "binary", "straight")
    generator = noisewise.load(made / "run")
    drawn = program.module()(z=generator.noise(0, 0, 4))
    torch.testing.assert_close(drawn, generator.sample(4), rtol=0, atol=1e-4)


def test_the_pipeline_for_diffusers_gives_rgba(made: Path) -> None:
    pytest.importorskip("diffusers")
    export(made / "run", "diffusers", made / "pipe")
    from noisewise.export import NoisewisePipeline

    pipe = NoisewisePipeline.from_pretrained(made / "pipe")
    pictures = pipe(batch_size=2, generator=torch.Generator().manual_seed(0)).images
    assert [picture.mode for picture in pictures] == ["RGBA", "RGBA"]
    assert {level for _, level in pictures[0].getchannel("A").getcolors()} <= {0, 255}


def test_a_teacher_is_adapted_to_soft_pictures(made: Path) -> None:
    write(made / "soft", [soft(i, 16) for i in range(48)])
    config = AdaptConfig(budget="32images", start="full", recipe=replace(CONFIG.recipe, batch=16))
    run = noisewise.adapt(made / "run", made / "soft", made / "adapted", config=config)
    model = run.teacher()
    assert (model.channels, model.config.alpha) == (4, "soft")
    assert len(model.sample(4)[:, 3].unique()) > 20


def test_training_goes_on_with_the_same_pictures(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made / "run", tmp_path / "run"))
    run = noisewise.train(made / "x", folder, "192images", config=CONFIG)
    assert run.stage("teacher").images == 192
    assert (run.info["train"]["background"], run.info["train"]["crop"]) == ("auto", "auto")
    assert run.pictures().images.shape == (48, 16, 16, 4)


def test_sprites_of_several_sizes_in_a_wide_model(tmp_path: Path) -> None:
    shapes = [(12, 16), (24, 16), (20, 12)]
    folder = write(tmp_path / "x", [sprite(i, *shapes[i % 3]) for i in range(48)])
    run = noisewise.train(folder, tmp_path / "run", "32images", size="24x16", config=CONFIG)
    teacher = run.teacher()
    assert teacher.sample(2).shape == (2, 4, 16, 24)
    assert teacher.grid(2, columns=1).size[0] == teacher.grid(1, columns=1).size[0]
    assert teacher.sample(1, larger=(24, 36)).shape == (1, 4, 24, 36)
    assert any("each keeps its own pixels" in note for note in run.data.notes)


@pytest.mark.parametrize("said", [True, False])
def test_runs_of_older_versions_go_on_as_they_began(made: Path, tmp_path: Path, said: bool) -> None:
    """Their pictures lie on white, and run.json says so, or is too old to say it."""
    config = replace(CONFIG, background="white", crop="centre")
    run = noisewise.train(made / "x", tmp_path / "run", config=config)
    if not said:
        del run.info["train"]["background"], run.info["train"]["crop"]
        run.write()
    run = noisewise.train(made / "x", tmp_path / "run", "176images", config=CONFIG)
    assert (run.data.channels, run.stage("teacher").images) == (3, 176)
    assert run.pictures().channels == 3
    assert noisewise.load(run).sample(2).shape == (2, 3, 16, 16)
    assert plan(made / "x", CONFIG, run.path).channels == 3
    with pytest.raises(ValueError, match="background was 'white' and is now 'black'"):
        noisewise.train(made / "x", run.path, config=replace(CONFIG, background="black"))


def test_the_plan_says_what_was_measured(made: Path) -> None:
    planned = plan(made / "x", CONFIG)
    assert planned.channels == 4
    assert planned.reasons["channels"].startswith("transparency is kept (100% of the pictures")
    assert plan(made / "x", replace(CONFIG, channels=4)).reasons["channels"] == "set by hand"


def test_inspect_says_how_many_have_transparency(made: Path) -> None:
    found = noisewise.inspect(made / "x")
    assert (found.num_transparent, found.alpha, found.channels) == (48, "binary", 4)
    assert "48 of 48 pictures have transparent pixels, with hard edges" in found.text()
    flat = noisewise.inspect(made / "x", background="white")
    assert (flat.num_transparent, flat.alpha, flat.channels) == (48, "none", 3)
    assert "48 of 48 pictures have transparent pixels, laid flat" in flat.text()
    assert found.contact_sheet.shape[2] == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--channels", "2"], "2 channels do not work"),
        (["--channels", "4", "--background", "white"], "leave one of them out"),
        (["--background", "nonsense"], "is not a colour"),
    ],
)
def test_bad_input_is_one_sentence(
    made: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    out = ["--out", str(made / "none"), "--dry-run"]
    assert main(["train", str(made / "x"), *out, *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error


def test_invisible_pictures_are_refused_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clear = [sprite(i) * np.array([1, 1, 1, 0], np.uint8) for i in range(20)]
    folder = write(tmp_path / "x", clear)
    assert main(["inspect", str(folder)]) == 2
    assert "20 invisible: alpha is 0 everywhere, or nearly" in capsys.readouterr().err


# ------------------------------------------------------------------ the description of a model


def test_a_description_without_alpha_is_that_of_an_older_model() -> None:
    config = ModelConfig("teacher", {"name": "unet"}, 0.5, 8, 4, {})
    values = config.to_dict()
    assert values.pop("alpha") == "none"
    assert ModelConfig.from_dict(values) == config
    images = torch.rand(2, 4, 8, 8) * 2 - 1
    assert config.finished(images) is images
    for wrong in ({"alpha": "half"}, {"alpha": "soft", "channels": 3}):
        with pytest.raises(ValueError, match="alpha"):
            ModelConfig.from_dict({**values, **wrong})


def test_flats_leave_no_hidden_colour_behind() -> None:
    """A flat of transparency makes pixels transparent: these take a visible colour too."""
    images = torch.full((1, 4, 8, 8), -1.0)
    images[:, :, 2:6, 2:6] = torch.tensor([0.2, -1.0, -1.0, 1.0])[:, None, None]
    images[:, 3, 0] = -0.97
    flats = Flats(((0, 0, 0, 0),), 0.5, 8.0)
    out = finished(images, flats, "soft")
    assert bool((out[:, 3, 0] == -1).all())
    assert bool((out[:, 0] > 0).all())
    assert premultiplied(out)[0, :, 0, 0].tolist() == [-1.0, -1.0, -1.0, -1.0]


def test_as_teacher_takes_rgba(made: Path) -> None:
    teacher = noisewise.load(made / "run", "teacher")
    assert isinstance(teacher, Teacher)
    mine = noisewise.as_teacher(teacher.denoiser, size=16, channels=4, alpha="binary")
    assert set(mine.sample(2)[:, 3].unique().tolist()) <= {-1.0, 1.0}
    assert load_pictures(made / "x").sigma_data() > 0
