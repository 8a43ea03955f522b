"""Progress in a notebook: what its bar shows, and a real notebook that trains."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from noisewise.app.python.notebook import NotebookProgress, in_notebook
from noisewise.training.stages.record import Record

IPython = pytest.importorskip("IPython", reason="IPython is not installed")

CELL = """
import numpy, noisewise
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
pictures = numpy.random.default_rng(0).integers(0, 256, (64, 8, 8, 3)).astype("uint8")
recipe = TeacherRecipe(batch=16, distance_images=32, sampler_images=0)
config = TrainConfig(widths=(8, 8), recipe=recipe, threads=1)
run = noisewise.train(pictures, {out!r}, "320images", config=config)
"""


def shown_at(step: int, seconds: float) -> tuple[str, str]:
    """Text and HTML in the middle of a training of 60 s."""
    with NotebookProgress(seconds=60) as progress:
        progress.note("pictures: <b>12</b>")
        progress.update(Record("teacher", step, 32 * step, seconds, loss=0.25))
        bar = progress._bar
        return repr(bar), bar._repr_html_()  # pyrefly: ignore


def test_the_bar_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text, html = shown_at(30, 15.0)
    assert "25% teacher: step 30, 960 images" in text
    assert "45s left" in text
    assert "pictures: <b>12</b>" in text
    assert 'value="0.2500"' in html
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    HTMLParser().feed(html)
    assert not in_notebook()
    capsys.readouterr()


def test_a_real_notebook_trains_and_shows(tmp_path: Path) -> None:
    """Executed by Jupyter's own client in a kernel; without ipykernel it is left out."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    nbformat = pytest.importorskip("nbformat")
    cells = [
        nbformat.v4.new_code_cell(source)
        for source in (CELL.format(out=str(tmp_path / "run")), "run", "run.teacher()")
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = nbclient.NotebookClient(notebook, timeout=280, kernel_name="python3")
    client.execute(cwd=str(tmp_path))
    trained, run, teacher = (cell["outputs"] for cell in notebook.cells)
    (bar,) = [output for output in trained if "text/html" in output.get("data", {})]
    assert "<progress" in bar["data"]["text/html"]
    assert "teacher: done after" in bar["data"]["text/plain"]
    assert not [output for output in trained if output["output_type"] == "error"]
    assert re.search(r"<img alt=", run[0]["data"]["text/html"])
    assert "image/png" in run[0]["data"]
    assert teacher[0]["data"]["text/plain"].startswith("Teacher(8 x 8, colour")
