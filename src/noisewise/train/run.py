"""A run: one folder that holds everything about a training, and the only writer of it.

run.json      configuration, derived values with reasons, versions, data, finished stages
log.jsonl     one line a logged step
teacher/      generator/      the finished models
checkpoints/  what exact resume needs
samples/      sheets of the same seeds over time
"""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from noisewise.train.checkpoint import file_digest, load_state, read_json, save_state, write_json
from noisewise.train.log import Log
from noisewise.train.loop import Loop, Record
from noisewise.train.machine import describe_machine
from noisewise.train.sheet import save_sheet

if TYPE_CHECKING:
    from noisewise.train.config import DistillConfig, TrainConfig
    from noisewise.train.data import Pictures
    from noisewise.train.generator import Generator, Teacher
    from noisewise.train.models import Build
    from noisewise.train.plan import TeacherPlan
    from noisewise.train.student import StudentStage
    from noisewise.train.teacher import TeacherStage

StageName = Literal["teacher", "generator"]

FORMAT = 1
_OURS = ("run.json", "cache", ".lock")  # what may lie in a folder before run.json does
_MAY_CHANGE = ("budget", "device", "precision", "threads", "checkpoint_seconds")


class Run:
    """A run folder; made by `Run.create`, found again by `Run.open`.

    Attributes:
        path: the folder.
        info: what run.json says.

    Example:
        >>> try:
        ...     Run.open("no/such/run")
        ... except ValueError as error:
        ...     print(error)
        no/such/run is no run; train one first: noisewise train FOLDER --out no/such/run
    """

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        """Use `create` or `open`."""
        self.path = path
        self.info = info

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
        others = sorted(p.name for p in there if p.name not in _OURS)
        if others:
            raise ValueError(
                f"{path} holds something else ({others[0]}); name a new folder with --out"
            )
        return False

    @classmethod
    def create(
        cls, path: str | Path, config: TrainConfig, plan: TeacherPlan, pictures: Pictures
    ) -> Run:
        """Make a run folder, or open the one there if it has the same settings and pictures.

        Raises:
            ValueError: if the folder holds something else, or a run with other settings.
        """
        path = Path(path)
        if cls.check(path):
            run = cls.open(path)
            run._must_match("train", asdict(config))
            if run.info["data"]["fingerprint"] != pictures.fingerprint:
                raise ValueError(
                    f"{path} was trained on other pictures; name a new folder with --out"
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
            ValueError: if it is none.
        """
        path = Path(path)
        if not (path / "run.json").exists():
            raise ValueError(
                f"{path} is no run; train one first: noisewise train FOLDER --out {path}"
            )
        info = read_json(path / "run.json")
        if not isinstance(info, dict) or info.get("format") != FORMAT:
            raise ValueError(f"{path} is a run of another version of noisewise")
        return cls(path, info)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    def __repr__(self) -> str:
        """Path and finished stages."""
        done = [name for name in ("teacher", "generator") if self.finished(name)]
        return f"Run({str(self.path)!r}, finished={done})"

    def write(self) -> None:
        """Write run.json; what is in memory is then as it would be read."""
        self.info = json.loads(json.dumps(self.info))
        write_json(self.path / "run.json", self.info)

    def finished(self, stage: StageName) -> bool:
        """Whether a stage has ended and its model is there."""
        return bool(self.info["stages"].get(stage, {}).get("finished"))

    def records(self) -> list[Record]:
        """The logged steps, all stages."""
        return Log(self.path / "log.jsonl").read()

    def teacher(self, build: Build | None = None) -> Teacher:
        """Load the trained teacher.

        Raises:
            ValueError: if there is none yet, or its files are damaged.
        """
        from noisewise.train.generator import Teacher

        model = self._model("teacher", build)
        assert isinstance(model, Teacher)
        return model

    def generator(self, build: Build | None = None) -> Generator:
        """Load the distilled generator.

        Raises:
            ValueError: if there is none yet, or its files are damaged.
        """
        from noisewise.train.generator import Generator

        model = self._model("generator", build)
        assert isinstance(model, Generator)
        return model

    def pictures(self) -> Pictures:
        """Read the training pictures again, where they were.

        Raises:
            ValueError: if they are gone or have changed.
        """
        from noisewise.train.data import load_pictures

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
            self.checkpoint("generator").unlink(missing_ok=True)
            self.info["stages"].pop("generator", None)
            before = None
        if before is not None and self.checkpoint("generator").exists():
            self._must_match("distill", asdict(config))
        self.info["distill"] = asdict(config)
        self.info["stages"].setdefault("generator", {"finished": False})["teacher"] = digest
        self.write()

    def teacher_digest(self) -> str:
        """Digest of the teacher's weights: which teacher a generator was distilled from."""
        return file_digest(self.path / "teacher" / "model.safetensors")

    def checkpoint(self, stage: StageName) -> Path:
        """Where a stage's checkpoint lies."""
        return self.path / "checkpoints" / f"{stage}.safetensors"

    def resume(self, loop: Loop, stage: StageName) -> bool:
        """Load a stage's checkpoint into its loop, if there is one; drops what was logged after it.

        Raises:
            ValueError: if the checkpoint is damaged or of another net.
        """
        path = self.checkpoint(stage)
        if not path.exists():
            return False
        state = load_state(path)
        try:
            loop.load_state_dict(state)
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ValueError(f"{path} does not fit this run; remove it to start anew") from error
        return True

    def follow(
        self,
        loop: Loop,
        stage: TeacherStage | StudentStage,
        checkpoint_seconds: float,
        on_record: Callable[[Record], object] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> bool:
        """Run a loop to its end, or until asked to stop: writes log, sheets and checkpoints.

        Returns:
            Whether the stage has finished.

        Raises:
            TrainingFailed: if training broke down too often.
        """
        name: StageName = loop.stage.name  # pyrefly: ignore[bad-assignment]
        (self.path / "checkpoints").mkdir(exist_ok=True)
        saved = time.monotonic()
        with Log(self.path / "log.jsonl").writing(name, loop.at.step) as log:
            for record in loop.records(stop):
                log.write(record, loop.progress)
                if on_record is not None:
                    on_record(record)
                if record.distance is not None and stage.preview is not None:
                    sheet = self.path / "samples" / f"{name}-{record.step:07d}.png"
                    save_sheet(sheet, stage.preview)
                if loop.settled and time.monotonic() - saved > checkpoint_seconds:
                    save_state(self.checkpoint(name), loop.state_dict())
                    saved = time.monotonic()
        save_state(self.checkpoint(name), loop.state_dict())
        return loop.finished

    def note(self, stage: StageName, loop: Loop, finished: bool, stats: dict[str, Any]) -> None:
        """Write into run.json what a stage came to."""
        before = self.info["stages"].get(stage, {})
        self.info["stages"][stage] = {
            **before,
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
        with _lock(self.path):
            yield

    def _model(self, stage: StageName, build: Build | None) -> Teacher | Generator:
        from noisewise.train.models import load_model

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
        source = self.info["data"]["source"]
        return (
            f"{self.path} has no finished teacher yet; go on training: "
            f"noisewise train {source} --out {self.path}"
        )

    def _must_match(self, key: str, config: dict[str, Any]) -> None:
        """Refuse to go on with other settings than the run was begun with."""
        before = _flat(self.info[key])
        now = _flat(json.loads(json.dumps(config)))
        changed = [
            f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name) and name not in _MAY_CHANGE
        ]
        if changed:
            way = (
                "or name a new folder with --out"
                if key == "train"
                else f"or remove {self.path / 'generator'} and {self.checkpoint('generator')}"
            )
            raise ValueError(f"{self.path}: {changed[0]}; use the same settings, {way}")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # not on Windows; there the folder is not guarded
        yield
        return
    with (path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"another process is training in {path}; wait for it or stop it"
            ) from None
        yield


def remove_if_no_run(path: Path) -> None:
    """Remove a folder of ours in which no run came about: it holds a cache at most."""
    if path.is_dir() and all(p.name in ("cache", ".lock") for p in path.iterdir()):
        shutil.rmtree(path)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def begun(seed: int) -> dict[str, Any]:
    """What run.json says of the moment a run begins."""
    versions = {
        "noisewise": version("noisewise"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions,
        "machine": dict(describe_machine()),
        "seed": seed,
    }
