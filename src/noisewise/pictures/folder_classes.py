"""Class labels from folder names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from noisewise.pictures.class_names import composed, natural_order
from noisewise.plain_text import printable

_SPLIT_NAMES = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})
_NAMED = 3


def class_labels(names: list[str]) -> tuple[list[int] | None, list[str], list[str]]:
    """Read class labels from folder names: the first folder that differs is the class.

    Leading folders that all pictures share are ignored, and so are train and test folders. There
    are no labels if a picture is outside the class folders, if there is only one class, or if the
    folders hold fewer than four pictures on average (one folder per person or per day). Folders
    whose names differ only in the spelling of accents (composed or decomposed) are one class.

    Args:
        names: paths below the source, with forward slashes.

    Returns:
        One label per picture (or None), the class names in natural order, and notes.

    Example:
        >>> class_labels([f"pets/{c}/{i}.png" for c in ("cat", "dog") for i in range(4)])
        ([0, 0, 0, 0, 1, 1, 1, 1], ['cat', 'dog'], [])
    """
    notes: list[str] = []
    folders = _strip_shared([PurePosixPath(name).parts[:-1] for name in names])
    tops = {parts[0].lower() if parts else "" for parts in folders}
    splits: list[str] = []
    if len(tops) > 1 and tops <= _SPLIT_NAMES:
        notes.append(f"the folders {', '.join(sorted(tops))} are used as one set")
        splits = [parts[0] for parts in folders]
        folders = _strip_shared([parts[1:] for parts in folders])
    loose = sum(not parts for parts in folders)
    found = [parts[0] if parts else "" for parts in folders]
    classes = _one_a_class(found)
    if loose or len(set(classes.values())) < 2:
        if classes and loose:
            notes.append(_why_none(found, splits, loose))
        return None, [], notes
    ordered = natural_order(set(classes.values()))
    if len(names) < 4 * len(ordered):
        notes.append(
            f"no classes: the {len(ordered)} subfolders hold fewer than 4 pictures on average"
        )
        return None, [], notes
    index = {name: label for label, name in enumerate(ordered)}
    notes.extend(_about_splits([classes[name] for name in found], splits))
    return [index[classes[name]] for name in found], ordered, notes


def _one_a_class(found: Iterable[str]) -> dict[str, str]:
    """The class of each folder name: its own name, or the composed one if it has two spellings."""
    spellings: dict[str, set[str]] = {}
    for name in set(found) - {""}:
        spellings.setdefault(composed(name), set()).add(name)
    return {
        name: name if len(same) == 1 else whole
        for whole, same in spellings.items()
        for name in same
    }


def _why_none(found: list[str], splits: list[str], loose: int) -> str:
    """Why there are no classes, where some pictures lie outside of class folders."""
    without = {split for split, name in zip(splits, found, strict=False) if not name}
    within = {split for split, name in zip(splits, found, strict=False) if name}
    if not splits or without & within:
        return f"no classes: {loose} pictures are outside the subfolders"
    bare, classed = (", ".join(sorted(printable(s) for s in some)) for some in (without, within))
    return (
        f"no classes: {classed} has class folders, but the {loose} pictures in {bare} are in none; "
        f"to learn classes, give the folder {classed} alone"
    )


def _about_splits(found: list[str], splits: list[str]) -> list[str]:
    """A note if a split has only classes that no other has, such as test/unknown."""
    notes = []
    for split in sorted(set(splits)):
        here = {name for name, its in zip(found, splits, strict=True) if its == split}
        others = {name for name, its in zip(found, splits, strict=True) if its != split}
        if split.lower() not in ("train", "training") and not here & others:
            some = ", ".join(printable(name) for name in natural_order(here)[:_NAMED])
            notes.append(
                f"no other folder has the classes of {printable(split)} ({some}); if they are "
                "no classes, leave it out"
            )
    return notes


def _strip_shared(folders: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    while folders and all(folders) and len({parts[0] for parts in folders}) == 1:
        folders = [parts[1:] for parts in folders]
    return folders
