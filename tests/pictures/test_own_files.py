"""Runs, caches, drawn pictures and sheets among the pictures are left out, and named."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from noisewise.app import cli
from noisewise.pictures import own_files
from noisewise.pictures.pictures import load_pictures
from noisewise.pictures.sources import OWN
from noisewise.training.files.sample_sheet import save_sheet
from picture_files import colour, write_pictures


def write_run(path: Path, *also: str) -> Path:
    """What a run holds, as far as it matters here: its files, and sheets that are pictures."""
    write_pictures(path / "samples", 3, 100, 100)
    for name in ("run.json", "run-copy.json", "log.jsonl", ".lock", *also):
        (path / name).write_text("{}")
    return path


def write_classes(folder: Path) -> None:
    for i in range(20):
        place = folder / ("cat", "dog")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        colour(i).save(place / f"{i:02}.png")


def left_out(folder: Path) -> list[str]:
    return [item.name for item in load_pictures(folder).skipped if item.code == OWN]


def test_runs_at_any_depth_are_left_out_and_are_no_class(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    write_classes(folder)
    before = load_pictures(folder)
    write_run(folder / "runs" / "x")
    write_run(folder / "dog" / "mine")
    begun = folder / "runs" / "begun"
    (begun / "cache").mkdir(parents=True)
    (begun / ".lock").touch()
    colour(3).save(begun / "cache" / "p.png")
    (folder / "latest").symlink_to(folder / "runs" / "x")
    after = load_pictures(folder)
    assert after.classes == ("cat", "dog")
    assert after.fingerprint == before.fingerprint
    assert left_out(folder) == ["dog/mine", "latest", "runs/begun"]  # the link is x
    assert "left out, as noisewise wrote it: dog/mine, latest, runs/begun" in after.notes
    write_run(folder / "runs" / "y")
    notes = load_pictures(folder).notes
    assert "left out, as noisewise wrote it: dog/mine, latest, runs/begun and 1 more" in notes


def test_a_new_run_does_not_make_the_cache_useless(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x")
    cache = folder / "kept"
    load_pictures(folder, cache_dir=cache)
    (stored,) = cache.glob("*.npy")
    changed = stored.stat().st_mtime_ns
    write_run(folder / "runs" / "y")
    again = load_pictures(folder, cache_dir=cache)
    assert len(again) == 20
    assert list(cache.glob("*.npy")) == [stored]
    assert stored.stat().st_mtime_ns == changed


def test_a_run_json_of_another_tool_hides_no_pictures(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x")
    write_pictures(folder / "later", 5)
    (folder / "later" / "run.json").write_text(json.dumps({"fps": 3}))
    (folder / "run.json").write_text("{}")
    assert len(load_pictures(folder)) == 25
    (folder / "later" / ".lock").touch()  # not of a run that has begun: there are pictures
    (folder / "later" / "run.json").unlink()
    assert len(load_pictures(folder)) == 25


def test_drawn_pictures_and_sheets(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x")
    for i in range(20):
        (folder / "drawn").mkdir(exist_ok=True)
        colour(i + 100).save(folder / "drawn" / f"{i:05}.png")
    assert len(load_pictures(folder)) == 40, "numbered pictures may be anybody's"
    (folder / "drawn" / "samples.json").write_text("[]")
    assert len(load_pictures(folder)) == 40, "and a samples.json too"
    colour(7, 200, 200).save(folder / "sheet.png", pnginfo=own_files.marked())
    colour(8, 200, 200).save(folder / "renamed.jpg", format="PNG", pnginfo=own_files.marked())
    for i in range(20):
        (folder / "again").mkdir(exist_ok=True)
        colour(i + 60).save(folder / "again" / f"seed-3-{i:05}.png")
    (folder / "again" / "seed-3.json").write_text("{}")
    (folder / "again" / ".DS_Store").touch()
    assert left_out(folder) == ["again", "renamed.jpg", "sheet.png"]
    assert len(load_pictures(folder / "again")) == 20, "who names the folder wants them"
    with Image.open(folder / "sheet.png") as image:
        image.save(folder / "mine.png")  # edited and saved again, it is a person's own
    assert len(load_pictures(folder)) == 41


def test_sheets_that_the_commands_write_are_left_out(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x")
    before = load_pictures(folder).fingerprint
    assert cli.main(["inspect", str(folder), "--out", str(folder / "sheet.png")]) == 0
    save_sheet(folder / "drawn.png", torch.rand(16, 3, 32, 32))
    assert left_out(folder) == ["drawn.png", "sheet.png"]
    assert load_pictures(folder).fingerprint == before
    with Image.open(folder / "sheet.png") as image:
        assert image.width > 100, "it is a picture all the same"


def test_a_zip_of_such_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    write_classes(folder)
    whole = load_pictures(folder)
    write_run(folder / "runs" / "x", "report.html")
    for suffix, separator in (("a", "/"), ("b", "\\")):
        target = tmp_path / f"{suffix}.zip"
        with zipfile.ZipFile(target, "w") as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    name = str(path.relative_to(tmp_path)).replace(os.sep, separator)
                    archive.write(path, name)
        assert left_out(target) == ["x/runs/x"]
        assert load_pictures(target).fingerprint == whole.fingerprint


def test_a_run_is_no_folder_of_pictures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "x")
    with pytest.raises(ValueError, match="is a run of noisewise, not a folder of pictures: give"):
        load_pictures(run)
    with pytest.raises(ValueError, match="has no pictures, only what noisewise wrote"):
        load_pictures(tmp_path)
    with pytest.raises(ValueError, match="only 3 usable pictures"):
        load_pictures(run / "samples")


def test_folders_of_a_zip_whose_names_begin_alike() -> None:
    drawn = ["d/seed-0.json", "d/seed-0-00000.png"]
    assert own_files.own_folders([*drawn, "dogs/1.png"]) == ["d"]
    assert own_files.own_folders(drawn) == [], "all that the zip holds is wanted"


def test_a_zip_of_many_runs_is_listed_in_time_that_grows_with_it() -> None:
    """Each name asks for its own folders, not for those of all runs: a square took minutes."""
    runs = [f"x{i}/{name}" for i in range(20_000) for name in ("run.json", "log.jsonl")]
    found = set(own_files.own_folders(runs))
    assert len(found) == 20_000
    assert all(own_files.is_below(name, found) for name in runs)
