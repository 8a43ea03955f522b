"""Crops: exact pieces at their own scale, spread, deterministic, and never on both sides."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisewise.pictures import decode
from noisewise.pictures.crops import Cut, grid, most_crops, places
from noisewise.pictures.cutting import Origins, choose_held_out, plan_cuts
from noisewise.pictures.pictures import Pictures, load_pictures
from noisewise.pictures.sources import SMALLER_THAN_CROPS
from noisewise.quality.copies import CopyReference
from picture_files import colour, write_pictures


def numbered(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Noise in which each place is unique, so that a crop tells where it was cut."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scans(folder: Path, count: int, width: int = 120, height: int = 90) -> Path:
    folder.mkdir()
    for i in range(count):
        Image.fromarray(numbered(width, height, i)).save(folder / f"scan{i}.png")
    return folder


def place_of(crop: np.ndarray, whole: np.ndarray) -> tuple[int, int]:
    """Left and top of a crop in the picture that it was cut from; fails if it is not there."""
    size = len(crop)
    at = np.argwhere((whole == crop[0, 0]).all(2)[: len(whole) - size + 1])
    found = [(x, y) for y, x in at if np.array_equal(whole[y : y + size, x : x + size], crop)]
    assert len(found) == 1
    return found[0]


def sides_of(pictures: Pictures, seed: int = 0) -> tuple[set[str], set[str]]:
    """Names of the pictures that crops of both sides were cut from."""
    training, held_out = pictures.split(seed)
    assert sorted([*training, *held_out]) == list(range(len(pictures)))
    first, second = ({pictures.names[i] for i in side} for side in (training, held_out))
    return first, second


# ------------------------------------------------------------------------------------- places
@pytest.mark.parametrize("count", [1, 2, 3, 7, 12, 18])
@pytest.mark.parametrize(("width", "height"), [(400, 200), (200, 400), (1200, 64), (399, 193)])
def test_crops_overlap_only_where_they_must(width: int, height: int, count: int) -> None:
    found = places(width, height, 64, Cut(count), np.random.default_rng(count))
    corners = np.array([(p.left, p.top) for p in found])
    assert len(corners) == count
    assert (corners >= 0).all()
    assert (corners <= (width - 64, height - 64)).all()
    apart = np.abs(corners[:, None] - corners[None]).max(2)
    assert (apart + 64 * np.eye(count) >= 64).all()


@pytest.mark.parametrize("seed", range(8))
def test_places_differ_and_reach_every_corner(seed: int) -> None:
    """Also where crops must overlap; each part of the picture gets its share of them."""
    rng = np.random.default_rng(seed)
    width, height, size = int(rng.integers(64, 200)), int(rng.integers(64, 200)), 64
    count = int(min(rng.integers(1, 300), most_crops(width, height, size)))
    found = {(p.left, p.top) for p in places(width, height, size, Cut(count), rng)}
    assert len(found) == count
    lefts = np.array([left for left, _ in found])
    if count >= 64 and width > 100:
        thirds = np.histogram(lefts, 3, (0, width - size))[0]
        assert thirds.min() > 0.2 * count


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_no_crop_crosses_the_border_of_a_part(parts: int) -> None:
    covered = np.full((300, 500), -1)
    found = places(500, 300, 64, Cut(120, parts), np.random.default_rng(0))
    for place in found:
        area = covered[place.top : place.top + 64, place.left : place.left + 64]
        assert set(np.unique(area)) <= {-1, place.part}, "a pixel of two parts"
        area[:] = place.part
    assert len(found) == 120
    assert len({place.part for place in found}) >= parts


# --------------------------------------------------------------------------- pieces of pictures
def test_a_crop_is_an_exact_piece_of_its_picture(tmp_path: Path) -> None:
    folder = scans(tmp_path / "scans", 6)
    pictures = load_pictures(folder, 32, crops=5)
    assert pictures.images.shape == (30, 32, 32, 3)
    for image, name in zip(pictures.images, pictures.names, strict=True):
        place_of(image, numbered(120, 90, int(name[4:-4])))
    again = load_pictures(folder, 32, cache_dir=tmp_path / "cache", crops=5)
    cached = load_pictures(folder, 32, cache_dir=tmp_path / "cache", crops=5)
    for other in (again, cached):
        assert other.fingerprint == pictures.fingerprint
        assert (other.names, other.notes) == (pictures.names, pictures.notes)
        np.testing.assert_array_equal(other.images, pictures.images)
        np.testing.assert_array_equal(other.split(0)[1], pictures.split(0)[1])
    fewer = load_pictures(folder, 32, cache_dir=tmp_path / "cache", crops=4)
    assert len(fewer) == 24, "another number is another cache"


def test_a_zip_and_an_array_are_cut_as_a_folder_is(tmp_path: Path) -> None:
    folder = scans(tmp_path / "scans", 6)
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    expected = load_pictures(folder, 32, crops=4)
    zipped = load_pictures(tmp_path / "scans.zip", 32, crops=4)
    assert zipped.fingerprint == expected.fingerprint
    arrays = np.stack([numbered(120, 90, i) for i in range(6)])
    np.savez(tmp_path / "x.npz", images=arrays, labels=[0, 1, 0, 1, 0, 1])
    found = load_pictures(tmp_path / "x.npz", 32, crops=4)
    assert found.names[3:5] == ("#0", "#1")
    assert found.labels is not None
    assert found.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1] * 3
    for image, name in zip(found.images, found.names, strict=True):
        place_of(image, arrays[int(name[1:])])


def test_whole_pictures_beside_the_crops_are_those_without_crops(tmp_path: Path) -> None:
    folder = scans(tmp_path / "scans", 16)
    colour(0, 32, 20).save(folder / "small.png")
    whole, both = load_pictures(folder, 32), load_pictures(folder, 32, crops=3, keep_whole=True)
    last = [i for i, name in enumerate(both.names) if name != (*both.names, "")[i + 1]]
    np.testing.assert_array_equal(both.images[last], whole.images)
    assert len(both) == 16 * 4 + 1, "a small picture is used whole"
    what = "48 crops of 32 x 32 pixels at their own scale and 17 pictures as a whole"
    assert f"{what}, from 17 pictures" in both.notes


def test_a_large_jpeg_is_cut_at_its_own_scale(tmp_path: Path) -> None:
    """Decoding it reduced would be quicker, and wrong."""
    whole = np.asarray(colour(0, 1600, 1200))
    Image.fromarray(whole).save(tmp_path / "x.jpg", quality=95)
    decoded = np.asarray(Image.open(tmp_path / "x.jpg"))
    with open(tmp_path / "x.jpg", "rb") as file:
        found = decode.cut(file, "x.jpg", decode.Frame(32), Cut(4))
    corners = places(1600, 1200, 32, Cut(4), np.random.default_rng(0))
    assert len(found.framed) == len(corners) == 4
    for picture in found.framed:
        place_of(picture.pixels, decoded)


def test_a_turned_picture_is_turned_before_it_is_cut(tmp_path: Path) -> None:
    folder = scans(tmp_path / "scans", 6, 130, 70)
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = numbered(300, 70)
    Image.fromarray(whole).save(folder / "turned.png", exif=exif)
    pictures = load_pictures(folder, 64, crops=4)
    turned = [pictures.images[i] for i, name in enumerate(pictures.names) if name == "turned.png"]
    assert len(turned) == 4
    for image in turned:
        place_of(image, np.rot90(whole, -1))
    assert "1 picture rotated upright, as EXIF says" in pictures.notes, "counted once"


def test_pixel_art_is_cut_in_its_original_pixels(tmp_path: Path) -> None:
    (tmp_path / "art").mkdir()
    palette = np.random.default_rng(9).integers(0, 256, (40, 3), dtype=np.uint8)
    for i in range(5):
        art = palette[np.random.default_rng(i).integers(0, 40, (48, 60))]
        enlarged = np.kron(art, np.ones((4, 4, 1), np.uint8))
        Image.fromarray(enlarged).save(tmp_path / "art" / f"{i}.png")
    pictures = load_pictures(tmp_path / "art", 16, crops=6)
    for image, name in zip(pictures.images, pictures.names, strict=True):
        place_of(image, palette[np.random.default_rng(int(name[0])).integers(0, 40, (48, 60))])


def test_crops_have_the_class_of_their_picture(tmp_path: Path) -> None:
    for name in ("paper", "wood"):
        write_pictures(tmp_path / "in" / name, 5, 80, 80)
    pictures = load_pictures(tmp_path / "in", 32, crops=3)
    assert pictures.label_histogram == (15, 15)
    assert pictures.labels is not None
    for name, label in zip(pictures.names, pictures.labels, strict=True):
        assert name.startswith(pictures.classes[label])


# ------------------------------------------------------------------------------------ the split
@pytest.mark.parametrize(("count", "crops"), [(5, 40), (6, 19), (12, 9), (30, 4), (60, 1)])
def test_all_crops_of_a_picture_are_on_one_side(tmp_path: Path, count: int, crops: int) -> None:
    pictures = load_pictures(scans(tmp_path / "scans", count, 80, 70), 16, crops=crops)
    for seed in range(3):
        training, held_out = sides_of(pictures, seed)
        assert not training & held_out
        assert training
        share = len(pictures.split(seed)[1]) / len(pictures)
        assert 0.05 <= share <= 1 / 3
    assert "all crops of a picture are trained on, or all are held out" in pictures.notes
    assert pictures.about_twins() == ""


@pytest.mark.parametrize("count", [1, 2, 4])
def test_of_few_scans_no_pixel_is_on_both_sides(tmp_path: Path, count: int) -> None:
    pictures = load_pictures(scans(tmp_path / "one", count, 300, 200), 32, crops=90)
    assert any("no crop crosses a border" in note for note in pictures.notes)
    for seed in range(3):
        training, held_out = pictures.split(seed)
        assert 0.1 * len(pictures) <= len(held_out) <= len(pictures) / 3
        seen = np.zeros((count, 200, 300), bool)
        for i in (*training, *held_out):
            number = int(pictures.names[i][4:-4])
            left, top = place_of(pictures.images[i], numbered(300, 200, number))
            area = seen[number, top : top + 32, left : left + 32]
            if i in held_out:
                assert not area.any()
            else:
                area[:] = True


def test_copies_of_a_picture_stay_with_it(tmp_path: Path) -> None:
    """Under another name they are cut in other places: no crop equals another."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(12):
        colour(i, 100, 90).save(folder / f"a{i}.png")
        colour(i, 100, 90).save(folder / f"z{i}.jpg", quality=90)
        colour(i, 100, 90).save(folder / f"m{i}.bmp")
    pictures = load_pictures(folder, 32, crops=2)
    for seed in range(4):
        training, held_out = sides_of(pictures, seed)
        numbers = [{name[1:-4] for name in side} for side in (training, held_out)]
        assert not numbers[0] & numbers[1]
        assert len(numbers[1]) > 1


