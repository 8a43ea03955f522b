"""Collect decoded pictures in one array, and note what was changed and which files were skipped.

The notes are saved beside the cached array. A cache is used only if its pixels are still the ones
that were written.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from noisewise.pictures import cache, framing, sources
from noisewise.pictures.class_names import about_numbers
from noisewise.pictures.dim import about_dim
from noisewise.pictures.enlarging import Sides, too_large
from noisewise.pictures.framing import Frame, Framed
from noisewise.pictures.request import Crop
from noisewise.pictures.sources import Skipped
from noisewise.pictures.stacks import stack_groups
from noisewise.pictures.transparency import about_vanished
from noisewise.plain_text import printable
from noisewise.sizes import written

Progress = Callable[[int, int], None]
"""Called with (files done, files in all), from the calling thread."""

FramedPictures = Generator[tuple[str, Framed | Skipped]]
"""The name of each file with its decoded picture, or with the reason why it is skipped."""

MIN_PICTURES = 16
_GREY_SHARE = 0.95
_ONE_PAGE = "with several pages: only the first is used"  # a note of versions that read no stacks
_OTHER_SHAPE = {
    "centre": "not {shape}: cropped to the middle (other choices of crop: random, pad)",
    "random": "not {shape}: cropped at a random place, fixed by the file name",
    "pad": "not {shape}: padded with {background}",
}
_WHAT_WAS_DONE = {
    framing.ALPHA: "with transparency: placed on a {background} background",
    framing.BORDERED: "smaller than the frame: at their own scale, with a transparent border",
    framing.ROTATED: "rotated upright, as EXIF says",
    framing.ANIMATED: "with several frames: only the first is used",
    framing.BLOCKS: "of enlarged pixel art: reduced to the original pixels",
    framing.PROFILE: "with another colour profile: converted to sRGB",
}


@dataclass(frozen=True)
class Gathered:
    """Everything read from a path; `counts` is None if it came from the cache.

    `marks` are the digests of the pictures that the fingerprint was made of. `groups` are those of
    crops, `pages` those of pages of stacks (see `Pictures`); None without any. `side` is the median
    side of the files before they were resized, 0 for crops or if an older version wrote the cache.
    `total` is the number of pictures if only some were read, else 0.
    """

    images: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    names: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]
    fingerprint: str
    marks: np.ndarray
    kind: str
    counts: HeaderCounts | None
    groups: np.ndarray | None = None
    side: int = 0
    total: int = 0
    pages: np.ndarray | None = None


@dataclass(frozen=True)
class HeaderCounts:
    """Number of pictures of each size, mode and format, before decoding.

    `more_pages` is the number of pages beyond the first one of each file, `transparent` that of
    pictures with transparent pixels, and `crop` how pictures of another shape were fitted.
    """

    sizes: Counter[tuple[int, int]]
    modes: Counter[str]
    formats: Counter[str]
    more_pages: int = 0
    transparent: int = 0
    crop: Crop = "centre"


@dataclass
class Plan:
    """What is decided before decoding, and the folder and key of the cache.

    `enlarging` says whether pictures may become many times as large as the files, `left_out` how
    many pictures are not read at all, for a plan.
    """

    frame: Frame
    sides: Sides
    enlarging: bool
    channels: int | None
    total: int
    folder: Path | None
    key: str
    notes: list[str]
    left_out: int = 0
    done: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Labels:
    """The class number of each picture, the class names, and the type of the source."""

    numbers: np.ndarray | None
    classes: tuple[str, ...]
    kind: str

    def of_some(self, names: list[str], some: list[str]) -> Labels:
        """The labels of some of the pictures, of which these are the names."""
        if self.numbers is None:
            return self
        number = dict(zip(names, self.numbers.tolist(), strict=True))
        return replace(self, numbers=np.array([number[name] for name in some], np.int64))


def digests(images: np.ndarray) -> np.ndarray:
    """Return one uint64 per picture: equal for equal pictures, different for different ones."""
    hashes = (
        hashlib.blake2b(x.tobytes(), digest_size=8).digest()
        for block in cache.in_blocks(images)
        for x in block
    )
    return np.fromiter((int.from_bytes(h, "little") for h in hashes), np.uint64, len(images))


def collect(
    path: Path,
    plan: Plan,
    framed: FramedPictures,
    already_skipped: Iterable[Skipped],
    progress: Progress | None,
) -> tuple[np.ndarray, list[str], list[Skipped]]:
    """Collect framed pictures in one array.

    Returns:
        uint8 [n, height, width, channels], one name per picture, and all skipped files.

    Raises:
        ValueError: if too few pictures are usable, or the size is too large for the files.
    """
    if not plan.enlarging and (refused := too_large(plan.frame.size, plan.sides.median)):
        raise ValueError(f"{printable(str(path))}: {refused}.")
    names: list[str] = []
    skipped = list(already_skipped)
    num_grey = count = 0
    before: str | None = None
    with closing(framed), cache.Rows(plan.frame.size, plan.channels or 3, plan.folder) as rows:
        for name, picture in framed:
            count += name != before  # the crops of a picture come one after the other
            before = name
            if isinstance(picture, Skipped):
                skipped.append(picture)
            else:
                rows.append(picture.pixels)
                names.append(name)
                num_grey += picture.grey
                plan.done.update(picture.done)
            if progress is not None:
                progress(count, plan.total)
        refuse_too_few(path, len(names) + plan.left_out, skipped, len(set(names)) + plan.left_out)
        channels = plan.channels or _choose_channels(num_grey, len(names), plan.notes)
        images = rows.finish(channels, plan.key)
    return images, names, skipped


def refuse_too_few(
    path: Path,
    usable: int,
    skipped: list[Skipped],
    num_files: int | None = None,
    least: int = MIN_PICTURES,
) -> None:
    """Refuse fewer than `MIN_PICTURES` pictures, and sources where most pictures are unusable.

    Args:
        path: of the pictures.
        usable: number of usable pictures.
        skipped: files that are not used.
        num_files: number of usable files, if one gives several pictures; None: `usable`.
        least: number of pictures that is enough.

    Raises:
        ValueError: with the number of files for each reason.
    """
    num_files = usable if num_files is None else num_files
    shown = printable(str(path))
    unusable = [item for item in skipped if item.code not in sources.HARMLESS]
    broken = [item for item in skipped if sources.is_broken(item)]
    if usable < least:
        number = {0: "no usable picture", 1: "only one usable picture"}.get(
            usable, f"only {usable} usable pictures"
        )
        left_out = f" (skipped: {_reasons(unusable)})" if unusable else ""
        raise ValueError(
            f"{shown} has {number}{left_out}: training needs at least {MIN_PICTURES}, "
            "and several hundred for good results."
        )
    if len(broken) > num_files:
        raise ValueError(
            f"{shown}: {len(broken)} of {len(broken) + num_files} pictures cannot be used "
            f"({_reasons(broken)}): "
            "copy the pictures again, or remove these files."
        )


def _reasons(skipped: list[Skipped]) -> str:
    """The number of files for each reason."""
    counts = Counter(item.reason for item in skipped).most_common()
    return ", ".join(f"{count} {reason}" for reason, count in counts)


def complete(
    plan: Plan,
    images: np.ndarray,
    labels: Labels,
    names: list[str],
    skipped: list[Skipped],
    counts: HeaderCounts,
    groups: np.ndarray | None = None,
    stacks: Sequence[str] = (),
) -> Gathered:
    """Put everything together, and save it beside the cached array if there is a cache.

    Raises:
        ValueError: if fewer than `MIN_PICTURES` pictures are different.
    """
    marks = digests(images)
    num_distinct = len(np.unique(marks))
    if num_distinct < MIN_PICTURES and not plan.left_out:
        raise ValueError(
            f"only {num_distinct} of the {len(images)} pictures are different: "
            f"training needs at least {MIN_PICTURES} different pictures"
            f"{''.join(f'; {note}' for note in about_vanished(plan.done, plan.frame.background))}."
        )
    fingerprint = fingerprint_of(images.shape, marks, labels.numbers, labels.classes, groups)
    left_out = tuple(sorted(skipped, key=lambda item: item.name))
    found = Gathered(
        images,
        labels.numbers,
        labels.classes,
        tuple(names),
        left_out,
        (
            *plan.notes,
            *_what_was_done(plan, len(images)),
            *filter(None, [about_dim(images)]),
            *about_numbers(labels.classes),
        ),
        fingerprint,
        marks,
        labels.kind,
        counts,
        groups,
        plan.sides.median if groups is None else 0,
        len(images) + plan.left_out if plan.left_out else 0,
        stack_groups(images, marks, stacks) if groups is None and any(stacks) else None,
    )
    if plan.folder is not None:
        cache.write_facts(plan.folder, plan.key, _facts(found))
    return found


def load_cached(folder: Path | None, key: str) -> Gathered | None:
    """Return what `complete` saved under this key, or None if it is missing or has changed.

    A damaged cache does no harm: the pictures are read again and the cache is replaced.
    """
    found = cache.read_cached(folder, key) if folder is not None else None
    if found is None:
        return None
    images, facts = found
    try:
        labels = None if facts["labels"] is None else np.asarray(facts["labels"], np.int64)
        classes = tuple(facts["classes"])
        marks = digests(images)
        groups = _stored_groups(facts.get("groups"), len(images))
        if any(_ONE_PAGE in note for note in facts["notes"]):
            return None
        if fingerprint_of(images.shape, marks, labels, classes, groups) != facts["fingerprint"]:
            return None
        return Gathered(
            images,
            labels,
            classes,
            tuple(facts["names"]),
            tuple(Skipped(name, sources.code_of(stored)) for name, stored in facts["skipped"]),
            tuple(facts["notes"]),
            facts["fingerprint"],
            marks,
            facts["kind"],
            None,
            groups,
            int(facts.get("side", 0)),
            pages=_stored_groups(facts.get("pages"), len(images)),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _facts(found: Gathered) -> dict[str, object]:
    return {
        "shape": list(found.images.shape),
        "labels": None if found.labels is None else found.labels.tolist(),
        "classes": list(found.classes),
        "names": list(found.names),
        "skipped": [[item.name, item.code] for item in found.skipped],
        "notes": list(found.notes),
        "fingerprint": found.fingerprint,
        "kind": found.kind,
        **({} if found.groups is None else {"groups": found.groups.tolist()}),
        "side": found.side,
        **({} if found.pages is None else {"pages": found.pages.tolist()}),
    }


def _stored_groups(stored: object, count: int) -> np.ndarray | None:
    """The groups of crops or pages from a cache.

    Raises:
        ValueError: if they are not one number a picture.
    """
    if stored is None:
        return None
    groups = np.asarray(stored, np.int64)
    if groups.shape != (count,) or (count and groups.min() < 0):
        raise ValueError("these are no groups")
    return groups


def count_text(num_pictures: int) -> str:
    """Return "1 picture", "2 pictures" and so on."""
    return f"{num_pictures} picture{'' if num_pictures == 1 else 's'}"


def _what_was_done(plan: Plan, total: int) -> list[str]:
    texts = {**_WHAT_WAS_DONE, framing.CROPPED: _OTHER_SHAPE[plan.frame.crop]}
    size, background = plan.frame.size, plan.frame.background
    if plan.frame.alpha != "none":
        texts[framing.ALPHA], background = "with transparency: kept", "transparent pixels"
    shape = "square" if isinstance(size, int) else f"of the shape {written(size)}"
    done = [
        f"{count_text(plan.done[mark])} {text.format(background=background, shape=shape)}"
        for mark, text in texts.items()
        if plan.done[mark]
    ]
    enlarged = plan.done[framing.ENLARGED]
    if plan.left_out:
        done.insert(
            0, f"only {total:,} of {total + plan.left_out:,} pictures are read for this plan"
        )
    done.extend(about_vanished(plan.done, background))
    return [*done, plan.sides.enlarged(enlarged, total)] if enlarged else done


def _choose_channels(num_grey: int, num_images: int, notes: list[str]) -> int:
    if num_grey < _GREY_SHARE * num_images:
        return 3
    if num_grey < num_images:
        notes.append(
            f"1 channel: all but {num_images - num_grey} of {num_images} pictures are grey; "
            "these lose their colour (channels=3 keeps it)"
        )
    return 1


def fingerprint_of(
    shape: tuple[int, ...],
    marks: np.ndarray,
    labels: np.ndarray | None,
    classes: Iterable[str],
    groups: np.ndarray | None,
) -> str:
    """Digest of pixels, labels and class names, the same on any machine, hexadecimal.

    Args:
        shape: of the pictures.
        marks: from `digests`.
        labels: one number a picture, or None.
        classes: their names, in order.
        groups: of crops, or None.
    """
    digest = hashlib.blake2b(repr((shape, tuple(classes))).encode("utf-8"), digest_size=16)
    digest.update(marks.astype("<u8").tobytes())
    if labels is not None:
        digest.update(labels.astype("<i8").tobytes())
    if groups is not None:
        digest.update(b"groups" + groups.astype("<i8").tobytes())
    return digest.hexdigest()
