"""`noisewise completion`: a script for the shell, which then completes commands and flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from noisewise.app.command import Command
from noisewise.training.settings.shown import Shown


@dataclass(frozen=True, kw_only=True)
class CompletionOptions:
    """Print a script for your shell. The Tab key then completes commands, flags and choices."""

    shell: Annotated[Literal["bash", "zsh", "fish"], Shown("bash|zsh|fish", positional=True)]
    """The shell to write the script for."""


def _completion(options: CompletionOptions, _: Sequence[str]) -> int:
    from noisewise.app.commands.completion_scripts import script

    print(script(options.shell))
    return 0


COMMAND = Command(
    name="completion",
    usage="bash|zsh|fish",
    summary="for your shell: the Tab key completes commands and flags",
    options=CompletionOptions,
    action=_completion,
    examples=(
        'eval "$(noisewise completion bash)"   # bash: put this line into ~/.bashrc to keep it',
        'eval "$(noisewise completion zsh)"    # zsh: into ~/.zshrc, below compinit',
        "noisewise completion fish > ~/.config/fish/completions/noisewise.fish",
    ),
)
