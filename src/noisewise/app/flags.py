"""Flags from a dataclass: each field is a flag, with its type, its default and its text.

A field may be a bool (a switch), an int, a float, a str, a Literal of texts, each of these or None,
or a tuple of one of them. A field that is a dataclass itself has no flag: only a file sets it (see
`config_file`). `Shown` adds what the type does not say.

No library does this: the usual ones print their complaints for people, in frames, and offer them as
values only through private parts. Here each complaint is a ValueError, one sentence with a way out.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from noisewise.training.settings.shown import Shown

Made = TypeVar("Made")

HELP = ("-h", "--help")
# -5, -2^3 and -sqrt(2) are values; so is "-a b", as no flag has a space in it.
_FLAG = re.compile(r"--?[a-zA-Z][\w-]*(=.*)?", re.DOTALL)
_TAKES = {int: "a whole number", float: "a number", str: "a text"}
_VALUE = {int: "INT", float: "FLOAT"}
_LONGEST = 60  # characters of a word that a complaint repeats


@dataclass(frozen=True)
class Flag:
    """One field of a class of options, as people set it.

    Attributes:
        name: of the field.
        kind: type of the value, or of each value when there are many; never None.
        optional: whether None is a value.
        many: whether it takes several values.
        choices: the only values, if they are limited.
        default: dataclasses.MISSING if it must be given.
        shown: marks of the field.
        owner: the class that declares it.
    """

    name: str
    kind: Any
    optional: bool
    many: bool
    choices: tuple[str, ...]
    default: Any
    shown: Shown
    owner: type

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
        word = self.shown.value or "|".join(self.choices) or _VALUE.get(self.kind, "")
        word = word or self.name.upper()
        return f"{word} ..." if self.many and not self.shown.value else word

    @property
    def form(self) -> str:
        """How to type it, such as "--size INT"; the word for its value if it has no flag."""
        return " ".join(filter(None, (*self.spellings[:1], self.value)))

    @property
    def label(self) -> str:
        """How a complaint names it."""
        return self.spellings[0] if self.spellings else self.value

    @property
    def listed(self) -> bool:
        """Whether help lists it: the rare ones and those without a flag are set in a file."""
        return not self.shown.rare and self.has_flag

    @property
    def has_flag(self) -> bool:
        """Whether the command line can set it."""
        return not is_dataclass(self.kind)


@cache
def flags_of(kind: type) -> tuple[Flag, ...]:
    """The flags of a class of options, in the order of its fields."""
    hints = get_type_hints(kind, include_extras=True)
    owners = {name: cls for cls in reversed(kind.__mro__) for name in inspect.get_annotations(cls)}
    found = []
    for f in fields(kind):  # pyrefly: ignore[bad-argument-type]
        hint, shown = hints[f.name], Shown()
        if get_origin(hint) is Annotated:
            hint, *marks = get_args(hint)
            shown = next((mark for mark in marks if isinstance(mark, Shown)), shown)
        inside, optional = _without_none(hint)
        many = get_origin(inside) is tuple
        inside = get_args(inside)[0] if many else inside
        choices = get_args(inside) if get_origin(inside) is Literal else ()
        default = f.default if f.default_factory is MISSING else f.default_factory()
        value = str if choices else inside
        flag = Flag(f.name, value, optional, many, choices, default, shown, owners[f.name])
        assert flag.kind in (bool, int, float, str) or not flag.has_flag, f"{kind}: {f.name}"
        found.append(flag)
    return tuple(found)


def _without_none(hint: Any) -> tuple[Any, bool]:  # noqa: ANN401 (any type)
    if get_origin(hint) not in (Union, UnionType):
        return hint, False
    (inside,) = (part for part in get_args(hint) if part is not NoneType)
    return inside, True


@cache
def texts_of(kind: type) -> Mapping[str, str]:
    """The text below each field in the source, by name; of a base class where the class has none.

    Returns:
        One line for each field; nothing where Python runs without the sources.
    """
    found: dict[str, str] = {}
    for cls in reversed(kind.__mro__[:-1]):
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        except (OSError, TypeError):
            continue
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                value = getattr(text.value, "value", None)
                if isinstance(value, str):
                    found[ast.unparse(field.target)] = " ".join(value.split())
    return found


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether --help stands among the flags."""
    before = words[: words.index("--")] if "--" in words else words
    return any(word in HELP for word in before)


