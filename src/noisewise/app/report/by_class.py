"""The section "Each class": generated pictures of every class or kind, with real ones below."""

from __future__ import annotations

import numpy as np

from noisewise.app.html_text import escape
from noisewise.app.plots.svg import as_pixels
from noisewise.app.report.facts import ClassSheet, Facts
from noisewise.app.report.pieces import image, section
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.training_set import TrainingSet

_COLUMNS = 8
_FEWEST = 3
_MOST = 24  # classes
_PIXELS = 400_000  # of all sheets together


def class_sheets(
    model: Generator | Teacher, training: TrainingSet | None, seed: int
) -> tuple[ClassSheet, ...]:
    """The first pictures of a seed for each class; empty without classes.

    Args:
        model: draws them.
        training: has real pictures; None: they cannot be read.
        seed: of the pictures.
    """
    found = []
    for label, name in enumerate(model.classes[:_MOST]):
        drawn = as_pixels(model.sample(_COLUMNS, seed, label))
        found.append(ClassSheet(name, drawn, _real(training, name)))
    return tuple(found)


def _real(training: TrainingSet | None, name: str) -> np.ndarray | None:
    """Pictures of a class that no model was trained on; None if there are not enough."""
    if training is None or name not in training.pictures.classes:
        return None
    labels, unseen = training.pictures.labels, training.held_out
    assert labels is not None
    chosen = unseen[labels[unseen] == training.pictures.classes.index(name)][:_COLUMNS]
    return np.asarray(training.pictures.images[chosen]) if len(chosen) == _COLUMNS else None


def class_section(facts: Facts, share: float) -> str:
    """One sheet for each class; "" without classes.

    Args:
        facts: of a run.
        share: of the pictures that fit a page.
    """
    sheets = facts.class_sheets
    if not sheets or not facts.ways:
        return ""
    _, height, width, _ = sheets[0].generated.shape
    room = share * _PIXELS / (2 * len(sheets) * height * width)
    columns = max(_FEWEST, min(_COLUMNS, int(room)))
    figures = "".join(_figure(sheet, columns) for sheet in sheets)
    more = "" if len(sheets) < _MOST else f" The first {_MOST} are shown."
    text = (
        f"Drawn by the first way ({escape(facts.ways[0].name)}), the first pictures of their seed: "
        f"they were not selected. Below are held-out real pictures, where there are enough.{more}"
    )
    return section("Each class", text, f'<div class="sheets classes">{figures}</div>')


def _figure(sheet: ClassSheet, columns: int) -> str:
    shown, alt = sheet.generated[:columns], f"{columns} generated pictures of {sheet.name}"
    if sheet.real is not None:
        shown = np.concatenate([shown, sheet.real[:columns]])
        alt = f"above: {alt}; below: {columns} real ones"
    return f"<figure><h3>{escape(sheet.name)}</h3>{image(shown, columns, alt)}</figure>"
