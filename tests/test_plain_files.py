"""Real files only: links, pipes, devices, folders and huge files are refused, and nothing hangs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from noisewise.plain_files import NotPlainError, check_folder, check_parts, open_plain, read_plain

pytestmark = [
    pytest.mark.timeout(60),  # a pipe that is opened the usual way would wait for ever
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names"),
]


@pytest.mark.parametrize("mode", ["rb", "a", "a+"])
def test_only_files_are_opened(tmp_path: Path, mode: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"years of work")
    (tmp_path / "link").symlink_to(victim)
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, says in (
        ("link", "is a link"),
        ("dangling", "is a link"),
        ("device", "is a link"),
        ("folder", "is a folder where a file belongs"),
        ("pipe", "is not a file"),
    ):
        with pytest.raises(NotPlainError, match=says) as caught:
            open_plain(tmp_path / name, mode)  # pyrefly: ignore[no-matching-overload]
        assert "\n" not in str(caught.value)
    assert victim.read_bytes() == b"years of work"
    assert not (tmp_path / "new").exists()


def test_a_device_is_refused() -> None:
    with pytest.raises(NotPlainError, match="/dev/zero is not a file"):
        read_plain(Path("/dev/zero"))


def test_a_file_is_read_and_written_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for line in ("one\n", "two é\n"):
        with open_plain(path, "a") as file:
            file.write(line)
    assert read_plain(path) == "one\ntwo é\n".encode()
    with pytest.raises(NotPlainError, match="has 11 bytes, more than the 10"):
        read_plain(path, most=10)
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "missing")


def test_a_huge_sparse_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(NotPlainError, match="8,589,934,592 bytes"):
        read_plain(path)


def test_parts_are_looked_through_and_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (real / "checkpoints" / "best-teacher").mkdir(parents=True)
    (real / "checkpoints" / "best-teacher" / "config.json").write_text("{}")
    (real / "mine").symlink_to(tmp_path)  # not a part of ours
    (tmp_path / "folder").symlink_to(real)
    for folder in (real, tmp_path / "folder", tmp_path / "missing"):
        check_parts(folder, ["run.json"], ["checkpoints", "samples"])
    deep = real / "checkpoints" / "best-teacher" / "model.safetensors"
    deep.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotPlainError, match=r"model\.safetensors is a link"):
        check_parts(real, ["run.json"], ["checkpoints"])
    deep.unlink()
    (real / "samples").write_text("")
    with pytest.raises(NotPlainError, match="samples is not a folder"):
        check_parts(real, [], ["samples"])
    with pytest.raises(NotPlainError, match="is a link"):
        check_folder(tmp_path / "folder")
