"""What tyro refuses, as one sentence with the way out.

tyro draws its errors in boxes, but offers them first as values to a hook. The hook is private and
may change: a test asks the installed tyro for every kind that is translated here, and a user of
another tyro gets a plain sentence.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from typing import Any

from noisewise.app.flags import Flag

_FLAG = re.compile(r"--?[a-zA-Z][\w-]*(=.*)?", re.DOTALL)
_TAKES = {int: "a whole number", float: "a number"}
_LONGEST = 60  # characters of a word that a complaint repeats


@contextmanager
def one_sentence(
    flags: Mapping[str, Flag], words: Sequence[str], called: str, bare: Callable[[str], str]
) -> Iterator[None]:
    """Turn whatever tyro refuses inside the block into a ValueError of one sentence.

    Args:
        flags: those of the command, by name of the field.
        words: that are read.
        called: how the command is typed.
        bare: makes a word that tyro was given into the word as it was typed.
    """
    import tyro

    plain = f"the flags cannot be read; {called} --help lists them"

    def refuse(event: Any) -> None:  # noqa: ANN401 (of a private part of tyro)
        try:
            found = _sentence(event, flags, words, bare)
        except (AttributeError, KeyError, TypeError):  # another tyro
            found = None
        raise ValueError(found or plain)

    hook = getattr(getattr(tyro, "_errors", None), "on_parse_error", None)
    # Without the hook, tyro would draw its box and end the process.
    with redirect_stderr(io.StringIO()), hook(refuse) if hook else nullcontext():
        try:
            yield
        except SystemExit:
            raise ValueError(plain) from None


def near(word: str, known: Sequence[str], prefix: str = "") -> str:
    """The known word that was perhaps meant, as the end of a complaint; or "".

    Args:
        word: as it was typed.
        known: all words.
        prefix: what stands before a known word when it is typed.

    Example:
        >>> near("trian", ["train", "adapt"])
        '; perhaps you meant train'
    """
    import difflib

    found = difflib.get_close_matches(word, known, n=1)
    return f"; perhaps you meant {prefix}{found[0]}" if found else ""


def _sentence(
    event: Any,  # noqa: ANN401
    flags: Mapping[str, Flag],
    words: Sequence[str],
    bare: Callable[[str], str],
) -> str | None:
    kind = type(event).__name__
    if kind == "UnrecognizedArgs":
        return _unknown(bare(event.tokens[0]), tuple(flags.values()), words)
    if kind not in ("BadValue", "InvalidChoice", "InstantiationFailure"):
        return None
    flag = flags[event.argument.field.intern_name]
    if kind == "BadValue":
        way = f", or {flag.label}=VALUE if the value begins with a hyphen"
        return f"{flag.label} needs a value; write {flag.form}{way if flag.kind is str else ''}"
    if kind == "InvalidChoice":
        *most, last = event.choices
        told = f"{', '.join(most)} or {last}" if most else last
        word = bare(event.value)
        return f"{flag.label} takes {told}, not {_quoted(word)}{near(word, event.choices)}"
    several = ", several with spaces between" if flag.many else ""
    wrong = _wrong_word(event.message, words)
    way = "" if wrong is None else f", not {_quoted(wrong)}"
    none = near(wrong or "", ["None"] if flag.optional else [])
    return f"{flag.label} takes {_TAKES[flag.kind]}{several}{way}{none}"


def _unknown(token: str, flags: Sequence[Flag], words: Sequence[str]) -> str:
    """A flag that does not exist, or a word without a place."""
    name = token.partition("=")[0]
    typed = "--" + name.lstrip("-").replace("_", "-")
    known = {spelling: flag for flag in flags for spelling in flag.spellings}
    if _FLAG.fullmatch(token) and (typed not in known or not name.startswith("--")):
        way = near(typed[2:].lower(), [s[2:] for s, f in known.items() if f.has_flag], "--")
        return f"there is no flag {_shortened(name)}{way or '; --help lists all flags'}"
    if typed in known and not known[typed].has_flag:
        field = known[typed].name
        return f"{typed} cannot be a flag; set {field} in a file, with --config FILE"
    before = words[words.index(token) - 1] if token in words else ""
    switch = before in known and known[before].kind is bool
    way = f"{before} takes no value" if switch else "put a name with spaces in quotes"
    return f"{_quoted(token)} is one word too many; {way}"


def _wrong_word(message: str, words: Sequence[str]) -> str | None:
    """The word that a message of Python repeats."""
    typed = [part for word in words for part in (word, word.partition("=")[2], word[2:])]
    found = max(typed, key=lambda word: message.rfind(repr(word)))
    return found if repr(found) in message else None


def _quoted(word: str) -> str:
    return repr(_shortened(word))


def _shortened(word: str) -> str:
    return word if len(word) <= _LONGEST else f"{word[: _LONGEST - 3]}..."
