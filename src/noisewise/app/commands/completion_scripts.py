"""The completion scripts of bash, zsh and fish, written from the table of commands."""

from __future__ import annotations

import shlex

from noisewise.app.command import Group
from noisewise.app.commands.table import NAMES, every, load
from noisewise.app.flags import Flag, flags_of, texts_of

# Values that are files or folders, by the word that help has for them.
_PLACES = ("FILE", "FOLDER", "RUN", "PATH", "PICTURES")


def script(shell: str) -> str:
    """The completion script for a shell, with all commands, flags and choices.

    Args:
        shell: bash, zsh or fish.
    """
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def _flags(kind: type) -> list[Flag]:
    return [flag for flag in flags_of(kind) if flag.listed and flag.spellings]


def _positional_choices(kind: type) -> str:
    return " ".join(c for flag in flags_of(kind) if flag.shown.positional for c in flag.choices)


def _parts() -> list[tuple[str, list[str]]]:
    """The groups with the names of their parts."""
    groups = [group for group in map(load, NAMES) if isinstance(group, Group)]
    return [(group.name, [part.name for part in group.parts]) for group in groups]


def _text(kind: type, flag: Flag) -> str:
    """The first sentence of a flag's text."""
    return texts_of(kind).get(flag.name, "").split(". ")[0].rstrip(".")


# ---------------------------------------------------------------------- bash
_BASH = """\
# bash completion for noisewise; written by: noisewise completion bash
_noisewise() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local command=${{COMP_WORDS[1]}} found=""
    COMPREPLY=()
    # bash splits --net=vit into three words.
    if [[ $word == "=" ]]; then word=""; fi
    if [[ $previous == "=" ]]; then previous=${{COMP_WORDS[COMP_CWORD-2]}}; fi
    if (( COMP_CWORD == 1 )); then
        COMPREPLY=($(compgen -W "{names} --help --version" -- "$word"))
        return
    fi
    case $command in
{parts}    esac
    case "$command $previous" in
{values}    esac
    case $command in
{flags}    esac
    if [[ $word != -* ]]; then found=$choices; fi
    COMPREPLY=($(compgen -W "$found" -- "$word"))
}}
# Without a completion of ours, bash completes the names of files.
complete -o default -F _noisewise noisewise"""


def _bash() -> str:
    parts = "".join(
        f"        {name}) if (( COMP_CWORD == 2 )); then\n"
        f'                COMPREPLY=($(compgen -W "{" ".join(inside)} --help" -- "$word"))\n'
        f"                return\n            fi\n"
        f'            command="{name} ${{COMP_WORDS[2]}}" ;;\n'
        for name, inside in _parts()
    )
    values, flags = "", ""
    for called, command in every():
        listed = _flags(command.options)
        for flag in listed:
            if flag.choices:
                answer = f'COMPREPLY=($(compgen -W "{" ".join(flag.choices)}" -- "$word")); return'
                values += f'        "{called} {flag.spellings[0]}") {answer} ;;\n'
        free = [f for f in listed if f.kind is not bool and not f.choices]
        if free:
            patterns = [f'"{called} {spelling}"' for f in free for spelling in f.spellings]
            values += f"        {'|'.join(patterns)}) return ;;\n"
        names = " ".join([*(s for flag in listed for s in flag.spellings), "--help"])
        choices = _positional_choices(command.options)
        flags += f'        "{called}") found="{names}"; local choices="{choices}" ;;\n'
    return _BASH.format(names=" ".join(NAMES), parts=parts, values=values, flags=flags)


# ---------------------------------------------------------------------- zsh
_ZSH = """\
# zsh completion for noisewise; written by: noisewise completion zsh
_noisewise() {{
    local command=$words[2]
    local -a names
    if (( CURRENT == 2 )); then
        names=(
{names}        )
        _describe command names
        return
    fi
    shift words
    (( CURRENT-- ))
    case $command in
{parts}    esac
    case $command in
{flags}    esac
}}
compdef _noisewise noisewise"""


def _zsh() -> str:
    names = "".join(
        f"            {shlex.quote(f'{name}:{load(name).summary}')}\n" for name in NAMES
    )
    parts = "".join(
        f"        {name}) if (( CURRENT == 2 )); then\n"
        f"                _values part {' '.join(inside)}\n                return\n            fi\n"
        f'            command="{name} $words[2]"; shift words; (( CURRENT-- )) ;;\n'
        for name, inside in _parts()
    )
    flags = ""
    for called, command in every():
        lines = [
            _zsh_flag(command.options, flag, spelling)
            for flag in _flags(command.options)
            for spelling in flag.spellings
        ]
        choices = _positional_choices(command.options)
        rest = f"1:value:({choices})" if choices else "*:file:_files"
        lines += [shlex.quote("--help[show the flags of this command]"), shlex.quote(rest)]
        joined = " \\\n            ".join(lines)
        flags += f'        "{called}") _arguments -s \\\n            {joined} ;;\n'
    return _ZSH.format(names=names, parts=parts, flags=flags)


def _zsh_flag(kind: type, flag: Flag, spelling: str) -> str:
    text = _text(kind, flag).replace("[", "(").replace("]", ")").replace(":", r"\:")
    if flag.kind is bool:
        return shlex.quote(f"{spelling}[{text}]")
    values = f"({' '.join(flag.choices)})" if flag.choices else ""
    values = "_files" if flag.value in _PLACES else values
    equals = "=" if spelling.startswith("--") else ""
    many = "*" if flag.many else ""
    return shlex.quote(f"{many}{spelling}{equals}[{text}]:{flag.value.lower()}:{values}")


# ---------------------------------------------------------------------- fish
def _fish() -> str:
    lines = [
        "# fish completion for noisewise; written by: noisewise completion fish",
        "complete -c noisewise -n __fish_use_subcommand -f -l version",
    ]
    for name in NAMES:
        summary = _quoted(load(name).summary)
        lines.append(f"complete -c noisewise -n __fish_use_subcommand -f -a {name} -d {summary}")
    for name, inside in _parts():
        none = " ".join(inside)
        when = f"'__fish_seen_subcommand_from {name}; and not __fish_seen_subcommand_from {none}'"
        lines.append(f"complete -c noisewise -n {when} -f -a {_quoted(none)}")
    for called, command in every():
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in called.split())
        start = f"complete -c noisewise -n '{seen}'"
        for flag in _flags(command.options):
            names = "".join(_fish_name(spelling) for spelling in flag.spellings)
            values = "" if flag.kind is bool else " -x"
            values = " -r -F" if flag.value in _PLACES else values
            values += f" -a {_quoted(' '.join(flag.choices))}" if flag.choices else ""
            lines.append(f"{start}{names}{values} -d {_quoted(_text(command.options, flag))}")
        lines.append(f"{start} -l help")
        choices = _positional_choices(command.options)
        lines += [f"{start} -f -a {_quoted(choices)}"] if choices else []
    return "\n".join(lines)


def _fish_name(spelling: str) -> str:
    return f" -l {spelling[2:]}" if spelling.startswith("--") else f" -s {spelling[1:]}"


def _quoted(text: str) -> str:
    """In single quotes, for fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
