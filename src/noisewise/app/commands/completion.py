"""`noisewise completion`: a script for the shell, which then completes commands and flags."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Annotated, Literal

from noisewise.app.command import Command
from noisewise.training.settings.shown import Shown


@dataclass(frozen=True, kw_only=True)
class CompletionOptions:
    """Print a script for your shell. The Tab key then completes commands, flags and choices."""

    shell: Annotated[Literal["bash", "zsh", "fish"], Shown("bash|zsh|fish", positional=True)]
    """The shell to write the script for."""


def script(shell: str) -> str:
    """The completion script for a shell, with all commands, flags and choices, made by tyro.

    Args:
        shell: bash, zsh or fish.
    """
    from noisewise.app.commands.table import NAMES, load
    from noisewise.app.help_text import subcommands
    from noisewise.app.tyro_flags import run_tyro

    words = ["--tyro-write-completion", shell, "-"]
    with redirect_stdout(io.StringIO()) as made:
        run_tyro(subcommands([load(name) for name in NAMES]), words, "noisewise")
    # tyro offers nothing for folders and texts: let the shell complete names of files there.
    files = "for completion in completions or ['__TYRO_COMPLETE_FILES__']:"
    text = made.getvalue().replace("for completion in completions:", files)
    text = text.replace("complete --no-files", "complete")  # fish
    return text.replace("complete -F _tyro", "complete -o default -F _tyro")  # bash


def _completion(options: CompletionOptions, _: Sequence[str]) -> int:
    print(script(options.shell), end="")
    return 0


COMMAND = Command(
    name="completion",
    usage="bash|zsh|fish",
    summary="for your shell: the Tab key completes commands and flags",
    options=CompletionOptions,
    action=_completion,
    examples=(
        'eval "$(noisewise completion bash)"   # bash: put this line into ~/.bashrc to keep it',
        "noisewise completion zsh > ~/.zfunc/_noisewise   # zsh: a folder of $fpath",
        "noisewise completion fish > ~/.config/fish/completions/noisewise.fish",
    ),
)
