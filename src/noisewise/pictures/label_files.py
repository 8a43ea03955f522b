"""Read labels from files beside the pictures: `metadata.csv`, `metadata.jsonl`, `dataset.json`.

Each row of metadata has a `file_name`, relative to the folder of the file, and may have a `label`:
a name or a whole number. `dataset.json` is {"labels": [[file name, whole number], ...]}. Such a
file holds for its folder and all folders below.
Source: Hugging Face `datasets`, "Create an image dataset", section ImageFolder; StyleGAN3 and EDM,
"Preparing datasets".
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from noisewise.pictures.class_names import composed, natural_order
from noisewise.pictures.decode import UnusableError
from noisewise.pictures.headers import opened
from noisewise.pictures.sources import Entry, Source
from noisewise.plain_text import printable

_PAIRS = "dataset.json"
NAMES = frozenset({"metadata.csv", "metadata.jsonl", _PAIRS})
_FILE = "file_name"
_DELIMITERS = (",", ";", "\t")
_MOST_BYTES = 128 * 2**20
_MOST_PAIRS = 32 * 2**20  # bytes of a dataset.json, which is read whole
_MOST_LETTERS = 2**20  # in one line
_LABELS = ("label", "labels", "class", "category")


class UnreadableError(Exception):
    """A metadata file that cannot be used; the text says why."""


def split_metadata(source: Source) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """Split the listed files into metadata files and all others; both keep their order."""
    metadata = tuple(e for e in source.entries if PurePosixPath(e.name).name in NAMES)
    others = tuple(e for e in source.entries if PurePosixPath(e.name).name not in NAMES)
    return metadata, others


def read_labels(source: Source, files: Iterable[Entry]) -> tuple[dict[str, str | int], list[str]]:
    """Read the labels of the pictures from metadata files.

    Args:
        source: the folder or zip.
        files: its metadata files.

    Returns:
        A label for each labelled file (by its path below the source), and notes on metadata files
        that have no labels or cannot be read, which are not used, and that name files which are
        not there.
    """
    there = {composed(item.name) for item in (*source.entries, *source.skipped)}
    labels: dict[str, str | int] = {}
    notes: list[str] = []
    for entry in files:
        try:
            found, named = _labels_of(source, entry, there)
        except (UnreadableError, UnusableError, UnicodeDecodeError, csv.Error) as error:
            notes.append(f"{printable(entry.name)} is not used: {printable(str(error))}")
        else:
            labels |= found
            notes.extend(_about_missing(entry, named))
    return labels, notes


def _about_missing(entry: Entry, named: _Named) -> list[str]:
    """A note on the files that a metadata file names and that are not there."""
    if not named.missing:
        return []
    name = printable(named.first_missing)
    if named.missing == 1:
        return [f"{printable(entry.name)} names 1 file that is not there: {name}"]
    return [
        f"{printable(entry.name)} names {named.missing:,} files that are not there, for example "
        f"{name}"
    ]


def class_labels(
    names: list[str], labels: dict[str, str | int]
) -> tuple[list[int] | None, list[str], list[str]]:
    """Number the classes of the usable pictures: number labels by value, names in natural order.

    There are no classes if a picture has no label, or if all pictures have the same label. A name
    with accents is found in both of their spellings, composed and decomposed.

    Args:
        names: paths of the pictures below the source.
        labels: from `read_labels`.

    Returns:
        One class number per picture (or None), the class names, and notes; like
        `sources.class_labels`.

    Example:
        >>> class_labels(["a.png", "b.png", "c.png"], {"a.png": 10, "b.png": 9, "c.png": 10})
        ([1, 0, 1], ['9', '10'], ['classes: the labels in the metadata file'])
    """
    by_spelling = {composed(name): value for name, value in labels.items()}
    found = {name: labels.get(name, by_spelling.get(composed(name))) for name in names}
    missing = [name for name in names if found[name] is None]
    if missing:
        lack = f"{len(missing):,} {'has' if len(missing) == 1 else 'have'} none"
        note = (
            f"no classes: {len(names) - len(missing):,} of {len(names):,} pictures have a label in "
            f"the metadata file and {lack}, for example {printable(missing[0])}"
        )
        return None, [], [note]
    values = [found[name] for name in names]
    numbers = [value for value in values if isinstance(value, int)]
    if len(numbers) == len(values):
        classes = [str(value) for value in sorted(set(numbers))]
    else:
        classes = natural_order({str(value) for value in values})
    if len(classes) < 2:
        return None, [], ["no classes: all labels in the metadata file are the same"]
    number = {value: index for index, value in enumerate(classes)}
    note = "classes: the labels in the metadata file"
    return [number[str(value)] for value in values], classes, [note]


@dataclass
class _Named:
    """What a metadata file names: files that are not there are counted, not kept."""

    there: Collection[str]
    missing: int = 0
    first_missing: str = ""

    def has(self, name: str) -> bool:
        """Whether a named file is there."""
        if composed(name) in self.there:
            return True
        self.missing += 1
        self.first_missing = self.first_missing or name
        return False


def _labels_of(
    source: Source, entry: Entry, there: Collection[str]
) -> tuple[dict[str, str | int], _Named]:
    pairs = PurePosixPath(entry.name).name == _PAIRS
    most = _MOST_PAIRS if pairs else _MOST_BYTES
    if entry.num_bytes > most:
        raise UnreadableError(
            f"it has {entry.num_bytes / 2**20:,.0f} MiB, and at most {most // 2**20} MiB "
            "are read; keep only file_name and label in it"
        )
    folder, named = PurePosixPath(entry.name).parent, _Named(there)
    labels: dict[str, str | int] = {}
    key = ""
    with opened(source, entry) as file:
        if pairs:
            found = _pairs(_whole(file))
            labels = {_joined(folder, name): label for name, label in found}
            for name in labels:
                named.has(name)
            return labels, named
        rows = _json_rows(file) if entry.name.endswith(".jsonl") else _csv_rows(file)
        for number, row in enumerate(rows, start=1):
            if not isinstance(row.get(_FILE), str):
                raise UnreadableError(f"row {number} has no {_FILE}")
            key = key or next((name for name in _LABELS if row.get(name) is not None), "")
            value = row.get(key)
            if isinstance(value, bool) or not isinstance(value, str | int | None):
                raise UnreadableError(f"row {number}: {key} is not a name or a whole number")
            name = _joined(folder, row[_FILE])
            # Labels of files that are not there would only take memory; one shows that there are
            # labels.
            is_there = named.has(name)
            if key and value is not None and value != "" and (is_there or not labels):
                labels[name] = _as_number(value)
    if not key:
        raise UnreadableError(f"it has no column named {', '.join(_LABELS[:-1])} or {_LABELS[-1]}")
    return labels, named


def _encoding(file: BinaryIO) -> str:
    """UTF-8, or UTF-16 as spreadsheets write it; without a mark, zeros tell UTF-16."""
    start = file.read(2)
    file.seek(0)
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    if len(start) > 1 and 0 in start:
        return "utf-16-be" if start[0] == 0 else "utf-16-le"
    return "utf-8-sig"


def _whole(file: BinaryIO) -> str:
    with io.TextIOWrapper(file, _encoding(file)) as text:
        return text.read()


def _pairs(text: str) -> Iterator[tuple[str, int]]:
    """The pairs of dataset.json: file name and number."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableError("it is not JSON") from error
    pairs = found.get("labels") if isinstance(found, dict) else None
    if not isinstance(pairs, list):
        raise UnreadableError('it has no list of "labels"')
    for number, pair in enumerate(pairs, start=1):
        match pair:
            case [str(name), int(label)] if not isinstance(label, bool):
                yield name, label
            case _:
                raise UnreadableError(f"label {number} is not a file name and a whole number")


