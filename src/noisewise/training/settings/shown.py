"""How a setting looks as a flag, where the field alone does not say it.

Written as `Annotated[TYPE, Shown(...)]`. Nothing below `app` reads it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shown:
    """What the command line needs to know about a setting beside its type.

    Attributes:
        value: the word for its value in help texts; "" takes a word for the type.
        name: the long flag, where it is not the name of the setting, such as "--from".
        short: a second, short flag, such as "-n".
        rare: help does not list the flag; a file of settings can set it.
        positional: given by its place, without a flag.
    """

    value: str = ""
    name: str = ""
    short: str = ""
    rare: bool = False
    positional: bool = False


RARE = Shown(rare=True)
