from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from noisewise.training.files.atomic import (
    load_state,
    load_tensors,
    read_json,
    save_state,
    save_tensors,
    write_atomic,
    write_text,
)
from noisewise.whole_files import replacing


def nested() -> dict[str, Any]:
    return {
        "weights": {
            "a.weight": torch.arange(6.0).reshape(2, 3),
            "b": torch.tensor(3, dtype=torch.int64),
        },
        "list": [torch.zeros(0), [torch.ones(2, dtype=torch.bfloat16), None, True]],
        "random": torch.Generator().manual_seed(1).get_state(),
        "numbers": {"step": 7, "seconds": 0.1 + 0.2, "name": "né", "nothing": None},
    }


def same(a: Any, b: Any) -> bool:  # noqa: ANN401
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def test_nested_state_goes_round_exactly(tmp_path: Path) -> None:
    save_state(tmp_path / "state.safetensors", nested())
    assert same(load_state(tmp_path / "state.safetensors"), nested())


def test_channels_last_and_shared_tensors_can_be_saved(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    save_tensors(tmp_path / "x.safetensors", {"a": weight, "b": weight, "c": weight[1:2]})
    tensors, _ = load_tensors(tmp_path / "x.safetensors")
    assert torch.equal(tensors["a"], weight)
    assert torch.equal(tensors["c"], weight[1:2])


def test_what_is_neither_tensor_nor_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"a\.b is a set"):
        save_state(tmp_path / "x", {"a": {"b": {1}}})


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, half)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_the_new_file_is_synced_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, rename = os.fsync, Path.replace

    def synced(handle: int) -> None:
        order.append("sync")
        sync(handle)

    def renamed(self: Path, target: Path) -> Path:
        order.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_text(tmp_path / "x", "text")
    assert order == ["sync", "rename", "sync"]  # the file, its name, the folder


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "header"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "model.safetensors"
    save_state(path, nested())
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[:-10],
            "empty": b"",
            "text": b"not a model at all",
            "header": b"\xff" * 8 + content[8:],
        }[damage]
    )
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged") as caught:
        load_state(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no\.safetensors is missing"):
        load_tensors(tmp_path / "no.safetensors")
    with pytest.raises(ValueError, match=r"no\.json cannot be read"):
        read_json(tmp_path / "no.json")


def test_a_safetensors_file_of_somebody_else_is_no_checkpoint(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_state(tmp_path / "x.safetensors")


def test_the_file_is_synced_by_a_handle_that_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows answers EBADF to any other; here that is looked at by hand."""
    fcntl, sync = pytest.importorskip("fcntl"), os.fsync

    def strict(handle: int) -> None:
        mode = fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE
        if stat.S_ISREG(os.fstat(handle).st_mode) and mode == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        sync(handle)

    monkeypatch.setattr(os, "fsync", strict)
    write_text(tmp_path / "x", "text")
    assert (tmp_path / "x").read_text() == "text"


def all_that_can_be_opened() -> list[int]:
    opened: list[int] = []
    try:
        while True:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return opened


def test_too_many_open_files_are_no_damage(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "state.safetensors"
    save_state(path, nested())
    load_state(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        opened += all_that_can_be_opened()
        with pytest.raises(OSError, match=r"Too many open files: '.*state\.safetensors'"):
            load_state(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for handle in opened:
            os.close(handle)
    assert same(load_state(path), nested())


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory in use is not told here")
def test_too_little_memory_is_no_damage(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "large.safetensors"
    save_tensors(path, {"a": torch.zeros(2**24)})  # 64 MiB
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**25, hard))
    try:
        with pytest.raises(MemoryError, match=r"too little memory to read .*large"):
            load_tensors(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.skipif(os.name == "nt", reason="there is no umask")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o007])
def test_files_have_the_permissions_of_any_new_file(umask: int, tmp_path: Path) -> None:
    """Whoever may read the log may read the weights; safetensors alone lets only the owner."""
    before = os.umask(umask)
    try:
        save_tensors(tmp_path / "weights.safetensors", {"a": torch.ones(2)})
        save_state(tmp_path / "state.safetensors", nested())
        write_text(tmp_path / "text.json", "{}")
        with replacing(tmp_path / "cache.npy") as new:
            new.write_bytes(b"x")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o666 & ~umask}
