"""Settings in a file, .json or .toml: read by --config, written by --save-config.

Each value must be of the type that the setting takes. What the file leaves out keeps its default,
inside a recipe too.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from noisewise.app.flag_errors import near
from noisewise.app.flags import flags_of, texts_of
from noisewise.app.terminal.answer import leads
from noisewise.app.terminal.stderr import tell

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    NoneType: "null",
}
_ENDINGS = (".json", ".toml")
_FLAGS_ONLY = ("config", "save_config", "dry_run", "json")
_LONGEST = 97  # characters of a remark in a file that is written


def read_values(kind: type, path: str) -> dict[str, Any]:
    """Read the values in a file for a class of options; nested classes and tuples are built.

    Args:
        kind: a dataclass, whose fields say which settings there are and of which type.
        path: TOML if it ends in .toml, else JSON.

    Raises:
        ValueError: in one sentence that names the file and the value.
    """
    defaults = {flag.name: flag.default for flag in flags_of(kind)}
    try:
        values = _built(kind, _parsed(path), defaults)
        _tried(kind, values)
    except ValueError as error:
        raise ValueError(f"--config {path}: {error}") from error
    return values


def check_place(path: str, kind: type) -> None:
    """Refuse a file that settings cannot be written to, before any work.

    Args:
        path: a new file, or one that holds settings of this kind.
        kind: the dataclass of the settings.

    Raises:
        ValueError: if the ending is unknown, or the file holds something else.
    """
    file = Path(path)
    if file.suffix.lower() not in _ENDINGS:
        raise ValueError(f"--save-config {path}: name a file that ends in .json or .toml")
    if not file.parent.is_dir():
        raise ValueError(f"--save-config {path}: there is no folder {file.parent}")
    if not file.exists():
        return
    try:
        read_values(kind, path)
    except ValueError as error:
        raise ValueError(f"--save-config {path} holds something else; name a new file") from error


def written(path: str, config: Any) -> str:  # noqa: ANN401 (any settings)
    """All settings as the text of a file, which `read_values` turns back into the same settings.

    Args:
        path: TOML if it ends in .toml, else JSON.
        config: a dataclass of settings; recipes may be nested in it.

    Raises:
        ValueError: if a value cannot be written in TOML.
    """
    if Path(path).suffix.lower() == ".toml":
        return "\n".join(_toml(config)) + "\n"
    return json.dumps(asdict(config), indent=2) + "\n"


def save_settings(path: str | None, config: Any) -> None:  # noqa: ANN401 (any settings)
    """Write all settings to a file, whole or not at all, and say so; of several processes one does.

    Args:
        path: of --save-config; None: write nothing.
        config: a dataclass of settings.

    Raises:
        ValueError: if the file cannot hold them, or holds something else.
    """
    if path is None or not leads():
        return
    from noisewise.whole_files import write_text

    check_place(path, type(config))
    write_text(Path(path), written(path, config))
    tell(f"settings: {path}")


def _parsed(path: str) -> dict[str, Any]:
    """The values as they stand in the file."""
    import tomllib

    name = "TOML" if Path(path).suffix.lower() == ".toml" else "JSON"
    try:
        text = Path(path).read_text(encoding="utf-8")
        if name == "TOML":
            return tomllib.loads(text)
        values = json.loads(text, object_pairs_hook=_once)
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"the file cannot be read as {name}: {error}") from error
    if not isinstance(values, dict):
        raise ValueError("the file must hold one JSON object of settings")
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; JSON itself would silently take the last of two equal names."""
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is set twice")
    return dict(pairs)


def _tried(kind: type, values: Mapping[str, Any]) -> None:
    """Let the class judge the file's values alone, so that the complaint can name the file."""
    needed = {flag.name: "" for flag in flags_of(kind) if flag.shown.positional}
    kind(**{**needed, **values})


def _built(
    kind: type, values: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = ""
) -> dict[str, Any]:
    """Values by name, each of the type that a dataclass declares for it."""
    known = [name for name in defaults if name not in _FLAGS_ONLY]
    unknown = sorted(set(values) - set(known))
    if unknown:
        names = ", ".join(prefix + name for name in unknown)
        way = near(unknown[0], known)
        raise ValueError(f"{names} cannot be set{way}; settings are {', '.join(known)}")
    hints = get_type_hints(kind)
    return {
        name: _as(hints[name], value, prefix + name, defaults[name])
        for name, value in values.items()
    }


def _as(hint: Any, value: Any, name: str, default: Any) -> Any:  # noqa: ANN401
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise ValueError(f"{name} is {_json(value)}; it takes an object of values")
        inside = {f.name: getattr(default, f.name) for f in fields(hint)}
        return replace(default, **_built(hint, value, inside, f"{name}."))
    if not _fits(hint, value):
        raise ValueError(f"{name} is {_json(value)}; it takes {_told(hint)}")
    return tuple(value) if isinstance(value, list) else value


def _json(value: Any) -> str:  # noqa: ANN401
    return json.dumps(value, default=str)  # TOML has dates


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


def _toml(config: Any) -> list[str]:  # noqa: ANN401
    """Lines of TOML: each setting below its text, as a remark; tables, as [recipe], at the end."""
    texts = texts_of(type(config))
    lines, tables = [], []
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            tables += ["", f"[{f.name}]", *_toml(value)]
            continue
        lines += [f"# {line}" for line in textwrap.wrap(texts.get(f.name, ""), _LONGEST)]
        # TOML has no null: a setting that is not set stands there as a remark.
        unset = value is None
        lines.append(f"# {f.name} =" if unset else f"{f.name} = {_toml_value(value, f.name)}")
    return lines + tables


def _toml_value(value: Any, name: str) -> str:  # noqa: ANN401
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(_toml_value(item, name) for item in value)}]"
    if not isinstance(value, str):
        return repr(value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not UTF-8; save the settings in a .json file") from None
    # JSON escapes what TOML escapes, but for the one control character at the end of ASCII.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
