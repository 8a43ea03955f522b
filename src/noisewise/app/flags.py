"""Flags from a dataclass: each field is a flag, with its type, its default and its text.

A field may be a bool (a switch), an int, a float, a str, a Literal of texts, each of these or None,
or a tuple of one of them. A field that is a dataclass itself has no flag: only a file sets it (see
`config_file`). `Shown` adds what the type does not say. `tyro_flags` reads them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from noisewise.training.settings.shown import Shown

Made = TypeVar("Made")

_VALUE = {int: "INT", float: "FLOAT"}


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
        long = self.shown.name or "--" + self.name.replace("_", "-")
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
        hint, *marks = (
            get_args(hints[f.name]) if get_origin(hints[f.name]) is Annotated else (hints[f.name],)
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


def plain(options: Any, kind: type[Made]) -> Made:  # noqa: ANN401 (a class derived from `kind`)
    """The configuration inside the options, without the flags that only a person needs."""
    names = [f.name for f in fields(kind)]  # pyrefly: ignore[bad-argument-type]
    return kind(**{name: getattr(options, name) for name in names})