def given(kind: type, words: Sequence[str]) -> dict[str, Any]:
    """The values that the words of a command line give to the fields of a class.

    Args:
        kind: a class of options.
        words: the words after the command.

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
    values: dict[str, Any] = {}
    loose: list[tuple[str, str]] = []  # words without a flag, each with the word before it
    rest = list(words)
    before = ""
    while rest:
        word = rest.pop(0)
        if word == "--":
            loose += [(word, "--") for word in rest]
            break
        if not _FLAG.fullmatch(word):
            loose.append((word, before))
            before = word
            continue
        flag, attached = _find(kind, word)
        if flag.name in values:
            raise ValueError(f"{flag.label} is given twice; leave one out")
        values[flag.name] = _taken(flag, attached, rest)
        before = word
    return _placed(kind, loose) | values


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
    missing = [flag for flag in missing if not flag.many]
    if missing:
        names = " and ".join(flag.form for flag in missing)
        verb = "are" if len(missing) > 1 else "is"
        raise ValueError(f"{names} {verb} missing; write: {usage}")
    return kind(**{**empty, **values})


def plain(options: Any, kind: type[Made]) -> Made:  # noqa: ANN401 (a class derived from `kind`)
    """The configuration inside the options, without the flags that only a person needs."""
    names = [f.name for f in fields(kind)]  # pyrefly: ignore[bad-argument-type]
    return kind(**{name: getattr(options, name) for name in names})


def near(word: str, known: Sequence[str]) -> str:
    """The known word that was perhaps meant, as the end of a complaint; or "".

    Example:
        >>> near("trian", ["train", "adapt"])
        '; perhaps you meant train'
    """
    import difflib

    found = difflib.get_close_matches(word, known, n=1)
    return f"; perhaps you meant {found[0]}" if found else ""


def _find(kind: type, word: str) -> tuple[Flag, str | None]:
    """The flag that a word names, and the value attached to it: --size=8, -n=8, -n8."""
    name, equals, attached = word.partition("=")
    typed = name.replace("_", "-") if name.startswith("--") else name
    known = {spelling: flag for flag in flags_of(kind) for spelling in flag.spellings}
    short = known.get(word[:2]) if word[1] != "-" else None
    if typed not in known and short is not None and short.kind in (int, float):
        return short, word[2:]
    if typed not in known:
        has_flag = [spelling for spelling, flag in known.items() if flag.has_flag]
        way = near("--" + typed.lstrip("-").lower(), has_flag)
        raise ValueError(f"there is no flag {_shortened(name)}{way or '; --help lists all flags'}")
    flag = known[typed]
    if not flag.has_flag:
        raise ValueError(f"{typed} cannot be a flag; set {flag.name} in a file, with --config FILE")
    return flag, attached if equals else None


def _taken(flag: Flag, attached: str | None, rest: list[str]) -> Any:  # noqa: ANN401
    """The value of a flag, from the word itself or from the words that follow it."""
    if flag.kind is bool:
        if attached is not None:
            raise ValueError(f"{flag.label} takes no value; write {flag.label} alone")
        return True
    words = [] if attached is None else [attached]
    while attached is None and rest and (flag.many or not words) and not _ends(rest[0]):
        words.append(rest.pop(0))
    if not words:
        way = f"write {flag.form}"
        if rest and flag.kind is str:
            way = f"write {flag.label}={_shortened(rest[0])} if the value begins with a hyphen"
        raise ValueError(f"{flag.label} needs a value; {way}")
    found = tuple(_converted(flag, word) for word in words)
    return found if flag.many else found[0]


def _ends(word: str) -> bool:
    return word == "--" or _FLAG.fullmatch(word) is not None


def _placed(kind: type, loose: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Words without a flag, given to the fields that stand at their place."""
    values: dict[str, Any] = {}
    rest = list(loose)
    for flag in flags_of(kind):
        if flag.shown.positional and rest:
            count = len(rest) if flag.many else 1
            found = tuple(_converted(flag, word) for word, _ in rest[:count])
            values[flag.name] = found if flag.many else found[0]
            rest = rest[count:]
    if rest:
        word, before = rest[0]
        switches = [s for flag in flags_of(kind) if flag.kind is bool for s in flag.spellings]
        way = "put a name with spaces in quotes"
        if before in switches:
            way = f"{before} takes no value"
        raise ValueError(f"{_quoted(word)} is one word too many; {way}")
    return values


def _converted(flag: Flag, word: str) -> Any:  # noqa: ANN401
    """A word as a value of the flag's type."""
    if flag.choices:
        if word not in flag.choices:
            *most, last = flag.choices
            told = f"{', '.join(most)} or {last}" if most else last
            way = near(word, flag.choices)
            raise ValueError(f"{flag.label} takes {told}, not {_quoted(word)}{way}")
        return word
    if not word.strip():
        raise ValueError(f"{flag.label} is empty; give it a value, or check your shell's variables")
    if flag.kind is str:
        return word
    if flag.optional and word.lower() == "none":
        return None
    try:
        return flag.kind(word)
    except ValueError:
        several = ", several with spaces between" if flag.many else ""
        takes = f"{_TAKES[flag.kind]}{several}"
        raise ValueError(f"{flag.label} takes {takes}, not {_quoted(word)}") from None


def _quoted(word: str) -> str:
    return repr(_shortened(word))


def _shortened(word: str) -> str:
    return word if len(word) <= _LONGEST else f"{word[: _LONGEST - 3]}..."
