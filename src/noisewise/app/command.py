"""What a command is: its name, its options, what it does and an example, in one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from noisewise.app.config_file import read_values
from noisewise.app.tyro_flags import build, given

Options = TypeVar("Options")


@dataclass(frozen=True)
class Command(Generic[Options]):
    """A command, or a part of a group of commands.

    Attributes:
        name: as it is typed.
        usage: what has to follow the name.
        summary: a few words for the overview.
        options: the class of its flags; its docstring heads the help.
        action: is given the options and the words they were read from; returns the exit code. It
            imports what it needs, so that a help text never waits for torch.
        examples: lines for the end of the help.
        several_processes: whether torchrun may start it in more than one process.
        less_memory: what to do where memory runs out, as an order; "" without such a flag.
    """

    name: str
    usage: str
    summary: str
    options: type[Options]
    action: Callable[[Options, Sequence[str]], int]
    examples: tuple[str, ...]
    several_processes: bool = False
    less_memory: str = ""

    def read(self, words: Sequence[str], called: str | None = None) -> Options:
        """The options that the words give: flags first, then the file of --config, then defaults.

        Args:
            words: after the name of the command.
            called: how the command is typed; by default `noisewise` and its name.

        Raises:
            ValueError: one sentence about the first thing that is wrong.
        """
        called = called or f"noisewise {self.name}"
        values = given(self.options, words, called)
        if "config" in values:
            values = read_values(self.options, values["config"]) | values
        return build(self.options, values, f"{called} {self.usage}")


@dataclass(frozen=True)
class Group:
    """Several commands under one name, such as `noisewise lr`.

    Attributes:
        name: as it is typed.
        usage: the names of its parts.
        summary: a few words for the overview.
        parts: the commands.
        text: what their help has in common.
    """

    name: str
    usage: str
    summary: str
    parts: tuple[Command, ...]
    text: str = ""
