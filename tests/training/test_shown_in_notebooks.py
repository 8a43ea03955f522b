"""What a notebook shows of a run, a model, an inspection and an evaluation; what `print` shows."""

from __future__ import annotations

import base64
import copy
import io
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import noisewise
from noisewise.training.evaluation import Evaluation
from noisewise.training.files.sample_sheet import enlarged, sheet
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.run.run import Run
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from tiny import TWO_CLASSES, blobs, build, tiny_denoiser

GENERATOR = replace(TWO_CLASSES, kind="generator", sigma_init=2.5)
VOID = {"img", "br", "hr"}


class Balanced(HTMLParser):
    """Fails at HTML whose tags do not close, and keeps its text and the sources of pictures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.pictures, self.described = "", [], []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "style", "iframe", "link"}
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            given = dict(attrs)
            self.described.append(given["alt"])
            self.pictures.append(str(given["src"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def pictures_of(run: Run) -> Path:
    source = run.source()
    assert source is not None
    return source


def picture_in(html: str) -> np.ndarray:
    """The one picture of a page, decoded."""
    (source,) = Balanced(html).pictures
    head, _, data = source.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of a tiny teacher with a sheet, in a folder whose name is HTML."""
    folder = tmp_path_factory.mktemp("shown")
    np.savez(folder / "blobs.npz", images=blobs(128, 8))
    recipe = TeacherRecipe(batch=16, distance_images=32, sampler_images=0)
    config = TrainConfig(budget="160images", recipe=recipe)
    return noisewise.train(folder / "blobs.npz", folder / "a<b>&c", config=config, build=build)


def test_a_run_shows_its_stages_and_its_newest_sheet(run: Run) -> None:
    shown = Balanced(run._repr_html_())
    assert repr(run) in shown.text
    assert "<b>" not in run._repr_html_()
    assert re.search(r"step 10, 160 images", shown.text)
    newest = sorted((run.path / "samples").glob("teacher-*.png"))[-1]
    expected = np.asarray(enlarged(np.asarray(Image.open(newest)), 8))
    assert np.array_equal(picture_in(run._repr_html_()), expected)
    png = run._repr_png_()
    assert png is not None
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), expected)


def test_a_run_without_pictures_shows_its_words_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes((run.path / "run.json").read_bytes())
    bare = Run(tmp_path)
    assert not Balanced(bare._repr_html_()).pictures
    assert bare._repr_png_() is None


def test_a_generator_shows_pictures_that_it_draws() -> None:
    model = Generator(tiny_denoiser(num_classes=2).eval(), GENERATOR)
    shown = Balanced(model._repr_html_())
    assert repr(model) in shown.text
    assert shown.described == ["16 pictures of seed 0"]
    expected = np.asarray(enlarged(sheet(model.sample(16)), 8))
    assert np.array_equal(picture_in(model._repr_html_()), expected)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(model._repr_png_()))), expected)
    assert len(repr(model)) < 120
    assert "\n" not in repr(model)


def test_a_teacher_draws_nothing_when_it_is_shown() -> None:
    """It takes many calls for each picture; one line says what it is."""
    model = Teacher(tiny_denoiser(num_classes=2).eval(), TWO_CLASSES)
    assert Balanced(model._repr_html_()).text == repr(model)


def test_an_inspection_shows_the_contact_sheet_and_each_line(run: Run) -> None:
    found = noisewise.inspect(pictures_of(run))
    shown = Balanced(found._repr_html_())
    assert np.array_equal(picture_in(found._repr_html_()), found.contact_sheet)
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(found._repr_png_()))), found.contact_sheet
    )
    for step in found.plan():
        assert step in shown.text
    assert "128 usable pictures" in shown.text


def test_an_evaluation_prints_as_a_small_table(run: Run) -> None:
    found = noisewise.evaluate(run, num_images=64, build=build)
    table = str(found).splitlines()
    assert max(map(len, table)) <= 100
    values = dict(re.split(r"  +", line, maxsplit=1) for line in table)
    assert values["verdict"] == found.verdict
    assert values["floors"].startswith(f"{found.floors['value']:.3g} (")
    assert values["recall"] == f"{found.recall:.0%}"
    assert "64 of the teacher against" in values["pictures"]
    shown = Balanced(found._repr_html_())
    assert found.verdict_reason in shown.text
    assert all(value in shown.text for value in values.values())
    assert "\n" not in repr(found)


def test_what_was_not_measured_is_left_out(run: Run) -> None:
    found = noisewise.evaluate(run, num_images=64, build=build)
    bare: Callable[..., Evaluation] = replace
    few = str(bare(found, told_apart=None, precision=None, recall=None, copies=None))
    assert "told apart" not in few
    assert "copies" not in few
    assert "None" not in few


def test_a_grid_is_the_drawn_pictures_in_rows() -> None:
    model = Generator(tiny_denoiser(num_classes=2).eval(), GENERATOR)
    plain = np.asarray(model.grid(10, seed=3, columns=5, scale=1))
    assert np.array_equal(plain, sheet(model.sample(10, seed=3), 5))
    twice = np.asarray(model.grid(10, seed=3, columns=5, scale=2))
    assert np.array_equal(twice[::2, ::2], plain)
    assert model.grid(4, scale=1).size == (4 * 9 - 1, 8)  # no empty columns
    assert model.grid().size == (8 * (8 * 9 - 1), 8 * (8 * 9 - 1))
    for columns, scale in ((0, 1), (1, 0), (-3, None)):
        with pytest.raises(ValueError, match="use 1 or more"):
            model.grid(4, columns=columns, scale=scale)


def test_a_grid_of_classes_has_a_column_for_each() -> None:
    model = Generator(tiny_denoiser(num_classes=2).eval(), GENERATOR)
    rows = np.asarray(model.grid(label=["right", "left", "right"], scale=1))
    drawn = model.sample(6, label=["right", "left", "right"])
    assert np.array_equal(rows, sheet(drawn, 3))
    torch.testing.assert_close(drawn[0], model.sample(1, label="right")[0])


def test_runs_and_what_was_measured_pickle_and_copy(run: Run) -> None:
    """In one's own process; the files of a run are never pickles."""
    found = noisewise.inspect(pictures_of(run))
    for again in (pickle.loads(pickle.dumps(run)), copy.deepcopy(run)):
        assert again.path == run.path
        assert again.info == run.info
        assert repr(again) == repr(run)
    judged = noisewise.evaluate(run, num_images=32, build=build)
    assert pickle.loads(pickle.dumps(judged)) == judged
    assert pickle.loads(pickle.dumps(found)).text() == found.text()
    assert pickle.loads(pickle.dumps(run.records())) == run.records()
