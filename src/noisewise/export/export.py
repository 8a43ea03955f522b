"""The verb `write`: exports a model, checks the result against torch, then puts it in its place."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noisewise.export.formats import Format, FormatName, format_named
from noisewise.export.source import open_source
from noisewise.plain_text import printable
from noisewise.training.models.model_folder import Build
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.run.run import Run


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: of the file or folder.
        format: its name.
        model: "generator" or "teacher".
        num_bytes: of the file, or of all files in the folder.
        difference: largest difference from torch, for the same noise, on the scale of -1 to 1;
            None where there is nothing to compare.
        checked: what was compared, in words.
        notes: what people should know.
    """

    path: Path
    format: str
    model: str
    num_bytes: int
    difference: float | None
    checked: str
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "out": str(self.path),
            "format": self.format,
            "model": self.model,
            "num_bytes": self.num_bytes,
            "difference": self.difference,
            "checked": self.checked,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """Lines for people."""
        large = self.num_bytes >= 1e5
        size = f"{self.num_bytes / 1e6:.1f} MB" if large else f"{self.num_bytes} bytes"
        lines = [
            f"{self.path}: the {self.model} as {self.format}, {size}",
            f"checked: {self._check()}",
        ]
        return "\n".join([*lines, *(f"note: {printable(note)}" for note in self.notes)])

    def _check(self) -> str:
        if self.difference is None:
            return self.checked
        return f"{self.checked}; largest difference {self.difference:.1e} on the scale of -1 to 1"


def write(
    run: Run | str | Path | Generator | Teacher,
    to: FormatName | str,
    out: str | Path,
    *,
    teacher: bool = False,
    overwrite: bool = False,
    license: str = "",
    note: str = "",
    repo: str = "",
    build: Build | None = None,
) -> Exported:
    """Export a model to a format of somebody else.

    It is written beside its place first, compared with torch there, and moved when it is whole.

    Args:
        run: a run, its folder, the folder of a model, or a model in memory.
        to: "html", "onnx", "pt2", "diffusers" or "hub"; see `FORMATS`.
        out: the file or the folder to write.
        teacher: export the teacher of a run: its denoiser ``D(x, sigma) -> x0``, or, to diffusers
            and the Hub, with its sampler. Else the generator, if there is one.
        overwrite: replace what an earlier export wrote at this place.
        license: of the model, such as "cc0-1.0"; written where the format has a place for it.
        note: for people who will use the model, such as the intended use.
        repo: name on the Hub, such as "me/garments", for the text of the model card.
        build: makes the net from its configuration; None: the nets of noisewise.

    Returns:
        What was written, with the largest difference from torch.

    Raises:
        ValueError: if there is no such model or format, a package is missing, or the place is
            taken.
        DiffersError: if the exported model draws other pictures; nothing is written then.
        OSError: if it cannot be written; it names the place, and nothing is written then.
    """
    chosen = format_named(to)
    place = Path(out)
    check_place(chosen, place, overwrite)
    write_format = chosen.writer()
    source = open_source(run, teacher, license, note, repo, build)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".export-") as beside:
        new = Path(beside) / place.name
        try:
            written = write_format(source, new)
        except OSError as error:
            # Formats write beside the place; people ask which disk is full, and know the place.
            if error.filename is None or str(beside) in str(error.filename):
                error.filename = str(place)
            raise
        if place.is_dir():
            shutil.rmtree(place)
        new.replace(place)
    return Exported(
        place,
        chosen.name,
        source.config.kind,
        _num_bytes(place),
        written.difference,
        written.checked,
        written.notes,
    )


def check_place(chosen: Format, place: Path, overwrite: bool) -> None:
    """Refuse to write over other files, or over an earlier export without being asked.

    Raises:
        ValueError: if the place cannot be used.

    Example:
        >>> check_place(format_named("onnx"), Path("x.pt"), False)
        Traceback (most recent call last):
        ...
        ValueError: x.pt: onnx is a file that ends in .onnx; name it x.onnx
    """
    if chosen.suffix and place.suffix.lower() != chosen.suffix:
        raise ValueError(
            f"{place}: {chosen.name} is a file that ends in {chosen.suffix}; name it "
            f"{place.with_suffix(chosen.suffix)}"
        )
    if not place.exists() or (place.is_dir() and not any(place.iterdir()) and not chosen.suffix):
        return
    if place.is_dir() != (not chosen.suffix):
        what = "a folder" if place.is_dir() else "a file"
        raise ValueError(f"{place} is {what}; name a new {'file' if chosen.suffix else 'folder'}")
    if not chosen.suffix and not _is_export(place):
        raise ValueError(f"{place} holds something else; name a new folder")
    if not overwrite:
        raise ValueError(f"{place} is there already; name another place, or add --overwrite")


def _is_export(folder: Path) -> bool:
    """Whether an export wrote a folder: it may be replaced as a whole."""
    names = {path.name for path in folder.iterdir()}
    if "run.json" in names or "README.md" not in names:
        return False
    return "model_index.json" in names or {"config.json", "model.safetensors"} <= names


def _num_bytes(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
