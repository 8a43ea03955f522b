"""Real pictures for a distillation with data: some at random for each step.

Nothing else of them is read: a distillation without a data weight sees no picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from noisewise.pictures.pictures import Pictures
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.run.run import Run
from noisewise.training.training_set import TrainingSet


@dataclass(frozen=True, eq=False)
class RealBatches:
    """The training pictures of a teacher.

    Attributes:
        pictures: all pictures of the set.
        indices: those that were trained on.
        flips: half of the pictures are mirrored, as in the teacher's training.
        labelled: the teacher knows their classes.
    """

    pictures: Pictures
    indices: np.ndarray
    flips: bool
    labelled: bool

    @classmethod
    def of(cls, run: Run, teacher: ModelConfig, data: str | None = None) -> RealBatches:
        """Read the pictures that a run's teacher was trained on.

        Args:
            run: the run.
            teacher: what its config.json says.
            data: where the pictures lie now, if they were moved.

        Raises:
            ValueError: if they are missing, have changed, or are not the teacher's.
        """
        try:
            found = TrainingSet.read(run, data)
        except ValueError as error:
            why = str(error).rstrip(".")
            raise ValueError(f"{why}; or leave --data-weight out") from error
        pictures, labelled = found.pictures, bool(teacher.classes)
        if (pictures.size, pictures.channels) != (teacher.size, teacher.channels):
            raise ValueError(
                "the pictures have another size or other channels than the teacher draws; name the "
                "teacher's own with --data, or leave --data-weight out"
            )
        if labelled and (pictures.labels is None or tuple(pictures.classes) != teacher.classes):
            raise ValueError(
                "the classes of the pictures are not those of the teacher; name the teacher's own "
                "pictures with --data, or leave --data-weight out"
            )
        made = run.info.get("derived", {}).get("flips", {}).get("value", False)
        return cls(pictures, found.trained, bool(made), labelled)

    def batch(self, num_images: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Draw pictures, float32 [n, c, h, w] in [-1, 1], and their classes, int64 [n]; on the CPU.

        Args:
            num_images: n.
            generator: source of the choice, on any device.
        """
        where = generator.device
        drawn = torch.randint(len(self.indices), (num_images,), generator=generator, device=where)
        mirrored = torch.rand(num_images, generator=generator, device=where).cpu() < 0.5
        chosen = self.indices[drawn.cpu().numpy()]
        x = self.pictures.tensor(chosen)
        if self.flips:
            x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        if not self.labelled:
            return x, None
        assert self.pictures.labels is not None
        return x, torch.from_numpy(self.pictures.labels[chosen].astype(np.int64))
