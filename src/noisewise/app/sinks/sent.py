"""What was sent to a log sink: the last step of each stage, and the id of the run there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from noisewise.training.files.atomic import read_json, write_json
from noisewise.training.run.run_json import read_info

NAME = "sinks.json"


class Sent:
    """The note of one sink in a run; read when it is first asked for, as the run may be new.

    Args:
        folder: of the run.
        sink: name of the sink.
    """

    def __init__(self, folder: Path, sink: str) -> None:
        """Read nothing yet."""
        self._path, self._sink = folder / NAME, sink
        self._values: dict[str, Any] | None = None
        self._keys: dict[str, str] = {}

    @property
    def mark(self) -> str:
        """The id that the sink gave the run; "" if it has none yet."""
        return str(self._own().get("id", ""))

    def last(self, stage: str) -> int:
        """The last step of a stage that was sent; -1 if none was.

        A generator of another teacher begins again: its steps are others.
        """
        step = self._own().get(self._key(stage), -1)
        return step if isinstance(step, int) else -1

    def note_mark(self, mark: str) -> None:
        """Note the id; the next `note` writes it."""
        self._own()["id"] = mark

    def note(self, stage: str, step: int) -> None:
        """Write that a step is sent."""
        own = self._own()
        own[self._key(stage)] = step
        assert self._values is not None
        write_json(self._path, self._values)

    def _key(self, stage: str) -> str:
        if stage not in self._keys:
            try:
                noted = read_info(self._path.parent)["stages"].get(stage, {}).get("teacher")
            except (ValueError, OSError, KeyError):  # no run yet
                noted = None
            self._keys[stage] = f"{stage} of {noted}" if noted else stage
        return self._keys[stage]

    def _own(self) -> dict[str, Any]:
        if self._values is None:
            try:
                read = read_json(self._path)
            except (ValueError, OSError):  # none yet, or damaged: it is only a note
                read = {}
            self._values = read if isinstance(read, dict) else {}
        own = self._values.setdefault(self._sink, {})
        if not isinstance(own, dict):
            own = self._values[self._sink] = {}
        return own
