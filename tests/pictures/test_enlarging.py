"""Small files and large sizes: what is said, what is refused, and from every type of source."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisewise.app import cli
from noisewise.pictures.enlarging import Sides, too_large
from noisewise.pictures.framing import Frame
from noisewise.pictures.headers import choose_size
from noisewise.pictures.pictures import load_pictures
from noisewise.pictures.request import Crop
from noisewise.sizes import sides as sides_of
from noisewise.training.inspect import inspect
from picture_files import write_pictures


def sources(place: Path, side: int = 16) -> list[Path]:
    """The same 20 pictures in a folder, a zip and two array files."""
    folder = write_pictures(place / "folder", width=side, height=side)
    files = sorted(folder.iterdir())
    with zipfile.ZipFile(place / "set.zip", "w") as archive:
        for file in files:
            archive.write(file, file.name)
    images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    np.savez(place / "set.npz", images=images)
    np.save(place / "set.npy", images)
    return [folder, place / "set.zip", place / "set.npz", place / "set.npy"]


class Counted:
    """A progress that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, done: int, total: int) -> None:
        self.calls += 1


def test_every_source_says_how_many_are_enlarged_and_what_size_needs_none(tmp_path: Path) -> None:
    for path in sources(tmp_path):
        count = len(load_pictures(path, 16))
        assert not any("enlarged" in note for note in load_pictures(path, 16).notes)
        pictures = load_pictures(path, 32, cache_dir=tmp_path / "cache")
        said = (
            f"{count} of {count} pictures are enlarged, 2 times, which adds no detail; size 16 "
            "enlarges none"
        )
        assert said in pictures.notes
        again = load_pictures(path, 32, cache_dir=tmp_path / "cache")
        assert (again.notes, again.side) == (pictures.notes, 16)
        assert said in inspect(path, 32).text()


def test_every_source_refuses_four_times_the_median_before_pixels_are_read(tmp_path: Path) -> None:
    for path in sources(tmp_path):
        read = Counted()
        with pytest.raises(ValueError, match="is 4 times the median side of the files, 16 pixels"):
            load_pictures(path, 64, progress=read, enlarging=False)
        assert read.calls in (0, 20)  # the headers of files, and no pixels
        assert load_pictures(path, 60, enlarging=False).size == 60
        assert load_pictures(path, 64).size == 64


def test_a_few_small_files_among_many_are_not_refused() -> None:
    some = Counter({(256, 256): 90, (50, 70): 10})
    sides = Sides.of(some, 1, Frame(256))
    assert sides.median == 256
    assert not too_large(256, sides.median)
    assert sides.enlarged(10, 100) == (
        "10 of 100 pictures are enlarged, 5.1 times, which adds no detail; size 48 enlarges none"
    )
    padded = Sides.of(some, 1, Frame(256, "pad"))
    assert sorted(padded.counts) == [70, 256]


def test_the_pixels_of_pixel_art_count_unless_files_are_used_as_they_are() -> None:
    art = Counter({(64, 64): 20})
    assert Sides.of(art, 4, Frame(128)).median == 16
    assert "8 times" in too_large(128, 16)
    assert Sides.of(art, 4, Frame(64)).median == 64
    assert Sides.of(art, 32, Frame(128)).median == 64  # art of 2 x 2 pixels is not reduced


def test_the_smallest_size_is_never_refused() -> None:
    """Files of a few pixels have no size that needs no enlarging."""
    assert choose_size(Counter({(2, 2): 20}))[0] == 8
    assert not too_large(8, 2)
    assert "every size enlarges files below 8 pixels" in Sides(8, Counter({4: 20})).enlarged(20, 20)


