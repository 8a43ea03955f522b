"""Small files that ask for gigabytes: refused or left out, with the memory of the process measured.

Every size that a file states is forged here, so the files are small and made at once.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy
from PIL import Image

from noisewise.pictures import array_files
from noisewise.pictures.pictures import load_pictures
from picture_files import colour, write_pictures

SERVER = """
import json, os, resource, sys
from pathlib import Path
from noisewise.pictures import array_files
from noisewise.pictures.pictures import load_pictures

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

for line in sys.stdin:
    what, path = line.rstrip().split(" ", 1)
    if os.fork() == 0:
        resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
        before, said = most(), "it ended without a word"
        try:
            if what == "arrays":
                found = array_files.open_arrays(Path(path))
                said = str(sum(len(picture) for picture in found.pictures()))
            else:
                said = f"{len(load_pictures(path))} pictures"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            print(json.dumps([most() - before, said]), flush=True)
            os._exit(0)
    if os.wait()[1]:
        print(json.dumps([1e9, "killed"]), flush=True)
"""

Measure = Callable[..., tuple[float, str]]
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measured on Linux")


@pytest.fixture(scope="module")
def measure() -> Iterator[Measure]:
    """Load a path in a process of its own: the MiB that it took at most, and what it said."""
    words = [sys.executable, "-c", SERVER]
    with subprocess.Popen(words, stdin=-1, stdout=-1, text=True, bufsize=1) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        give, answers = child.stdin, child.stdout

        def load(path: Path, what: str = "pictures") -> tuple[float, str]:
            give.write(f"{what} {path}\n")
            taken, said = json.loads(answers.readline())
            return taken, said

        yield load
        give.close()


def array_bytes(descr: str, shape: tuple[int, ...], content: bytes = b"") -> bytes:
    """A .npy with any header, and some content."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + content


def forged(path: Path, members: dict[str, bytes], stated: dict[str, int]) -> Path:
    """A zip whose table of contents states other lengths than the members have."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for info in archive.filelist:
            info.file_size = stated.get(info.filename, info.file_size)
    return path


IMAGES = np.random.default_rng(0).integers(0, 256, (24, 8, 8), dtype=np.uint8)
IMAGES_NPY = array_bytes("|u1", IMAGES.shape, IMAGES.tobytes())


def png(seed: int) -> bytes:
    file = io.BytesIO()
    colour(seed).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("key", "descr", "shape", "match"),
    [
        ("labels", "<U26214400", (24,), "'labels' has texts of 26,214,400 letters"),
        ("labels", "|S104857600", (24, 1), "'labels' has texts of 104,857,600 letters"),
        ("names", "<U26214400", (24,), "'names' has texts of 26,214,400 letters"),
        ("categories", "<U999", (999_999,), "'categories' takes 3,811 MiB"),
        ("categories", "<U9", (-5,), "has shape"),
        ("labels", "<i8", (24, -1), "has shape"),
    ],
)
def test_labels_and_names(
    tmp_path: Path, measure: Measure, key: str, descr: str, shape: tuple[int, ...], match: str
) -> None:
    members = {"images.npy": IMAGES_NPY, f"{key}.npy": array_bytes(descr, shape)}
    if key == "categories":
        members["labels.npy"] = array_bytes("|u1", (24,), bytes(24))
    path = forged(tmp_path / "x.npz", members, {f"{key}.npy": 2**32 - 2})
    taken, said = measure(path)
    assert match in said
    assert said.startswith("ValueError")
    assert taken < 100


def test_texts_without_letters_and_letters_that_are_none(tmp_path: Path) -> None:
    members = {"images.npy": IMAGES_NPY, "labels.npy": array_bytes("<U0", (24,))}
    assert load_pictures(forged(tmp_path / "x.npz", members, {})).classes == ("",)
    members["labels.npy"] = array_bytes("<U1", (24,), b"\xff" * 96)
    with pytest.raises(ValueError, match="truncated or damaged"):
        load_pictures(forged(tmp_path / "y.npz", members, {}))


def test_a_member_without_ending_does_not_take_the_place_of_the_array(tmp_path: Path) -> None:
    """NumPy reads `labels` where both are there; the header that was checked is the other's."""
    labels = np.arange(24, dtype=np.uint8) % 2
    members = {
        "images.npy": IMAGES_NPY,
        "labels": array_bytes("<U26214400", (24,)),
        "labels.npy": array_bytes("|u1", (24,), labels.tobytes()),
    }
    pictures = load_pictures(forged(tmp_path / "x.npz", members, {"labels": 2**32 - 2}))
    assert pictures.labels is not None
    np.testing.assert_array_equal(pictures.labels, labels)


def test_a_small_file_of_millions_of_pictures(tmp_path: Path, measure: Measure) -> None:
    members = {"images.npy": array_bytes("|u1", (50_000_000, 4, 4))}
    path = forged(tmp_path / "x.npz", members, {"images.npy": 2**30})
    taken, said = measure(path)
    assert "states 50,000,000 pictures of 0.7 GiB in a file of 0.0 MiB" in said
    assert taken < 100


def test_a_header_without_end(tmp_path: Path, measure: Measure) -> None:
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        file.write(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**30))
        file.truncate(2**30 + 100)
    taken, said = measure(path)
    assert "the header of the array '' has 1,073,741,824 bytes" in said
    assert taken < 100