def test_equal_grounds_do_not_join_the_pictures(tmp_path: Path) -> None:
    """Most crops of drawings are plain paper; the split must not fail on that."""
    (tmp_path / "in").mkdir()
    for i in range(10):
        page = np.full((120, 120), 255, np.uint8)
        page[50:70, 50:70] = numbered(20, 20, i)[..., 0]
        Image.fromarray(page).save(tmp_path / "in" / f"{i}.png")
    pictures = load_pictures(tmp_path / "in", 16, crops=30)
    training, held_out = sides_of(pictures)
    assert not training & held_out
    assert len(held_out) == 2


def test_a_large_scan_is_held_out_as_often_as_small_pictures() -> None:
    """100 small pictures, and one that gives as many crops as they do, in 5 parts."""
    group = np.concatenate([np.arange(100), np.repeat(np.arange(100, 105), 20)])
    share = np.mean(
        [
            choose_held_out(group, 40, np.random.default_rng(seed)).reshape(2, 100).mean(1)
            for seed in range(200)
        ],
        axis=0,
    )
    np.testing.assert_allclose(share, 0.2, atol=0.05)


def test_the_copy_test_finds_trained_crops_and_no_held_out_ones(tmp_path: Path) -> None:
    pictures = load_pictures(scans(tmp_path / "scans", 12), 16, crops=12)
    training, held_out = pictures.split(0)
    reference = CopyReference(pictures.tensor(training), pictures.tensor(held_out))
    assert reference.test(pictures.tensor(training[:40])).fraction == 1
    found = reference.test(pictures.tensor(held_out))
    assert found.fraction == found.held_out_fraction == 0


