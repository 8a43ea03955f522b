"""A run: one folder with everything about a training.

run.json      settings, derived values with reasons, versions, pictures, results of the stages
run-copy.json the same, in case run.json is damaged or missing
local.json    where the pictures lie on this machine: private, and listed in .gitignore
kinds.safetensors  the kind of each picture, if noisewise sorted them into kinds
log.jsonl     one line per logged step
teacher/      generator/      the finished models
checkpoints/  everything that an exact resume needs
samples/      sample sheets over time, drawn with the same seeds
noise.json    the gradient noise at the end of training, for `noisewise lr advise`

`begin` creates a run, `follow` trains in it. Apart from them, only lock and report write there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from noisewise.pictures.alpha import CHANNELS, colours
from noisewise.pictures.given import PREFIX
from noisewise.pictures.request import AUTO
from noisewise.plain_text import shell_words
from noisewise.sizes import Size, spelled
from noisewise.training.files.atomic import file_digest
from noisewise.training.files.lock import FolderSnapshot, locked
from noisewise.training.files.run_folder import is_run, meant
from noisewise.training.files.run_parts import check_run
from noisewise.training.files.sample_sheet import enlarged, open_sheet, png, sheets
from noisewise.training.in_html import page
from noisewise.training.run.checkpoints import Checkpoints
from noisewise.training.run.log import Log
from noisewise.training.run.notes import DataNotes, StageNotes
from noisewise.training.run.places import Places, without_places
from noisewise.training.run.run_json import OLDER_FRAMING, read_with_warning, write_info
from noisewise.training.stages.record import Record
from noisewise.training.stages.stage import StageName

if TYPE_CHECKING:
    from PIL import Image

    from noisewise.pictures.pictures import Pictures
    from noisewise.training.models.model_folder import Build
    from noisewise.training.models.models import Generator, Teacher
    from noisewise.training.stages.plan import TeacherPlan

STAGES: tuple[StageName, ...] = ("teacher", "generator")


class Run:
    """A run folder; `Run("runs/x")` opens it, `noisewise.train` makes it.

    Attributes:
        path: the folder.
        info: content of run.json, without absolute paths; `data` and `stage` return parts of it as
            values.
        warning: says that run.json is missing or damaged and its copy was used; else "".
        places: where pictures and teacher lie on this machine.

    Args:
        path: the folder.

    Raises:
        ValueError: if the folder is not a run, run.json and its copy are damaged, or a part of the
            run is a link.

    Example:
        >>> try:
        ...     Run("no/such/run")
        ... except ValueError as error:
        ...     print(error)
        no/such/run is not a run; train one first: noisewise train FOLDER --out no/such/run
    """

    def __init__(self, path: str | Path) -> None:
        """Open the folder; see the class."""
        self.path = Path(path)
        check_run(self.path)
        if not is_run(self.path):
            if (other := meant(self.path)) is not None:
                raise ValueError(f"{path} is not a run; perhaps you meant {other}")
            place = self.path if not self.path.exists() else "RUN"
            raise ValueError(
                f"{path} is not a run; train one first: noisewise train FOLDER --out "
                f"{shell_words(place)}"
            )
        self.reload()
        self._mended = False

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run folder, as `Run(path)` does.

        Raises:
            ValueError: if the folder is not a run, or run.json and its copy are damaged.
        """
        return cls(path)

    def keep_warning(self, warning: str) -> None:
        """Remember that run.json was damaged, after somebody else has already mended it."""
        if warning and not self.warning:
            self.warning, self._mended = warning, True

    def reload(self) -> None:
        """Read run.json again; another process or another `Run` may have changed it."""
        info, self.warning = read_with_warning(self.path)
        places = Places.read(self.path)
        self.info, found = without_places(info, places)  # older versions wrote absolute paths
        self.places = places.with_(found)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def seed(self) -> int:
        """Random seed of the training."""
        return int(self.info["seed"])

    @property
    def data(self) -> DataNotes:
        """The entry about the pictures."""
        return DataNotes.from_dict(self.info["data"])

    def stage(self, name: StageName) -> StageNotes:
        """State and results of a stage; all zeros if it was never started."""
        return StageNotes.from_dict(self.info["stages"].get(name, {}))

    def __repr__(self) -> str:
        """Path, pictures and stages, in one line."""
        data = self.data
        count = f"{data.num_pictures:,} pictures of " if data.num_pictures else ""
        parts = [f"{count}{spelled(data.size)}, {colours(data.channels)}"]
        for name in STAGES:
            stage = self.stage(name)
            word = "not finished" if stage.steps else "not begun"
            parts.append(f"{name} {'finished' if stage.finished else word}")
        return f"Run({str(self.path)!r}: {', '.join(parts)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: one line, how far each stage is, and the newest sheet."""
        picture = self._newest_sheet()
        rows = [(name, self._about(name)) for name in STAGES if self.stage(name).steps]
        return page(repr(self), picture, rows, f"the newest sample sheet of {self.name}")

    def _repr_png_(self) -> bytes | None:
        """The newest sheet, for what shows pictures only; None if there is none yet."""
        picture = self._newest_sheet()
        return None if picture is None else png(picture)

    def _about(self, name: StageName) -> str:
        """How far a stage is, and how far its pictures are from real ones."""
        stage = self.stage(name)
        floors = stage.measured.get("floors")
        away = f", {max(floors['value'], 0):.3g} floors" if isinstance(floors, dict) else ""
        return f"step {stage.steps:,}, {stage.images:,} images, {stage.seconds or 0:,.0f} s{away}"

    def _newest_sheet(self) -> Image.Image | None:
        """The last sheet of the last stage, enlarged for a screen; None if none can be read."""
        for name in reversed(STAGES):
            of_stage = [path for stage, _, path in sheets(self.path) if stage == name]
            image = open_sheet(of_stage[-1]) if of_stage else None
            if image is not None:
                return enlarged(np.asarray(image), self.data.size)
        return None

    def write(self) -> None:
        """Write run.json and its copy; `info` then equals what reading them gives."""
        info, damaged = json.loads(json.dumps(self.info)), bool(self.warning) and not self._mended
        self.info, self.places = write_info(self.path, info, damaged, self.places)
        self._mended = True

    def finished(self, stage: StageName) -> bool:
        """Whether a stage is finished: its budget is used up and its model is saved."""
        return self.stage(stage).finished

    def records(self) -> list[Record]:
        """The logged steps of all stages."""
        return Log(self.path / "log.jsonl").read()

    def teacher(self, build: Build | None = None) -> Teacher:
        """Load the trained teacher.

        Raises:
            ValueError: if there is none yet, or its files are damaged.
        """
        from noisewise.training.models.models import Teacher

        model = self._model("teacher", build)
        assert isinstance(model, Teacher)
        return model

    def generator(self, build: Build | None = None) -> Generator:
        """Load the distilled generator.

        Raises:
            ValueError: if there is none yet, or its files are damaged.
        """
        from noisewise.training.models.models import Generator

        model = self._model("generator", build)
        assert isinstance(model, Generator)
        return model

    def need(self, stage: StageName) -> None:
        """Check that a stage has a finished model.

        Raises:
            ValueError: if it has none; the message names the command that makes it.
        """
        if not (self.path / stage / "config.json").exists():
            raise ValueError(self._missing(stage))

    def source(self) -> Path | None:
        """Where the training pictures lie on this machine; None if that is unknown or gone."""
        return next(iter(self._there()), None)

    def teacher_source(self) -> str:
        """The teacher that this run began with, as it is typed; if it is gone, its name."""
        noted = str(self.info.get("adapt", self.info).get("teacher_from", ""))
        return str(next(filter(os.path.exists, self.places.known("teacher", noted)), noted))

    def pictures(self, data: str | Path | None = None) -> Pictures:
        """Read the training pictures again from where they were read last.

        Where the cache cannot be written (a full disk, a folder that is closed), they are read
        into memory.

        Args:
            data: where they lie now, if they were moved; the run notes it in its local.json.

        Raises:
            ValueError: if they are missing or have changed.
        """
        given = None if data is None else Path(data).expanduser()
        places = [given] if given is not None else self._there()
        if not places:
            raise ValueError(self._no_pictures())
        failed: ValueError | None = None
        for place in places:
            try:
                pictures = self._training_pictures(place)
            except ValueError as error:
                failed = failed or error
                continue
            if given is not None:
                with suppress(OSError):  # a disk that cannot be written: the flag is given again
                    self.places = self.places.note({"pictures": place.resolve()})
            return pictures
        assert failed is not None
        raise failed

    def _sources(self) -> list[Path]:
        """Where the pictures may lie; those that were given in memory move with the run."""
        found, name = self.places.known("pictures", self.data.source), Path(self.data.source).name
        return [*found, self.path / "cache" / name] if name.startswith(PREFIX) else found

    def _there(self) -> list[Path]:
        return [place for place in self._sources() if os.path.exists(place)]

    def _no_pictures(self) -> str:
        known = self._sources()
        why = f"{known[0]} does not exist" if known else "run.json has only their name"
        return (
            f"the training pictures ({self.data.name}) are missing: {why}; "
            "if they were moved, say where they are with --data FOLDER"
        )

    def _training_pictures(self, place: Path) -> Pictures:
        """Read pictures, which must be those of the run."""
        from noisewise.pictures.older_labels import as_labelled_before
        from noisewise.pictures.read import CannotReadError

        data, before = self.data, FolderSnapshot(self.path)
        try:
            pictures = self._read(place, data.size, data.channels, self.path / "cache")
        except CannotReadError:
            pictures = self._read(place, data.size, data.channels)
        pictures = as_labelled_before(pictures, data.fingerprint)
        if pictures.fingerprint != data.fingerprint:
            before.remove_new_files()  # nobody needs the cache of other pictures
            raise ValueError(f"the pictures in {place} have changed since training, or are others")
        return pictures.with_twins(data.twins)

    def other_pictures(self, path: str | Path, size: Size, channels: int) -> Pictures:
        """Read other pictures as those of this run were; crops may also be cut already.

        Raises:
            ValueError: as `load_pictures` does.
        """
        from noisewise.pictures.cutting import NothingToCutError

        try:
            return self._read(path, size, channels)
        except NothingToCutError:
            return self._read(path, size, channels, crops=0)

    def teacher_digest(self) -> str:
        """Digest of the teacher's weights; it identifies the teacher of a generator."""
        return file_digest(self.path / "teacher" / "model.safetensors")

    def stale_generator(self) -> str:
        """A warning if the generator was distilled from an earlier teacher; else ""."""
        of = self.stage("generator").teacher
        there = all((self.path / name / "model.safetensors").exists() for name in STAGES)
        if not there or of is None or of == self.teacher_digest():
            return ""
        return (
            "the generator was distilled from an earlier teacher of this run; "
            f"distil again: {shell_words('noisewise', 'distill', self.path)}"
        )

    def checkpoints(self, stage: StageName) -> Checkpoints:
        """The checkpoints of a stage."""
        return Checkpoints(self.path / "checkpoints", stage)

    def note_first_batch(self, seconds: float) -> None:
        """Set the time to the first batch; the next `write` saves it."""
        self.info["data"]["seconds_to_first_batch"] = round(seconds, 1)

    def note_batch(self, batch: int | None, plan: TeacherPlan) -> None:
        """Write into run.json that training resumes with another batch and other rates."""
        self.info["train"]["batch"] = batch
        self.info["derived"] = plan.to_dict()
        self.write()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock this folder, so that no other process trains in it.

        Raises:
            ValueError: if another process has the lock.
        """
        with locked(self.path):
            yield

    def _read(
        self,
        path: str | Path,
        size: Size,
        channels: int,
        cache: Path | None = None,
        crops: int | None = None,
    ) -> Pictures:
        """Read pictures with the settings of this run; runs of older versions have fewer."""
        from noisewise.pictures.pictures import load_pictures

        asked: dict[str, Any] = {**OLDER_FRAMING, **self.info["train"]}
        crops = asked.get("crops", 0) if crops is None else crops
        keeps = channels == CHANNELS  # no other setting does: a teacher from elsewhere has none
        return load_pictures(
            path,
            size,
            channels,
            cache,
            crop=AUTO if keeps and not self.info["train"] else asked["crop"],
            background=AUTO if keeps else asked["background"],
            crops=crops,
            keep_whole=bool(crops) and asked.get("keep_whole", False),
        )

    def _model(self, stage: StageName, build: Build | None) -> Teacher | Generator:
        from noisewise.training.models.model_folder import load_model

        self.need(stage)
        folder = self.path / stage
        model = load_model(folder, build)
        if model.config.kind != stage:
            raise ValueError(f"{folder} contains a {model.config.kind}, not a {stage}")
        return model

    def _missing(self, stage: StageName) -> str:
        if stage == "generator":
            line = shell_words("noisewise", "distill", self.path)
            return f"{self.path} has no generator yet; distil one: {line}"
        start = ["adapt", Path(self.teacher_source())] if self.info.get("adapt") else ["train"]
        source = Path(self.source() or self.data.source)
        words = ["noisewise", *start, source, "--out", self.path]
        if budget := self.stage("teacher").budget or self.info["train"].get("budget"):
            words += ["--budget", str(budget)]  # with another one, training could end at once
        return (
            f"{self.path} has no finished teacher yet; resume its training, with the other flags "
            f"that it began with: {shell_words(*words)}"
        )
