"""kinds.safetensors: the kinds of a run's pictures, sorted once and stored.

The net learns what kind 3 looks like. Another version of torch may sort the pictures differently;
a resumed training would then use wrong labels without notice.
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
    """Return the pictures with the run's stored kinds; without stored kinds, sort them.

    Args:
        folder: folder of the run; the run may not exist yet.
        pictures: pictures as read.
        sort: sorts pictures into kinds, or returns them unchanged.
        noted: `kinds_digest` from the start of the run, if known; newly sorted kinds must match.

    Raises:
        ValueError: if the file is damaged or missing, and sorting now gives other kinds.
    """
    try:
        kept = _stored(folder / NAME)
    except ValueError as error:
        found, wrong = sort(pictures), error
    else:
        same = kept["fingerprint"] == pictures.fingerprint
        if same and len(kept["labels"]) == len(pictures):
            return _labelled(pictures, kept)
        return sort(pictures)  # these are other pictures, which the run will refuse
    if noted and kinds_digest(found) != noted:
        raise ValueError(
            f"{wrong}; with this version of torch or this number of threads, sorting the pictures "
            "gives other kinds than before; restore the file from a copy, or choose a new folder"
        )
    return found


def save_kinds(folder: Path, pictures: Pictures) -> None:
    """Store the kinds of a run's pictures, unless they have none or they are stored already."""
    if not pictures.kinds:
        return
    try:
        load_state(folder / NAME)
    except ValueError:
        save_state(folder / NAME, _state(pictures))


def kinds_digest(pictures: Pictures) -> str | None:
    """Digest of the labels if they are kinds, else None."""
    return digest_of({"labels": _tensor(pictures)}) if pictures.kinds else None


def _state(pictures: Pictures) -> dict[str, Any]:
    return {
        "fingerprint": pictures.fingerprint,
        "names": list(pictures.classes),
        "why": pictures.kinds,
        "labels": _tensor(pictures).to(torch.int32),
    }


def _stored(path: Path) -> dict[str, Any]:
    """The stored kinds.

    Raises:
        ValueError: if the file is missing, damaged, or holds something else.
    """
    kept = load_state(path)
    good = (
        isinstance(kept, dict)
        and {"fingerprint", "names", "why", "labels"} <= kept.keys()
        and isinstance(kept["names"], list)
        and all(isinstance(text, str) for text in (*kept["names"], kept["why"]))
        and isinstance(kept["labels"], torch.Tensor)
        and kept["labels"].dim() == 1
        and kept["labels"].dtype in (torch.int32, torch.int64)
        and bool(((kept["labels"] >= 0) & (kept["labels"] < len(kept["names"]))).all())
    )
    if not good:
        raise ValueError(f"{path} holds something else than kinds; restore it from a copy")
    return kept


def _labelled(pictures: Pictures, kept: dict[str, Any]) -> Pictures:
    labels = kept["labels"].numpy().astype(np.int64)
    return replace(pictures, labels=labels, classes=tuple(kept["names"]), kinds=kept["why"])


def _tensor(pictures: Pictures) -> torch.Tensor:
    assert pictures.labels is not None
    return torch.from_numpy(np.ascontiguousarray(pictures.labels, dtype=np.int64))