def _joined(folder: PurePosixPath, name: str) -> str:
    """The path below the source; `.` and `..` are resolved without looking at the disk."""
    parts: list[str] = []
    for part in (folder / name.replace("\\", "/")).parts:
        if part == ".." and parts:
            parts.pop()
        elif part not in (".", "..", "/"):
            parts.append(part)
    return "/".join(parts)


def _as_number(value: str | int) -> str | int:
    is_plain = isinstance(value, str) and re.fullmatch(r"0|[1-9][0-9]{0,17}", value) is not None
    return int(value) if is_plain else value


def _csv_rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """The rows; columns are separated by what gives the first line a column of file names."""
    lines = _lines(file, "")
    first = next(lines, "")
    if first.lower().startswith("sep="):  # a line for spreadsheets
        first = next(lines, "")
    for delimiter in _DELIMITERS:
        if _FILE in next(csv.reader([first.strip()], delimiter=delimiter), []):
            break
    else:
        delimiter = _DELIMITERS[0]
    yield from csv.DictReader(chain([first], lines), strict=True, delimiter=delimiter)


def _json_rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(file, "\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UnreadableError(f"line {number} is not JSON") from error
        if not isinstance(row, dict):
            raise UnreadableError(f"line {number} is not a JSON object")
        yield row


def _lines(file: BinaryIO, newline: str) -> Iterator[str]:
    """The lines of a file, one at a time: as Python values a file takes many times its bytes."""
    with io.TextIOWrapper(file, _encoding(file), newline=newline) as text:
        number = 1
        while line := text.readline(_MOST_LETTERS + 1):
            if len(line) > _MOST_LETTERS:
                raise UnreadableError(f"line {number} has more than {_MOST_LETTERS:,} letters")
            yield line
            number += 1
