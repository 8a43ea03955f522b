"""Commands in processes of their own without the seconds that importing torch takes.

A server process imports torch once and forks for each command. The children are real processes:
they can be stopped, killed, and run by other users. What an import looks at (TMPDIR, HOME) has
to be tested in a fresh process instead.
"""

from __future__ import annotations

import functools
import multiprocessing as mp
import os
import pkgutil
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import noisewise

_LONGEST = 1500.0  # seconds until a command counts as hanging; pytest has a limit for each test
# What libraries import when they are used: torch the last two for a net and an optimiser.
_WHEN_USED = (
    *("importlib.readers", "PIL.PngImagePlugin", "matplotlib.backends.backend_svg"),
    *("torch.distributed.tensor", "torch._dynamo"),
)
# What does something when it is imported.
_NOT_ONLY_IMPORTED = ("antigravity", "this", "idlelib", "tkinter", "turtle", "turtledemo")


@dataclass(frozen=True)
class Where:
    """How a command is started.

    Attributes:
        env: more variables.
        umask: of the process; None: that of the tests.
        user: number of the user and group; None: that of the tests.
        watched: a folder in which changes of files are counted, and files that are opened.
        die_at: the number of the change before which the process is killed; 0: never.
        halt_at: the number of the opened file before which it is stopped; 0: never.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    umask: int | None = None
    user: int | None = None
    watched: str = ""
    die_at: int = 0
    halt_at: int = 0


@dataclass(frozen=True)
class Ended:
    """How a command ended; a negative code is a signal.

    Attributes:
        code: exit code.
        out: what it wrote on stdout.
        err: what it wrote on stderr.
        memory: largest resident memory in bytes.
        changes: how many changes of files were counted in `Where.watched`.
        opened: how many files were opened there.
    """

    code: int
    out: str
    err: str
    memory: int = 0
    changes: int = 0
    opened: int = 0

    @property
    def said(self) -> str:
        """The last line on stderr."""
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""

    def refused(self, *words: str) -> str:
        """Assert that it ended with a sentence and a code that is not 0; return the sentence."""
        assert self.code in (1, 2), self
        assert "Traceback" not in self.err, self.err
        assert "failed with" not in self.err, self.err
        assert re.search(r"^noisewise \w+.*: .+", self.said), self
        for word in words:
            assert word in self.said, self.said
        return self.said

    def ended(self) -> str:
        """Assert that it ended well; return what it said on stderr."""
        assert self.code == 0, self
        assert "Traceback" not in self.err, self.err
        return self.err


class Command:
    """A command of noisewise that runs in a process of its own.

    Args:
        words: what follows `noisewise`.
        where: how it is started.
    """

    def __init__(self, words: Sequence[str | Path], where: Where | None = None) -> None:
        """Start it."""
        self._folder = Path(tempfile.mkdtemp(prefix="noisewise-tests-"))
        self._folder.chmod(0o777)
        given = [str(word) for word in words]
        self._process: BaseProcess = _server().Process(
            target=_carry_out, args=(given, where or Where(), str(self._folder)), daemon=True
        )
        self._process.start()

    @property
    def number(self) -> int:
        """Number of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(self.number, number)

    def stop(self) -> None:
        """Stop it as Ctrl-Z or a scheduler does, and wait until it is stopped."""
        self.send(signal.SIGSTOP)
        self.until(self.is_stopped)

    def is_stopped(self) -> bool:
        """Whether a signal has stopped it."""
        return _state(self.number) in "Tt"

    def go_on(self) -> None:
        """Continue it after `stop`."""
        self.send(signal.SIGCONT)

    def until(self, seen: Callable[[], bool]) -> None:
        """Wait until something is so, or until the command has ended."""
        end = time.monotonic() + _LONGEST
        while self.runs and not seen():
            assert time.monotonic() < end
            time.sleep(0.002)

    def wait(self) -> Ended:
        """Wait for its end."""
        self._process.join(_LONGEST)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
            raise AssertionError(f"it hangs: {self._text('err')}")
        code = self._process.exitcode
        assert code is not None
        counts = [int(word) for word in self._text("counts").split()] or [0, 0, 0]
        return Ended(code, self._text("out"), self._text("err"), *counts)

    def _text(self, name: str) -> str:
        path = self._folder / name
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def run(*words: str | Path, where: Where | None = None) -> Ended:
    """Run a command to its end."""
    return Command(words, where).wait()


def stopped_in_training(words: Sequence[str | Path], folder: Path, more: int = 500) -> Command:
    """A command that has trained some steps in a run and is stopped in the middle of one.

    Args:
        words: the command.
        folder: of the run.
        more: bytes of the log that it writes before.
    """
    log = folder / "log.jsonl"
    before = log.stat().st_size if log.exists() else 0
    command = Command(words)
    command.until(lambda: log.exists() and log.stat().st_size > before + more)
    command.stop()
    assert command.runs
    return command


def _state(number: int) -> str:
    """The letter of a process in /proc: T if it is stopped."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@functools.cache
def _server() -> ForkServerContext:
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive a fork
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(_everything())
    from multiprocessing.forkserver import ensure_running

    ensure_running()
    if before is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = before
    return context


def _carry_out(words: list[str], where: Where, folder: str) -> None:
    """What the child does."""
    place = Path(folder)
    for name, number in (("out", 1), ("err", 2)):
        handle = os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(handle, number)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
    counts = open(place / "counts", "w")
    os.environ.update(where.env)
    if where.user is not None:
        os.setgroups([])
        os.setresgid(where.user, where.user, where.user)
        os.setresuid(where.user, where.user, where.user)
    if where.umask is not None:
        os.umask(where.umask)
    from noisewise.app import cli

    changes = _Changes(where)
    if where.watched:
        sys.addaudithook(changes)
    code = cli.main(words)
    changes.folder = ""  # it counts no more
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    counts.write(f"{memory} {changes.count} {changes.opened}")
    counts.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _everything() -> list[str]:
    """Names of all modules that a command may import.

    Another user may not read the place where Python lies, so nothing is left for later.
    """
    ours = [module.name for module in pkgutil.walk_packages(noisewise.__path__, "noisewise.")]
    usual = {name for name in sys.stdlib_module_names if not name.startswith("_")}
    found = [__name__, *ours, *sorted(usual - set(_NOT_ONLY_IMPORTED)), *_WHEN_USED]
    # PEFT takes long, and one command alone uses it.
    return [name for name in found if not re.search(r"__main__|noisewise\.adapters\.", name)]


class _Changes:
    """Counts what Python reports of files in a folder; kills or stops the process before one."""

    def __init__(self, where: Where) -> None:
        self.folder, self.count, self.opened = where.watched, 0, 0
        self._where = where

    def __call__(self, event: str, args: tuple[object, ...]) -> None:
        """Look at an event of Python's auditing."""
        if not self.folder or not args or not isinstance(args[0], str | Path):
            return
        if not os.fspath(args[0]).startswith(self.folder):
            return
        if event == "open":
            self.opened += 1
            if self.opened == self._where.halt_at:
                os.kill(os.getpid(), signal.SIGSTOP)
        if _is_change(event, args):
            self.count += 1
            if self.count == self._where.die_at:
                os.kill(os.getpid(), signal.SIGKILL)


def _is_change(event: str, args: tuple[object, ...]) -> bool:
    """Whether an event changes a file."""
    if event == "open":
        flags = args[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod")
