"""A file is the old one or the new one, whoever writes it, and nothing else is left."""

from __future__ import annotations

import ast
import os
import stat
import threading
from pathlib import Path

import pytest

from noisewise.whole_files import replacing, sync_folder, write_text

SOURCES = sorted((Path(__file__).parents[1] / "src" / "noisewise").rglob("*.py"))
OWN_WRITERS = {("os", "replace"), ("os", "rename"), ("os", "fsync"), ("tempfile", "mkstemp")}


def test_a_failure_leaves_the_old_file_alone(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")

    def half() -> None:
        with replacing(tmp_path / "a") as new:
            new.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("dear")
    (tmp_path / "a").symlink_to(tmp_path / "victim")
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "victim").read_text() == "dear"
    assert not (tmp_path / "a").is_symlink()


def test_a_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "")
    (tmp_path / "b").touch()
    rights = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"]
    assert rights[0] == rights[1]


def test_threads_that_write_one_file_do_not_meet(tmp_path: Path) -> None:
    texts = [str(i) * 10_000 for i in range(8)]
    path = tmp_path / "a"
    threads = [threading.Thread(target=write_text, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_that_is_gone_is_no_error(tmp_path: Path) -> None:
    sync_folder(tmp_path / "gone")


def test_files_are_renamed_into_place_by_one_module() -> None:
    """A writer of its own would promise less; the log alone syncs what it appends."""
    found = [
        f"{path.name}:{node.lineno}"
        for path in SOURCES
        if path.name not in ("whole_files.py", "log.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in OWN_WRITERS
    ]
    assert not found, found
