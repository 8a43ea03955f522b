"""Pictures that somebody changes while they are read: used, left out with a reason, or a sentence.

The reading process is stopped before it opens a file; the files are changed; it is continued. So
each run meets the change at another moment, and always at the same one.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forked import Command, Ended, Where, run
from killing import contents
from tiny import blobs

SIZE = 32
# What may be said of pictures that became something else; each sentence names the way out.
_REASONS = (
    r"has changed while it was read|cannot be read|truncated or damaged|does not exist"
    r"|pictures cannot be used|usable picture|different pictures|has no array named 'images'"
)
_COUNT = 80


def png(seed: int, size: int = SIZE) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def make(kind: str, root: Path, count: int = _COUNT) -> Path:
    """A source of pictures of a kind."""
    path = root / f"pictures{'' if kind == 'folder' else f'.{kind}'}"
    images = blobs(count, SIZE)
    match kind:
        case "folder":
            path.mkdir(exist_ok=True)
            for i in range(count):
                (path / f"{i:03}.png").write_bytes(png(i))
            (path / "metadata.csv").write_text(
                "file_name,label\n" + "".join(f"{i:03}.png,{i % 2}\n" for i in range(count))
            )
        case "zip":
            with zipfile.ZipFile(path, "w") as archive:
                for i in range(count):
                    archive.writestr(f"{i:03}.png", png(i))
        case "npz":
            np.savez(path, images=images, labels=np.arange(count) % 2)
        case "npy":
            np.save(path, images)
    return path


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def vanish(path: Path) -> None:
    path.unlink()


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(50_000))


def garble(path: Path) -> None:
    path.write_bytes(np.random.default_rng(1).bytes(path.stat().st_size))


def become_another(path: Path) -> None:
    """A larger picture, or a set of fewer and larger ones, under the same name."""
    if path.suffix == ".png":
        path.write_bytes(png(1, 2 * SIZE))
    elif path.suffix in (".npy", ".npz"):
        images = blobs(20, 2 * SIZE)
        np.save(path, images) if path.suffix == ".npy" else np.savez(path, images=images)
    else:
        garble(path)


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES = [shrink, empty, vanish, grow, garble, become_another, become_a_folder]
KINDS = ["folder", "zip", "npz", "npy"]


def changed_at(kind: str, halt_at: int, change: Callable[[Path], None], root: Path) -> Ended | None:
    """Inspect a source that changes before its nth opening; None if it is not opened so often."""
    path = make(kind, root)
    command = Command(["inspect", path], Where(watched=str(path), halt_at=halt_at))
    command.until(command.is_stopped)
    if not command.runs:
        command.wait().ended()
        return None
    # Of a folder every second file; they are read in the order of their names.
    for file in sorted(path.iterdir())[::2] if path.is_dir() else [path]:
        change(file)
    command.go_on()
    return command.wait()


def test_a_change_is_named_and_leaves_no_cache(tmp_path: Path) -> None:
    """A cache of half of them would be used for the old files, if these came back."""
    for kind in ("folder", "npz", "npy"):  # a zip is opened once, and stays open
        path = make(kind, tmp_path)
        words = ["train", path, "--out", tmp_path / "run", "--budget", "16images"]
        at = 100 if kind == "folder" else 2
        command = Command(words, Where(watched=str(path), halt_at=at))
        command.until(command.is_stopped)
        assert command.runs
        become_another(path / "050.png" if kind == "folder" else path)
        command.go_on()
        command.wait().refused("has changed while it was read: wait until nothing writes")
        assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_picture_may_change(tmp_path: Path) -> None:
    """What a program says is often written beside the pictures."""
    path = make("folder", tmp_path)
    (path / "nohup.out").write_text("pictures:\n")
    command = Command(["inspect", path], Where(watched=str(path), halt_at=100))
    command.until(command.is_stopped)
    grow(path / "nohup.out")
    command.go_on()
    command.wait().ended()


def check(ended: Ended) -> None:
    """It was used, or refused in a sentence: no trace, no signal such as that of a short map."""
    if ended.code:
        said = ended.refused()
        assert re.search(_REASONS, said), said
    assert "traceback" not in ended.err.lower(), ended.err


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_change_while_they_are_read(kind: str, tmp_path: Path) -> None:
    tried = 0
    for number, change in enumerate(CHANGES):
        # A folder's files are opened for their headers, for their ranges and to be decoded.
        at = (2 + 30 * number) if kind == "folder" else 1 + number % 3
        root = tmp_path / str(number)
        root.mkdir()
        ended = changed_at(kind, at, change, root)
        if ended is not None:
            check(ended)
            tried += 1
    assert tried > 2


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_change_at_any_moment(
    kind: str, change: Callable[[Path], None], tmp_path: Path
) -> None:
    for at in (1, 2, 3, 5, 40, 81, 82, 100, 161, 162, 180):
        root = tmp_path / str(at)
        root.mkdir()
        ended = changed_at(kind, at, change, root)
        if ended is not None:
            check(ended)


def test_a_training_does_not_go_on_with_other_pictures(tmp_path: Path) -> None:
    path = make("npz", tmp_path)
    settings = tmp_path / "train.json"
    settings.write_text('{"widths": [4, 4], "batch": 16, "recipe": {"distance_images": 32}}')
    words = ["train", path, "--out", tmp_path / "run", "--budget", "16images", "--config", settings]
    run(*words).ended()
    before = contents(tmp_path / "run")
    np.savez(path, images=blobs(_COUNT, SIZE, seed=1))
    run(*words).refused("was trained on other pictures")
    assert contents(tmp_path / "run") == before
    run("evaluate", tmp_path / "run", "-n", "16").refused("have changed since training")


# Rewrites the files of a source without an end.
_WRITER = """
import os, random, sys
names, seed = sys.argv[2:], int(sys.argv[1])
random.seed(seed)
whole = {name: open(name, "rb").read() for name in names}
while True:
    name = random.choice(names)
    content = whole[name]
    match random.randrange(4):
        case 0: open(name, "wb").write(content[: random.randrange(len(content))])
        case 1: open(name, "ab").write(bytes(random.randrange(5000)))
        case 2:
            if os.path.exists(name): os.unlink(name)
        case 3: open(name, "wb").write(content)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_a_program_writes_again_and_again(kind: str, tmp_path: Path) -> None:
    path = make(kind, tmp_path)
    names = [str(file) for file in sorted(path.iterdir())] if path.is_dir() else [str(path)]
    for seed in range(12):
        make(kind, tmp_path)
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(seed), *names])
        try:
            time.sleep(0.1 * seed)
            check(run("inspect", path))
        finally:
            writer.kill()
            writer.wait()
