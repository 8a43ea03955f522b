"""All commands of noisewise: each is a module of this folder with a value COMMAND.

A new command is one new file here, and its name in the list below.
"""

from __future__ import annotations

from importlib import import_module

from noisewise.app.command import Command, Group

# In the order of the overview; an empty line parts the groups.
GROUPS = (
    ("inspect", "train", "adapt", "distill", "sample", "evaluate", "report", "export"),
    ("lr", "lowrank", "powers", "theory"),
    ("completion",),
)
NAMES = tuple(name for group in GROUPS for name in group)


def load(name: str) -> Command | Group:
    """The command of a name; imports its module alone.

    Raises:
        ModuleNotFoundError: if there is no such command.
    """
    command = import_module(f"noisewise.app.commands.{name}").COMMAND
    assert isinstance(command, Command | Group)
    assert command.name == name
    return command


def every() -> tuple[tuple[str, Command], ...]:
    """Each command with the words that call it, such as ("lr advise", ...)."""
    found: list[tuple[str, Command]] = []
    for name in NAMES:
        command = load(name)
        if isinstance(command, Group):
            found += [(f"{name} {part.name}", part) for part in command.parts]
        else:
            found.append((name, command))
    return tuple(found)
