"""The training pictures of a run, read once to measure others against: real ones, copies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from noisewise.pictures.pictures import Pictures
from noisewise.quality.copies import CopyReference
from noisewise.quality.eight_bits import rounded
from noisewise.quality.near_copies import NearCopyReference
from noisewise.training.judge_needs import ENOUGH
from noisewise.training.look import Labelled, RealPictures
from noisewise.training.models.models import Teacher
from noisewise.training.run.kinds_file import with_kinds
from noisewise.training.run.run import Run

MOST = 2000  # real pictures to measure against
_MOST_LABELLED = 1500  # training pictures from which classes are learnt
_FALSE_ALARMS = 0.05  # of the near-copy test; at 0.01 it finds too few in sets with near-twins


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The pictures of a run, read once.

    Attributes:
        pictures: all of them.
        trained: indices of the pictures that were trained on.
        held_out: indices of the held-out pictures.
        flips: a mirror image of a training picture is a copy too.
    """

    pictures: Pictures
    trained: np.ndarray
    held_out: np.ndarray
    flips: bool

    @classmethod
    def read(cls, run: Run, data: str | Path | None = None) -> Self:
        """Read the pictures that a run was trained on.

        Args:
            run: the run.
            data: where they lie now, if they were moved.

        Raises:
            ValueError: if they are missing or have changed.
        """
        pictures = run.pictures(data)
        if pictures.labels is None:  # a folder without classes may have kinds
            pictures = with_kinds(run.path, pictures, lambda unsorted: unsorted)
        trained, held_out = pictures.split(run.seed)
        return cls(pictures, trained, held_out, mirrored(run, pictures))

    def real(self, teacher: Teacher | None = None) -> RealPictures:
        """At most 2,000 held-out pictures; training pictures if fewer than 256 are held out.

        Args:
            teacher: the judge reads its features too; None: frozen features alone.
        """
        chosen, name = self.held_out[:MOST], "held-out pictures"
        if len(self.held_out) < ENOUGH:
            chosen, name = self.trained[:MOST], "training pictures (too few are held out)"
        return RealPictures(
            self.pictures.shown(chosen),
            f"{len(chosen)} {name}",
            teacher,
            self._labelled(),
        )

    def _labelled(self) -> Labelled | None:
        """Some training pictures with their classes or kinds."""
        pictures, chosen = self.pictures, self.trained[:_MOST_LABELLED]
        if pictures.labels is None or len(pictures.classes) < 2:
            return None
        labels = torch.from_numpy(pictures.labels[chosen].astype(np.int64))
        return Labelled(pictures.shown(chosen), labels, pictures.classes)

    def copies(self) -> CopyReference:
        """The test for copies of any training picture, already applied to the held-out pictures."""
        trained, unseen = self._trained_and_unseen()
        return CopyReference(trained, unseen, flips=self.flips)

    def near_copies(self) -> NearCopyReference | None:
        """The test for near copies; None with fewer than two training pictures."""
        trained, unseen = self._trained_and_unseen()
        try:
            return NearCopyReference(
                rounded(trained),
                None if unseen is None else rounded(unseen),
                flips=self.flips,
                false_alarms=_FALSE_ALARMS,
            )
        except ValueError:
            return None

    def _trained_and_unseen(self) -> tuple[Tensor, Tensor | None]:
        unseen = self.pictures.shown(self.held_out[:MOST]) if len(self.held_out) else None
        return self.pictures.shown(self.trained), unseen


@dataclass(frozen=True, eq=False)
class CopyTests:
    """The training pictures, prepared once for both tests.

    Attributes:
        exact: copies, by pixels.
        near: copies with small changes; None: not looked for.
    """

    exact: CopyReference
    near: NearCopyReference | None = None

    @classmethod
    def of(cls, training: TrainingSet) -> Self:
        """Prepare both tests for the pictures of a run."""
        return cls(training.copies(), training.near_copies())


def mirrored(run: Run, pictures: Pictures) -> bool:
    """Whether a mirror image counts as a copy: the set has mirror images, or training made them."""
    made = run.info.get("derived", {}).get("flips", {}).get("value", False)
    return bool(made or pictures.suggest_flip()[0])
