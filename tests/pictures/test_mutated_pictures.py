"""Damaged pictures and archives: none crashes or hangs, each is used or named with its reason."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mutations import archives, mutated, write_mutants
from noisewise.app import cli
from noisewise.pictures.pictures import load_pictures
from noisewise.training.inspect import inspect
from picture_files import write_pictures


@pytest.mark.parametrize(
    ("count", "seed"), [(80, 0), pytest.param(1000, 1, marks=pytest.mark.slow)]
)
def test_every_mutant_is_used_or_named(tmp_path: Path, count: int, seed: int) -> None:
    folder = write_pictures(tmp_path / "x", count=count)  # sound ones, so that enough is left
    names = write_mutants(folder / "mutants", count, seed)
    pictures = load_pictures(folder, size=32)
    used = {name.removeprefix("mutants/") for name in pictures.names}
    left = {item.name.removeprefix("mutants/"): item.code for item in pictures.skipped}
    assert set(names) <= used | left.keys()
    assert not used & left.keys()
    assert all(left.values())
    assert len(used & set(names)) > count // 20, "some damage is harmless"
    assert len(left) > count // 4, "most is not"
    found = inspect(folder)
    assert found.num_pictures + sum(item.count for item in found.skipped) == 2 * count


@pytest.mark.parametrize(
    ("count", "seed"), [(40, 0), pytest.param(1000, 1, marks=pytest.mark.slow)]
)
def test_every_mutated_archive_is_read_or_refused_in_a_sentence(
    tmp_path: Path, count: int, seed: int
) -> None:
    """Of each kind so many; the header of an array, where most goes wrong, is hit on purpose."""
    refused = 0
    for original in archives(tmp_path / "sound"):
        assert len(load_pictures(original)) == 16
        data = original.read_bytes()
        for number in range(count):
            generator = np.random.default_rng((seed, number, len(data)))
            damaged = bytearray(mutated(data, generator))
            if original.suffix == ".npy" and number % 2:
                damaged = bytearray(data)
                damaged[int(generator.integers(6, 128))] = int(generator.integers(256))
            path = tmp_path / f"x{original.suffix}"
            path.write_bytes(damaged)
            said = ""
            try:
                assert len(load_pictures(path)) >= 16
            except ValueError as error:
                said = str(error)
                refused += 1
            # "only 15 of the 16 pictures differ" is such a sentence too
            assert said.startswith((str(path), "only ")) or not said
            assert "\n" not in said
    assert refused > count, "most damage is found"


def refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Give a file to the command line, which has to refuse it in one line."""
    assert cli.main(["inspect", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("wrong", [b"{'descr': '|u1', 'shape': (16, 8, 8)", b"((((", b"\x00\xff"])
def test_a_header_that_is_no_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: bytes
) -> None:
    """The first lacks its closing brace: Python's tokenizer raises an error of its own."""
    header = wrong.ljust(117) + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(1024)
    (tmp_path / "x.npy").write_bytes(data)
    assert "cannot be read as a NumPy file" in refused(tmp_path / "x.npy", capsys)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", data)
    assert "cannot be read as a NumPy file" in refused(tmp_path / "x.npz", capsys)


@pytest.mark.parametrize("name", ["labels", "names"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_array_beside_the_pictures(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    save: Callable[..., None],
) -> None:
    """Long enough that its header can be read, and only its end shows the damage."""
    generator, path = np.random.default_rng(0), tmp_path / "x.npz"
    pixels = generator.integers(0, 256, (4000, 8, 8), dtype=np.uint8)
    names = np.array([f"n{i}" for i in generator.permutation(4000)])
    save(path, images=pixels, labels=generator.integers(0, 2, 4000), names=names)
    with zipfile.ZipFile(path) as archive:
        found = archive.infolist()
    (info,) = (info for info in found if info.filename == f"{name}.npy")
    data = bytearray(path.read_bytes())
    extra = int.from_bytes(data[info.header_offset + 28 : info.header_offset + 30], "little")
    end = info.header_offset + 30 + len(info.filename) + extra + info.compress_size
    data[end - 4 : end] = bytes(byte ^ 0xFF for byte in data[end - 4 : end])
    path.write_bytes(data)
    assert "truncated or damaged" in refused(path, capsys)
