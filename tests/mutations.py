"""Files damaged the way that files get damaged: seeded, so that each case can be made again."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from picture_files import colour

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
_HEADER = 64  # bytes at the start in which header edits fall


def originals(seed: int) -> list[tuple[str, bytes]]:
    """Real files, (ending, bytes), of every format and of several modes."""
    found: list[tuple[str, bytes]] = []
    for number, kind in enumerate(FORMATS):
        for mode in ("RGB", "L", "P"):
            if kind in ("JPEG", "WEBP") and mode == "P":
                continue
            side = 24 + 8 * ((seed + number) % 6)
            image = colour(seed + number, side, side + number).convert(mode)
            found.append((kind.lower(), encoded(image, kind)))
    deep = np.random.default_rng(seed).integers(0, 65536, (32, 32), dtype=np.uint16)
    found.append(("png", encoded(Image.fromarray(deep), "PNG")))
    exif = Image.Exif()
    exif[0x0112] = 6
    found.append(("jpeg", encoded(colour(seed, 48, 32), "JPEG", exif=exif)))
    found.append(("jpeg", encoded(colour(seed, 48, 32).convert("CMYK"), "JPEG")))
    found.append(("png", encoded(colour(seed).convert("RGBA"), "PNG")))
    return found


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode in memory."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def mutated(data: bytes, generator: np.random.Generator) -> bytes:
    """Damage a file in one of six ways: flips, a cut, header edits, a hole, a doubling, noise."""
    way = int(generator.integers(6))
    changed = bytearray(data)
    at = int(generator.integers(len(data)))
    if way == 0:
        for place in generator.integers(0, len(data), int(generator.integers(1, 9))):
            changed[place] ^= 1 << int(generator.integers(8))
    elif way == 1:
        del changed[max(at, 1) :]
    elif way == 2:
        for place in generator.integers(0, min(_HEADER, len(data)), 2):
            changed[place] = int(generator.integers(256))
    elif way == 3:
        del changed[at : at + int(generator.integers(1, 65))]
    elif way == 4:
        changed[at:at] = changed[at : at + int(generator.integers(1, 257))]
    else:
        noise = generator.integers(0, 256, min(64, len(data) - at), dtype=np.uint8)
        changed[at : at + len(noise)] = noise.tobytes()
    return bytes(changed)


def archives(folder: Path) -> list[Path]:
    """Small sound files of arrays and a zip of pictures, of every kind that is read as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 8), dtype=np.uint8)
    more = {
        "labels": np.arange(16) % 2,
        "categories": np.array(["a", "b"]),
        "names": np.array([f"n{i}" for i in range(16)]),
    }
    np.savez(folder / "plain.npz", images=pixels, **more)
    np.savez_compressed(folder / "packed.npz", images=pixels / np.float32(255), **more)
    np.save(folder / "bytes.npy", pixels)
    np.save(folder / "floats.npy", pixels / np.float32(255))
    with zipfile.ZipFile(folder / "pictures.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i, picture in enumerate(pixels):
            archive.writestr(f"{i % 2}/{i}.png", encoded(Image.fromarray(picture), "PNG"))
        rows = "".join(f"{i % 2}/{i}.png,{i % 2}\n" for i in range(16))
        archive.writestr("metadata.csv", f"file_name,label\n{rows}")
    return sorted(folder.iterdir())


def write_mutants(folder: Path, count: int, seed: int) -> list[str]:
    """Write damaged pictures; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for number, (ending, data) in zip(range(count), _endless(seed), strict=False):
        name = f"mutant{number:04}.{ending}"
        generator = np.random.default_rng((seed, number))
        (folder / name).write_bytes(mutated(data, generator))
        names.append(name)
    return names


def _endless(seed: int) -> Iterator[tuple[str, bytes]]:
    while True:
        yield from originals(seed)
        seed += 1