# -------------------------------------------------------------------------------------- refusals
def refused(path: Path, match: str, size: int | None, crops: int, whole: bool = False) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        load_pictures(path, size, crops=crops, keep_whole=whole)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in", 20, 40, 32)
    wanted = r"crops of 64 x 64 pixels are larger than all 20 pictures \(the largest has 40 x 32\)"
    refused(folder, wanted + ": use a smaller size, or no crops", 64, 4)
    refused(folder, wanted, 64, 4, whole=True)
    refused(folder, "-1 crops do not work; use 0 for none", 32, -1)
    refused(folder, "keep_whole goes with crops", 32, 0, whole=True)
    square = write_pictures(tmp_path / "square", 20)
    exactly = "20 pictures have exactly the size of the crops, 32 x 32, so nothing can be cut"
    refused(square, exactly, 32, 4)
    refused(square, exactly, None, 4)
    images = np.stack([numbered(32, 32, i) for i in range(20)])
    np.savez(tmp_path / "same.npz", images=images)
    refused(tmp_path / "same.npz", exactly, 32, 4)
    np.savez(tmp_path / "small.npz", images=images[:, :24])
    refused(tmp_path / "small.npz", r"larger than all 20 pictures \(the largest has 32 x 24", 32, 4)
    one = scans(tmp_path / "one", 1)
    refused(one, "gives only 4 pictures of 32 x 32 pixels: training needs at least 16", 32, 4)
    undivided = "one picture that is too small to be divided, into a part to train on"
    refused(one, undivided, 64, 20)
    art = np.kron(numbered(13, 13)[..., 0], np.ones((10, 10), np.uint8))
    (tmp_path / "art").mkdir()
    Image.fromarray(art).save(tmp_path / "art" / "enlarged.png")
    refused(tmp_path / "art", undivided, 8, 30)  # room for two parts only before it is reduced
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "is empty", 32, 4)


