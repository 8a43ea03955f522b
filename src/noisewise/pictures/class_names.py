"""Class names: their order, equal accents in two spellings, and names that look like numbers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from noisewise.plain_text import printable

_DIGITS = re.compile("([0-9]+)")


def natural_order(names: Iterable[str]) -> list[str]:
    """Sort names as people do: whole numbers in them by value, all else as text.

    Example:
        >>> natural_order(["11", "2", "10", "1", "3"]), natural_order(["v10", "v9", "a"])
        (['1', '2', '3', '10', '11'], ['a', 'v9', 'v10'])
    """
    return sorted(names, key=_natural)


def composed(name: str) -> str:
    """The name with composed accents (NFC); macOS and others write the same name decomposed.

    Example:
        >>> composed("cafe\u0301") == "caf\u00e9"
        True
    """
    return unicodedata.normalize("NFC", name)


def about_numbers(classes: Sequence[str]) -> list[str]:
    """A note if a class name could be taken for the number of another class; else none.

    Example:
        >>> about_numbers(["0", "1", "2"]), about_numbers(["cat", "dog"])
        ([], [])
        >>> about_numbers(["1", "2", "3"])[0]
        'class names are not class numbers: label="2" draws the class 2, label=2 the class 3'
    """
    other = [
        (name, int(name))
        for number, name in enumerate(classes)
        if re.fullmatch("[0-9]{1,18}", name) and int(name) != number
    ]
    if not other:
        return []
    inside = [(name, number) for name, number in other if number < len(classes)]
    name, number = next(((n, i) for n, i in inside if n == "2"), (inside or other)[0])
    if number < len(classes):
        then = f"label={number} the class {printable(classes[number])}"
    else:
        then = f"label={number} is no class, as numbers end at {len(classes) - 1}"
    return [f'class names are not class numbers: label="{name}" draws the class {name}, {then}']


def _natural(name: str) -> tuple[list[str | tuple[int, str]], str]:
    # Compared by length and then as text: int() refuses very long numbers.
    parts = _DIGITS.split(name)
    values: list[str | tuple[int, str]] = list(parts)
    for place in range(1, len(parts), 2):
        digits = parts[place].lstrip("0")
        values[place] = (len(digits), digits)
    return values, name
