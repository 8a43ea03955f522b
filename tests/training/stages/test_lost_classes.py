"""A class that guided pictures lose is seen, on pictures that show which class they are of."""

from __future__ import annotations

import numpy as np
import torch

from noisewise.training.stages.lost_classes import loses_a_class
from tiny import tiny_pictures


def test_a_lost_class_is_seen() -> None:
    pictures = tiny_pictures(400)
    real, labels = pictures.tensor(np.arange(400)), torch.arange(400) % 2
    names = ("left", "right")
    assert loses_a_class(real[labels == 0][:128], real[:128], real, labels, names)
    assert not loses_a_class(real[:128], real[labels == 0][:128], real, labels, names)
    assert not loses_a_class(real[128:256], real[:128], real, labels, names)
    assert not loses_a_class(real[:8], real[:8], real[:4], torch.zeros(4).long(), names)
