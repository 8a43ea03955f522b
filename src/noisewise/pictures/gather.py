"""Decoded pictures become one array with an account: what was done, what was left out.

The account is remembered beside the cached array; a cache whose pixels are no longer those that
were written is not used.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from noisewise.pictures import cache, framing, sources
from noisewise.pictures.framing import Frame, Square
from noisewise.pictures.sources import Skipped, printable

Progress = Callable[[int, int], None]
"""Called with the files done and the files in all, from the calling thread."""

Squares = Generator[tuple[str, Square | Skipped]]
"""Each file's name with its decoded picture, or with the reason why there is none."""

MIN_PICTURES = 16
_GREY_SHARE = 0.95
_NOT_SQUARE = {
    "centre": "not square: the middle was taken (crop: random and pad are the other ways)",
    "random": "not square: a part was taken whose place is drawn from the file's name",
    "pad": "not square: shown whole, with {background} around",
}
_WHAT_WAS_DONE = {
    framing.ALPHA: "with transparency: laid on {background}",
    framing.ROTATED: "turned upright by their EXIF orientation",
    framing.ANIMATED: "with several frames: the first one was taken",
    framing.ENLARGED: "smaller than the size: enlarged",
    framing.BLOCKS: "of pixel art stored enlarged: taken back to their own pixels",
    framing.PROFILE: "converted from their colour profile to sRGB",
}


@dataclass(frozen=True)
class Gathered:
    """Everything that reading a path gives; `seen` is None when it came from the cache."""

    images: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    names: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]
    fingerprint: str
    kind: str
    seen: Seen | None


@dataclass(frozen=True)
class Seen:
    """How many pictures have each size, mode and format, before decoding."""

    sizes: Counter[tuple[int, int]]
    modes: Counter[str]
    formats: Counter[str]


@dataclass
class Plan:
    """What was decided before decoding, and where rows go."""

    frame: Frame
    channels: int | None
    total: int
    folder: Path | None
    key: str
    notes: list[str]
    done: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Labels:
    """The class of each picture, the names of the classes, and the kind of the source."""

    numbers: np.ndarray | None
    classes: tuple[str, ...]
    kind: str


def digests(images: np.ndarray) -> np.ndarray:
    """Return one uint64 a picture; equal pictures, and only those, have equal numbers."""
    hashes = (
        hashlib.blake2b(x.tobytes(), digest_size=8).digest()
        for block in cache.in_blocks(images)
        for x in block
    )
    return np.fromiter((int.from_bytes(h, "little") for h in hashes), np.uint64, len(images))


def collect(
    path: Path,
    plan: Plan,
    squares: Squares,
    already_skipped: Iterable[Skipped],
    progress: Progress | None,
) -> tuple[np.ndarray, list[str], list[Skipped]]:
    """Gather the squares in one array.

    Returns:
        uint8 [n, size, size, channels], one name a picture, and everything that was left out.

    Raises:
        ValueError: if too little is left.
    """
    names: list[str] = []
    skipped = list(already_skipped)
    num_grey = 0
    with closing(squares), cache.Rows(plan.frame.size, plan.channels or 3, plan.folder) as rows:
        for count, (name, square) in enumerate(squares, start=1):
            if isinstance(square, Skipped):
                skipped.append(square)
            else:
                rows.append(square.pixels)
                names.append(name)
                num_grey += square.grey
                plan.done.update(square.done)
            if progress is not None:
                progress(count, plan.total)
        refuse_too_little(path, len(names), skipped)
        channels = plan.channels or _choose_channels(num_grey, len(names), plan.notes)
        images = rows.finish(channels, plan.key)
    return images, names, skipped


