"""A run: one folder that holds everything about a training, and the only writer of it.

run.json      configuration, derived values with reasons, versions, data, finished stages
run-copy.json the same, in case run.json is damaged
kinds.safetensors  which picture is of which kind, where noisewise sorted them into kinds
log.jsonl     one line a logged step
teacher/      generator/      the finished models
checkpoints/  what exact resume needs
samples/      sheets of the same seeds over time
noise.json    the gradient's noise at the end of training, as `noisewise lr advise` reads it
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from noisewise.training.callbacks import Callbacks
from noisewise.training.files.atomic import file_digest
from noisewise.training.files.lock import lies_before_a_run, locked
from noisewise.training.models.model_folder import is_whole
from noisewise.training.run.checkpoints import Checkpoints, Resumed
from noisewise.training.run.kinds_file import kinds_digest
from noisewise.training.run.log import Log
from noisewise.training.run.notes import DataNotes, StageNotes
from noisewise.training.run.recorder import Recorder
from noisewise.training.run.run_json import begun, must_match, read_either, write_info
from noisewise.training.stages.loop import Loop, TrainingFailed
from noisewise.training.stages.record import Record
from noisewise.training.stages.stage import StageName

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.models.model_folder import Build
    from noisewise.training.models.models import Generator, Teacher
    from noisewise.training.settings.config import DistillConfig, TrainConfig
    from noisewise.training.stages.plan import TeacherPlan

STAGES: tuple[StageName, ...] = ("teacher", "generator")


class Run:
    """A run folder; `Run("runs/x")` opens it, `noisewise.train` makes it.

    Attributes:
        path: the folder.
        info: what run.json says; `data` and `stage` give its parts as values.
        warning: that run.json is damaged and its copy was read; else "".

    Args:
        path: of the folder.

    Raises:
        ValueError: if it is no run, or run.json and its copy are damaged.

    Example:
        >>> try:
        ...     Run("no/such/run")
        ... except ValueError as error:
        ...     print(error)
        no/such/run is no run; train one first: noisewise train FOLDER --out no/such/run
    """

    def __init__(self, path: str | Path) -> None:
        """Open the folder; see the class."""
        self.path = Path(path)
        if not (self.path / "run.json").exists():
            raise ValueError(
                f"{path} is no run; train one first: noisewise train FOLDER --out {path}"
            )
        self.info, self.warning = read_either(self.path)
        self._mended = False

    @classmethod
    def check(cls, path: str | Path) -> bool:
        """Whether a run is there already; refuses a path that holds something else.

        Raises:
            ValueError: if path is a file, or a folder that holds something else.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file; name a new folder with --out")
        if (path / "run.json").exists():
            return True
        there = path.iterdir() if path.exists() else ()
        others = sorted(p.name for p in there if not lies_before_a_run(p.name))
        if others:
            raise ValueError(
                f"{path} holds something else ({others[0]}); name a new folder with --out"
            )
        return False

    @classmethod
    def must_match(cls, path: Path, config: TrainConfig) -> Run | None:
        """The run that is there already, None where there is none yet.

        Raises:
            ValueError: if it was begun with other settings.
        """
        if not (path / "run.json").exists():
            return None
        run = cls.open(path)
        must_match(run.info["train"], config, path, "name a new folder with --out", ("batch",))
        return run

    @classmethod
    def create(
        cls, path: str | Path, config: TrainConfig, plan: TeacherPlan, pictures: Pictures
    ) -> Run:
        """Make a run folder, or open the one there if it has the same settings and pictures.

        Raises:
            ValueError: if the folder holds something else, or a run with other settings.
        """
        path = Path(path)
        cls.check(path)
        run = cls.must_match(path, config)
        if run is not None:
            if run.data.fingerprint != pictures.fingerprint:
                before = run.data.num_pictures
                raise ValueError(
                    f"{path} was trained on other pictures ({before}; now {len(pictures)} are "
                    f"found in {pictures.source}): undo the change, or name a new folder with --out"
                )
            return run
        training, held_out = pictures.split(config.seed)
        data = {
            "source": str(Path(pictures.source).resolve()),
            "fingerprint": pictures.fingerprint,
            "num_pictures": len(pictures),
            "num_training": len(training),
            "num_held_out": len(held_out),
            "size": pictures.size,
            "channels": pictures.channels,
            "classes": list(pictures.classes),
            "kinds": kinds_digest(pictures),
            "notes": list(pictures.notes),
            "skipped": [asdict(item) for item in pictures.skipped],
        }
        info = {
            **begun(config.seed),
            "data": data,
            "train": asdict(config),
            "derived": plan.to_dict(),
            "stages": {},
        }
        return cls.begin(path, info)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run folder, as `Run(path)` does.

        Raises:
            ValueError: if it is no run, or run.json and its copy are damaged.
        """
        return cls(path)

    @classmethod
    def begin(cls, path: Path, info: dict[str, Any]) -> Self:
        """Make the folder and write what run.json says at first.

        Args:
            path: of the folder; what lies there is not looked at.
            info: `begun` and what is known of pictures and settings.
        """
        path.mkdir(parents=True, exist_ok=True)
        write_info(path, json.loads(json.dumps(info)), damaged=False)
        return cls(path)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def seed(self) -> int:
        """Source of everything random in it."""
        return int(self.info["seed"])

    @property
    def data(self) -> DataNotes:
        """The pictures that it was begun with."""
        return DataNotes.from_dict(self.info["data"])

    def stage(self, name: StageName) -> StageNotes:
        """What a stage came to; all zeros for one that was not begun."""
        return StageNotes.from_dict(self.info["stages"].get(name, {}))

    def __repr__(self) -> str:
        """Path, pictures and stages, in one line."""
        data = self.data
        count = f"{data.num_pictures:,} pictures of " if data.num_pictures else ""
        colour = "grey" if data.channels == 1 else "colour"
        parts = [f"{count}{data.size} x {data.size}, {colour}"]
        for name in STAGES:
            stage = self.stage(name)
            word = "finished" if stage.finished else "not finished" if stage.steps else "missing"
            parts.append(f"{name} {word}")
        return f"Run({str(self.path)!r}: {', '.join(parts)})"

    def write(self) -> None:
        """Write run.json and its copy; what is in memory is then as it would be read."""
        self.info = json.loads(json.dumps(self.info))
        write_info(self.path, self.info, damaged=bool(self.warning) and not self._mended)
        self._mended = True

    def note_batch(self, batch: int | None, plan: TeacherPlan) -> None:
        """Note that training resumes with another batch, and with the rates that it gets."""
        self.info["train"]["batch"] = batch
        self.info["derived"] = plan.to_dict()
        self.write()

    def finished(self, stage: StageName) -> bool:
        """Whether a stage has ended and its model is there."""
        return self.stage(stage).finished

    def has_model_of(self, loop: Loop) -> bool:
        """Whether the model on disk is the one that this loop ended with, and whole.

        All processes that run the loop together call it; the first one looks.

        Raises:
            OSError, MemoryError: if the model cannot be read now.
        """
        name = loop.stage.name
        noted = self.stage(name)
        ended = noted.finished and noted.steps == loop.at.step
        there = loop.ranks.leads and ended and is_whole(self.path / name)
        return bool(loop.ranks.agree(there))

    def records(self) -> list[Record]:
        """The logged steps, all stages."""
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
        """Refuse to work without a finished model.

        Raises:
            ValueError: if the stage has none, with the command that makes it.
        """
        if not (self.path / stage / "config.json").exists():
            raise ValueError(self._missing(stage))

    def pictures(self) -> Pictures:
        """Read the training pictures again, where they were.

        Raises:
            ValueError: if they are gone or have changed.
        """
        from noisewise.pictures.pictures import load_pictures

        data = self.data
        if not Path(data.source).exists():
            raise ValueError(f"the training pictures are missing: {data.source} does not exist")
        asked = self.info["train"]
        pictures = load_pictures(
            data.source,
            data.size,
            data.channels,
            self.path / "cache",
            crop=asked.get("crop", "centre"),
            background=asked.get("background", "white"),
        )
        if pictures.fingerprint != data.fingerprint:
            raise ValueError(f"the pictures in {data.source} have changed since training")
        return pictures

    def begin_distill(self, config: DistillConfig) -> None:
        """Note the settings of a distillation; with another teacher than before it restarts.

        Raises:
            ValueError: if this run holds a generator distilled with other settings.
        """
        digest = self.teacher_digest()
        before = self.info.get("distill")
        if before is not None and self.stage("generator").teacher != digest:
            self.checkpoints("generator").clear()
            self.info["stages"].pop("generator", None)
            before = None
        if before is not None and self.checkpoints("generator").paths():
            old = f"{self.path / 'generator'} and {self.path / 'checkpoints'}/generator*"
            must_match(before, config, self.path, f"remove {old}")
        self.info["distill"] = asdict(config)
        self.info["stages"].setdefault("generator", {"finished": False})["teacher"] = digest
        self.write()

    def teacher_digest(self) -> str:
        """Digest of the teacher's weights: which teacher a generator was distilled from."""
        return file_digest(self.path / "teacher" / "model.safetensors")

    def stale_generator(self) -> str:
        """A warning if the generator was distilled from an earlier teacher; else ""."""
        of = self.stage("generator").teacher
        there = all((self.path / name / "model.safetensors").exists() for name in STAGES)
        if not there or of is None or of == self.teacher_digest():
            return ""
        return (
            "the generator was distilled from an earlier teacher of this run; "
            f"distil it again: noisewise distill {self.path}"
        )

    def checkpoints(self, stage: StageName) -> Checkpoints:
        """The checkpoints of a stage."""
        return Checkpoints(self.path / "checkpoints", stage)

    def resume(self, loop: Loop) -> Resumed | None:
        """Bring a loop to its newest checkpoint that is whole; None if there is no checkpoint.

        Raises:
            ValueError: if there are checkpoints and none can be used.
        """
        return self.checkpoints(loop.stage.name).load(loop)

    def follow(
        self,
        loop: Loop,
        checkpoint_seconds: float,
        callbacks: Callbacks | None = None,
        resumed: Resumed | None = None,
    ) -> bool:
        """Run a loop to its end, or until asked to stop: writes log, sheets and checkpoints.

        Args:
            loop: fresh, or as `resume` left it.
            checkpoint_seconds: time between checkpoints.
            callbacks: get every record; may ask to stop.
            resumed: what `resume` returned.

        Returns:
            Whether the stage has finished.

        Raises:
            TrainingFailed: if training broke down too often; run.json then says so, and the best
                model so far is kept in `checkpoints`.
        """
        callbacks = callbacks or Callbacks()
        name, keeper = loop.stage.name, self.checkpoints(loop.stage.name)
        recorder = Recorder(self.path, loop, keeper, checkpoint_seconds)
        try:
            if loop.ranks.leads:
                recorder.lead(callbacks, resumed, self.warning)
            else:
                recorder.follow(callbacks.stop)
        except TrainingFailed as error:
            keeper.save_best(loop)
            self.note(loop, self.finished(name), {"failed": str(error)})
            kept = f"; the best {name} so far is kept in {keeper.best}"
            raise TrainingFailed(f"{error}{kept if keeper.best.exists() else ''}") from error
        return loop.finished

    # ------------------------------------------------------------------ notes in run.json
    def note(self, loop: Loop, finished: bool, more: dict[str, Any]) -> None:
        """Write into run.json what a stage came to.

        Args:
            loop: of the stage.
            finished: whether its finished model is there.
            more: further values, for example what was measured.
        """
        if not loop.ranks.leads:
            return
        name = loop.stage.name
        before = self.info["stages"].get(name, {})
        kept = {key: value for key, value in before.items() if key not in ("failed", "stopped")}
        self.info["stages"][name] = {
            **kept,
            "finished": finished,
            "budget": str(loop.budget),
            "steps": loop.at.step,
            "images": loop.at.images,
            "seconds": round(loop.at.seconds, 3),
            **more,
        }
        self.write()

    def note_stopped(self, loop: Loop) -> None:
        """Note that somebody stopped a stage; a finished model of a smaller budget may be there."""
        self.note(loop, self.finished(loop.stage.name), {"stopped": True})

    @property
    def knows_first_batch(self) -> bool:
        """Whether the time to the first batch is noted."""
        return self.data.seconds_to_first_batch is not None

    def note_first_batch(self, seconds: float) -> None:
        """Note how long the first batch took to come; it is written with the next note."""
        self.info["data"]["seconds_to_first_batch"] = round(seconds, 1)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder.

        Raises:
            ValueError: if one does already.
        """
        with locked(self.path):
            yield

    def _model(self, stage: StageName, build: Build | None) -> Teacher | Generator:
        from noisewise.training.models.model_folder import load_model

        self.need(stage)
        folder = self.path / stage
        model = load_model(folder, build)
        if model.config.kind != stage:
            raise ValueError(f"{folder} holds a {model.config.kind}, not a {stage}")
        return model

    def _missing(self, stage: StageName) -> str:
        if stage == "generator":
            return f"{self.path} has no generator yet; distil one: noisewise distill {self.path}"
        adapted = self.info.get("adapt")
        verb = f"adapt {adapted['teacher_from']}" if adapted else "train"
        return (
            f"{self.path} has no finished teacher yet; resume its training: "
            f"noisewise {verb} {self.data.source} --out {self.path}"
        )
