"""tyro reads the flags of a class of options, prints their help and writes scripts for completion.

`form` is the class as tyro needs it: `Shown` marks become marks of tyro, and only what is given is
read. tyro itself is imported when it is needed; the overview does not wait for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING
from functools import cache
from typing import Annotated, Any, TypedDict, TypeVar

from noisewise.app.flag_errors import one_sentence
from noisewise.app.flags import Flag, flags_of, texts_of

Made = TypeVar("Made")

_SETTINGS = "noisewise.training.settings"
# tyro takes -2^3 as a value, but -sqrt(2) and "-a b" as flags, which they cannot be. This
# character, which no text has, makes them values when it stands before them.
_SHIELD = "\ufdd0"
_NO_FLAG = re.compile(r"-(?!-?[a-zA-Z][\w-]*(=.*)?$)-?[a-zA-Z].*", re.DOTALL)


@cache
def form(kind: type, for_help: bool = False) -> Any:  # noqa: ANN401 (a type made here)
    """A class of options as tyro reads it: a dictionary of the values that are given.

    Args:
        kind: a class of options.
        for_help: with texts, and without the flags that help does not list.
    """
    flags = [flag for flag in flags_of(kind) if (flag.listed if for_help else flag.has_flag)]
    texts = texts_of(kind) if for_help else {}
    given = {f.name: _marked(f, texts.get(f.name, "")) for f in sorted(flags, key=_section)}
    return TypedDict(kind.__name__, given, total=False)  # pyrefly: ignore


def defaults_of(kind: type) -> dict[str, Any]:
    """The defaults of the flags that help lists, without None."""
    listed = [flag for flag in flags_of(kind) if flag.listed]
    return {f.name: f.default for f in listed if f.default not in (None, MISSING)}


def given(kind: type, words: Sequence[str], called: str = "noisewise") -> dict[str, Any]:
    """The values that the words of a command line give to the fields of a class.

    Args:
        kind: a class of options.
        words: the words after the command.
        called: how the command is typed.

    Raises:
        ValueError: one sentence about the first word that is wrong, with the way out.

    Example:
        >>> from noisewise.training.settings.config import SampleConfig
        >>> given(SampleConfig, ["-n", "4", "--teacher"])
        {'num_images': 4, 'teacher': True}
        >>> given(SampleConfig, ["--cals", "2"])
        Traceback (most recent call last):
        ValueError: there is no flag --cals; perhaps you meant --calls
    """
    import tyro

    flags = {flag.name: flag for flag in flags_of(kind)}
    _refuse_values_of_switches(flags.values(), words)
    with one_sentence(flags, words, called, _bare):
        found = tyro.cli(
            form(kind),
            prog=called,
            args=[_SHIELD + word if _NO_FLAG.fullmatch(word) else word for word in words],
            default={name: False for name, flag in flags.items() if flag.kind is bool},
            config=(tyro.conf.FlagCreatePairsOff,),
            add_help=False,
        )
    values = {name: _bare(value) for name, value in found.items() if value is not False}
    for name, value in values.items():
        texts = value if isinstance(value, tuple) else (value,)
        if any(isinstance(text, str) and not text.strip() for text in texts):
            label = flags[name].label
            raise ValueError(f"{label} is empty; give it a value, or check your shell's variables")
    return values


def build(kind: type[Made], values: Mapping[str, Any], usage: str) -> Made:
    """Make the options from their values; the rest takes its defaults.

    Args:
        kind: a class of options.
        values: by name of the field.
        usage: the command with what it needs, for the complaint about what is missing.

    Raises:
        ValueError: if something is missing, or the class refuses its values.
    """
    missing = [
        flag for flag in flags_of(kind) if flag.default is MISSING and flag.name not in values
    ]
    empty = {flag.name: () for flag in missing if flag.many}  # how few there are it judges itself
    names = " and ".join(flag.form for flag in missing if not flag.many)
    if names:
        raise ValueError(f"{names} {'are' if ' and ' in names else 'is'} missing; write: {usage}")
    return kind(**{**empty, **values})


def run_tyro(
    kind: Any,  # noqa: ANN401 (a type made by `form` or `subcommands`)
    words: Sequence[str],
    called: str,
    text: str = "",
    defaults: dict[str, Any] | None = None,
) -> None:
    """Let tyro print a help text or a script for completion.

    Args:
        kind: what the words are for.
        words: --help, or another flag that prints.
        called: how the command is typed.
        text: what it does.
        defaults: values that help shows.
    """
    import tyro

    with suppress(SystemExit):
        tyro.cli(
            kind,
            args=words,
            prog=called,
            description=text,
            default=tyro.MISSING_NONPROP if defaults is None else defaults,
            config=(tyro.conf.FlagCreatePairsOff,),
        )


def _marked(flag: Flag, text: str) -> Any:  # noqa: ANN401 (an annotated type)
    """A field's type with its marks, for tyro."""
    from tyro.conf import Positional, arg

    mark = arg(
        name=flag.shown.name.removeprefix("--") or None,
        metavar=flag.value or None,
        aliases=(flag.shown.short,) if flag.shown.short else None,
        help=text,
        help_behavior_hint=_hint(flag, text),
    )
    # A text None stays a text: a class of pictures may have that name.
    hint = str if flag.optional and flag.kind is str else flag.hint
    marked = Annotated[hint, mark]
    return Annotated[marked, Positional] if flag.shown.positional else marked


def _hint(flag: Flag, text: str) -> Any:  # noqa: ANN401 (a text, or a function for tyro)
    """What follows the text of a flag: its default, where the text does not tell it."""
    if flag.default is MISSING:
        return "" if flag.shown.positional else "(required)"
    if flag.default is None or flag.default is False or flag.default == () or "Default" in text:
        return ""
    return lambda default: f"(default: {default})"


def _section(flag: Flag) -> int:
    """The command's own flags first, then settings of the library, then what others share."""
    if flag.owner.__module__.startswith(_SETTINGS):
        return 1
    return 2 if flag.owner.__module__.endswith(".options") else 0


def _refuse_values_of_switches(flags: Iterable[Flag], words: Sequence[str]) -> None:
    """Refuse --classes=no: tyro would switch classes on, and take "no" for the next free place."""
    alone = [spelling for flag in flags if flag.kind is bool for spelling in flag.spellings]
    for word in words[: words.index("--")] if "--" in words else words:
        name, equals, _ = word.partition("=")
        if equals and name.replace("_", "-") in alone:
            raise ValueError(f"{name} takes no value; write {name} alone")


def _bare(value: Any) -> Any:  # noqa: ANN401 (any value)
    """A value as it was typed."""
    if isinstance(value, tuple):
        return tuple(map(_bare, value))
    return value.removeprefix(_SHIELD) if isinstance(value, str) else value
