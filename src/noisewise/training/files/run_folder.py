"""Names of files of a run: two make a folder a run, two keep private what is private."""

from __future__ import annotations

import difflib
from pathlib import Path

NAME = "run.json"
COPY = "run-copy.json"
LOCAL = "local.json"  # see noisewise.training.run.places
IGNORED = ".gitignore"


def is_run(folder: Path) -> bool:
    """Whether a folder is a run: it holds run.json, or at least its copy.

    Example:
        >>> is_run(Path("no/such/run"))
        False
    """
    return (folder / NAME).exists() or (folder / COPY).exists()


def meant(folder: Path) -> Path | None:
    """The run beside a missing folder whose name is most like it; None: there is none.

    Example:
        >>> meant(Path("no/such/run")) is None
        True
    """
    if folder.exists() or not folder.parent.is_dir():
        return None
    try:
        names = [other.name for other in folder.parent.iterdir() if is_run(other)]
    except OSError:  # it may not be read
        return None
    found = difflib.get_close_matches(folder.name, names, n=1)
    return folder.with_name(found[0]) if found else None
