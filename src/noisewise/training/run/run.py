"""A run: one folder that holds everything about a training, and the only writer of it.

run.json      configuration, derived values with reasons, versions, data, finished stages
run-copy.json the same, for the day when run.json is damaged
kinds.safetensors  which picture is of which kind, where they were sorted into kinds
log.jsonl     one line a logged step
teacher/      generator/      the finished models
checkpoints/  what exact resume needs
samples/      sheets of the same seeds over time
noise.json    the gradient's noise at the end of training, as `noisewise lr advise` reads it
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from noisewise.training.files.atomic import file_digest
from noisewise.training.files.lock import lies_before_a_run, locked
from noisewise.training.models.model_folder import is_whole
from noisewise.training.run.checkpoints import Checkpoints, Resumed
from noisewise.training.run.kinds_file import kinds_digest
from noisewise.training.run.log import Log
from noisewise.training.run.recorder import Following
from noisewise.training.run.run_json import begun, must_match, read_either, write_info
from noisewise.training.stages.loop import Loop, TrainingFailed
from noisewise.training.stages.record import Record

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.models.model_folder import Build
    from noisewise.training.models.models import Generator, Teacher
    from noisewise.training.settings.config import DistillConfig, TrainConfig
    from noisewise.training.stages.plan import TeacherPlan
    from noisewise.training.stages.student import StudentStage
    from noisewise.training.stages.teacher import TeacherStage

StageName = Literal["teacher", "generator"]


class Run:
    """A run folder; made by `Run.create`, found again by `Run.open`.

    Attributes:
        path: the folder.
        info: what run.json says.
        said: what has to be said of how it was read: that its copy had to do; else "".

    Example:
        >>> try:
        ...     Run.open("no/such/run")
        ... except ValueError as error:
        ...     print(error)
        no/such/run is no run; train one first: noisewise train FOLDER --out no/such/run
    """

    def __init__(self, path: Path, info: dict[str, Any], said: str = "") -> None:
        """Use `create` or `open`."""
        self.path = path
        self.info = info
        self.said = said
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
            if run.info["data"]["fingerprint"] != pictures.fingerprint:
                before = run.info["data"]["num_pictures"]
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
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, info)
        run.write()
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open a run folder.

        Raises:
            ValueError: if it is none, or run.json and its copy are damaged.
        """
        path = Path(path)
        if not (path / "run.json").exists():
            raise ValueError(
                f"{path} is no run; train one first: noisewise train FOLDER --out {path}"
            )
        return cls(path, *read_either(path))

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    def __repr__(self) -> str:
        """Path and finished stages."""
        done = [name for name in ("teacher", "generator") if self.finished(name)]
        return f"Run({str(self.path)!r}, finished={done})"

    def write(self) -> None:
        """Write run.json and its copy; what is in memory is then as it would be read."""
        self.info = json.loads(json.dumps(self.info))
        write_info(self.path, self.info, damaged=bool(self.said) and not self._mended)
        self._mended = True

    def go_on_with(self, batch: int | None, plan: TeacherPlan) -> None:
        """Note that training goes on with another batch, and with the rates that it gets."""
        self.info["train"]["batch"] = batch
        self.info["derived"] = plan.to_dict()
        self.write()

    def finished(self, stage: StageName) -> bool:
        """Whether a stage has ended and its model is there."""
        return bool(self.info["stages"].get(stage, {}).get("finished"))

    def stands(self, stage: TeacherStage | StudentStage, loop: Loop) -> bool:
        """Whether the finished model that lies there is the one that this loop ended with, whole.

        All processes that run the loop together call it; the first one looks.

        Raises:
            OSError, MemoryError: if the model cannot be read now.
        """
        noted = self.info["stages"].get(stage.name, {})
        ended = bool(noted.get("finished")) and noted.get("steps") == loop.at.step
        there = loop.ranks.leads and ended and is_whole(self.path / stage.name)
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

    def pictures(self) -> Pictures:
        """Read the training pictures again, where they were.

        Raises:
            ValueError: if they are gone or have changed.
        """
        from noisewise.pictures.pictures import load_pictures

        data = self.info["data"]
        if not Path(data["source"]).exists():
            raise ValueError(f"the training pictures are gone from {data['source']}")
        asked = self.info["train"]
        pictures = load_pictures(
            data["source"],
            data["size"],
            data["channels"],
            self.path / "cache",
            crop=asked.get("crop", "centre"),
            background=asked.get("background", "white"),
        )
        if pictures.fingerprint != data["fingerprint"]:
            raise ValueError(f"the pictures in {data['source']} have changed since training")
        return pictures

    def begin_distill(self, config: DistillConfig) -> None:
        """Note the settings of a distillation; one of another teacher is begun anew.

        Raises:
            ValueError: if this run holds a generator distilled with other settings.
        """
        digest = self.teacher_digest()
        before = self.info.get("distill")
        if before is not None and self.info["stages"].get("generator", {}).get("teacher") != digest:
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
        """What to say where the generator was distilled from an earlier teacher; else ""."""
        of = self.info["stages"].get("generator", {}).get("teacher")
        there = all(
            (self.path / s / "model.safetensors").exists() for s in ("teacher", "generator")
        )
        if not there or of is None or of == self.teacher_digest():
            return ""
        return (
            "the generator was distilled from an earlier teacher of this run; "
            f"distil it anew: noisewise distill {self.path}"
        )

    def checkpoints(self, stage: StageName) -> Checkpoints:
        """The checkpoints of a stage."""
        return Checkpoints(self.path / "checkpoints", stage)

    def resume(self, loop: Loop, stage: StageName) -> Resumed | None:
        """Bring a loop to its newest checkpoint that is whole, if there is any.

        Raises:
            ValueError: if there are checkpoints and none can be used.
        """
        return self.checkpoints(stage).load(loop)

    def follow(
        self,
        loop: Loop,
        stage: TeacherStage | StudentStage,
        checkpoint_seconds: float,
        on_record: Callable[[Record], object] | None = None,
        stop: Callable[[], bool] | None = None,
        resumed: Resumed | None = None,
    ) -> bool:
        """Run a loop to its end, or until asked to stop: writes log, sheets and checkpoints.

        Args:
            loop: fresh, or as `resume` left it.
            stage: what the loop drives.
            checkpoint_seconds: time between checkpoints.
            on_record: is given every record.
            stop: asked before every step.
            resumed: what `resume` returned.

        Returns:
            Whether the stage has finished.

        Raises:
            TrainingFailed: if training broke down too often; run.json then says so, and the best
                model so far is kept in `checkpoints`.
        """
        name: StageName = loop.stage.name  # pyrefly: ignore[bad-assignment]
        keeper = self.checkpoints(name)
        follow = Following(self.path, loop, stage, keeper, checkpoint_seconds)
        try:
            if loop.ranks.leads:
                follow.lead(on_record, stop, resumed, self.said)
            else:
                follow.along(stop)
        except TrainingFailed as error:
            keeper.show(loop, stage)
            self.note(name, loop, self.finished(name), {"failed": str(error)})
            kept = f"; the best {name} so far is kept in {keeper.best}"
            raise TrainingFailed(f"{error}{kept if keeper.best.exists() else ''}") from error
        return loop.finished

    def note(self, stage: StageName, loop: Loop, finished: bool, stats: dict[str, Any]) -> None:
        """Write into run.json what a stage came to."""
        if not loop.ranks.leads:
            return
        before = self.info["stages"].get(stage, {})
        self.info["stages"][stage] = {
            **{name: value for name, value in before.items() if name != "failed"},
            "finished": finished,
            "budget": str(loop.budget),
            "steps": loop.at.step,
            "images": loop.at.images,
            "seconds": round(loop.at.seconds, 3),
            **stats,
        }
        self.write()

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

        folder = self.path / stage
        if not (folder / "config.json").exists():
            raise ValueError(self._missing(stage))
        model = load_model(folder, build)
        if model.config.kind != stage:
            raise ValueError(f"{folder} holds a {model.config.kind}, not a {stage}")
        return model

    def _missing(self, stage: StageName) -> str:
        if stage == "generator":
            return f"{self.path} has no generator yet; distil one: noisewise distill {self.path}"
        source, adapted = self.info["data"]["source"], self.info.get("adapt")
        verb = f"adapt {adapted['teacher_from']}" if adapted else "train"
        return (
            f"{self.path} has no finished teacher yet; go on training: "
            f"noisewise {verb} {source} --out {self.path}"
        )
