"""`noisewise COMMAND`: reads the flags, runs the command, says in a sentence what went wrong.

Results go to stdout; progress, notes and errors to stderr. Exit codes: 0 done, 1 failed, 2 bad
usage or bad input; 130, 143 and 129 stopped by Ctrl-C, SIGTERM or a closed terminal (SIGHUP) after
saving. Nothing here imports torch: a help text must not wait for it.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from noisewise.app.command import Command, Group
from noisewise.app.commands import table
from noisewise.app.flag_errors import near
from noisewise.app.help_text import overview, print_help
from noisewise.app.terminal.answer import say, show
from noisewise.app.terminal.stderr import Steady, tell
from noisewise.plain_text import one_line
from noisewise.training.out_of_memory import OutOfMemory, is_out_of_memory

_HELP = ("-h", "--help")
# The system takes no more bytes: full disk, quota, file size limit; or none there at all.
_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


def entry() -> NoReturn:
    """Run the command that the process was started for, and end the process with its exit code."""
    code = main()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # One of several processes: all is saved, and threads that torch.distributed leaves running
        # can abort a process that Python takes down; the launcher would count that as a failure.
        Steady(sys.stdout).flush()
        Steady(sys.stderr).flush()
        os._exit(code)
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after `noisewise`; by default those of the process.

    Returns:
        The exit code.

    Example:
        >>> main(["--version"])
        noisewise 0.1.0
        0
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if not words or words[0] in _HELP:
        say(*overview([[table.load(name) for name in group] for group in table.GROUPS]).split("\n"))
        return 0
    if words[0] in ("--version", "-V"):
        from importlib.metadata import version

        say(f"noisewise {version('noisewise')}")
        return 0
    if words[0] not in table.NAMES:
        return _complain(_unknown(words[0], table.NAMES), "noisewise", _wants_json(words))
    command, words, called = table.load(words[0]), words[1:], f"noisewise {words[0]}"
    if isinstance(command, Group) and words and words[0] not in _HELP:
        parts = {part.name: part for part in command.parts}
        if words[0] not in parts:
            return _complain(_unknown(words[0], tuple(parts)), called, _wants_json(words))
        command, words, called = parts[words[0]], words[1:], f"{called} {words[0]}"
    return carry_out(command, words, called)


def carry_out(command: Command | Group, words: Sequence[str], called: str) -> int:
    """Read the flags of a command and do it, or print its help.

    Args:
        command: a command, or a group of which help is wanted.
        words: what follows the command's name.
        called: how the command is typed; stands before a complaint.

    Returns:
        The exit code.
    """
    before = words[: words.index("--")] if "--" in words else words
    try:
        if isinstance(command, Group) or any(word in _HELP for word in before):
            return print_help(command, called)
        options = command.read(words, called)
        _check_processes(command)
        return command.action(options, words)
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error, called, _less_memory(command), _wants_json(words))


def _wants_json(words: Sequence[str]) -> bool:
    """Whether a program reads the answer; asked of words that may make no sense."""
    before = words[: words.index("--")] if "--" in words else words
    return "--json" in before


def _less_memory(command: Command | Group) -> str:
    return command.less_memory if isinstance(command, Command) else ""


def _check_processes(command: Command) -> None:
    """Refuse several processes where the command cannot use them."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not command.several_processes:
        several = [name for name, other in table.every() if other.several_processes]
        raise ValueError(
            f"only {' and '.join(several)} run in several processes; start this command without "
            "torchrun"
        )


def exit_code(
    error: BaseException, called: str, less_memory: str = "", as_json: bool = False
) -> int:
    """Say in one sentence what went wrong; return the exit code of the process.

    Args:
        error: what a command raised.
        called: how the command is typed; stands before a complaint.
        less_memory: what to do where memory runs out, beside closing other programs.
        as_json: say it as one JSON object on stdout too.
    """
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, ValueError) and not is_out_of_memory(error):
        return _complain(str(error), called, as_json)
    if isinstance(error, BrokenPipeError) and _nobody_reads_stdout():
        # The reader of the answer went away (`| head`): nothing failed, nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError) and error.errno in (*_ROOM, *_CLOSED):
        return _complain(_not_written(error), called, as_json)
    assert isinstance(error, Exception)
    if not os.environ.get("NOISEWISE_TRACE") and is_out_of_memory(error):
        return _complain(f"{_too_little_memory(error, less_memory)}.", called, as_json, 1)
    return _failed(error, called, as_json)


def _nobody_reads_stdout() -> bool:
    """Whether stdout is a pipe without a reader; other pipes may break too, and that is a failure.

    Stdout is written when a command has its answer, and notes on stderr never raise.
    """
    if not hasattr(select, "poll"):  # Windows
        return True
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        return any(found & (select.POLLERR | select.POLLHUP) for _, found in poll.poll(0))
    except (OSError, ValueError, AttributeError):  # no stdout at all
        return False


def _not_written(error: OSError) -> str:
    """What to do when the system takes no more bytes; a run keeps what it saved before."""
    if error.errno in _CLOSED:
        place = error.filename or "the folder"
        return (
            f"{place} cannot be read or written ({error.strerror}); change its permissions or name "
            "another folder: what was saved before is kept"
        )
    place = f" for {error.filename}" if error.filename else ""
    return (
        f"there is no room{place} ({error.strerror}); free some and run the same command again: "
        "what was saved before is kept"
    )


def _too_little_memory(error: Exception, less: str) -> str:
    """What to do when memory ran out: what the training says, or the command, or what helps all."""
    if isinstance(error, OutOfMemory):
        return one_line(str(error))
    return f"memory ran out; close other programs, or {less or 'give it less to do'}"


def _unknown(word: str, names: Sequence[str]) -> str:
    return f"there is no command {word!r}{near(word, names)}; commands are {', '.join(names)}"


def _complain(text: str, called: str, as_json: bool = False, code: int = 2) -> int:
    """One sentence on stderr; for programs also JSON on stdout. Returns the exit code.

    Args:
        text: the sentence.
        called: how the command is typed.
        as_json: whether a program reads stdout.
        code: 2 for bad usage or input, else 1.
    """
    text = one_line(text)
    tell(f"{called}: {text}")
    if as_json:
        with suppress(OSError, ValueError):  # nobody reads stdout; stderr has it
            show({"error": text, "command": called, "exit_code": code}, True, ())
    return code


def _failed(error: Exception, called: str, as_json: bool = False) -> int:
    """Something that is not the user's fault: one sentence, and the trace only when asked for."""
    said = one_line(f"{type(error).__name__}: {error}")
    if os.environ.get("NOISEWISE_TRACE"):
        tell(*"".join(traceback.format_exception(error)).splitlines())
    return _complain(f"failed with {said} (NOISEWISE_TRACE=1 shows where).", called, as_json, 1)


if __name__ == "__main__":
    sys.exit(main())
