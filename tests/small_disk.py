"""A disk of a few hundred kilobytes, for tests of what happens when it is full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(path: Path, kilobytes: int) -> Iterator[Path]:
    """Mount a tmpfs of that size; skips the test where that is not allowed."""
    path.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip("a small disk cannot be mounted here (root is needed)")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def close_disk(path: Path) -> None:
    """Make a small disk read-only; opening it again is not needed, as it is unmounted."""
    command = ["mount", "-o", "remount,ro", str(path)]
    subprocess.run(command, capture_output=True, check=True)


def fill(path: Path, leave_kilobytes: int) -> Path:
    """Write a file that takes all of the disk but some."""
    ballast = path / ".ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - 1024 * leave_kilobytes))
    return ballast


def resize(path: Path, kilobytes: int) -> None:
    """Give a small disk another size."""
    command = ["mount", "-o", f"remount,size={kilobytes}k", str(path)]
    subprocess.run(command, capture_output=True, check=True)