def test_large_pictures_are_read_in_parts(tmp_path: Path, measure: Measure) -> None:
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        file.write(array_bytes("<f8", (2, 5000, 5000)))
        file.truncate(file.tell() + 2 * 8 * 5000**2)
    taken, said = measure(path, "arrays")  # 200 MB each as floats
    assert said == "10000"
    assert taken < 250
    assert "only 2 usable pictures" in measure(path)[1]


@pytest.mark.parametrize("shape", [(2, 1500, 1501), (3, 800, 900, 3), (2, 3, 1200, 900)])
def test_parts_give_the_same_pictures(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 4096, shape, dtype=np.uint16)
    np.save(tmp_path / "x.npy", values)
    found = array_files.open_arrays(tmp_path / "x.npy")
    expected = np.rint(values * (255.0 / 4095)).astype(np.uint8)
    if len(shape) == 3:
        expected = expected[..., None]
    elif shape[1] == 3:
        expected = expected.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(np.stack(list(found.pictures())), expected)


def test_a_long_metadata_file(tmp_path: Path, measure: Measure) -> None:
    pictures = {f"{i}.png": png(i) for i in range(20)}
    for name in ("metadata.csv", "metadata.jsonl"):
        path = forged(tmp_path / f"{name}.zip", {**pictures, name: b"0"}, {name: 496 * 2**20})
        taken, said = measure(path)
        assert said == "20 pictures"
        assert taken < 150
        note = f"{name} is not used: it has 496 MiB, and at most 128 MiB are read"
        assert any(note in text for text in load_pictures(path).notes)
        line = forged(tmp_path / f"{name}.line.zip", {**pictures, name: bytes(40 * 2**20)}, {})
        taken, said = measure(line)
        assert said == "20 pictures"
        assert taken < 200
        notes = load_pictures(line).notes
        assert any("line 1 has more than 1,048,576 letters" in text for text in notes)


def test_labels_of_files_that_are_not_there_take_no_memory(
    tmp_path: Path, measure: Measure
) -> None:
    folder = write_pictures(tmp_path / "x")
    rows = "".join(f"{i},a\n" for i in range(400_000))
    mine = "".join(f"p{i:03}.png,{'ab'[i % 2]}\n" for i in range(20))
    (folder / "metadata.csv").write_text(f"file_name,label\n{rows}{mine}")
    taken, said = measure(folder)
    assert said == "20 pictures"
    assert taken < 80
    assert load_pictures(folder).label_histogram == (10, 10)
    (folder / "metadata.csv").write_text(f"file_name,label\n{rows}")
    assert any("0 of 20 pictures have a label" in text for text in load_pictures(folder).notes)


def test_members_that_share_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("p.png", png(0))
        for i in range(1, 21):
            archive.writestr(f"{i}.png", png(i))
        archive.filelist += [copy.copy(archive.filelist[0]) for _ in range(30)]
    with pytest.raises(ValueError, match=r"31 of 51 pictures cannot be used \(31 damaged\)"):
        load_pictures(path)


def test_a_member_without_a_name(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(21):
            archive.writestr(f"{i}.png", png(i))
        archive.filelist[0].filename = ""
    assert len(load_pictures(path)) == 20


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_expand_without_a_limit(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in range(21):
            archive.writestr(f"{i}.png", png(i), None if i else method)
    pictures = load_pictures(tmp_path / "x.zip")
    assert [(item.name, item.code) for item in pictures.skipped] == [("0.png", "unsupported")]
    with zipfile.ZipFile(tmp_path / "x.npz", "w", method) as archive:
        archive.writestr("images.npy", IMAGES_NPY)
    with pytest.raises(ValueError, match=r"'images\.npy' is neither stored nor deflated"):
        load_pictures(tmp_path / "x.npz")


def test_an_icon_with_a_large_picture_inside(tmp_path: Path, measure: Measure) -> None:
    folder = write_pictures(tmp_path / "x")
    inside = io.BytesIO()
    Image.new("L", (6000, 6000)).save(inside, "PNG")
    content = inside.getvalue()
    entry = struct.pack("<BBBBHHII", 32, 32, 0, 0, 1, 32, len(content), 22)
    for i in range(8):
        (folder / f"{i}.ico").write_bytes(b"\0\0\1\0\1\0" + entry + content)
    good = folder / "good.ico"
    colour(99).save(good, sizes=[(16, 16), (32, 32)])
    taken, said = measure(folder)
    assert said == "21 pictures"
    assert taken < 150
    assert {item.code for item in load_pictures(folder).skipped} == {"too_large"}


def test_a_tiff_of_one_large_tile(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x")
    tags: dict[int, Any] = {
        256: 32,
        257: 32,
        258: 8,
        259: 8,
        262: 1,
        277: 1,
        322: 32768,
        323: 32768,
    }
    tags |= {324: 400, 325: 20}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + table + bytes(300)
    (folder / "x.tif").write_bytes(data)
    skipped = load_pictures(folder).skipped
    assert [(item.name, item.code) for item in skipped] == [("x.tif", "too_large")]


def test_names_without_letters_are_counted_too(tmp_path: Path, measure: Measure) -> None:
    """NumPy makes one letter of none: 10^10 names would need no byte of the file."""
    members = {"images.npy": IMAGES_NPY, "names.npy": array_bytes("<U0", (10**10,))}
    taken, said = measure(forged(tmp_path / "x.npz", members, {}))
    assert "Traceback" not in said
    assert taken < 100


def test_a_header_that_python_cannot_parse_is_the_fault_of_the_file(tmp_path: Path) -> None:
    text = b"-" * 9000 + b"1"
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
    with pytest.raises(ValueError, match="cannot be read as a NumPy file"):
        load_pictures(path)
