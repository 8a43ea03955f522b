"""Real pictures for a distillation with data: some at random for each step.

Nothing else of them is read: a distillation without a data weight sees no picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from noisewise.pictures.pictures import Pictures


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
