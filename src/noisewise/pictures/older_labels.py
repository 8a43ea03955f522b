"""Labels as older versions read them, so that their runs go on.

A run knows its pictures by a fingerprint, in which labels and the order of the classes count. Older
versions sorted class names as text, and did not read some files with labels. The pixels are the
same: of all labels that an older version can have read, those with the run's fingerprint count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from noisewise.pictures import folder_classes
from noisewise.pictures.gather import digests, fingerprint_of
from noisewise.pictures.pictures import Pictures

Labelling = tuple[np.ndarray | None, tuple[str, ...]]


def as_labelled_before(pictures: Pictures, fingerprint: str) -> Pictures:
    """The pictures with the labels that have this fingerprint; unchanged if none has.

    Args:
        pictures: as read now.
        fingerprint: of the run.
    """
    if pictures.fingerprint == fingerprint:
        return pictures
    marks = digests(pictures.images) if pictures.marks is None else pictures.marks
    for labels, classes in _older(pictures):
        shape, groups = pictures.images.shape, pictures.groups
        if fingerprint_of(shape, marks, labels, classes, groups) == fingerprint:
            return replace(
                pictures, labels=labels, classes=classes, fingerprint=fingerprint, marks=marks
            )
    return pictures


def in_class_order(pictures: Pictures, classes: Sequence[str]) -> Pictures:
    """The pictures with their classes in this order; unchanged if they have other classes."""
    if pictures.labels is None or tuple(pictures.classes) == tuple(classes):
        return pictures
    if sorted(pictures.classes) != sorted(classes) or len(set(classes)) < len(classes):
        return pictures
    labels, named = _ordered(pictures.labels, pictures.classes, classes)
    marks = digests(pictures.images) if pictures.marks is None else pictures.marks
    shape, groups = pictures.images.shape, pictures.groups
    fingerprint = fingerprint_of(shape, marks, labels, named, groups)
    return replace(pictures, labels=labels, classes=named, fingerprint=fingerprint, marks=marks)


def _older(pictures: Pictures) -> Iterator[Labelling]:
    """What an older version can have read."""
    yield None, ()
    if pictures.labels is not None and len(set(pictures.classes)) == len(pictures.classes):
        yield _ordered(pictures.labels, pictures.classes, sorted(pictures.classes))
    if pictures.names:
        found, classes, _ = folder_classes.class_labels(list(pictures.names))
        if found is not None:
            yield _ordered(np.asarray(found, np.int64), classes, sorted(classes))


def _ordered(labels: np.ndarray, classes: Sequence[str], order: Sequence[str]) -> Labelling:
    number = {name: index for index, name in enumerate(order)}
    new = np.array([number[name] for name in classes], np.int64)
    return new[labels], tuple(order)
