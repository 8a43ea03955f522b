"""Names of files of a run: two make a folder a run, two keep private what is private."""

from __future__ import annotations

import difflib
from pathlib import Path

NAME = "run.json"
COPY = "run-copy.json"
LOCAL = "local.json"  # see noisewise.training.run.places
IGNORED = ".gitignore"
_USUAL = "runs"  # the folder of runs in every example


def is_run(folder: Path) -> bool:
    """Whether a folder is a run: it holds run.json, or at least its copy.

    Example:
        >>> is_run(Path("no/such/run"))
        False
    """
    return (folder / NAME).exists() or (folder / COPY).exists()


def meant(folder: Path) -> Path | None:
    """The run whose name is most like that of a missing folder; None: there is none.

    It lies beside the missing folder, or in `runs` there: people leave that out.

    Example:
        >>> meant(Path("no/such/run")) is None
        True
    """
    if folder.exists():
        return None
    for place in (folder.parent, folder.parent / _USUAL):
        found = difflib.get_close_matches(folder.name, _runs_in(place), n=1)
        if found:
            return place / found[0]
    return None


def _runs_in(place: Path) -> list[str]:
    try:
        return [other.name for other in place.iterdir() if is_run(other)]
    except OSError:  # it is not there, or may not be read
        return []
