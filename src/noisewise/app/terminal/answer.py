"""The answer of a command on stdout, said by one process of several.

Every line is made printable here: no command can forget it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from noisewise.plain_text import json_text, printable


def leads() -> bool:
    """Whether this is the process that speaks, of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def show(
    values: Mapping[str, Any], as_json: bool, lines: Iterable[str], *, allow_nan: bool = True
) -> None:
    """Print a result on stdout: one JSON object, or lines for people; of several processes once.

    Args:
        values: the result.
        as_json: print it as JSON.
        lines: the same for people; a line break inside one is shown as an escape.
        allow_nan: whether the JSON may hold NaN and infinity, which strict JSON does not know.
    """
    if not leads():
        return
    if not as_json:
        say(*lines)
        return
    try:
        print(json_text(values, allow_nan=allow_nan), flush=True)
    except UnicodeEncodeError:  # stdout has only some letters; JSON has escapes for the others
        print(json.dumps(values, allow_nan=allow_nan), flush=True)


def say(*lines: str) -> None:
    r"""Print lines for people on stdout.

    Example:
        >>> say("a class:", "\x1b[31mred")
        a class:
        \x1b[31mred
    """
    text = "\n".join(map(printable, lines))
    try:
        print(text, flush=True)
    except UnicodeEncodeError:  # stdout has only some letters
        print(text.encode("ascii", "backslashreplace").decode("ascii"), flush=True)
