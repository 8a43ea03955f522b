"""Read a listed source of picture files into one uint8 array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from noisewise.pictures import (
    bit_depth,
    cache,
    decode,
    folder_classes,
    framing,
    label_files,
    sources,
)
from noisewise.pictures.alpha import CHANNELS, SAMPLE, Seen, choose
from noisewise.pictures.bit_depth import is_deep
from noisewise.pictures.changed import unchanged
from noisewise.pictures.crops import Cut, Pieces
from noisewise.pictures.cutting import Origins, plan_cuts
from noisewise.pictures.decode import UnusableError
from noisewise.pictures.enlarging import Sides
from noisewise.pictures.framing import Frame, Framed
from noisewise.pictures.gather import (
    MIN_PICTURES,
    FramedPictures,
    Gathered,
    HeaderCounts,
    Labels,
    Plan,
    collect,
    complete,
    count_text,
    load_cached,
    refuse_too_few,
)
from noisewise.pictures.headers import (
    Headers,
    describe_no_pictures,
    in_order,
    num_threads,
    opened,
    quiet_pillow,
    read_headers,
    refuse_films,
)
from noisewise.pictures.own_files import about_own
from noisewise.pictures.sample import sampled
from noisewise.pictures.source_type import Request, chosen_size
from noisewise.pictures.sources import Entry, Skipped, Source
from noisewise.pictures.stacks import about_stacks
from noisewise.sizes import Size, num_pixels

_MOST_WAITING = 2**28  # bytes of crops that wait to be written
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})


def read_files(source: Source, request: Request) -> Gathered:
    """Read every usable picture: headers, size, decoding, labels, cache.

    Raises:
        ValueError: if there are too few pictures, or the size cannot be used.
    """
    listing = [(e.name, e.num_bytes, e.mtime_ns) for e in source.entries]
    # A new run among the pictures changes none of them, so it does not change the key either.
    others = [item for item in source.skipped if item.code != sources.OWN]
    skipped_before = [(item.name, item.code) for item in others]
    key = cache.cache_key([source.kind, *request.key, listing, skipped_before])
    if cached := load_cached(request.folder, key):
        return cached
    metadata_files, candidates = label_files.split_metadata(source)
    found = read_headers(source, candidates, request.progress)
    if all(item.code in sources.HARMLESS for item in found.skipped) and not found.entries:
        what = describe_no_pictures(source, found.skipped)
        raise ValueError(f"{what}: give a folder with at least {MIN_PICTURES} pictures.")
    least = 1 if request.crops else MIN_PICTURES
    if len(found.entries) < least:
        refuse_films(source, found.entries, least)
    refuse_too_few(source.path, len(found.entries), list(found.skipped), least=least)
    notes = about_own(found.skipped)
    kept = choose(_seen(source, found, request), request.background, request.channels)
    request, why_border = request.keeping(kept, found.sizes, found.block)
    size, channels = request.size, request.channels
    if size is None:
        size, why = chosen_size(found.sizes, found.block, request)
        notes.append(why)
    notes += filter(None, [kept.note, why_border])
    if kept.alpha != "none":
        channels = CHANNELS
    elif found.modes.keys() <= _GREY_MODES and request.frame(size).on_grey:
        channels = channels or 1
    frame, every = request.frame(size), [entry.name for entry in found.entries]
    files = {entry.name: entry.file_name for entry in found.entries}
    sides = Sides.of(found.sizes, found.block, frame)
    if request.sampled and not request.crops:
        found = _sampled(found, size)
    total = len(found.entries)
    left_out = len(every) - total
    enlarging = request.enlarging or request.crops > 0  # crops are never enlarged
    plan = Plan(frame, sides, enlarging, channels, total, request.folder, key, notes, left_out)
    origins = Origins() if request.crops else None
    framed = _decoded(source, found, plan.frame)
    if origins is not None:
        cuts = plan_cuts(source.path, found.sides, size, request.crops, request.keep_whole)
        framed = _cut(source, found, plan.frame, cuts, origins)
    if source.status is not None:
        framed = unchanged(framed, source.path, source.status)
    images, names, skipped = collect(source.path, plan, framed, found.skipped, request.progress)
    labels = _labels(source, metadata_files, every if left_out else names, files, plan)
    if left_out:
        labels = labels.of_some(every, names)
    stack_of = {entry.name: entry.stack for entry in found.entries}
    stacks = [stack_of[name] for name in names]
    if found.num_stacks:
        plan.notes.append(about_stacks(found.num_stacks, found.num_pages, stacks))
    plan.notes.extend(_depth_notes(plan, found))
    more_pages = found.num_pages - found.num_stacks
    clear = plan.done[framing.ALPHA]
    crop = plan.frame.crop
    counts = HeaderCounts(found.sizes, found.modes, found.formats, more_pages, clear, crop)
    if origins is None:
        return complete(plan, images, labels, names, skipped, counts, stacks=stacks)
    plan.notes.extend(origins.notes(size, request.keep_whole))
    return complete(plan, images, labels, names, skipped, counts, origins.groups())


def _seen(source: Source, found: Headers, request: Request) -> list[Seen]:
    """The transparency of some evenly spaced pictures; of none where it is laid flat anyway."""
    if not request.may_keep:
        return []

    def one(item: tuple[Entry, int]) -> Seen | None:
        try:
            with opened(source, item[0]) as file:
                return decode.transparency(file, item[0].file_name)
        except UnusableError:
            return None

    step = max(1, len(found.entries) // SAMPLE)
    items = list(zip(found.entries, found.num_bytes, strict=True))[::step]
    with quiet_pillow(), ThreadPoolExecutor(num_threads()) as pool:
        results = [result for _, result in in_order(pool, one, items, lambda item: item[1])]
    return [result for result in results if result is not None]


def _sampled(found: Headers, size: Size) -> Headers:
    """Only the files that a plan reads."""
    chosen = sampled(len(found.entries), size)
    return replace(
        found,
        entries=tuple(found.entries[i] for i in chosen),
        num_bytes=tuple(found.num_bytes[i] for i in chosen),
        sides=tuple(found.sides[i] for i in chosen),
    )


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
    source: Source,
    metadata_files: tuple[Entry, ...],
    names: list[str],
    files: Mapping[str, str],
    plan: Plan,
) -> Labels:
    """Find the classes: from metadata files if they hold labels, else from the folder names.

    A page has the label of its file.
    """
    names = [files[name] for name in names]
    by_name, notes = label_files.read_labels(source, metadata_files)
    plan.notes.extend(notes)
    if by_name:
        numbers, classes, notes = label_files.class_labels(names, by_name)
    else:
        numbers, classes, notes = folder_classes.class_labels(names)
    plan.notes.extend(notes)
    array = None if numbers is None else np.asarray(numbers, np.int64)
    return Labels(array, tuple(classes), source.kind)


def _decoded(source: Source, found: Headers, frame: Frame) -> FramedPictures:
    def one(item: tuple[Entry, int]) -> Framed | Skipped:
        entry, _ = item
        try:
            with opened(source, entry) as file:
                return decode.decode(file, entry.name, frame, found.ranges)
        except UnusableError as error:
            return Skipped(entry.name, error.code)

    with quiet_pillow(), ThreadPoolExecutor(num_threads()) as pool:
        items = zip(found.entries, found.num_bytes, strict=True)
        for (entry, _), picture in in_order(pool, one, items, lambda item: item[1]):
            yield entry.name, picture


def _cut(
    source: Source,
    found: Headers,
    frame: Frame,
    cuts: Sequence[Cut | None],
    origins: Origins,
) -> FramedPictures:
    """Every crop under the name of its picture; pictures that are too small as skipped files."""

    def one(item: tuple[Entry, Cut | None, int]) -> Pieces | Skipped:
        entry, cut, _ = item
        if cut is None:
            return Skipped(entry.name, sources.SMALLER_THAN_CROPS)
        try:
            with opened(source, entry) as file:
                return decode.cut(file, entry.name, frame, cut, found.ranges)
        except UnusableError as error:
            return Skipped(entry.name, error.code)

    piece = (3 if frame.alpha == "none" else CHANNELS) * num_pixels(frame.size)  # bytes
    items = [
        (entry, cut, num_bytes + piece * cut.total if cut else 0)
        for entry, cut, num_bytes in zip(found.entries, cuts, found.num_bytes, strict=True)
    ]
    most = piece * max(cut.total for cut in cuts if cut)
    waiting = min(256, max(2 * num_threads(), _MOST_WAITING // most))
    with quiet_pillow(), ThreadPoolExecutor(num_threads()) as pool:
        results = in_order(pool, one, items, lambda item: item[2], batch_size=waiting)
        for (entry, _, _), result in results:
            if isinstance(result, Skipped):
                yield entry.name, result
                continue
            origins.add(result, entry.stack)
            for picture in result.framed:
                yield entry.name, picture
