"""`noisewise COMMAND`: reads the flags, calls the command, says in a sentence what went wrong.

Results go to stdout; progress, notes and errors to stderr. Exit codes: 0 done, 1 failed, 2 bad
usage or bad input; 130, 143 and 129 stopped by Ctrl-C, SIGTERM or a closed terminal (SIGHUP) after
saving. Nothing here imports torch: a help text must not wait for it.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import os
import re
import select
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import NoReturn, TypeVar

from noisewise.app.terminal.stderr import Steady, tell

Parsed = TypeVar("Parsed")
Action = Callable[[], int]

_HELP = """\
usage: noisewise COMMAND ...

Measure the noise, then decide: a folder of pictures becomes a generator of one network call.

  inspect   FOLDER            what is there, what will be skipped and why, the measured noise
  train     FOLDER --out RUN  a diffusion model straight in pixels, within a budget of time
  adapt     RUN FOLDER        its teacher to another folder, by few weights, as a new run
  distill   RUN               its teacher into one network call; reads no picture
  sample    RUN               draw pictures
  evaluate  RUN               distance with interval and floor, copies, time a picture
  report    RUN               one self-contained page about it all

  lr        advise | curves   the learning rate for another batch size, from the gradient's noise
            | watch
  lowrank   FILE --tol 0.1    small factors of a matrix or of each weight, and how wrong they are
  powers    POWER POWER       which is larger, exactly: "10^11" "11^10"

  noisewise COMMAND --help    the flags of a command
  noisewise --version

train, adapt and distill go on where they stopped when called again on the same run.
Exit codes: 0 done, 1 failed, 2 bad usage or input, 130 / 143 / 129 stopped after saving.
"""

# The system takes no more bytes: full disk, quota, file size limit; or none there at all.
_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
_NAMES = (
    *("inspect", "train", "adapt", "distill", "sample", "evaluate", "report"),
    *("lr", "lowrank", "powers"),
)


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
    if not words or words[0] in ("-h", "--help", "help"):
        print(_HELP, end="")
        return 0
    if words[0] in ("--version", "-V"):
        print(f"noisewise {version('noisewise')}")
        return 0
    if words[0] == "lr":
        return _lr(words[1:])
    if words[0] not in _NAMES:
        return _complain(_unknown(words[0]), "noisewise")
    return _run(words[0], words[1:])


def _run(command: str, words: Sequence[str]) -> int:
    """Parse and carry out one known command."""
    where = f"noisewise {command}"
    action = parsed(where, lambda: _ready(command, words))
    return action if isinstance(action, int) else guarded(where, action)


def _ready(command: str, words: Sequence[str]) -> Action:
    """Read the flags of a command; what it gives back does the work, and imports what that needs.

    A command that knows numbers or matrices only has flags of its own: neither pictures nor a run.
    """
    if command == "powers":
        return _ready_powers(words)
    if command == "lowrank":
        return _ready_lowrank(words)
    from noisewise.app.flags import parse

    options = parse(command, words)

    def action() -> int:
        from noisewise.app.commands.shared import carry_out

        return carry_out(options, words)

    return action


def _ready_powers(words: Sequence[str]) -> Action:
    from noisewise.app.commands.powers_options import parse_powers

    options = parse_powers(words)

    def action() -> int:
        from noisewise.app.commands.powers import carry_out_powers

        return carry_out_powers(options)

    return action


def _ready_lowrank(words: Sequence[str]) -> Action:
    from noisewise.app.commands.lowrank_options import parse_lowrank

    options = parse_lowrank(words)

    def action() -> int:
        from noisewise.app.commands.lowrank import carry_out_lowrank

        return carry_out_lowrank(options)

    return action


def _lr(words: Sequence[str]) -> int:
    """`noisewise lr` and the name of one of its three parts."""
    from noisewise.app.commands.lr_options import HELP, LR_COMMANDS

    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    command = f"lr {words[0]}"
    if command not in LR_COMMANDS:
        return _complain(f"there is no {words[0]!r}; use advise, curves or watch", "noisewise lr")
    return _run(command, words[1:])


def parsed(where: str, parse: Callable[[], Parsed]) -> Parsed | int:
    """What `parse` reads, or the exit code when a help text or a complaint was all there was.

    Args:
        where: name of the command, before a complaint.
        parse: reads the flags by tyro.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse()
    except ValueError as error:
        return _complain(str(error), where)
    except SystemExit as error:
        return 0 if error.code in (0, None) else _complain(sentence(said.getvalue()), where)


