r"""Text of other people, made safe to print: on one line, in JSON, as the words of a command.

Names of files, of classes and of tensors, and the errors of other libraries that quote them, may
hold what a terminal obeys: escape sequences, line breaks, and marks that turn the direction of
writing. Such characters are shown as escapes (`\x1b`, `\u202e`); letters of all scripts stay.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import Any

_NOT_ASCII = re.compile(r"[^\n -~]")  # JSON itself escapes what is below 0x20


def printable(text: str) -> str:
    r"""Return a text that any terminal prints on one line.

    Control characters, line breaks, marks of direction and of no width, odd spaces and halves of
    characters become escapes.

    Example:
        >>> printable("two\nlines"), printable("\x1b[31mred"), printable("caf\u00e9 \u202e")
        ('two\\nlines', '\\x1b[31mred', 'café \\u202e')
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    r"""Return a text of several lines, such as an error of another library, on one line.

    Example:
        >>> one_line("it failed:\n  two  spaces\tand a tab")
        'it failed: two  spaces\\tand a tab'
    """
    return printable(" ".join(filter(None, (line.strip() for line in text.splitlines()))))


def json_text(
    values: Any,  # noqa: ANN401 (any JSON value)
    *,
    allow_nan: bool = True,
    indent: int | None = None,
) -> str:
    r"""Return JSON that a terminal prints as it is; it reads back as the same values.

    Args:
        values: anything that JSON can hold.
        allow_nan: whether NaN and infinity may stand in it, which strict JSON does not know.
        indent: spaces of each level, on lines of their own; None: one line.

    Example:
        >>> print(json_text({"name": "caf\u00e9 \u202e \x7f"}))
        {"name": "café \u202e \u007f"}
    """
    text = json.dumps(values, ensure_ascii=False, allow_nan=allow_nan, indent=indent)
    return _NOT_ASCII.sub(_json_escape, text)


def shell_words(*words: str | os.PathLike[str]) -> str:
    r"""Return words as one line that a shell reads as the same words.

    Args:
        words: a path that begins with a hyphen is written so that no command takes it for a flag.

    Returns:
        Words as `shlex.split` reads them. Only characters that are not printable take the form
        $'...', which bash, zsh and ksh read.

    Example:
        >>> from pathlib import Path
        >>> print(shell_words("noisewise", "report", Path("-my runs")))
        noisewise report './-my runs'
        >>> print(shell_words("two\nlines", "$(touch x)"))
        $'two\012lines' '$(touch x)'
    """
    return " ".join(map(_word, words))


def _json_escape(match: re.Match[str]) -> str:
    """A character as it is, or as JSON writes it, which knows escapes of 16 bits only."""
    return match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1]


def _word(word: str | os.PathLike[str]) -> str:
    text = os.fspath(word)
    if not isinstance(word, str) and text.startswith("-"):
        text = f"./{text}"
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_in_dollar_quotes, text))}'"


def _in_dollar_quotes(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    try:
        code = character.encode("utf-8", "surrogateescape")  # bytes of a name that is not UTF-8
    except UnicodeEncodeError:
        code = character.encode("utf-8", "surrogatepass")
    return "".join(f"\\{byte:03o}" for byte in code)