def test_small_pictures_beside_a_scan_are_named_and_left_out(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in", 40, 24, 24)
    Image.fromarray(numbered(500, 400)).save(folder / "scan.png")
    pictures = load_pictures(folder, 32, crops=50)
    assert set(pictures.names) == {"scan.png"}
    assert len(pictures) == 50
    assert {item.code for item in pictures.skipped} == {SMALLER_THAN_CROPS}
    assert len(pictures.skipped) == 40
    assert pictures.skip_reasons["smaller than the crops"] == 40
    whole = load_pictures(folder, 32, crops=50, keep_whole=True)
    assert len(whole) == 90, "the small ones whole, the scan cut and divided"


def test_damaged_scans_are_skipped_with_their_reason(tmp_path: Path) -> None:
    folder = scans(tmp_path / "in", 8)
    data = (folder / "scan0.png").read_bytes()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    pictures = load_pictures(folder, 32, crops=4)
    assert [(item.name, item.code) for item in pictures.skipped] == [("cut.png", "truncated")]
    assert len(pictures) == 32
    for i in range(12):
        (folder / f"cut{i}.png").write_bytes(data[: len(data) // 2])
    refused(folder, "13 of 21 pictures cannot be used", 32, 4)


def test_groups_in_a_cache_that_were_changed_are_not_used(tmp_path: Path) -> None:
    folder, place = scans(tmp_path / "in", 6), tmp_path / "cache"
    first = load_pictures(folder, 32, cache_dir=place, crops=4)
    facts = next(place.glob("*.json"))
    stored = json.loads(facts.read_text())
    for groups in ([0] * 24, [-1] * 24, [0], "x", None):
        facts.write_text(json.dumps({**stored, "groups": groups}))
        again = load_pictures(folder, 32, cache_dir=place, crops=4)
        assert again.groups is not None
        np.testing.assert_array_equal(again.groups, first.groups)


def test_many_crops_come_in_the_order_of_the_files(tmp_path: Path) -> None:
    folder = scans(tmp_path / "in", 40, 64, 64)
    pictures = load_pictures(folder, 16, crops=30)
    assert [pictures.names[30 * i] for i in range(40)] == sorted(p.name for p in folder.iterdir())


def test_a_plan_says_what_each_picture_gives() -> None:
    sides = [(64, 64), (640, 64), (30, 900)] + [(300, 300)] * 8
    plain = plan_cuts(Path("x"), sides, 64, 6, keep_whole=False)
    assert plain[:4] == [Cut(1), Cut(6), None, Cut(6)]
    whole = plan_cuts(Path("x"), sides, 64, 6, keep_whole=True)
    assert whole[:4] == [Cut(0, 1, True), Cut(6, 1, True), Cut(0, 1, True), Cut(6, 1, True)]


def test_origins_of_nothing_alike_are_the_pictures() -> None:
    origins = Origins()
    for i in range(6):
        image = Image.fromarray(numbered(80, 80, i))
        with_noise = decode.cut_picture(image, f"{i}", decode.Frame(16), Cut(5), set())
        origins.add(with_noise)
    assert origins.groups().tolist() == np.repeat(np.arange(6), 5).tolist()


@pytest.mark.parametrize(("size", "count"), [((24, 40), 12), ((40, 24), 7), ((16, 64), 5)])
def test_crops_of_any_shape_lie_inside_and_fill_the_picture(
    size: tuple[int, int], count: int
) -> None:
    height, width = size
    found = places(300, 200, size, Cut(count), np.random.default_rng(1))
    assert len(found) == count == len({(p.left, p.top) for p in found})
    assert all(0 <= p.left <= 300 - width and 0 <= p.top <= 200 - height for p in found)
    # A transposed picture has the transposed grid.
    columns, rows = grid(300, 200, size, count)
    assert grid(200, 300, (width, height), count) == (rows, columns)
    assert most_crops(300, 200, size) == most_crops(200, 300, (width, height))