def guarded(where: str, action: Callable[[], int]) -> int:
    """Do something, and turn what went wrong into one sentence and an exit code.

    Args:
        where: name of the command, before a complaint.
        action: returns its own exit code when all went well.
    """
    try:
        return action()
    except ValueError as error:
        return _complain(str(error), where)
    except BrokenPipeError as error:
        if not _nobody_reads_stdout():
            return _failed(error, where)
        # The reader of the answer went away (`| head`): nothing failed, nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.errno in (*_ROOM, *_CLOSED):
            return _complain(_not_written(error), where)
        return _failed(error, where)
    except Exception as error:  # a person gets a sentence; NOISEWISE_TRACE=1 the trace
        return _failed(error, where)


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
        f"there is no room{place} ({error.strerror}); make room and give the same command again: "
        "what was saved before is kept"
    )


def sentence(box: str) -> str:
    r"""Turn tyro's boxed message into one sentence.

    Example:
        >>> sentence('╭─ Unrecognized ─╮\n│ Unrecognized options: --siz │\n╰────────╯')
        'Unrecognized options: --siz.'
        >>> sentence(' Value error \n ----------\n Error parsing Options: no time \n at all. ')
        'no time at all.'
    """
    # Without UTF-8 there are no frames, only rules of hyphens; the title stands on the first line.
    lines = [re.sub(r"^[│|] ?| ?[│|]$", "", line).strip() for line in box.splitlines()[1:]]
    blocks = [b.strip() for b in re.split(r"^[╰+]?[─-]{8,}[╯+]?$", "\n".join(lines), flags=re.M)]
    blocks = [block for block in blocks if block] or ["the flags cannot be read"]
    text = " ".join(blocks[0].split())
    text = re.sub(r"^Error parsing [A-Z]\w*: ", "", text)
    text = re.sub(r"^Error parsing (\S+): ", r"\1: ", text)
    text = re.sub(r"no type matching (\S+) could be instantiated from \['(.*?)'\].*", _wrong, text)
    text = re.sub(r"^Missing from [\w ]+: (.*)$", _lacking, text)
    hint = next((block for block in blocks if block.startswith("Perhaps you meant")), "")
    near = re.search(r"--[\w-]+", hint)
    if near:
        text += f"; perhaps you meant {near[0]}"
    return text.rstrip(". ") + "."


def _wrong(match: re.Match[str]) -> str:
    return f"{match[2]!r} is no {match[1].replace('{None}|', '')}"


def _lacking(match: re.Match[str]) -> str:
    names = re.findall(r"(?:--)?[\w-]+ [A-Z]+\b|\b[A-Z]{3,}\b", match[1])
    verb = "are" if len(names) > 1 else "is"
    return f"{' and '.join(names) or match[1]} {verb} missing"


def _unknown(word: str) -> str:
    near = difflib.get_close_matches(word, _NAMES, n=1)
    meant = f"; perhaps you meant {near[0]}" if near else ""
    return f"there is no command {word!r}{meant}. Commands: {', '.join(_NAMES)}."


def _complain(text: str, where: str) -> int:
    """One sentence on stderr, and the exit code of bad usage or input."""
    tell(f"{where}: {' '.join(text.split())}")
    return 2


def _failed(error: Exception, where: str) -> int:
    """Something that is not the user's fault: one sentence, and the trace only when asked for."""
    if os.environ.get("NOISEWISE_TRACE"):
        raise error
    tell(f"{where}: failed with {type(error).__name__}: {error} (NOISEWISE_TRACE=1 shows where).")
    return 1


if __name__ == "__main__":
    sys.exit(main())
