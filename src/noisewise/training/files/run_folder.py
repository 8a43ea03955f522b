"""The two files that make a folder a run."""

from __future__ import annotations

from pathlib import Path

NAME = "run.json"
COPY = "run-copy.json"


def is_run(folder: Path) -> bool:
    """Whether a folder is a run: it holds run.json, or at least its copy.

    Example:
        >>> is_run(Path("no/such/run"))
        False
    """
    return (folder / NAME).exists() or (folder / COPY).exists()
