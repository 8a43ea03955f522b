"""The packaged bases: small teachers that a training can start from, if there are any.

Each folder here is a base, an ordinary teacher folder with weights of 16 bits and two more files:
sources.json and LICENSES.md say what its pictures were and under which licences. They are made by
benchmarks/pictures/make_bases.py; an installation may have none.
"""

from __future__ import annotations

from pathlib import Path

MOST_BYTES = 4 * 2**20
"""Of the weights of a packaged base."""

SOURCES = "sources.json"
"""Name of the file with sources and licences."""


def packaged(folder: Path | None = None) -> list[Path]:
    """The folders of the packaged bases, by name; empty if there are none.

    Args:
        folder: where to look; None: beside this file.

    Example:
        >>> all((base / "model.safetensors").exists() for base in packaged())
        True
    """
    here = Path(__file__).parent if folder is None else folder
    return sorted(path.parent for path in here.glob("*/config.json"))
