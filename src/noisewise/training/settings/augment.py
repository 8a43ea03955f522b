"""The setting `augment`: which changes training shows, as a word or a list of names.

This file imports nothing heavy: the command line reads it.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

Change = Literal["flips", "turns", "shifts", "hue", "channels"]
CHANGES: tuple[Change, ...] = get_args(Change)
"""Names of the changes, in the order in which they are made."""
WORDS = ("auto", "none")


def changes_of(text: str) -> tuple[Change, ...] | None:
    """The changes that a setting names, in their order; None: to be derived ("auto").

    Raises:
        ValueError: if a name is unknown, or a place of the list is empty.

    Example:
        >>> changes_of("hue, shifts"), changes_of("none"), changes_of("auto")
        (('shifts', 'hue'), (), None)
    """
    if text in WORDS:
        return () if text == "none" else None
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in CHANGES:
            words = "auto or none alone" if name in WORDS else "auto, none"
            empty = len(names) > 1 and not name
            wrong = f"{text!r} has an empty place" if empty else f"{name!r} is unknown"
            raise ValueError(f"augment {wrong}; use {words}, or a list of {', '.join(CHANGES)}")
    return tuple(cast("Change", name) for name in CHANGES if name in names)
