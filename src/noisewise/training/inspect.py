"""Report what a folder holds before training: counts, skipped files, measurements, contact sheet.

The measured curve v(s) / v(1) is the share of the pictures' variance that remains after averaging
s x s blocks. White noise keeps 1 / s^2 of its variance, so averaging raises the signal-to-noise
ratio by s^2 v(s) / v(1). This is the resolution shift that these pictures need; Hoogeboom et al.
2023 (simple diffusion, section 3.1) assume s^2.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from noisewise.diffusion import MeasuredShift
from noisewise.pictures.alpha import Alpha, colours
from noisewise.pictures.checkerboard import on_checkerboard
from noisewise.pictures.dim import about_dim, is_black
from noisewise.pictures.enlarging import too_large
from noisewise.pictures.gaps import gap_level
from noisewise.pictures.gather import HeaderCounts, Progress, count_text, digests
from noisewise.pictures.given import Given, as_file, is_path
from noisewise.pictures.near_duplicates import near_duplicates
from noisewise.pictures.noise_curve import noise_curve
from noisewise.pictures.palette_files import MOST, Colours
from noisewise.pictures.pictures import Pictures, as_pictures
from noisewise.pictures.read import gather
from noisewise.pictures.request import Crop
from noisewise.pictures.shapes import count_shapes, size_in_shape
from noisewise.pictures.sources import HARMLESS, Skipped
from noisewise.plain_text import printable
from noisewise.quality.colours import ColourCounts
from noisewise.sizes import AnySize, Size, mean_side, spelled, written
from noisewise.training.devices.engine import Engine
from noisewise.training.files.sample_sheet import png
from noisewise.training.finer_size import about_finer_size
from noisewise.training.in_html import page
from noisewise.training.judge_needs import judge_in_words, judge_needs, num_judged_against
from noisewise.training.settings.config import TrainConfig
from noisewise.training.stages.choose_palette import colours_of, folder_palette
from noisewise.training.stages.kinds import num_kinds
from noisewise.training.stages.noise_plan import SMALL, shift_from_curve

_FIRST = 3
_MOST = 6


@dataclass(frozen=True)
class SkippedFiles:
    """Files skipped for one reason: its code and text, their number, and their first names."""

    code: str
    reason: str
    count: int
    first_names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was found about a set of pictures.

    Attributes:
        source: the path; kind: folder, zip, npz or npy.
        num_pictures: usable pictures; num_files: these and the skipped files.
        num_cut: pictures that the usable ones were cut from; 0 if nothing was cut.
        size: size that training will use, see `noisewise.sizes`; channels: 1, 3 or 4.
        num_transparent: pictures with transparent pixels; alpha: what becomes of them: "none" (laid
            flat), "soft" or "binary" (kept; see `noisewise.pictures.alpha`).
        shapes: number of pictures that are square, wide and tall.
        other_size: a size in the shape of most pictures; None if that is square, there is none, or
            the pictures are cut.
        found_sizes, found_modes, found_formats: what the files hold, most frequent first.
        skipped: skipped files, one item per reason.
        classes: number of pictures of each class; empty without classes.
        num_duplicates: pictures that are exact copies of an earlier one (after resizing).
        duplicate_names: the first pairs of equal pictures, by name or index.
        num_near: pictures nearly equal to an earlier one of another file, without exact copies (see
            `near_duplicates`).
        near_names: the first pairs of nearly equal pictures.
        twins: what the split does with nearly equal pictures; "" if there are none.
        noise_curve: v(s) / v(1) for s = 1, 2, 4, ...
        sigma_data: standard deviation of the pixels on the scale [-1, 1].
        flip, flip_reason: whether training will use mirrored pictures, and why.
        num_training, num_held_out: sizes of the default split.
        judge_needs: pictures with which the judge tells anything; None: too few to say.
        fingerprint: digest of the pictures.
        notes: what was decided or changed while reading.
        contact_sheet: uint8 [height, width, 3].
        file_side: median side of the files before they were resized.
        finer: what training costs at the size that keeps their detail; "" if this one does.
        refused: why training refuses these pictures whatever the size; "" if it does not.
        colours: how many colours there are, and whether there is a palette.
        palette: the colours of the pictures, or the 256 nearest to all; empty if not asked for.
    """

    source: str
    kind: str
    num_files: int
    num_cut: int
    num_pictures: int
    size: Size
    channels: int
    shapes: dict[str, int]
    other_size: Size | None
    found_sizes: dict[str, int]
    found_modes: dict[str, int]
    found_formats: dict[str, int]
    skipped: tuple[SkippedFiles, ...]
    classes: dict[str, int]
    num_duplicates: int
    duplicate_names: tuple[tuple[str, str], ...]
    num_near: int
    near_names: tuple[tuple[str, str], ...]
    twins: str
    noise_curve: dict[int, float]
    sigma_data: float
    flip: bool
    flip_reason: str
    num_training: int
    num_held_out: int
    judge_needs: int | None
    fingerprint: str
    notes: tuple[str, ...]
    contact_sheet: np.ndarray = field(repr=False)
    file_side: int = 0
    finer: str = ""
    refused: str = ""
    num_transparent: int = 0
    alpha: Alpha = "none"
    colours: ColourCounts | None = None
    palette: Colours = ()

    def __repr__(self) -> str:
        """One line; `text()` has all of it."""
        named = f", {len(self.classes)} classes" if self.classes else ""
        return (
            f"Inspection({self.source!r}: {self.num_pictures:,} pictures of {spelled(self.size)}, "
            f"{colours(self.channels)}{named}, "
            f"{sum(s.count for s in self.skipped):,} files skipped)"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the text, and the contact sheet."""
        facts, _, steps = self.text().partition("\nTraining will:\n")
        title, *lines = facts.splitlines()
        rows = [(name, value) for name, value in (line.split(maxsplit=1) for line in lines)]
        rows += [("training will", step.removeprefix("  - ")) for step in steps.splitlines()]
        return page(title, self._sheet(), rows, f"pictures of {self.source}")

    def _repr_png_(self) -> bytes:
        """The contact sheet, for what shows pictures only."""
        return png(self._sheet())

    def _sheet(self) -> Image.Image:
        return Image.fromarray(self.contact_sheet)

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the contact sheet, ready for json.dumps."""
        result = {name: getattr(self, name) for name in self.__dataclass_fields__}
        del result["contact_sheet"]
        result["skipped"] = [
            {**asdict(item), "first_names": list(item.first_names)} for item in self.skipped
        ]
        for name in ("duplicate_names", "near_names"):
            result[name] = [list(pair) for pair in result[name]]
        result["colours"] = None if self.colours is None else self.colours.to_dict()
        result["palette"] = [list(colour) for colour in self.palette]
        result["size"] = written(self.size)
        result["other_size"] = None if self.other_size is None else written(self.other_size)
        result["noise_curve"] = {str(s): value for s, value in self.noise_curve.items()}
        result["notes"] = list(self.notes)
        result["log_shift"] = self.shift.log_shift
        result["log_shift_by_formula"] = self.shift.formula_shift
        return result

    def text(self) -> str:
        """Return the report for people, several lines."""
        lines = [
            f"{printable(self.source)} ({self.kind}): {self._usable()} "
            f"of {self.num_files}{' files' if self.kind in ('folder', 'zip') else ''}",
            f"  sizes     {_listed(self.found_sizes)}",
            f"  shapes    {_listed(self.shapes)}",
            f"  modes     {_listed(self.found_modes)}",
            f"  formats   {_listed(self.found_formats)}",
            f"  alpha     {self._transparency()}",
            f"  classes   {_listed(self.classes) if self.classes else 'none'}",
            f"  copies    {self._copies()}",
            f"  near      {self._near()}",
            f"  noise     share of the variance after averaging s x s pixels: {self._curve()}",
            f"  shift     {self._shift_text()}",
            f"  contrast  standard deviation of the pixels {self.sigma_data:.3f} (sigma_data)",
        ]
        if self.colours is not None:
            lines.append(f"  colours   {self.colours.text()}")
        lines.append(f"  judge     {judge_in_words(self.judge_needs, self._num_real())}")
        if not self.skipped:
            lines.append("  skipped   none")
        for item in self.skipped:
            names = ", ".join(printable(name) for name in item.first_names)
            more = ", ..." if item.count > len(item.first_names) else ""
            lines.append(f"  skipped   {item.count} {item.reason}: {names}{more}")
        lines += [f"  note      {printable(note)}" for note in self.notes]
        return "\n".join([*lines, "Training will:", *(f"  - {step}" for step in self.plan())])

    def plan(self) -> list[str]:
        """Say what training will do with these pictures, one line each."""
        colour = f"{colours(self.channels)}, {self.channels} channel{'s' * (self.channels > 1)}"
        every = f"{self.num_pictures} pieces" if self.num_cut else "every picture"
        steps = [
            f"use {every} at {spelled(self.size)} pixels ({colour})",
            f"train on {self.num_training} pictures and test on {self.num_held_out} held-out ones",
            self.flip_reason,
        ]
        if self.colours is not None and self.colours.has_palette:
            steps.append("give drawn pictures the colours of these (--palette none: does not)")
        if self.other_size is not None:
            shape = written(self.other_size)
            steps.insert(1, f"with --size {shape}, keep the shape that most pictures have")
        if self.twins:
            steps.insert(-1, self.twins)
        if refused := self.refused or too_large(self.size, self.file_side):
            steps[0] = f"refuse this: {refused}"
        elif self.finer:
            steps.insert(1, f"lose detail; {self.finer}")
        if self.classes:
            steps.append(f"with --classes, learn the {len(self.classes)} classes")
        kinds, why = num_kinds(TrainConfig(), self.num_training + self.num_held_out)
        if kinds:
            without = "without --classes, " if self.classes else ""
            steps.append(f"{without}group similar pictures into {kinds} kinds ({why})")
        return steps

    @property
    def shift(self) -> MeasuredShift:
        """The shift of the noise schedule for these pictures, as measured and by the formula."""
        return shift_from_curve(self.size, self.noise_curve)

    def _shift_text(self) -> str:
        if mean_side(self.size) <= SMALL:
            return f"no shift of the noise levels: only sizes above {SMALL} pixels need one"
        measured, formula = (-s / 2 for s in (self.shift.log_shift, self.shift.formula_shift))
        return (
            f"ln sigma of the noise levels shifts by {measured:+.2f} (measured; "
            f"the formula for smooth pictures gives {formula:+.2f})"
        )

    def _usable(self) -> str:
        if not self.num_cut:
            return f"{self.num_pictures} usable pictures"
        return f"{self.num_pictures} usable pieces of {count_text(self.num_cut)}"

    def _num_real(self) -> int:
        return num_judged_against(self.num_training, self.num_held_out)

    def _copies(self) -> str:
        if not self.num_duplicates:
            return "no exact copies"
        pairs = _paired(self.duplicate_names, "=")
        return f"{self.num_duplicates} exactly equal to another picture: {pairs}"

    def _near(self) -> str:
        if not self.num_near:
            return "no nearly equal pictures"
        pairs = _paired(self.near_names, "~")
        return f"{self.num_near} nearly equal to another picture: {pairs}"

    def _transparency(self) -> str:
        """How many pictures have transparent pixels, and what becomes of them."""
        if not self.num_transparent:
            return "no picture has transparent pixels"
        some = f"{self.num_transparent} of {self.num_cut or self.num_pictures} pictures have"
        edges = {
            "none": "laid flat",
            "soft": "with soft edges: kept",
            "binary": "with hard edges (seen or not seen, nothing between): kept",
        }
        return f"{some} transparent pixels, {edges[self.alpha]}"

    def _curve(self) -> str:
        return ", ".join(f"s={s} {value:.2f}" for s, value in self.noise_curve.items())


def inspect(
    path: Given,
    size: AnySize | None = None,
    progress: Progress | None = None,
    crop: Crop = "auto",
    background: str = "auto",
    crops: int = 0,
    keep_whole: bool = False,
    palette: bool = False,
) -> Inspection:
    """Decode all pictures in a folder, zip, npz or npy file and report; writes nothing.

    Args:
        path: the folder or file, or pictures in memory as for `noisewise.train`.
        size: as for `load_pictures`; None chooses a square from the pictures' own sizes.
        progress: called with (files done, files in all).
        crop: see `load_pictures`.
        background: see `load_pictures`.
        crops: see `load_pictures`.
        keep_whole: see `load_pictures`.
        palette: also find the colours for a palette file, at most 256.

    Raises:
        ValueError: see `load_pictures`; also if all pixels are equal.

    Example:
        >>> from noisewise.demo import demo_path
        >>> found = inspect(demo_path())
        >>> found.num_pictures, found.num_held_out, found.flip
        (6000, 300, False)
    """
    with TemporaryDirectory() as beside:  # of pictures in memory
        place = as_file(path, Path(beside))
        found = gather(
            place,
            size,
            progress=progress,
            crop=crop,
            background=background,
            crops=crops,
            keep_whole=keep_whole,
        )
    assert found.counts is not None, "no cache is used here"
    near = near_duplicates(found.images)
    pictures = as_pictures(found, place if is_path(path) else "pictures in memory").with_twins(near)
    near = [pair for pair in near if not _of_one_file(pictures, *pair)]
    training, held_out = pictures.split(seed=0)
    flip, flip_reason = pictures.suggest_flip()
    num_duplicates, pairs = _duplicates(pictures)
    num_cut = 0 if pictures.groups is None else len(set(pictures.names))
    colours = colours_of(pictures.images)
    return Inspection(
        source=pictures.source,
        kind=found.kind,
        num_files=(num_cut or len(pictures)) + len(pictures.skipped) - found.counts.more_pages,
        num_cut=num_cut,
        num_pictures=len(pictures),
        size=pictures.size,
        channels=pictures.channels,
        shapes=count_shapes(found.counts.sizes),
        other_size=None
        if num_cut
        else size_in_shape(found.counts.sizes, pictures.size, found.counts.crop),
        **_as_found(found.counts),
        skipped=_skipped(pictures),
        classes=dict(zip(pictures.classes, pictures.label_histogram, strict=False)),
        num_duplicates=num_duplicates,
        duplicate_names=pairs,
        num_near=len(near),
        near_names=tuple(_named(pictures, *pair) for pair in near[:_FIRST]),
        twins=pictures.about_twins(),
        noise_curve=noise_curve(pictures.images),
        sigma_data=pictures.sigma_data(),
        flip=flip,
        flip_reason=flip_reason,
        num_training=len(training),
        num_held_out=len(held_out),
        judge_needs=judge_needs(pictures),
        fingerprint=pictures.fingerprint,
        notes=pictures.notes,
        contact_sheet=contact_sheet(pictures.images),
        file_side=pictures.side,
        finer="" if size is not None else about_finer_size(pictures, Engine.choose().device),
        refused=about_dim(pictures.images) if is_black(pictures.images) else "",
        num_transparent=found.counts.transparent,
        alpha=pictures.alpha,
        colours=colours,
        palette=folder_palette(pictures.images, colours, MOST) if palette else (),
    )


def contact_sheet(images: np.ndarray, columns: int = 8, rows: int = 8) -> np.ndarray:
    """Show evenly spaced pictures of the set in a grid, as one picture.

    Args:
        images: uint8 [n, height, width, channels]; RGBA is laid on a checkerboard.
        columns: pictures per row.
        rows: number of rows; fewer if there are fewer pictures.

    Returns:
        uint8 [height, width, 3]; pictures under 64 pixels are enlarged by a whole number. The gaps
        have a grey that the pictures' edges do not have.

    Example:
        >>> contact_sheet(np.zeros((20, 32, 32, 1), np.uint8)).shape
        (200, 530, 3)
    """
    count = min(len(images), columns * rows)
    rows = -(-count // columns)
    factor = max(1, 64 // max(images.shape[1:3]))
    tall, wide, gap = images.shape[1] * factor, images.shape[2] * factor, 2
    shown = np.linspace(0, len(images) - 1, count).round().astype(int)
    shape = (rows * (tall + gap) + gap, columns * (wide + gap) + gap, 3)
    laid = on_checkerboard(images[shown])
    sheet = np.full(shape, gap_level(laid), np.uint8)
    for place, small in enumerate(laid):
        picture = np.repeat(np.repeat(small, factor, axis=0), factor, axis=1)
        top = gap + place // columns * (tall + gap)
        left = gap + place % columns * (wide + gap)
        sheet[top : top + tall, left : left + wide] = picture
    return sheet


def _as_found(counts: HeaderCounts) -> dict[str, dict[str, int]]:
    sizes = Counter({f"{w} x {h}": count for (w, h), count in counts.sizes.items()})
    return {
        "found_sizes": dict(sizes.most_common()),
        "found_modes": dict(counts.modes.most_common()),
        "found_formats": dict(counts.formats.most_common()),
    }


def _skipped(pictures: Pictures) -> tuple[SkippedFiles, ...]:
    files: dict[str, list[Skipped]] = {}
    for item in pictures.skipped:
        files.setdefault(item.code, []).append(item)
    found = [
        SkippedFiles(code, items[0].reason, len(items), tuple(x.name for x in items[:_FIRST]))
        for code, items in files.items()
    ]
    return tuple(sorted(found, key=lambda item: (item.code in HARMLESS, -item.count, item.reason)))


def _duplicates(pictures: Pictures) -> tuple[int, tuple[tuple[str, str], ...]]:
    first: dict[int, int] = {}
    pairs: list[tuple[str, str]] = []
    count = 0
    for index, mark in enumerate(digests(pictures.images).tolist()):
        earlier = first.setdefault(mark, index)
        if earlier == index or _of_one_file(pictures, earlier, index):
            continue
        count += 1
        if len(pairs) < _FIRST:
            pairs.append(_named(pictures, earlier, index))
    return count, tuple(pairs)


def _of_one_file(pictures: Pictures, a: int, b: int) -> bool:
    """Whether both are crops of one file: those overlap, or hold the same flat ground."""
    if pictures.groups is None:
        return False
    origins = pictures.names or pictures.groups
    return bool(origins[a] == origins[b])


def _named(pictures: Pictures, a: int, b: int) -> tuple[str, str]:
    names = pictures.names
    return (names[a], names[b]) if names else (f"#{a}", f"#{b}")


def _paired(names: tuple[tuple[str, str], ...], sign: str) -> str:
    return ", ".join(f"{printable(a)} {sign} {printable(b)}" for a, b in names)


def _listed(counts: dict[str, int]) -> str:
    items = [f"{count} {printable(name)}" for name, count in counts.items()]
    more = [f"and {len(items) - _MOST} more"] if len(items) > _MOST else []
    return ", ".join(items[:_MOST] + more)
