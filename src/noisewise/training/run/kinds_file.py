"""The kinds that a run was begun with, kept in it: another torch might sort the pictures otherwise.

A net has learnt what kind 3 looks like. If a later call numbered the kinds anew, training would go
on with other labels and nobody would know. So they are sorted once and stored: kinds.safetensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from noisewise.pictures.pictures import Pictures
from noisewise.training.files.atomic import digest_of, load_state, save_state

NAME = "kinds.safetensors"


def with_kinds(
    folder: Path, pictures: Pictures, sort: Callable[[Pictures], Pictures], noted: str | None = None
) -> Pictures:
    """The pictures with the kinds that a run keeps; sorted where it keeps none.

    Args:
        folder: of the run, begun or not.
        pictures: as they were read.
        sort: sorts them, or gives them back as they are.
        noted: `kinds_digest` at the run's begin, if it says: what is sorted again must agree.

    Raises:
        ValueError: if the file is damaged or missing and the pictures are now sorted otherwise.
    """
    try:
        kept = load_state(folder / NAME)
    except ValueError as error:
        found, wrong = sort(pictures), error
    else:
        if kept["fingerprint"] == pictures.fingerprint:
            return _labelled(pictures, kept)
        return sort(pictures)  # of another set, which the run refuses
    if noted and kinds_digest(found) != noted:
        raise ValueError(
            f"{wrong}; with this torch, or this number of threads, the pictures are sorted into "
            "other kinds than before: restore the file from a copy, or name a new folder"
        )
    return found


def keep_kinds(folder: Path, pictures: Pictures) -> None:
    """Write the kinds of a run's pictures, if they have kinds and the run keeps none."""
    if not pictures.kinds:
        return
    try:
        load_state(folder / NAME)
    except ValueError:
        save_state(folder / NAME, _state(pictures))


def kinds_digest(pictures: Pictures) -> str | None:
    """Digest of the labels, where they are kinds."""
    return digest_of({"labels": _tensor(pictures)}) if pictures.kinds else None


def _state(pictures: Pictures) -> dict[str, Any]:
    return {
        "fingerprint": pictures.fingerprint,
        "names": list(pictures.classes),
        "why": pictures.kinds,
        "labels": _tensor(pictures).to(torch.int32),
    }


def _labelled(pictures: Pictures, kept: dict[str, Any]) -> Pictures:
    labels = kept["labels"].numpy().astype(np.int64)
    return replace(pictures, labels=labels, classes=tuple(kept["names"]), kinds=kept["why"])


def _tensor(pictures: Pictures) -> torch.Tensor:
    assert pictures.labels is not None
    return torch.from_numpy(np.ascontiguousarray(pictures.labels, dtype=np.int64))
