"""A .npz or .npy file of pictures as a source."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from noisewise.pictures import array_files, cache, framing, sources
from noisewise.pictures.alpha import CHANNELS, SAMPLE, Seen, choose, seen
from noisewise.pictures.changed import unchanged
from noisewise.pictures.crops import Cut, cut_picture
from noisewise.pictures.cutting import Origins, plan_cuts
from noisewise.pictures.enlarging import Sides
from noisewise.pictures.framing import Frame
from noisewise.pictures.gather import (
    MIN_PICTURES,
    FramedPictures,
    Gathered,
    HeaderCounts,
    Labels,
    Plan,
    collect,
    complete,
    load_cached,
    refuse_too_few,
)
from noisewise.pictures.sample import sampled
from noisewise.pictures.source_type import Request, SourceType, chosen_size, has_suffix
from noisewise.pictures.sources import Skipped

_SUFFIXES = (".npz", ".npy")


def _read(path: Path, request: Request) -> Gathered:
    status = path.stat()
    facts = (path.name, status.st_size, status.st_mtime_ns)
    kind = path.suffix.lower()[1:]
    key = cache.cache_key([kind, *request.key, facts])
    if cached := load_cached(request.folder, key):
        return cached
    found = array_files.open_arrays(path)
    refuse_too_few(path, len(found), [], least=1 if request.crops else MIN_PICTURES)
    height, width, depth = found.height_width_channels
    sizes = Counter({(width, height): len(found)})
    notes, block = list(found.notes), _array_block(found)
    kept = choose(_seen(found, request), request.background, request.channels)
    request, why_border = request.keeping(kept, sizes, block)
    size, channels = request.size, request.channels
    if size is None:
        size, why = chosen_size(sizes, block, request)
        notes.append(why)
    notes += filter(None, [kept.note, why_border])
    if kept.alpha != "none":
        channels = CHANNELS
    elif depth == 1 and request.frame(size).on_grey:
        channels = channels or 1
    frame, every = request.frame(size), np.arange(len(found))
    chosen = sampled(len(found), size) if request.sampled and not request.crops else every
    plan = Plan(
        frame,
        Sides.of(sizes, block, frame),
        request.enlarging or request.crops > 0,
        channels,
        len(chosen),
        request.folder,
        key,
        notes,
        len(found) - len(chosen),
    )
    cut, origins = None, Origins()
    if request.crops:
        each = [(width, height)] * len(found)
        cut = plan_cuts(path, each, size, request.crops, request.keep_whole)[0]
    framed = (
        _array_pictures(found, frame, set(chosen.tolist()))
        if cut is None
        else _cut(found, plan, cut, origins)
    )
    framed = unchanged(framed, path, status)
    images, names, skipped = collect(path, plan, framed, (), request.progress)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[depth]
    modes, formats = Counter({mode: len(found)}), Counter({kind: len(found)})
    counts = HeaderCounts(sizes, modes, formats, 0, plan.done[framing.ALPHA], frame.crop)
    of = np.array([int(name) for name in names])
    numbers = None if found.labels is None else found.labels[of]
    labels = Labels(numbers, tuple(found.classes), kind)
    named = [found.names[i] for i in of] if found.names else []
    if cut is None:
        return complete(plan, images, labels, named, skipped, counts)
    plan.notes.extend(origins.notes(size, request.keep_whole))
    named = named or [f"#{i}" for i in of]
    return complete(plan, images, labels, named, [], counts, origins.groups())


def _array_pictures(found: array_files.ArrayFile, frame: Frame, chosen: set[int]) -> FramedPictures:
    for index, pixels in enumerate(found.pictures()):
        if index not in chosen:
            continue
        done: set[str] = set()
        name = str(index)
        image = framing.on_background(_as_image(pixels), frame, done)
        made = framing.fit(image, name, frame, done)
        if made.mode == "RGBA" and made.getchannel("A").getextrema()[1] == 0:
            yield (
                name,
                Skipped(found.names[index] if found.names else f"#{index}", sources.INVISIBLE),
            )
        else:
            yield name, framing.as_framed(made, done)


def _cut(found: array_files.ArrayFile, plan: Plan, cut: Cut, origins: Origins) -> FramedPictures:
    """Every crop under the number of its picture."""
    for index, pixels in enumerate(found.pictures()):
        done: set[str] = set()
        image = framing.on_background(_as_image(pixels), plan.frame, done)
        pieces = cut_picture(image, str(index), plan.frame, cut, done)
        origins.add(pieces)
        for picture in pieces.framed:
            yield str(index), picture


def _seen(found: array_files.ArrayFile, request: Request) -> list[Seen]:
    """The transparency of some evenly spaced pictures; of none where it is laid flat anyway."""
    if not request.may_keep or found.height_width_channels[2] != CHANNELS:
        return []
    step = max(1, len(found) // SAMPLE)
    return [seen(_as_image(pixels)) for pixels in islice(found.pictures(), 0, None, step)]


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


ARRAYS = SourceType("array", _SUFFIXES, has_suffix(*_SUFFIXES), _read)
