"""How this installation is called from a shell, so that printed commands work there."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from noisewise.plain_text import shell_words


def program() -> str:
    """`noisewise` if the shell finds it, else the path of the one beside this Python.

    Example:
        >>> program().endswith("noisewise")
        True
    """
    if shutil.which("noisewise"):
        return "noisewise"
    beside = Path(sys.executable).with_name("noisewise")
    return _typed(beside) if beside.exists() else f"{python()} -m noisewise"


def python() -> str:
    """This Python, as it is typed here."""
    return _typed(Path(sys.executable))


def _typed(path: Path) -> str:
    """The shortest form of a path from here, safe for a shell."""
    here = Path.cwd()
    return shell_words(path.relative_to(here) if path.is_relative_to(here) else path)
