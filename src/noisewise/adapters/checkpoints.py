"""Weights by name, from a model or from safetensors files that are read one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

Weights = nn.Module | str | Path
INDEX = "model.safetensors.index.json"


class ModelTensors:
    """The tensors of a model."""

    def __init__(self, model: nn.Module) -> None:
        """Name them as the state dict does; nothing is copied."""
        self._tensors = model.state_dict()
        self.shapes = {name: tuple(value.shape) for name, value in self._tensors.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]


class FileTensors:
    """The tensors of safetensors files, read when asked for.

    Args:
        path: a file, or a folder with model.safetensors, its index, or any *.safetensors.
        names: names of the model's tensors. A tensor that the files leave out because it shares its
            memory with another (a tied weight) is looked up under the other's name.
        twin: returns the other names of a tied tensor.

    Raises:
        ValueError: if there are no such files.
    """

    def __init__(
        self, path: str | Path, names: list[str], twin: Callable[[str], list[str]]
    ) -> None:
        """Read the headers."""
        from safetensors import safe_open

        self._open = safe_open
        self._files: dict[str, Path] = {}
        self._keys: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        shapes = {}
        for file in _files(Path(path)):
            with safe_open(str(file), framework="pt") as opened:
                for key in opened.keys():
                    self._files[key] = file
                    shapes[key] = tuple(opened.get_slice(key).get_shape())
        for name in names:
            key = next((k for k in (name, *twin(name)) if k in shapes), None)
            if key is not None:
                self._keys[name], self.shapes[name] = key, shapes[key]
        used = set(self._keys.values())
        self.shapes |= {key: shape for key, shape in shapes.items() if key not in used}

    def __getitem__(self, name: str) -> Tensor:
        key = self._keys.get(name, name)
        with self._open(str(self._files[key]), framework="pt") as opened:
            return opened.get_tensor(key)


def tensors_of(given: Weights, model: nn.Module) -> ModelTensors | FileTensors:
    """Return the tensors of a model, or of files that were saved from such a model."""
    if isinstance(given, nn.Module):
        return ModelTensors(given)
    names = list(model.state_dict())
    return FileTensors(given, names, lambda name: _twins(model, name))


def _twins(model: nn.Module, name: str) -> list[str]:
    """Return the other names of a tied parameter."""
    places = dict(model.named_parameters(remove_duplicate=False))
    own = places.get(name)
    return [
        key for key, value in places.items() if value is own and key != name and own is not None
    ]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    index = path / INDEX
    if index.is_file():
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return sorted({path / Path(name).name for name in listed})
    single = path / "model.safetensors"
    found = [single] if single.is_file() else sorted(path.glob("*.safetensors"))
    if not found:
        raise ValueError(f"{path} has no .safetensors file: pass the folder of a checkpoint")
    return found
