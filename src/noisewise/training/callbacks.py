"""What a caller of train, distill or adapt may hand in: to watch, to count files, to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from noisewise.training.settings.config import DistillConfig, TrainConfig
from noisewise.training.stages.record import Record

OnRecord = Callable[[Record], object]
Stop = Callable[[], bool]
OnFile = Callable[[int, int], None]
Config = TypeVar("Config", TrainConfig, DistillConfig)
