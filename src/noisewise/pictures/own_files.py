"""What noisewise itself wrote among the pictures: runs, caches, drawn pictures and sheets.

They are no training pictures: a run inside its picture folder would learn from its own sheets, and
would find other pictures each time it resumes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from noisewise.pictures.sources import OWN, Skipped
from noisewise.plain_text import printable

if TYPE_CHECKING:
    from PIL import Image, PngImagePlugin

DRAWN_PICTURE = re.compile(r"seed-(\d+)-\d{5,}\.png")
"""A picture that `noisewise sample --out FOLDER` drew; seed-SEED.json lies beside it."""
_DRAWN_NOTE = re.compile(r"seed-\d+\.json")
_RUN = frozenset({"run.json", "run-copy.json"})
_IN_RUN = frozenset({"log.jsonl", "checkpoints", "teacher", "generator", ".lock"})
_CACHED = re.compile(r"[0-9a-f]{32}\.(npy|json)")
_SOFTWARE, _SHEET = "Software", "noisewise: a sheet of pictures"
_NAMED = 3
_DEEPEST = 64  # folders; what lies deeper is not looked for
_LEVELS = 4  # of folders; files further down do not tell what a folder is


def is_run(names: Collection[str]) -> bool:
    """Whether a folder with these names in it is a run, also one that has just begun.

    A `run.json` alone is not enough: other tools write files of this name too.

    Example:
        >>> is_run({"run.json", "log.jsonl", "samples"}), is_run({"run.json", "cat.png"})
        (True, False)
        >>> is_run({".lock", "cache"}), is_run({".lock", "cat.png"})
        (True, False)
    """
    found = set(names)
    if found & _RUN and (found & _IN_RUN or found >= _RUN):
        return True
    return ".lock" in found and _visible(names) <= {"cache", "local.json"}  # it has just begun


def is_own_folder(names: Collection[str]) -> bool:
    """Whether noisewise made a folder with these names in it: a run, a cache, drawn pictures.

    Example:
        >>> is_own_folder({"seed-0.json", "seed-0-00000.png"}), is_own_folder({"seed-0-00000.png"})
        (True, False)
    """
    if is_run(names):
        return True
    shown = _visible(names)
    if shown and all(_CACHED.fullmatch(name) for name in shown):
        return True
    return bool(shown) and all(is_drawn(name, shown) for name in shown)


def is_drawn(name: str, there: Collection[str]) -> bool:
    """Whether `noisewise sample --out FOLDER` wrote a file.

    Pictures without the JSON beside them may be somebody's own.

    Args:
        name: of the file.
        there: names of all files in its folder.

    Example:
        >>> there = {"seed-3.json", "seed-3-00000.png", "seed-4-00000.png"}
        >>> [is_drawn(name, there) for name in sorted(there)]
        [True, True, False]
    """
    if _DRAWN_NOTE.fullmatch(name):
        return True
    match = DRAWN_PICTURE.fullmatch(name)
    return match is not None and f"seed-{match[1]}.json" in there


def own_folders(names: Iterable[str]) -> list[str]:
    """The folders that noisewise made, of files in a zip; not those inside of another such folder.

    Drawn pictures that are all that the zip holds are not left out: somebody wants to use them.

    Args:
        names: paths of all files, with forward slashes.

    Example:
        >>> own_folders(["cat/1.png", "runs/x/run.json", "runs/x/log.jsonl", "runs/x/a/1.png"])
        ['runs/x']
    """
    every = list(names)
    inside: dict[str, set[str]] = {}
    for name in every:
        folder = name.rstrip("/")
        for _ in range(_LEVELS):
            folder, _, last = folder.rpartition("/")
            if folder:
                inside.setdefault(folder, set()).add(last)
    own = {name for name, there in inside.items() if is_own_folder(there)}
    found = sorted(folder for folder in own if not is_below(folder, own))
    if len(found) == 1 and not is_run(inside[found[0]]):
        found = [] if all(is_below(name, own) for name in every) else found
    return found


def is_below(name: str, folders: Collection[str]) -> bool:
    """Whether a file or folder of a zip lies in one of these folders.

    Example:
        >>> is_below("runs/x/a.png", {"runs/x"}), is_below("runs/xy/a.png", {"runs/x"})
        (True, False)
    """
    parts = name.split("/")[:_DEEPEST]
    return any("/".join(parts[:count]) in folders for count in range(1, len(parts)))


def marked() -> PngImagePlugin.PngInfo:
    """The mark of a sheet; give it to Pillow as `pnginfo` when the PNG is written."""
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text(_SOFTWARE, _SHEET)
    return info


def is_sheet(image: Image.Image) -> bool:
    """Whether noisewise wrote this picture as a sheet of many pictures; only its header is read."""
    return image.info.get(_SOFTWARE) == _SHEET


def about_own(skipped: Iterable[Skipped]) -> list[str]:
    """A note on what is left out because noisewise wrote it; none if there is nothing.

    Example:
        >>> about_own([Skipped("runs/x", OWN)])
        ['left out, as noisewise wrote it: runs/x']
    """
    names = sorted(printable(item.name) for item in skipped if item.code == OWN)
    if not names:
        return []
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [f"left out, as noisewise wrote it: {', '.join(names[:_NAMED])}{more}"]


def _visible(names: Iterable[str]) -> set[str]:
    """The names that are not hidden, such as those of temporary files."""
    return {name for name in names if not name.startswith(".")}
