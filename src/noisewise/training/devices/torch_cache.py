"""A folder where torch may keep compiled code: without one it makes no optimizer.

torch makes this folder when it makes its first optimizer, also if nothing is compiled. It lies in
the temporary folder or where TORCHINDUCTOR_CACHE_DIR says. In a container with a read-only system
there is no such place, and training would end there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


@contextmanager
def torch_cache(run: Path) -> Iterator[None]:
    """While open, torch has its folder: the usual one, or one in the cache of a run.

    The one in the run is removed at the end.

    Args:
        run: folder of a run.

    Raises:
        OSError: if the run cannot be written either.
    """
    before = os.environ.get(_VARIABLE)
    if _can_be_made(before):
        yield
        return
    place = (run / "cache" / f".torch-{os.getpid()}").absolute()
    place.mkdir(parents=True, exist_ok=True)
    os.environ[_VARIABLE] = str(place)
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE)
        if before is not None:
            os.environ[_VARIABLE] = before
        shutil.rmtree(place, ignore_errors=True)


def _can_be_made(place: str | None) -> bool:
    """Whether torch can make the folder; None: in the temporary folder."""
    try:
        if place is None:
            tempfile.gettempdir()
        else:
            os.makedirs(place, exist_ok=True)
    except OSError:
        return False
    return True
