"""Names of files of a run: two make a folder a run, two keep private what is private."""

from __future__ import annotations

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