def refuse_too_little(path: Path, usable: int, skipped: list[Skipped]) -> None:
    """Refuse fewer than `MIN_PICTURES`, and sources of which most cannot be used.

    Raises:
        ValueError: with the reasons, counted.
    """
    shown = printable(str(path))
    broken = [item for item in skipped if item.reason not in sources.HARMLESS]
    reasons = Counter(item.reason for item in broken)
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    if usable < MIN_PICTURES:
        number = {0: "no usable picture", 1: "one usable picture"}.get(
            usable, f"only {usable} usable pictures"
        )
        left_out = f" (left out: {why})" if why else ""
        raise ValueError(
            f"{shown} holds {number}{left_out}: "
            f"training needs at least {MIN_PICTURES}, and some hundreds to be worth it."
        )
    if len(broken) > usable:
        raise ValueError(
            f"{shown}: {len(broken)} of {len(broken) + usable} pictures cannot be used ({why}): "
            "copy the folder again, or remove those files."
        )


def remember(
    plan: Plan,
    images: np.ndarray,
    labels: Labels,
    names: list[str],
    skipped: list[Skipped],
    seen: Seen,
) -> Gathered:
    """Complete the account, and write it beside the cached array when there is a cache.

    Raises:
        ValueError: if fewer than `MIN_PICTURES` pictures differ from each other.
    """
    marks = digests(images)
    num_distinct = len(np.unique(marks))
    if num_distinct < MIN_PICTURES:
        raise ValueError(
            f"only {num_distinct} of the {len(images)} pictures differ from each other: "
            f"training needs at least {MIN_PICTURES} different ones."
        )
    print_of = _fingerprint(images.shape, marks, labels.numbers, labels.classes)
    left_out = tuple(sorted(skipped, key=lambda item: item.name))
    found = Gathered(
        images,
        labels.numbers,
        labels.classes,
        tuple(names),
        left_out,
        tuple(plan.notes + _what_was_done(plan)),
        print_of,
        labels.kind,
        seen,
    )
    if plan.folder is not None:
        cache.write_facts(plan.folder, plan.key, _facts(found))
    return found


def recall(folder: Path | None, key: str) -> Gathered | None:
    """Return what `remember` wrote under this key, or None when it is not there, or not the same.

    A damaged cache is no trouble: the pictures are read again and it is written anew.
    """
    found = cache.read_cached(folder, key) if folder is not None else None
    if found is None:
        return None
    images, facts = found
    try:
        labels = None if facts["labels"] is None else np.asarray(facts["labels"], np.int64)
        classes = tuple(facts["classes"])
        if _fingerprint(images.shape, digests(images), labels, classes) != facts["fingerprint"]:
            return None
        return Gathered(
            images,
            labels,
            classes,
            tuple(facts["names"]),
            tuple(Skipped(name, reason) for name, reason in facts["skipped"]),
            tuple(facts["notes"]),
            facts["fingerprint"],
            facts["kind"],
            None,
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _facts(found: Gathered) -> dict[str, object]:
    return {
        "shape": list(found.images.shape),
        "labels": None if found.labels is None else found.labels.tolist(),
        "classes": list(found.classes),
        "names": list(found.names),
        "skipped": [[item.name, item.reason] for item in found.skipped],
        "notes": list(found.notes),
        "fingerprint": found.fingerprint,
        "kind": found.kind,
    }


def _what_was_done(plan: Plan) -> list[str]:
    texts = {**_WHAT_WAS_DONE, framing.CROPPED: _NOT_SQUARE[plan.frame.crop]}
    return [
        f"{plan.done[mark]} pictures {text.format(background=plan.frame.background)}"
        for mark, text in texts.items()
        if plan.done[mark]
    ]


def _choose_channels(num_grey: int, num_images: int, notes: list[str]) -> int:
    if num_grey < _GREY_SHARE * num_images:
        return 3
    if num_grey < num_images:
        notes.append(
            f"1 channel: all but {num_images - num_grey} of {num_images} pictures are grey, "
            "and those were made grey (channels=3 keeps them)"
        )
    return 1


def _fingerprint(
    shape: tuple[int, ...], marks: np.ndarray, labels: np.ndarray | None, classes: Iterable[str]
) -> str:
    digest = hashlib.blake2b(repr((shape, tuple(classes))).encode("utf-8"), digest_size=16)
    digest.update(marks.astype("<u8").tobytes())
    if labels is not None:
        digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()
