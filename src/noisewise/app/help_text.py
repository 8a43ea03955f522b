"""Help on a terminal: the overview of all commands is ours, the flags of one command are tyro's."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import reduce
from inspect import getdoc
from operator import or_
from typing import Annotated, Any

from noisewise.app.command import Command, Group
from noisewise.app.flags import flags_of
from noisewise.app.options import SettingsOptions
from noisewise.app.terminal.answer import say
from noisewise.app.tyro_flags import defaults_of, form, run_tyro

_WIDEST = 100


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
            f"{', '.join(resuming[:-1])} and {resuming[-1]} resume when you run the same command "
            "again.\n"
            "Exit codes: 0 done, 1 failed, 2 bad usage or input, 130 / 143 / 129 stopped after "
            "saving.",
        ]
    )


def print_help(command: Command | Group, called: str) -> int:
    """Print the help of one command: usage, what it does, its flags, an example.

    Args:
        command: a command, or a group of them.
        called: how it is typed, such as "noisewise train".

    Returns:
        The exit code.
    """
    if isinstance(command, Group):
        run_tyro(subcommands(command.parts), ["--help"], called, text=command.text)
        return 0
    options = command.options
    text = getdoc(options) or ""
    run_tyro(form(options, for_help=True), ["--help"], called, text, defaults_of(options))
    rare = [flag.name for flag in flags_of(options) if not flag.listed]
    if rare:
        more = f"More settings, for the file of --config: {', '.join(rare)}."
        say("", *textwrap.wrap(more, _WIDEST))
    word = "Examples:" if len(command.examples) > 1 else "Example:"
    say("", word, *(f"  {line}" for line in command.examples))
    return 0


def subcommands(commands: Sequence[Command | Group]) -> Any:  # noqa: ANN401 (a type made here)
    """Several commands as one type, for tyro."""
    from tyro.conf import subcommand

    found = []
    for c in commands:
        if isinstance(c, Group):
            kind, mark = subcommands(c.parts), subcommand(c.name, description=c.summary)
        else:
            kind, shown = form(c.options, for_help=True), defaults_of(c.options)
            mark = subcommand(c.name, description=c.summary, default=shown)
        found.append(Annotated[kind, mark])
    return reduce(or_, found)
