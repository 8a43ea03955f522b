from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from noisewise.train.checkpoint import (
    load_state,
    load_tensors,
    read_json,
    save_state,
    save_tensors,
    write_atomic,
    write_text,
)


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
    with pytest.raises(ValueError, match="no checkpoint"):
        load_state(tmp_path / "x.safetensors")
