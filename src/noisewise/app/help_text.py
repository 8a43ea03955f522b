"""Help on a terminal: the overview of all commands, and the flags of one."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING
from inspect import getdoc
from itertools import groupby

from noisewise.app.command import Command, Group
from noisewise.app.flags import Flag, flags_of, texts_of
from noisewise.app.options import SettingsOptions

_WIDEST = 100
_SETTINGS = "noisewise.training.settings"


def overview(commands: Sequence[Sequence[Command | Group]]) -> str:
    """What noisewise is, and a line for each command.

    Args:
        commands: in groups, which an empty line parts.
    """
    every = [command for group in commands for command in group]
    names = max(len(command.name) for command in every)
    usages = max(len(command.usage) for command in every)
    groups = [
        "\n".join(f"  {c.name:<{names}}  {c.usage:<{usages}}  {c.summary}" for c in group)
        for group in commands
    ]
    resuming = [
        command.name
        for command in every
        if isinstance(command, Command) and issubclass(command.options, SettingsOptions)
    ]
    return "\n\n".join(
        [
            "usage: noisewise COMMAND ...",
            "Measure the noise, then decide: a folder of pictures becomes a generator of one "
            "network call.",
            *groups,
            "  noisewise COMMAND --help    the flags of a command, and an example\n"
            "  noisewise --version",
            f"{_listed(resuming)} resume when you run the same command again.\n"
            "Exit codes: 0 done, 1 failed, 2 bad usage or input, 130 / 143 / 129 stopped after "
            "saving.",
        ]
    )


def help_of(command: Command | Group, called: str) -> str:
    """The help of one command: usage, what it does, its flags, an example.

    Args:
        command: a command, or a group of them.
        called: how it is typed, such as "noisewise train".
    """
    if isinstance(command, Group):
        return _help_of_group(command, called)
    width = _width()
    flags = [flag for flag in flags_of(command.options) if flag.listed]
    blocks = [
        " ".join(filter(None, ("usage:", called, command.usage, _and_flags(flags)))),
        textwrap.fill(" ".join((getdoc(command.options) or "").split()), width),
    ]
    texts = texts_of(command.options)
    left = max((len(_left(flag)) for flag in flags), default=0)
    for _, section in groupby(sorted(flags, key=_section), _section):
        rows = [(_left(flag), _right(flag, texts)) for flag in section]
        blocks.append(_columns(rows, left, width))
    rare = [flag.name for flag in flags_of(command.options) if not flag.listed]
    if rare:
        more = f"More settings, for the file of --config: {', '.join(rare)}."
        blocks.append(textwrap.fill(more, width))
    word = "Examples:" if len(command.examples) > 1 else "Example:"
    blocks.append("\n".join([word, *(f"  {line}" for line in command.examples)]))
    return "\n\n".join(blocks)


def _help_of_group(group: Group, called: str) -> str:
    rows = [(f"{part.name} {part.usage}", part.summary) for part in group.parts]
    width, part = _width(), group.parts[0].name
    return "\n\n".join(
        [
            f"usage: {called} {group.usage} ...",
            *([group.text] if group.text else []),
            _columns(rows, max(len(name) for name, _ in rows), width),
            f"  {called} {part} --help    the flags of {part}, and an example",
        ]
    )


def _width() -> int:
    import shutil  # its import takes time that the overview can do without

    return min(shutil.get_terminal_size().columns, _WIDEST)


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _section(flag: Flag) -> int:
    """The command's own flags first, then settings of the library, then what others share."""
    if flag.owner.__module__.startswith(_SETTINGS):
        return 1
    return 2 if flag.owner.__module__.endswith(".options") else 0


def _and_flags(flags: Sequence[Flag]) -> str:
    return "[flags]" if any(flag.spellings for flag in flags) else ""


def _left(flag: Flag) -> str:
    if flag.shown.positional:
        return flag.value
    long, *short = flag.spellings
    return " ".join(filter(None, (", ".join([*short, long]), flag.value)))


def _right(flag: Flag, texts: Mapping[str, str]) -> str:
    """The text of a flag, with its default where the text does not tell it."""
    text, default = texts.get(flag.name, ""), flag.default
    if default is MISSING:
        return text if flag.shown.positional else f"{text} (required)"
    if default is None or default is False or default == () or "Default" in text:
        return text
    values = default if isinstance(default, tuple) else (default,)
    shown = " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
    return f"{text} (default: {shown})"


def _columns(rows: Iterable[tuple[str, str]], left: int, width: int) -> str:
    """Names at the left, texts at the right, from the same column on in every line."""
    start = left + 4
    lines = []
    for name, text in rows:
        first, *more = textwrap.wrap(text, max(20, width - start), break_on_hyphens=False) or [""]
        lines.append(f"  {name:<{left}}  {first}")
        lines += [" " * start + line for line in more]
    return "\n".join(line.rstrip() for line in lines)
