"""`noisewise adapt`: by adapters where PEFT is there, by all weights where it is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from noisewise.app import cli
from noisewise.training.run.run import Run

STARTS = ["lora-ga", "full"] if find_spec("peft") else ["full"]


@pytest.fixture
def more(tmp_path: Path) -> list[str]:
    values = {
        "batch": 32,
        "threads": 1,
        "samples": 64,
        "recipe": {"distance_images": 32, "num_steps": 3, "sampler_images": 0},
    }
    file = tmp_path / "adapt.json"
    file.write_text(json.dumps(values))
    return ["--config", str(file), "--budget", "320images"]


@pytest.mark.parametrize("start", STARTS)
def test_a_run_is_adapted_and_everything_follows(
    start: str,
    teacher_run: Path,
    folder: Path,
    more: list[str],
    settings: Callable[[str], list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "new"
    words = ["adapt", str(teacher_run), str(folder / "round"), "--out", str(out), *more]
    assert cli.main([*words, "--start", start, "--rank", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stage"] == "teacher"
    assert found["images"] == 320
    assert (out / "adapter" / "adapter_config.json").exists() == (start != "full")
    assert cli.main(["distill", str(out), "--budget", "64images", *settings("distill")]) == 0
    sheet = tmp_path / "sheet.png"
    assert cli.main(["sample", str(out), "-n", "4", "--out", str(sheet)]) == 0
    assert sheet.exists()
    page = tmp_path / "page.html"
    assert cli.main(["report", str(out), "-n", "64", "--out", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert f"--start {start}" in text
    assert "noisewise adapt" in text


@pytest.mark.skipif(find_spec("peft") is not None, reason="PEFT is installed")
def test_without_peft_it_says_which_extra(
    teacher_run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new"
    assert cli.main(["adapt", str(teacher_run), str(folder), "--out", str(out)]) == 2
    assert "pip install noisewise[adapters]" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--start", "best"], "start"),
        (["--start", "full", "--rank", "0"], "rank 0 adapts nothing"),
        (["--start", "full", "--out", "x", "--lr", "0"], "trains nothing"),
        (["--start", "full"], "--out RUN"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], says: str, teacher_run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["adapt", str(teacher_run), str(folder), *words]) == 2
    printed = capsys.readouterr().err
    assert says in printed
    assert len(printed.splitlines()) == 1


def test_the_figure_of_an_alignment_draws_every_layer() -> None:
    from xml.etree import ElementTree

    from noisewise.adapters.alignment import Alignment, LayerAlignment, StepAlignment
    from noisewise.app.plots.alignment import alignment_figure

    def one(residual: float, bound: float) -> StepAlignment:
        return StepAlignment((1 - residual**2) ** 0.5, residual, bound, 1.0)

    def layer(i: int) -> LayerAlignment:
        return LayerAlignment(4, 4, one(0.3 + 0.1 * i, 0.25), one(0.35 + 0.1 * i, 0.2), None)

    found = Alignment({f"{i}": layer(i) for i in range(5)}, layer(2), 32)
    for step, first, bound in (("sgd", 0.3, 0.25), ("adam", 0.35, 0.2)):
        root = ElementTree.fromstring(alignment_figure(found, step))  # pyrefly: ignore
        assert root.tag.endswith("svg")
        # For the reader's hand, of each layer: its place in the drawing, its number, its value.
        values = [[p[-1] for p in line["points"]] for line in json.loads(root.attrib["data-hover"])]
        assert values[0] == pytest.approx([first + 0.1 * i for i in range(5)])
        assert values[1] == pytest.approx([bound] * 5)
    with pytest.raises(ValueError, match="step 'muon' is unknown"):
        alignment_figure(found, "muon")  # pyrefly: ignore


def test_a_dry_run_says_why_and_writes_nothing(
    teacher_run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in teacher_run.rglob("*"))
    words = ["adapt", str(teacher_run), str(folder / "round"), "--start", "full", "--dry-run"]
    assert cli.main([*words, "--batch", "8", "--json"]) == 0
    derived = json.loads(capsys.readouterr().out)["derived"]
    assert derived["batch"] == {"value": 8, "reason": "set by hand"}
    assert derived["size"]["value"] == 16
    assert all(item["reason"] for item in derived.values())
    assert cli.main([*words, "--out", str(tmp_path / "new")]) == 0
    assert "set by hand" not in capsys.readouterr().out
    assert sorted((path, path.stat().st_mtime_ns) for path in teacher_run.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []
    assert cli.main(["adapt", str(folder), str(folder), "--start", "full", "--dry-run"]) == 2
    assert "is not a run" in capsys.readouterr().err


def test_new_pictures_are_read_with_crop_and_background(
    teacher_run: Path, more: list[str], tmp_path: Path
) -> None:
    """Wide grey pictures on red: what is padded is red, and the run says so and keeps to it."""
    pictures, out = tmp_path / "wide", tmp_path / "new"
    pictures.mkdir()
    for i in range(20):
        Image.new("RGB", (32, 16), (90 + i,) * 3).save(pictures / f"{i:02d}.png")
    words = ["adapt", str(teacher_run), str(pictures), "--out", str(out), "--start", "full", *more]
    assert cli.main([*words, "--crop", "pad", "--background", "#ff0000"]) == 0
    run = Run.open(out)
    assert run.info["train"]["crop"] == "pad"
    read = run.pictures()
    assert [tuple(pixel) for pixel in read.images[0][[0, 8], 8].tolist()] == [
        (255, 0, 0),
        (90, 90, 90),
    ]
    assert cli.main(words) == 2  # another crop than the run was begun with
