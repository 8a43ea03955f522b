"""Help on a terminal: the overview of all commands is ours, the flags of one command are tyro's."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import MISSING
from inspect import getdoc
from typing import Annotated, Any, Union

from noisewise.app.command import Command, Group
from noisewise.app.flags import flags_of, form, switches
from noisewise.app.options import SettingsOptions

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


def print_help(command: Command | Group, called: str) -> None:
    """Print the help of one command: usage, what it does, its flags, an example.

    Args:
        command: a command, or a group of them.
        called: how it is typed, such as "noisewise train".
    """
    if isinstance(command, Group):
        run_tyro(subcommands(command.parts), ["--help"], called, text=command.text)
        return
    options = command.options
    defaults = {f.name: f.default for f in flags_of(options) if f.listed}
    shown = {name: value for name, value in defaults.items() if value not in (None, MISSING)}
    text = " ".join((getdoc(options) or "").split())
    run_tyro(form(options, rare=False), ["--help"], called, text, shown)
    rare = [flag.name for flag in flags_of(options) if not flag.listed]
    if rare:
        more = f"More settings, for the file of --config: {', '.join(rare)}."
        print(textwrap.fill(more, _WIDEST))
    word = "Examples:" if len(command.examples) > 1 else "Example:"
    print("\n".join([word, *(f"  {line}" for line in command.examples)]))


def subcommands(commands: Sequence[Command | Group]) -> Any:  # noqa: ANN401 (a type made here)
    """Several commands as one type, for tyro."""
    from tyro.conf import subcommand

    found = []
    for c in commands:
        if isinstance(c, Group):
            kind, mark = subcommands(c.parts), subcommand(c.name, description=c.summary)
        else:
            kind, off = form(c.options, rare=False), switches(c.options)
            mark = subcommand(c.name, description=c.summary, default=off)
        found.append(Annotated[kind, mark])
    return Union[tuple(found)]  # noqa: UP007 (made of a tuple)


def run_tyro(
    kind: Any,  # noqa: ANN401 (a type made by `form` or `subcommands`)
    words: Sequence[str],
    called: str,
    text: str = "",
    defaults: dict[str, Any] | None = None,
) -> None:
    """Let tyro print a help text or a script for completion.

    Args:
        kind: what the words are for.
        words: --help, or another flag that prints.
        called: how the command is typed.
        text: what it does.
        defaults: values that help shows.
    """
    import tyro

    more = {} if defaults is None else {"default": defaults}
    pairs_off = (tyro.conf.FlagCreatePairsOff,)
    with suppress(SystemExit):
        tyro.cli(kind, args=words, prog=called, description=text, config=pairs_off, **more)
