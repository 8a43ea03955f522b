"""Folders and zips become one uint8 array; what is left out is counted; the cache is honest."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from noisewise.pictures import sources
from noisewise.pictures.pictures import Pictures, Skipped, load_pictures
from picture_files import colour, write_pictures


def codes(pictures: Pictures) -> dict[str, str]:
    """Return the code of each skipped file."""
    return {item.name: item.code for item in pictures.skipped}


def in_memory(images: np.ndarray, labels: np.ndarray | None = None) -> Pictures:
    """Wrap an array."""
    return Pictures(images, labels, (), (), (), "", "", ())


def test_flat_folder(tmp_path: Path) -> None:
    pictures = load_pictures(write_pictures(tmp_path / "flat"))
    assert (len(pictures), pictures.size, pictures.channels) == (20, 32, 3)
    assert pictures.labels is None
    assert pictures.label_histogram == ()
    assert pictures.names[0] == "p000.png"
    np.testing.assert_array_equal(pictures.images[7], np.asarray(colour(7)))


def test_odd_files_are_left_out_by_reason(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "odd")
    (folder / "empty.png").touch()
    (folder / "lie.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("a caption")
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / ".hidden.png").write_bytes((folder / "p000.png").read_bytes())
    (folder / ".git").mkdir()
    (folder / ".git" / "x.png").write_bytes((folder / "p000.png").read_bytes())
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    jpeg = folder / "cut.jpg"
    colour(99, 300, 300).save(jpeg)
    jpeg.write_bytes(jpeg.read_bytes()[:-2000])
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "self.png").symlink_to(folder / "self.png")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    pictures = load_pictures(folder)
    assert len(pictures) == 20
    assert codes(pictures) == {
        "empty.png": sources.EMPTY,
        "lie.jpg": sources.NOT_PICTURE,
        "notes.txt": sources.OTHER_FILE,
        "Thumbs.db": sources.HIDDEN,
        ".hidden.png": sources.HIDDEN,
        ".git": sources.HIDDEN,
        "dot.png": sources.TOO_SMALL,
        "cut.jpg": sources.TRUNCATED,
        "gone.png": sources.BROKEN_LINK,
        "self.png": sources.BROKEN_LINK,
        "loop": sources.ALREADY_READ,
        "pipe.png": sources.NOT_REGULAR,
    }
    assert pictures.skip_reasons[sources.REASONS[sources.HIDDEN]] == 3


def test_odd_names(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "names")
    names = ["two\nlines.png", "Ελλ 絵 😀.png", "quote'\".png", " space .PNG", "x" * 200 + ".png"]
    for i, name in enumerate(names):
        colour(50 + i).save(folder / name, "PNG")
    with open(os.fsencode(folder) + b"/latin-\xe9.png", "wb") as file:
        file.write((folder / names[0]).read_bytes())
    pictures = load_pictures(folder, cache_dir=tmp_path / "cache")
    assert set(names) < set(pictures.names)
    assert "latin-\ufffd.png" in pictures.names
    again = load_pictures(folder, cache_dir=tmp_path / "cache")
    assert again.names == pictures.names
    json.dumps(pictures.names).encode("utf-8")


def test_class_folders(tmp_path: Path) -> None:
    for i, name in enumerate(["dog", "cat"]):
        write_pictures(tmp_path / "pets" / name / "deeper", 10 + i, 32 + 4 * i)
    pictures = load_pictures(tmp_path)
    assert pictures.classes == ("cat", "dog")
    assert pictures.label_histogram == (11, 10)
    assert pictures.labels is not None
    assert pictures.labels.dtype == np.int64


def test_train_and_test_folders_are_no_classes(tmp_path: Path) -> None:
    for part, count in (("train", 18), ("test", 8)):
        for name in ("a", "b"):
            write_pictures(tmp_path / part / name, count)
    pictures = load_pictures(tmp_path)
    assert pictures.classes == ("a", "b")
    assert any("test, train" in note for note in pictures.notes)


def test_no_classes_from_loose_pictures_or_a_folder_each(tmp_path: Path) -> None:
    loose = write_pictures(tmp_path / "loose", 8)
    write_pictures(loose / "a", 8)
    write_pictures(loose / "b", 18)
    assert load_pictures(loose).labels is None
    for i in range(20):
        (tmp_path / "each" / str(i)).mkdir(parents=True)
        colour(i).save(tmp_path / "each" / str(i) / "p.png")
    assert load_pictures(tmp_path / "each").labels is None


def test_zip_equals_its_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pictures(tmp_path / "top" / name, 10 if name == "a" else 18)
    path = tmp_path / "top.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((tmp_path / "top").rglob("*.png")):
            archive.write(file, file.relative_to(tmp_path))
        archive.writestr("__MACOSX/top/a/._p000.png", b"resource fork")
        archive.writestr("top/.DS_Store", b"x")
        archive.writestr("top/empty.png", b"")
        archive.writestr("../../outside.txt", b"text")
    zipped, plain = load_pictures(path), load_pictures(tmp_path / "top")
    assert zipped.fingerprint == plain.fingerprint
    assert zipped.classes == ("a", "b")
    assert codes(zipped) == {
        "__MACOSX/top/a/._p000.png": sources.HIDDEN,
        "top/.DS_Store": sources.HIDDEN,
        "top/empty.png": sources.EMPTY,
        "../../outside.txt": sources.OTHER_FILE,
    }


def test_damaged_and_giant_members_of_a_zip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_pictures(tmp_path / "in")
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
        archive.writestr("zz-giant.png", bytes(300_000), zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    place = data.find((folder / "p003.png").read_bytes()) + 60
    data[place] ^= 0xFF
    path.write_bytes(data)
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 200_000)
    pictures = load_pictures(path)
    assert codes(pictures) == {"p003.png": sources.DAMAGED, "zz-giant.png": sources.TOO_LARGE}


def test_size_is_chosen_from_the_pictures(tmp_path: Path) -> None:
    assert load_pictures(write_pictures(tmp_path / "a", width=28, height=28)).size == 28
    assert load_pictures(write_pictures(tmp_path / "b", width=50, height=30)).size == 28
    large = load_pictures(write_pictures(tmp_path / "c", width=100, height=100))
    assert large.size == 64
    assert "has 100 pixels; --size 100 keeps their detail" in large.notes[0]
    assert load_pictures(tmp_path / "c", size=96).size == 96
    assert load_pictures(write_pictures(tmp_path / "d", width=6, height=6)).size == 8


def test_enlarged_pixel_art_comes_back_to_its_own_size(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    art = generator.choice([0, 128, 255], (20, 16, 16, 3)).astype(np.uint8)
    for i, picture in enumerate(art):
        Image.fromarray(np.kron(picture, np.ones((8, 8, 1), np.uint8))).save(
            tmp_path / f"{i:02}.png"
        )
    pictures = load_pictures(tmp_path)
    np.testing.assert_array_equal(pictures.images, art)


def test_grey_sets_have_one_channel(tmp_path: Path) -> None:
    for i in range(20):
        colour(i).convert("L").convert("RGB").save(tmp_path / f"{i:02}.png")
    grey = load_pictures(tmp_path)
    assert grey.channels == 1
    np.testing.assert_array_equal(grey.images[3, ..., 0], np.asarray(colour(3).convert("L")))
    assert load_pictures(tmp_path, channels=3).channels == 3
    colour(1).save(tmp_path / "00.png")
    assert load_pictures(tmp_path).channels == 1  # 19 of 20
    colour(2).save(tmp_path / "01.png")
    assert load_pictures(tmp_path).channels == 3


def test_mixed_modes_and_sizes(tmp_path: Path) -> None:
    for i, mode in enumerate(["RGB", "L", "RGBA", "P", "1", "LA", "CMYK"] * 3):
        name = f"{i:02}.{'jpg' if mode == 'CMYK' else 'png'}"
        colour(i, 30 + i, 40).convert(mode).save(tmp_path / name)
    pictures = load_pictures(tmp_path)
    assert pictures.images.shape == (21, 40, 40, 3)
    assert not pictures.skipped


@pytest.mark.parametrize("cached", [False, True])
def test_progress_counts_every_file(tmp_path: Path, cached: bool) -> None:
    folder = write_pictures(tmp_path / "in")
    seen: list[tuple[int, int]] = []
    cache = tmp_path / "cache" if cached else None
    load_pictures(folder, cache_dir=cache, progress=lambda done, total: seen.append((done, total)))
    assert seen == 2 * [(i, 20) for i in range(1, 21)], "headers first, then pixels"


def test_cache_is_reused_and_follows_changes(tmp_path: Path) -> None:
    folder, cache = write_pictures(tmp_path / "in"), tmp_path / "cache"
    first = load_pictures(folder, cache_dir=cache)
    assert isinstance(first.images, np.memmap)
    assert not first.images.flags.writeable
    assert len(list(cache.iterdir())) == 2
    calls: list[int] = []
    again = load_pictures(folder, cache_dir=cache, progress=lambda done, _: calls.append(done))
    assert calls == [], "nothing is decoded twice"
    assert again.fingerprint == first.fingerprint
    assert (again.names, again.skipped, again.notes) == (first.names, first.skipped, first.notes)
    np.testing.assert_array_equal(again.images, load_pictures(folder).images)
    colour(77).save(folder / "p003.png")
    changed = load_pictures(folder, cache_dir=cache)
    assert changed.fingerprint != first.fingerprint
    np.testing.assert_array_equal(changed.images[3], np.asarray(colour(77)))
    assert load_pictures(folder, size=16, cache_dir=cache).size == 16
    (folder / "p004.png").unlink()
    assert len(load_pictures(folder, cache_dir=cache)) == 19


@pytest.mark.parametrize("damage", ["cut", "nonsense", "no facts"])
def test_damaged_cache_is_written_again(tmp_path: Path, damage: str) -> None:
    folder, cache = write_pictures(tmp_path / "in"), tmp_path / "cache"
    first = load_pictures(folder, cache_dir=cache)
    expected = np.array(first.images)
    del first
    rows, facts = next(cache.glob("*.npy")), next(cache.glob("*.json"))
    if damage == "cut":
        rows.write_bytes(rows.read_bytes()[:500])
    elif damage == "nonsense":
        facts.write_text("[")
    else:
        facts.unlink()
    np.testing.assert_array_equal(load_pictures(folder, cache_dir=cache).images, expected)


def test_nothing_is_left_behind_when_reading_is_stopped(tmp_path: Path) -> None:
    folder, cache = write_pictures(tmp_path / "in"), tmp_path / "cache"
    before = list(warnings.filters)

    looked_at: list[int] = []

    def stop(done: int, _: int) -> None:
        looked_at.append(done)
        if len(looked_at) == 30:  # ten pictures are decoded by then
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_pictures(folder, cache_dir=cache, progress=stop)
    assert list(cache.iterdir()) == []
    assert warnings.filters == before, "Pillow's warnings are silenced while reading only"


def test_fingerprint_is_of_content(tmp_path: Path) -> None:
    one = load_pictures(write_pictures(tmp_path / "one"))
    two = load_pictures(write_pictures(tmp_path / "two"), cache_dir=tmp_path / "cache")
    assert one.fingerprint == two.fingerprint
    assert load_pictures(tmp_path / "one", size=16).fingerprint != one.fingerprint


def test_split_is_disjoint_seeded_and_of_the_stated_size() -> None:
    for num_images, expected in [(16, 3), (100, 20), (400, 64), (4000, 200), (50_000, 2000)]:
        marks = np.arange(num_images, dtype="<u4").view(np.uint8).reshape(num_images, 2, 2, 1)
        pictures = in_memory(marks).with_twins(())  # such stripes are alike
        training, held_out = pictures.split(seed=3)
        assert len(held_out) == expected
        assert sorted([*training, *held_out]) == list(range(num_images))
        np.testing.assert_array_equal(held_out, pictures.split(seed=3)[1])
        assert not np.array_equal(held_out, pictures.split(seed=4)[1])
    assert len(pictures.split(0, fraction=0.5)[1]) == 25_000


@pytest.mark.parametrize("copies", [2, 7, 40])
def test_copies_stay_on_one_side(copies: int) -> None:
    images = np.repeat(np.arange(50, dtype=np.uint8), copies).reshape(-1, 1, 1, 1)
    training, held_out = in_memory(images).split(seed=0)
    assert len(held_out)
    assert len(training) > len(held_out)
    assert not set(images[training].ravel()) & set(images[held_out].ravel())


def test_files_of_older_versions_hold_a_text_in_place_of_the_code(tmp_path: Path) -> None:
    """Then the report of an old run still tells harmless files from damaged ones."""
    old = {"name": "a.png", "reason": "other file"}
    new = asdict(Skipped("a.png", sources.OTHER_FILE))
    assert new == {"name": "a.png", "code": "other_file", "reason": "not a picture"}
    assert sources.read_skipped(old) == sources.read_skipped(new) == Skipped("a.png", "other_file")
    later = {"name": "a.png", "code": "code_of_a_later_version", "reason": "a text"}
    assert sources.read_skipped(later).code not in sources.HARMLESS
    folder, place = write_pictures(tmp_path / "x"), tmp_path / "cache"
    (folder / "notes.txt").write_text("words")
    first = load_pictures(folder, cache_dir=place)
    facts = next(place.glob("*.json"))
    facts.write_text(facts.read_text().replace('"other_file"', '"other file"'))
    assert load_pictures(folder, cache_dir=place).skipped == first.skipped
    assert "other file" in facts.read_text(), "the old cache is used"


@pytest.mark.parametrize("fraction", [0.0, -1.0, 0.6])
def test_split_refuses_fractions(fraction: float) -> None:
    with pytest.raises(ValueError, match=f"fraction is {fraction}: give a number above 0"):
        in_memory(np.zeros((20, 8, 8, 1), np.uint8)).split(0, fraction)


def test_tensor_and_sigma_data() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    pictures = in_memory(images)
    batch = pictures.tensor(torch.tensor([3, 1]))
    assert batch.shape == (2, 3, 8, 8)
    assert batch.dtype == torch.float32
    back = ((batch + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(back, images[[3, 1]])
    extremes = in_memory(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)).tensor([0, 1])
    assert extremes.flatten().tolist() == [-1.0, 1.0]
    expected = pictures.tensor(range(40)).double().std(correction=0).item()
    assert pictures.sigma_data() == pytest.approx(expected, rel=1e-6)


def test_flips_are_suggested_only_where_sides_do_not_matter() -> None:
    generator = np.random.default_rng(0)
    free = generator.integers(0, 256, (300, 4, 4, 1), dtype=np.uint8)
    free = np.kron(free, np.ones((1, 4, 4, 1), np.uint8))
    assert in_memory(free).suggest_flip()[0]
    arrows = (free // 4).copy()
    arrows[:, :, 8:] += 180  # always bright at the right
    flip, reason = in_memory(arrows).suggest_flip()
    assert not flip
    assert reason.startswith("flips off: of 300 pictures, mirroring moves 300 away")
    assert in_memory(arrows).suggest_flip(1) == in_memory(arrows).suggest_flip(1)
