"""TensorBoard: event files in the run's folder tensorboard/, for `tensorboard --logdir runs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from noisewise.app.sinks.sink import Numbers, Sink, SinkType

FOLDER = "tensorboard"


class TensorBoard:
    """Writes scalars; a resumed run adds a file to those that are there.

    Args:
        folder: of the event files.
    """

    def __init__(self, folder: Path) -> None:
        """Open a new file."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))

    def log(self, step: int, numbers: Numbers) -> None:
        """Write the numbers of a step, at once: a killed process loses none."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def _start(folder: Path, name: str, mark: str) -> tuple[Sink, str]:
    return TensorBoard(folder / FOLDER), mark or name


TENSORBOARD = SinkType("tensorboard", "tensorboard", "tensorboard", _start)
