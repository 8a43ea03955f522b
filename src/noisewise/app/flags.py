"""Flags from a dataclass: tyro reads each field as a flag, with its type, its text and its default.

`form` is the class as tyro needs it: `Shown` marks become marks of tyro, and only what is given is
read. tyro itself is imported when flags are read; the overview does not wait for it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, TypedDict, TypeVar, Union, get_args, get_origin, get_type_hints

from noisewise.app.flag_errors import one_sentence
from noisewise.training.settings.shown import Shown

Made = TypeVar("Made")

_SETTINGS = "noisewise.training.settings"
_VALUE = {int: "INT", float: "FLOAT"}
# tyro takes -2^3 as a value, but -sqrt(2) and "-a b" as flags, which they cannot be: a character
# that no text has in front of them makes them values.
_NO_FLAG = re.compile(r"-(?!-?[a-zA-Z][\w-]*(=.*)?$)-?[a-zA-Z].*", re.DOTALL)
_SHIELD = "\ufdd0"


@dataclass(frozen=True)
class Flag:
    """One field of a class of options, as people set it.

    Attributes:
        name: of the field.
        hint: its type.
        default: dataclasses.MISSING if it must be given.
        shown: marks of the field.
        owner: the class that declares it.
    """

    name: str
    hint: Any
    default: Any
    shown: Shown
    owner: type

    @property
    def kind(self) -> Any:  # noqa: ANN401 (any type)
        """The type of a value, without None; of each value if there are several."""
        inside = [part for part in get_args(self.hint) if part is not NoneType]
        return inside[0] if self.optional or self.many else self.hint

    @property
    def optional(self) -> bool:
        """Whether None is a value."""
        return get_origin(self.hint) in (Union, UnionType)

    @property
    def many(self) -> bool:
        """Whether it takes several values."""
        return get_origin(self.hint) is tuple

    @property
    def spellings(self) -> tuple[str, ...]:
        """As it is typed: the long form, then the short one."""
        if self.shown.positional:
            return ()
        long = "--" + self.name.replace("_", "-")
        return (long, self.shown.short) if self.shown.short else (long,)

    @property
    def value(self) -> str:
        """The word for its value; "" for a switch."""
        if self.kind is bool:
            return ""
        word = "|".join(get_args(self.kind)) or _VALUE.get(self.kind, self.name.upper())
        return self.shown.value or (f"{word} ..." if self.many else word)

    @property
    def label(self) -> str:
        """How a complaint names it."""
        return self.spellings[0] if self.spellings else self.value

    @property
    def form(self) -> str:
        """How to type it, such as "--size INT"; the word for its value if it has no flag."""
        return " ".join(filter(None, (*self.spellings[:1], self.value)))

    @property
    def has_flag(self) -> bool:
        """Whether the command line can set it; a nested dataclass only a file can."""
        return not is_dataclass(self.kind)

    @property
    def listed(self) -> bool:
        """Whether help lists it: the rare ones and those without a flag are set in a file."""
        return not self.shown.rare and self.has_flag


@cache
def flags_of(kind: type) -> tuple[Flag, ...]:
    """The flags of a class of options, in the order of its fields."""
    hints = get_type_hints(kind, include_extras=True)
    owners = {name: cls for cls in reversed(kind.__mro__) for name in inspect.get_annotations(cls)}
    found = []
    for f in fields(kind):  # pyrefly: ignore[bad-argument-type]
        hint, *marks = get_args(hints[f.name]) if get_origin(hints[f.name]) is Annotated else (
            hints[f.name],
        )
        shown = next((mark for mark in marks if isinstance(mark, Shown)), Shown())
        default = f.default if f.default_factory is MISSING else f.default_factory()
        found.append(Flag(f.name, hint, default, shown, owners[f.name]))
    return tuple(found)


@cache
def texts_of(kind: type) -> Mapping[str, str]:
    """The text below each field in the source, by name; of a base class where the class has none.

    Returns:
        One line for each field; nothing where Python runs without the sources.
    """
    from docstring_parser import parse_from_object

    return {
        text.arg_name: " ".join((text.description or "").split())
        for cls in reversed(kind.__mro__[:-1])
        for text in parse_from_object(cls).params
    }


@cache
def form(kind: type, rare: bool = True) -> Any:  # noqa: ANN401 (a type made here)
    """A class of options as tyro reads it: a dictionary of the values that are given.

    Args:
        kind: a class of options.
        rare: whether flags that help does not list are included.
    """
    flags = [flag for flag in flags_of(kind) if flag.listed or (rare and flag.has_flag)]
    texts = texts_of(kind)
    given = {f.name: _marked(f, texts.get(f.name, "")) for f in sorted(flags, key=_section)}
    return TypedDict(kind.__name__, given, total=False)  # pyrefly: ignore


def switches(kind: type) -> dict[str, bool]:
    """The values of the switches that are not given."""
    return {flag.name: False for flag in flags_of(kind) if flag.kind is bool}


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
    with one_sentence(flags, words, called, _bare):
        found = tyro.cli(
            form(kind),
            prog=called,
            args=[_SHIELD + word if _NO_FLAG.fullmatch(word) else word for word in words],
            default=switches(kind),
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


def plain(options: Any, kind: type[Made]) -> Made:  # noqa: ANN401 (a class derived from `kind`)
    """The configuration inside the options, without the flags that only a person needs."""
    names = [f.name for f in fields(kind)]  # pyrefly: ignore[bad-argument-type]
    return kind(**{name: getattr(options, name) for name in names})


def _marked(flag: Flag, text: str) -> Any:  # noqa: ANN401 (an annotated type)
    """A field's type with its marks, for tyro."""
    from tyro.conf import Positional, arg

    mark = arg(
        metavar=flag.value or None,
        aliases=(flag.shown.short,) if flag.shown.short else None,
        help=text,
        help_behavior_hint=_hint(flag, text),
    )
    # A text None stays a text: a class of pictures may have that name.
    hint = str if flag.optional and flag.kind is str else flag.hint
    return Annotated[(hint, mark, Positional) if flag.shown.positional else (hint, mark)]


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


def _bare(value: Any) -> Any:  # noqa: ANN401 (any value)
    """A value as it was typed."""
    if isinstance(value, tuple):
        return tuple(map(_bare, value))
    return value.removeprefix(_SHIELD) if isinstance(value, str) else value