@pytest.mark.parametrize("dry", [True, False])
def test_the_command_line_refuses_in_one_sentence_and_names_the_ways_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dry: bool
) -> None:
    path, out = sources(tmp_path)[2], tmp_path / "run"
    words = ["train", str(path), "--size", "64", "--out", str(out), "--budget", "64images"]
    assert cli.main([*words, *(["--dry-run"] if dry else [])]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert "use --size 16, or add --allow-enlarging" in said
    assert not out.exists()


def test_inspect_looks_and_says_that_training_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sources(tmp_path)[0]
    assert cli.main(["inspect", str(path), "--size", "64"]) == 0
    assert "- refuse this: size 64 is 4 times the median side" in capsys.readouterr().out


def test_a_dry_run_shows_the_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(sources(tmp_path)[2])
    words = ["train", path, "--dry-run", "--budget", "64images", "--size", "64"]
    assert cli.main([*words, "--allow-enlarging"]) == 0
    assert "note: 20 of 20 pictures are enlarged, 4 times" in capsys.readouterr().out
    assert cli.main([*words, "--allow-enlarging", "--json"]) == 0
    assert any("enlarged, 4 times" in n for n in json.loads(capsys.readouterr().out)["notes"])


def test_files_above_64_pixels_get_the_size_and_the_price_of_their_detail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sources(tmp_path, side=104)[2]
    found = inspect(path)
    assert (found.size, found.file_side) == (64, 104)
    price = "--size 104 keeps the detail of these files: about "
    assert f"- lose detail; {price}" in found.text()
    assert "images a second here, " in found.finer
    assert found.finer.endswith(" to see each picture 10 times")
    assert inspect(path, 64).finer == ""  # chosen by hand
    assert cli.main(["train", str(path), "--dry-run", "--budget", "64images"]) == 0
    assert f"the largest size that is not set by hand; {price}" in capsys.readouterr().out


@pytest.mark.parametrize("crop", ["centre", "random", "pad"])
def test_sides_say_which_files_are_enlarged_to_any_shape(tmp_path: Path, crop: Crop) -> None:
    """What headers promise is what happens to the pixels."""
    for number, size in enumerate([(62, 40), (31, 200), (30, 33)]):
        place = tmp_path / f"{number}"
        write_pictures(place, width=size[0], height=size[1])
        for wanted in (32, (32, 64), (36, 24)):
            sides = Sides.of(Counter({size: 20}), 1, Frame(wanted, crop))
            notes = load_pictures(place, wanted, crop=crop).notes
            enlarged = any("are enlarged" in note for note in notes)
            assert enlarged == (sides.median < min(sides_of(wanted))), (size, wanted)


def test_a_size_with_two_sides_names_one_of_its_shape_that_enlarges_none(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "set", width=20, height=40)
    with pytest.raises(ValueError, match=r"size 96x48 is 4.8 times .* use --size 20x8, or add"):
        load_pictures(path, "96x48", enlarging=False)
    assert "20 of 20 pictures are enlarged, 1.6 times" in load_pictures(path, "32x16").notes[-1]
    assert not any("enlarged" in note for note in load_pictures(path, "20x8").notes)
    assert "refuse this: size 96x48" in inspect(path, "96x48").text()


def test_crops_are_neither_enlarged_nor_refused_nor_in_need_of_a_finer_size(tmp_path: Path) -> None:
    """Most files are far smaller than the crops: they are left out, or used as a whole."""
    path = write_pictures(tmp_path / "set", 30, 16, 16)
    for file in write_pictures(tmp_path / "large", 6, 200, 160).iterdir():
        file.rename(path / f"large_{file.name}")
    for kept in (False, True):
        found = load_pictures(path, 64, crops=6, keep_whole=kept, enlarging=False, sampled=True)
        said = "30 of 72 pictures are enlarged, 4 times"
        assert any(said in note for note in found.notes) == kept
        assert (found.side, found.total) == (0, 0)
    scans = write_pictures(tmp_path / "scans", 20, 200, 160)
    looked = inspect(scans, crops=2)
    assert looked.finer == ""
    assert not any("keeps their detail" in note for note in looked.notes)
