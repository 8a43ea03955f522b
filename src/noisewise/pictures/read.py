"""Read a path into one uint8 array: size, channels, decoding, labels and cache."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from noisewise.pictures import array_files, bit_depth, cache, decode, framing, label_files, sources
from noisewise.pictures.bit_depth import is_deep
from noisewise.pictures.decode import UnusableError
from noisewise.pictures.framing import Frame, Square
from noisewise.pictures.gather import (
    MIN_PICTURES,
    Gathered,
    HeaderCounts,
    Labels,
    Plan,
    Progress,
    Squares,
    collect,
    complete,
    count_text,
    load_cached,
    refuse_too_few,
)
from noisewise.pictures.headers import (
    Headers,
    check_size,
    choose_size,
    describe_no_pictures,
    in_order,
    num_threads,
    opened,
    quiet_pillow,
    read_headers,
)
from noisewise.pictures.request import Crop
from noisewise.pictures.sources import Entry, Skipped, Source, printable

_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})


@dataclass(frozen=True)
class _Request:
    """The arguments of `gather`."""

    size: int | None
    channels: int | None
    crop: Crop
    background: str
    folder: Path | None
    progress: Progress | None

    @property
    def key(self) -> list[object]:
        """The part of the cache key that depends on the request, not on the files."""
        plain = self.crop == "centre" and self.background == "white"
        return [self.size, self.channels, *([] if plain else [self.crop, self.background])]

    def frame(self, size: int) -> Frame:
        return Frame(size, self.crop, self.background)


def gather(
    path: str | Path,
    size: int | None = None,
    channels: int | None = None,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    crop: Crop = "centre",
    background: str = "white",
) -> Gathered:
    """Read pictures from a folder, zip, npz or npy; see `load_pictures`."""
    path = Path(path).expanduser()
    folder = None if cache_dir is None else Path(cache_dir).expanduser()
    _check_request(path, size, channels)
    request = _Request(size, channels, crop, background, folder, progress)
    request.frame(size or framing.MIN_SIDE)  # refuse a bad crop or colour before reading
    try:
        if path.suffix.lower() in (".npz", ".npy") and path.is_file():
            return _from_arrays(path, request)
        with sources.open_source(path) as source:
            return _from_files(source, request)
    except OSError as error:
        cache_error = f", or the cache {printable(str(folder))} cannot be written" if folder else ""
        raise ValueError(
            f"{printable(str(path))} cannot be read{cache_error}: {error.strerror or error}; "
            "check permissions and free disk space."
        ) from error


def _check_request(path: Path, size: int | None, channels: int | None) -> None:
    shown = printable(str(path))
    if not path.exists():
        raise ValueError(
            f"{shown} does not exist: give a folder of pictures, or a .zip, .npz or .npy file."
        )
    if path.is_file() and path.suffix.lower() not in (".zip", ".npz", ".npy"):
        raise ValueError(
            f"{shown} is a single file: give its folder, or a .zip, .npz or .npy file."
        )
    if not path.is_file() and not path.is_dir():
        raise ValueError(f"{shown} is neither a file nor a folder: give a folder of pictures.")
    if size is not None:
        check_size(size)
    if channels not in (None, 1, 3):
        raise ValueError(f"channels {channels} cannot be used: give 1 (grey) or 3 (colour).")


def _from_files(source: Source, request: _Request) -> Gathered:
    listing = [(e.name, e.num_bytes, e.mtime_ns) for e in source.entries]
    left_out = [(item.name, item.code) for item in source.skipped]
    key = cache.cache_key([source.kind, *request.key, listing, left_out])
    if cached := load_cached(request.folder, key):
        return cached
    metadata_files, candidates = label_files.split_metadata(source)
    found = read_headers(source, candidates, request.progress)
    if all(item.code in sources.HARMLESS for item in found.skipped) and not found.entries:
        what = describe_no_pictures(source, found.skipped)
        raise ValueError(f"{what}: give a folder with at least {MIN_PICTURES} pictures.")
    refuse_too_few(source.path, len(found.entries), list(found.skipped))
    notes: list[str] = []
    size, channels = request.size, request.channels
    if size is None:
        size, why = choose_size(found.sizes, found.block, request.crop)
        notes.append(why)
    if found.modes.keys() <= _GREY_MODES and request.frame(size).on_grey:
        channels = channels or 1
    plan = Plan(request.frame(size), channels, len(found.entries), request.folder, key, notes)
    squares = _decoded(source, found, plan.frame)
    images, names, skipped = collect(source.path, plan, squares, found.skipped, request.progress)
    labels = _labels(source, metadata_files, names, plan)
    plan.notes.extend(_depth_notes(plan, found))
    counts = HeaderCounts(found.sizes, found.modes, found.formats)
    return complete(plan, images, labels, names, skipped, counts)


def _depth_notes(plan: Plan, found: Headers) -> list[str]:
    """Notes on the values of black and white in pictures with more than 8 bits, for each depth."""
    scales = {
        bit_depth.kind_of(mode): found.ranges.of(mode) for mode in found.modes if is_deep(mode)
    }
    return [
        f"{count_text(plan.done[kind])} with more than 8 bits ({kind}): {scale.low:g} is black and "
        f"{scale.high:g} is white, chosen from the values of all such pictures"
        for kind, scale in sorted(scales.items())
        if plan.done[kind]
    ]


def _labels(
    source: Source, metadata_files: tuple[Entry, ...], names: list[str], plan: Plan
) -> Labels:
    """Find the classes: from metadata files if they hold labels, else from the folder names."""
    by_name, notes = label_files.read_labels(source, metadata_files)
    plan.notes.extend(notes)
    if by_name:
        numbers, classes, notes = label_files.class_labels(names, by_name)
    else:
        numbers, classes, notes = sources.class_labels(names)
    plan.notes.extend(notes)
    array = None if numbers is None else np.asarray(numbers, np.int64)
    return Labels(array, tuple(classes), source.kind)


def _from_arrays(path: Path, request: _Request) -> Gathered:
    status = path.stat()
    facts = (path.name, status.st_size, status.st_mtime_ns)
    kind = path.suffix.lower()[1:]
    key = cache.cache_key([kind, *request.key, facts])
    if cached := load_cached(request.folder, key):
        return cached
    found = array_files.open_arrays(path)
    height, width, depth = found.height_width_channels
    sizes = Counter({(width, height): len(found)})
    notes = list(found.notes)
    size, channels = request.size, request.channels
    if size is None:
        size, why = choose_size(sizes, _array_block(found), request.crop)
        notes.append(why)
    if depth == 1 and request.frame(size).on_grey:
        channels = channels or 1
    plan = Plan(request.frame(size), channels, len(found), request.folder, key, notes)
    squares = _array_squares(found, plan.frame)
    images, _, _ = collect(path, plan, squares, (), request.progress)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[depth]
    counts = HeaderCounts(sizes, Counter({mode: len(found)}), Counter({kind: len(found)}))
    labels = Labels(found.labels, tuple(found.classes), kind)
    return complete(plan, images, labels, list(found.names), [], counts)


def _decoded(source: Source, found: Headers, frame: Frame) -> Squares:
    def one(item: tuple[Entry, int]) -> Square | Skipped:
        entry, _ = item
        try:
            with opened(source, entry) as file:
                return decode.decode(file, entry.name, frame, found.ranges)
        except UnusableError as error:
            return Skipped(entry.name, error.code)

    with quiet_pillow(), ThreadPoolExecutor(num_threads()) as pool:
        items = zip(found.entries, found.num_bytes, strict=True)
        for (entry, _), square in in_order(pool, one, items, lambda item: item[1]):
            yield entry.name, square


def _array_squares(found: array_files.ArrayFile, frame: Frame) -> Squares:
    for index, pixels in enumerate(found.pictures()):
        done: set[str] = set()
        name = str(index)
        image = framing.on_background(_as_image(pixels), frame, done)
        yield name, framing.as_square(framing.fit(image, name, frame, done), done)


def _array_block(found: array_files.ArrayFile) -> int:
    factors = []
    for pixels, _ in zip(found.pictures(), range(32), strict=False):
        if _as_image(pixels).getcolors(256) is None:
            return 1
        if (pixels != pixels[0, 0]).any():
            factors.append(framing.block_factor(pixels))
    return int(np.gcd.reduce(factors)) if factors else 1


def _as_image(pixels: np.ndarray) -> Image.Image:
    flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    return Image.fromarray(np.ascontiguousarray(flat))
