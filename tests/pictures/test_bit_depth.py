"""Deep pictures keep their brightness to each other, and no picture turns others black."""

from __future__ import annotations

import os
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisewise.pictures import bit_depth, sources, zip_source
from noisewise.pictures.headers import in_order
from noisewise.pictures.pictures import load_pictures
from picture_files import write_pictures

SIDE = 16


def ramps(count: int = 20) -> Iterator[np.ndarray]:
    """Pictures of values spread over 0 to 1, each in an order of its own."""
    for seed in range(count):
        values = np.linspace(0, 1, SIDE * SIDE)
        yield np.random.default_rng(seed).permutation(values).reshape(SIDE, SIDE)


def write(folder: Path, name: str, values: np.ndarray) -> None:
    """Write 16-bit values as PNG, floats and 32-bit values as TIFF."""
    folder.mkdir(exist_ok=True)
    ending = "png" if values.dtype == np.uint16 else "tif"
    Image.fromarray(values).save(folder / f"{name}.{ending}")


def seen(folder: Path) -> dict[str, np.ndarray]:
    """Each usable picture as it is trained on."""
    pictures = load_pictures(folder, size=SIDE)
    return dict(zip(pictures.names, pictures.images[..., 0], strict=True))


def expected(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 1 as uint8."""
    return np.rint(values * 255).astype(np.uint8)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("share", [1, SIDE * SIDE])
def test_a_picture_that_is_not_finite_is_left_out_and_changes_no_other(
    tmp_path: Path, bad: float, share: int
) -> None:
    for i, values in enumerate(ramps()):
        write(tmp_path / "x", f"p{i:02}", values.astype(np.float32))
    broken = np.full((SIDE, SIDE), 5e4, np.float32)  # its finite values do not count either
    broken.reshape(-1)[:share] = bad
    write(tmp_path / "x", "a-first", broken)
    write(tmp_path / "x", "z-last", broken)
    pictures = load_pictures(tmp_path / "x", size=SIDE)
    left = {item.name: item.code for item in pictures.skipped}
    assert left == {"a-first.tif": sources.NOT_FINITE, "z-last.tif": sources.NOT_FINITE}
    for values, found in zip(ramps(), pictures.images[..., 0], strict=True):
        np.testing.assert_array_equal(found, expected(values))


def test_whole_numbers_and_floats_have_scales_of_their_own(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", 2, SIDE, SIDE)
    wanted = {}
    for i, values in enumerate(ramps()):
        write(folder, f"float{i:02}", values.astype(np.float32))
        wanted[f"float{i:02}.tif"] = expected(values)
    whole = np.rint(next(ramps(1)) * 4095)
    write(folder, "whole", whole.astype(np.uint16))
    wanted["whole.png"] = expected(whole / 4095)
    long = np.rint(next(ramps(1)) * (2**31 - 1))
    write(folder, "long", long.astype(np.int32))
    pictures = load_pictures(folder, size=SIDE, channels=1)
    found = dict(zip(pictures.names, pictures.images[..., 0], strict=True))
    for name, picture in wanted.items():
        np.testing.assert_array_equal(found[name], picture, err_msg=name)
    assert np.abs(found["long.tif"].astype(int) - expected(long / (2**31 - 1))).max() <= 1
    notes = "\n".join(pictures.notes)
    assert "20 pictures with more than 8 bits (float): 0 is black and 1 is white" in notes
    assert "1 picture with more than 8 bits (16-bit): 0 is black and 4095 is white" in notes


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-40.0, 400.0), (0.0, 1.0005)])
def test_floats_are_scaled_and_not_clipped(tmp_path: Path, low: float, high: float) -> None:
    for i, values in enumerate(ramps()):
        write(tmp_path / "x", f"p{i:02}", (low + (high - low) * values).astype(np.float32))
    for values, found in zip(ramps(), seen(tmp_path / "x").values(), strict=True):
        assert np.abs(found.astype(int) - expected(values)).max() <= 1


def test_16_bit_values_become_the_nearest_8_bit_ones() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = bit_depth.to_eight_bits(Image.fromarray(values), bit_depth.Range(0, 65535))
    np.testing.assert_array_equal(np.asarray(found), np.rint(values / 257).astype(np.uint8))


def test_large_deep_pictures_take_little_more_than_themselves() -> None:
    image = Image.new("I;16", (3000, 3000), 1000)
    tracemalloc.start()
    try:
        bit_depth.to_eight_bits(image, bit_depth.Range(0, 65535))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 4 * 3000 * 3000, "four bytes a pixel; a copy in float64 alone would take eight"


def test_threads_together_stay_within_the_bytes_allowed() -> None:
    sizes = np.random.default_rng(0).integers(1, 40, 300).tolist()
    sizes[100] = 1000  # larger than all that is allowed: it goes alone
    held, most, alone = 0, 0, True
    lock = threading.Lock()

    def work(size: int) -> int:
        nonlocal held, most, alone
        with lock:
            alone &= size < 1000 or held == 0
            held += min(size, 100)
            most = max(most, held)
        time.sleep(0.0005)
        with lock:
            held -= min(size, 100)
        return -size

    with ThreadPoolExecutor(8) as pool:
        found = list(in_order(pool, work, sizes, lambda size: size, most_bytes=100))
    assert found == [(size, -size) for size in sizes]
    assert most <= 100
    assert alone
    assert most > 40, "more than one at a time"


def test_a_member_of_a_zip_is_read_no_further_than_it_says(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(50_000_000))
    data = bytearray((tmp_path / "x.zip").read_bytes())
    told = (50_000_000).to_bytes(4, "little")
    at = data.rindex(told)  # in the table of contents
    data[at : at + 4] = (1000).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(data)
    with zip_source.open_zip(tmp_path / "x.zip") as source:
        (entry,) = source.entries
        tracemalloc.start()
        try:
            with pytest.raises(zipfile.BadZipFile):
                source.open(entry)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert most < 5_000_000
    assert os.path.getsize(tmp_path / "x.zip") < 100_000
