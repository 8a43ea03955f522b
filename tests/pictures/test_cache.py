"""The cache survives kills, full disks, other processes and changed bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from noisewise.pictures import cache
from noisewise.pictures.pictures import load_pictures
from noisewise.whole_files import replacing
from picture_files import write_pictures
from small_disk import fill, small_disk

_LOAD = """
import sys, time
from noisewise.pictures import cache
from noisewise.pictures.pictures import load_pictures
if len(sys.argv) > 3:  # dies in the middle of writing, as a machine does
    import os, signal
    blocks = cache.Rows._blocks
    def dying(self, channels):
        yield from blocks(self, channels)
        os.kill(os.getpid(), signal.SIGKILL)
    cache.Rows._blocks = dying
print(load_pictures(sys.argv[1], cache_dir=sys.argv[2]).fingerprint)
"""


def test_changed_bytes_are_found_and_the_pictures_read_again(tmp_path: Path) -> None:
    folder, place = write_pictures(tmp_path / "in"), tmp_path / "cache"
    first = load_pictures(folder, cache_dir=place)
    rows = next(place.glob("*.npy"))
    data = bytearray(rows.read_bytes())
    data[-5000] ^= 1
    rows.write_bytes(data)
    again = load_pictures(folder, cache_dir=place)
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.images, load_pictures(folder).images)
    facts = next(place.glob("*.json"))
    facts.write_text(facts.read_text().replace('"classes": []', '"classes": ["x"]'))
    assert load_pictures(folder, cache_dir=place).classes == ()


def test_what_a_kill_leaves_is_swept_by_the_next_reader(tmp_path: Path) -> None:
    folder, place = write_pictures(tmp_path / "in"), tmp_path / "cache"
    command = [sys.executable, "-c", _LOAD, str(folder), str(place), "die"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [p.name[:5] for p in place.iterdir()] == [".new-"]
    expected = load_pictures(folder)
    assert load_pictures(folder, cache_dir=place).fingerprint == expected.fingerprint
    assert sorted(p.suffix for p in place.iterdir()) == [".json", ".npy"]


def test_a_file_that_is_being_written_is_not_swept(tmp_path: Path) -> None:
    with replacing(tmp_path / "x.json", ".new-") as new:
        new.write_bytes(b"half")
        assert cache.sweep(tmp_path) == 0
    assert (tmp_path / "x.json").read_bytes() == b"half"


def test_a_file_is_not_swept_in_the_moment_of_its_renaming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock is of one opening of a file: to it, this sweep is that of another process."""
    rename, swept = os.replace, []

    def interrupted(old: str, new: Path) -> None:
        swept.append(cache.sweep(tmp_path))
        rename(old, new)

    monkeypatch.setattr(os, "replace", interrupted)
    with replacing(tmp_path / "x.json", ".new-") as new:
        new.write_bytes(b"whole")
    assert swept == [0]
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_several_processes_write_the_same_cache_at_once(tmp_path: Path) -> None:
    folder, place = write_pictures(tmp_path / "in"), tmp_path / "cache"
    command = [sys.executable, "-c", _LOAD, str(folder), str(place)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)
    ]
    said = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert len({out for out, _ in said}) == 1
    assert sorted(p.suffix for p in place.iterdir()) == [".json", ".npy"]


@pytest.mark.parametrize("kilobytes", [16, 64, 96])
def test_a_full_disk_is_a_sentence_and_leaves_nothing_half(tmp_path: Path, kilobytes: int) -> None:
    folder = write_pictures(tmp_path / "in")  # 60 kB of pixels
    with small_disk(tmp_path / "disk", 400) as disk:
        ballast = fill(disk, kilobytes)
        with pytest.raises(ValueError, match="No space left on device; check permissions and free"):
            load_pictures(folder, cache_dir=disk / "cache")
        assert list((disk / "cache").iterdir()) == []
        ballast.unlink()
        assert len(load_pictures(folder, cache_dir=disk / "cache")) == 20


@pytest.mark.parametrize(
    "header", [b"\x02\x00\xff\xff\xff\xff", b"\x01\x00\x29\x23" + b"-" * 9000 + b"1"]
)
def test_a_header_that_is_not_ours_is_read_again(tmp_path: Path, header: bytes) -> None:
    """NumPy would take 4 GiB for the first and say that memory ran out for the second."""
    folder = write_pictures(tmp_path / "x")
    before = load_pictures(folder, 32)
    load_pictures(folder, 32, cache_dir=tmp_path / "cache")
    (stored,) = (tmp_path / "cache").glob("*.npy")
    stored.unlink()
    stored.write_bytes(b"\x93NUMPY" + header)
    again = load_pictures(folder, 32, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(again.images, before.images)
    assert again.fingerprint == before.fingerprint
