"""Values from `--config FILE.json`: each must be of the type that the flag or the recipe takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    NoneType: "null",
}


def config_path(arguments: Sequence[str]) -> str | None:
    """The value of --config, wherever it stands."""
    for i, argument in enumerate(arguments):
        if argument.startswith("--config="):
            return argument.split("=", 1)[1]
        if argument == "--config" and i + 1 < len(arguments):
            return arguments[i + 1]
    return None


def read_values(kind: type, path: str, but: Sequence[str]) -> dict[str, Any]:
    """Read the values in a file for a class of options; nested classes and tuples are built.

    Args:
        kind: a dataclass, whose fields say which values there are and of which type.
        path: a JSON object.
        but: fields that only the command line sets.

    Raises:
        ValueError: in one sentence that names the file and the value.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"--config {path} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"--config {path} must hold one JSON object of values")
    try:
        return _built(kind, values, but)
    except ValueError as error:
        raise ValueError(f"--config {path}: {error}") from error


def _built(kind: type, values: dict[str, Any], but: Sequence[str] = ()) -> dict[str, Any]:
    """Values by name, each of the type that a dataclass declares for it."""
    known = [f.name for f in fields(kind) if f.name not in but]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{', '.join(unknown)} cannot be set; known are {', '.join(known)}")
    hints = get_type_hints(kind)
    return {name: _as(hints[name], value, name) for name, value in values.items()}


def _as(hint: Any, value: Any, name: str) -> Any:  # noqa: ANN401 (any type, any JSON value)
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise ValueError(f"{name} is {value!r}; it takes an object of values")
        return hint(**_built(hint, value))
    if not _fits(hint, value):
        raise ValueError(f"{name} is {json.dumps(value)}; it takes {_told(hint)}")
    return tuple(value) if isinstance(value, list) else value


def _fits(hint: Any, value: Any) -> bool:  # noqa: ANN401
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(part, value) for part in inside)
    if origin is Literal:
        return value in inside
    if origin is tuple:
        if not isinstance(value, list):
            return False
        each = [inside[0]] * len(value) if inside[-1] is ... else list(inside)
        return len(value) == len(each) and all(map(_fits, each, value))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _told(hint: Any) -> str:  # noqa: ANN401
    """What a type takes, in words."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_told(part) for part in inside)
    if origin is Literal:
        return " or ".join(json.dumps(choice) for choice in inside)
    if origin is tuple:
        count = "" if inside[-1] is ... else f"{len(inside)} "
        return f"a list of {count}values, each {_told(inside[0])}"
    return _WORDS.get(hint, str(hint))
