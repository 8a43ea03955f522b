"""The parts of a run folder, and their check before anything in a run is read or written."""

from __future__ import annotations

from pathlib import Path

from noisewise.plain_files import check_parts
from noisewise.training.files.run_folder import IGNORED, LOCAL, is_run

FILES = (
    *("run.json", "run-copy.json", "run.json.damaged", "kinds.safetensors", "log.jsonl"),
    *("noise.json", "report.html", "demo.json", "sinks.json", ".lock", LOCAL, IGNORED),
)
FOLDERS = ("teacher", "generator", "checkpoints", "samples", "cache")


def check_run(path: Path) -> None:
    """Refuse a run whose parts are links, or anything but files and folders.

    The run folder itself may be a link, for example to a larger disk.

    Args:
        path: folder of a run; it may not exist yet.

    Raises:
        ValueError: at the first such part; nothing has been changed then.
    """
    check_parts(path, FILES, FOLDERS)


def is_in_run(folder: Path) -> bool:
    """Whether a model folder is a part of a run: RUN/teacher, RUN/checkpoints/best-teacher."""
    return any(is_run(above) for above in list(folder.absolute().parents)[:2])
