"""Cuts a text into numbers, signs and names, with the many ways in which people type them.

Thousands may be separated by commas, spaces, apostrophes or underscores. A point is the decimal
point. Forms that mean different numbers in different countries (1,5 and 1.000) are refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

_AROUND = 24  # characters shown on each side of a mistake
_SPACES = " \u00a0\u2009\u202f"
SUPERSCRIPTS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
SUPER_MINUS = "\u207b"
ROOTS = {"\u221a": 2, "\u221b": 3, "\u221c": 4}
_FRACTIONS = "\u00bc-\u00be\u2150-\u215e\u2189"
_SAME = {
    "**": "^", "\u00d7": "*", "\u00b7": "*", "\u22c5": "*", "\u2219": "*", "\u2217": "*",
    "\u00f7": "/", "\u2215": "/", "\u2212": "-", "\u2013": "-", "\u02c6": "^",
}  # fmt: skip

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9][0-9_]*|\.[0-9][0-9_]*)"
    rf"(?:(?:[,.'\u2019](?=[0-9])|[{_SPACES}](?=[0-9]{{3}}(?![0-9])))[0-9_]+)*\.?"
    r"(?:[eE][+-]?[0-9_]+)?)"
    rf"|(?P<super>{SUPER_MINUS}?[{SUPERSCRIPTS}]+)"
    rf"|(?P<fraction>[{_FRACTIONS}])"
    r"|(?P<arrow>\*\*|\^+|\u2191+|\u02c6)"
    r"|(?P<root>[\u221a-\u221c])"
    r"|(?P<sign>[-+*/()!%\u00d7\u00b7\u22c5\u2219\u2217\u00f7\u2215\u2212\u2013\u2044])"
    r"|(?P<name>[^\W\d_]\w*)|(?P<space>\s+)|(?P<other>.)",
    re.DOTALL,
)


class PowersSyntaxError(ValueError):
    """A text that cannot be read, and the place of the mistake.

    Attributes:
        position: the position of the first wrong character, counted from 1.
    """

    def __init__(self, text: str, position: int, reason: str) -> None:
        """Describe the mistake and show the text around it."""
        start, end = max(0, position - 1 - _AROUND), position - 1 + _AROUND
        shown = ("..." if start else "") + text[start:end] + ("..." if end < len(text) else "")
        super().__init__(f"{shown!r} cannot be read at position {position}: {reason}")
        self.position = position


class Token(NamedTuple):
    """A piece of a text; its position counts from 1."""

    kind: str  # "number", "super", "fraction", "arrow", "root", "sign", "name" or "end"
    text: str
    position: int


def cut(text: str) -> Iterator[Token]:
    """The tokens of a text, then one of the kind "end".

    Raises:
        PowersSyntaxError: for a character without a meaning.

    Example:
        >>> [token.text for token in cut("2 × π")]
        ['2', '*', 'π', '']
    """
    plain = "".join(map(_narrow, text))
    for match in _TOKEN.finditer(plain):
        kind, shown, position = str(match.lastgroup), match[0], match.start() + 1
        if kind == "other":
            raise PowersSyntaxError(text, position, _foreign(shown))
        if kind != "space":
            yield Token(kind, _SAME.get(shown, shown.replace("\u2191", "^")), position)
    yield Token("end", "", len(text) + 1)


def _narrow(character: str) -> str:
    """Full-width digits and signs as plain ones; everything else as it is."""
    return chr(ord(character) - 0xFEE0) if "\uff01" <= character <= "\uff5e" else character


def _foreign(shown: str) -> str:
    if shown in ",;'\u2019":
        return f"{shown!r} cannot stand here; write 1000000 or 1,000,000, and 0.5"
    if shown == "\u221e":
        return "infinity is no number; only numbers can be compared"
    return f"{shown!r} has no meaning here"


def fraction_of(character: str) -> tuple[int, int]:
    """Numerator and denominator of a fraction that is one character.

    Example:
        >>> fraction_of("½")
        (1, 2)
    """
    p, q = unicodedata.normalize("NFKC", character).split("\u2044")
    return int(p), int(q)


class Literal(NamedTuple):
    """A number as digits before and after the point, and a power of ten; perhaps a note."""

    before: str
    after: str
    exponent: str
    note: str = ""


class _Misread(ValueError):
    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset


def literal(text: str, token: Token, exact: bool = False) -> Literal:
    """The digits of a number.

    Args:
        text: the whole text, for the message of a mistake.
        token: a token of the kind "number".
        exact: whether a program wrote the number, so that 1.000 can only mean 1.

    Raises:
        PowersSyntaxError: for a form that may mean different numbers.

    Example:
        >>> literal("1,000.5", Token("number", "1,000.5", 1))
        Literal(before='1000', after='5', exponent='', note='')
    """
    shown = token.text
    misplaced = re.search(r"_(?![0-9])", shown)
    if misplaced:
        position = token.position + misplaced.start()
        raise PowersSyntaxError(text, position, "an underscore must stand between two digits")
    number, _, exponent = shown.replace("_", "").lower().partition("e")
    try:
        before, after, note = _parts(number, exact or bool(exponent))
    except _Misread as error:
        position = token.position + error.offset
        raise PowersSyntaxError(text, position, str(error)) from None
    return Literal(before, after, exponent, note)


def _parts(number: str, exact: bool) -> tuple[str, str, str]:
    """Digits before and after the point, and a note."""
    separators = {" " if c in _SPACES else c for c in number if not c.isdigit()}
    grouping = separators - {"."}
    if not grouping:
        return _with_points(number, exact)
    shown = number if len(number) < 30 else f"{number[:12]}...{number[-12:]}"
    first = re.search(r"[^0-9]", number)
    offset = first.start() if first else 0
    whole, _, after = number.partition(".")
    groups = re.split(rf"[,'\u2019{_SPACES}]", whole)
    if len(grouping) > 1 or re.search(r"[^0-9]", after):
        raise _Misread(
            offset, f"{shown} mixes separators; write 1000.5 or 1,000.5, with a decimal point"
        )
    if " " in grouping and len(groups[0]) > 3:
        raise _Misread(offset + 1, f"{groups[1]!r} is not expected here; write * for a product")
    if not (_by_three(groups) or (grouping == {","} and _by_two(groups))):
        raise _Misread(
            offset,
            f"{shown} has several meanings; write a point before decimals (1.5), and thousands "
            "as 1000 or 1,000",
        )
    ambiguous = grouping == {","} and len(groups) == 2 and "." not in number
    return "".join(groups), after, f"{shown} is read as {''.join(groups)}." if ambiguous else ""


def _by_three(groups: list[str]) -> bool:
    """Groups of three digits, as in 1,000,000."""
    return 1 <= len(groups[0]) <= 3 and groups[0][0] != "0" and all(len(g) == 3 for g in groups[1:])


def _by_two(groups: list[str]) -> bool:
    """Groups of two digits and three at the end, as in 1,00,00,000 in India."""
    return (
        len(groups) > 2
        and 1 <= len(groups[0]) <= 2
        and groups[0][0] != "0"
        and all(len(g) == 2 for g in groups[1:-1])
        and len(groups[-1]) == 3
    )


def _with_points(number: str, exact: bool) -> tuple[str, str, str]:
    before, *rest = number.split(".")
    if len(rest) > 1:
        raise _Misread(
            len(before),
            "a point is the decimal point, and a number has one of them; write 1000000 or "
            "1,000,000 for thousands",
        )
    after = rest[0] if rest else ""
    if after == "000" and 1 <= len(before) <= 3 and before[0] != "0" and not exact:
        raise _Misread(
            len(before), f"{number} may mean {before} or {before}000; write the one you mean"
        )
    return before, after, ""
