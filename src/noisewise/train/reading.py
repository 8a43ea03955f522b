"""From a path to one uint8 array: choose size and channels, decode, count the skipped, cache."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from noisewise.train import arrays, cache, decode, sources
from noisewise.train.decode import Square, UnusableError
from noisewise.train.sources import Entry, Skipped, Source, printable
from noisewise.train.survey import (
    Survey,
    check_size,
    choose_size,
    explain_nothing,
    in_order,
    num_threads,
    opened,
    quiet_pillow,
    survey,
)

Progress = Callable[[int, int], None]
"""Called with the files done and the files in all, from the calling thread."""

Squares = Generator[tuple[str, Square | Skipped]]
"""Each file's name with its decoded picture, or with the reason why there is none."""

MIN_PICTURES = 16
_GREY_SHARE = 0.95
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
_WHAT_WAS_DONE = {
    decode.ALPHA: "with transparency: laid on white",
    decode.ROTATED: "turned upright by their EXIF orientation",
    decode.ANIMATED: "with several frames: the first one was taken",
    decode.CROPPED: "not square: the middle was taken",
    decode.ENLARGED: "smaller than the size: enlarged",
    decode.BLOCKS: "of pixel art stored enlarged: taken back to their own pixels",
    decode.PROFILE: "converted from their colour profile to sRGB",
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
class _Plan:
    """What was decided before decoding, and where rows go."""

    size: int
    channels: int | None
    total: int
    folder: Path | None
    key: str
    notes: list[str]
    done: Counter[str] = field(default_factory=Counter)


def gather(
    path: str | Path,
    size: int | None = None,
    channels: int | None = None,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Gathered:
    """Read pictures from a folder, zip, npz or npy; see `data.load_pictures`."""
    path = Path(path).expanduser()
    folder = None if cache_dir is None else Path(cache_dir).expanduser()
    _check_request(path, size, channels)
    try:
        if path.suffix.lower() in (".npz", ".npy") and path.is_file():
            return _from_arrays(path, size, channels, folder, progress)
        with sources.open_source(path) as source:
            return _from_files(source, size, channels, folder, progress)
    except OSError as error:
        place = f" (or the cache in {printable(str(folder))} written)" if folder else ""
        raise ValueError(
            f"{printable(str(path))} cannot be read{place}: {error.strerror or error}; "
            "check permissions and free space."
        ) from error


def digests(images: np.ndarray) -> np.ndarray:
    """Return one uint64 a picture; equal pictures, and only those, have equal numbers."""
    hashes = (hashlib.blake2b(x.tobytes(), digest_size=8).digest() for x in images)
    return np.fromiter((int.from_bytes(h, "little") for h in hashes), np.uint64, len(images))


def _check_request(path: Path, size: int | None, channels: int | None) -> None:
    shown = printable(str(path))
    if not path.exists():
        raise ValueError(
            f"{shown} does not exist: give a folder of pictures, a .zip, a .npz or a .npy file."
        )
    if path.is_file() and path.suffix.lower() not in (".zip", ".npz", ".npy"):
        raise ValueError(
            f"{shown} is a single file: give the folder it lies in, a .zip, a .npz or a .npy file."
        )
    if not path.is_file() and not path.is_dir():
        raise ValueError(f"{shown} is neither a file nor a folder: give a folder of pictures.")
    if size is not None:
        check_size(size)
    if channels not in (None, 1, 3):
        raise ValueError(f"channels {channels} cannot be used: give 1 (grey) or 3 (colour).")


def _from_files(
    source: Source,
    size: int | None,
    channels: int | None,
    folder: Path | None,
    progress: Progress | None,
) -> Gathered:
    listing = [(e.name, e.num_bytes, e.mtime_ns) for e in source.entries]
    left_out = [(item.name, item.reason) for item in source.skipped]
    key = cache.cache_key([source.kind, size, channels, listing, left_out])
    if cached := _from_cache(folder, key):
        return cached
    found = survey(source)
    if all(item.reason in sources.HARMLESS for item in found.skipped) and not found.entries:
        what = explain_nothing(source, found.skipped)
        raise ValueError(f"{what}: give a folder with at least {MIN_PICTURES} pictures.")
    _refuse_too_little(source.path, len(found.entries), list(found.skipped))
    notes: list[str] = []
    if size is None:
        size, why = choose_size(found.sizes, found.block)
        notes.append(why)
    if found.modes.keys() <= _GREY_MODES:
        channels = channels or 1
    plan = _Plan(size, channels, len(found.entries), folder, key, notes)
    result = _collect(source.path, plan, _decoded(source, found, size), found.skipped, progress)
    return _finish(source, plan, found, result)


def _finish(
    source: Source, plan: _Plan, found: Survey, result: tuple[np.ndarray, list[str], list[Skipped]]
) -> Gathered:
    images, names, skipped = result
    labels, classes, class_notes = sources.class_labels(names)
    plan.notes.extend(class_notes)
    if plan.done[decode.DEEP]:
        plan.notes.append(
            f"{plan.done[decode.DEEP]} pictures with more than 8 bits: "
            f"white is {found.full_scale:g}, the range that the brightest one speaks for"
        )
    seen = Seen(found.sizes, found.modes, found.formats)
    numbers = None if labels is None else np.asarray(labels, np.int64)
    return _remember(plan, images, numbers, classes, names, skipped, source.kind, seen)


def _from_arrays(
    path: Path,
    size: int | None,
    channels: int | None,
    folder: Path | None,
    progress: Progress | None,
) -> Gathered:
    status = path.stat()
    facts = (path.name, status.st_size, status.st_mtime_ns)
    kind = path.suffix.lower()[1:]
    key = cache.cache_key([kind, size, channels, facts])
    if cached := _from_cache(folder, key):
        return cached
    found = arrays.open_arrays(path)
    height, width, depth = found.height_width_channels
    sizes = Counter({(width, height): len(found)})
    notes = list(found.notes)
    if size is None:
        size, why = choose_size(sizes, _array_block(found))
        notes.append(why)
    if depth == 1:
        channels = channels or 1
    plan = _Plan(size, channels, len(found), folder, key, notes)
    images, _, _ = _collect(path, plan, _array_squares(found, size), (), progress)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[depth]
    seen = Seen(sizes, Counter({mode: len(found)}), Counter({kind: len(found)}))
    return _remember(
        plan, images, found.labels, list(found.classes), list(found.names), [], kind, seen
    )


def _decoded(source: Source, found: Survey, size: int) -> Squares:
    def one(entry: Entry) -> Square | Skipped:
        try:
            with opened(source, entry) as file:
                return decode.decode(file, entry.name, size, found.full_scale)
        except UnusableError as error:
            return Skipped(entry.name, error.reason)

    with quiet_pillow(), ThreadPoolExecutor(num_threads()) as pool:
        for entry, square in in_order(pool, one, found.entries):
            yield entry.name, square


def _array_squares(found: arrays.ArrayFile, size: int) -> Squares:
    for index, pixels in enumerate(found.pictures()):
        done: set[str] = set()
        image = decode.on_white(_as_image(pixels), done)
        yield str(index), decode.as_square(decode.fit(image, size, done), done)


def _array_block(found: arrays.ArrayFile) -> int:
    factors = []
    for pixels, _ in zip(found.pictures(), range(32), strict=False):
        if _as_image(pixels).getcolors(256) is None:
            return 1
        if (pixels != pixels[0, 0]).any():
            factors.append(decode.block_factor(pixels))
    return int(np.gcd.reduce(factors)) if factors else 1


def _as_image(pixels: np.ndarray) -> Image.Image:
    flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    return Image.fromarray(np.ascontiguousarray(flat))


def _collect(
    path: Path,
    plan: _Plan,
    squares: Squares,
    already_skipped: Iterable[Skipped],
    progress: Progress | None,
) -> tuple[np.ndarray, list[str], list[Skipped]]:
    names: list[str] = []
    skipped = list(already_skipped)
    num_grey = 0
    with closing(squares), cache.Rows(plan.size, plan.channels or 3, plan.folder) as rows:
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
        _refuse_too_little(path, len(names), skipped)
        channels = plan.channels or _choose_channels(num_grey, len(names), plan.notes)
        images = rows.finish(channels, plan.key)
    return images, names, skipped


def _choose_channels(num_grey: int, num_images: int, notes: list[str]) -> int:
    if num_grey < _GREY_SHARE * num_images:
        return 3
    if num_grey < num_images:
        notes.append(
            f"1 channel: all but {num_images - num_grey} of {num_images} pictures are grey, "
            "and those were made grey (channels=3 keeps them)"
        )
    return 1


def _refuse_too_little(path: Path, usable: int, skipped: list[Skipped]) -> None:
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


def _remember(
    plan: _Plan,
    images: np.ndarray,
    labels: np.ndarray | None,
    classes: list[str] | tuple[str, ...],
    names: list[str],
    skipped: list[Skipped],
    kind: str,
    seen: Seen,
) -> Gathered:
    marks = digests(images)
    num_distinct = len(np.unique(marks))
    if num_distinct < MIN_PICTURES:
        raise ValueError(
            f"only {num_distinct} of the {len(images)} pictures differ from each other: "
            f"training needs at least {MIN_PICTURES} different ones."
        )
    notes = plan.notes + [
        f"{plan.done[mark]} pictures {text}"
        for mark, text in _WHAT_WAS_DONE.items()
        if plan.done[mark]
    ]
    print_of = _fingerprint(images.shape, marks, labels, classes)
    left_out = tuple(sorted(skipped, key=lambda item: item.name))
    if plan.folder is not None:
        facts = {
            "shape": list(images.shape),
            "labels": None if labels is None else labels.tolist(),
            "classes": list(classes),
            "names": names,
            "skipped": [[item.name, item.reason] for item in left_out],
            "notes": notes,
            "fingerprint": print_of,
            "kind": kind,
        }
        cache.write_facts(plan.folder, plan.key, facts)
    return Gathered(
        images, labels, tuple(classes), tuple(names), left_out, tuple(notes), print_of, kind, seen
    )


def _fingerprint(
    shape: tuple[int, ...], marks: np.ndarray, labels: np.ndarray | None, classes: Iterable[str]
) -> str:
    digest = hashlib.blake2b(repr((shape, tuple(classes))).encode("utf-8"), digest_size=16)
    digest.update(marks.astype("<u8").tobytes())
    if labels is not None:
        digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _from_cache(folder: Path | None, key: str) -> Gathered | None:
    found = cache.read_cached(folder, key) if folder is not None else None
    if found is None:
        return None
    images, facts = found
    labels = None if facts["labels"] is None else np.asarray(facts["labels"], np.int64)
    return Gathered(
        images,
        labels,
        tuple(facts["classes"]),
        tuple(facts["names"]),
        tuple(Skipped(name, reason) for name, reason in facts["skipped"]),
        tuple(facts["notes"]),
        facts["fingerprint"],
        facts["kind"],
        None,
    )
