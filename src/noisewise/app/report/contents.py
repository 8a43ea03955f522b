"""What a run folder holds, as the report needs it: each file is read once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from noisewise.training.devices.engine import Engine
from noisewise.training.models.model_folder import Build
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.run.run import Run
from noisewise.training.stages.record import Record
from noisewise.training.stages.stage import StageName
from noisewise.training.training_set import TrainingSet


@dataclass(frozen=True, eq=False)
class Contents:
    """A run, read once.

    Attributes:
        run: at any stage.
        records: its log, without paths of this machine.
        training: its pictures; None if they cannot be read.
        missing: why they cannot be read; else "".
        teacher: on the device where it draws; None if there is none yet.
        generator: the same; its second call uses this teacher.
    """

    run: Run
    records: list[Record]
    training: TrainingSet | None
    missing: str
    teacher: Teacher | None
    generator: Generator | None

    @classmethod
    def read(cls, run: Run, build: Build | None = None, data: str | Path | None = None) -> Contents:
        """Read log, pictures and models.

        Args:
            run: at any stage.
            build: makes the nets from their configuration; None: the nets of this package.
            data: where the training pictures lie now, if they were moved.

        Raises:
            ValueError: if a model file is damaged, or the pictures at `data` are not those of the
                run.
        """
        engine = Engine.choose("auto")
        teacher = engine.prepare(run.teacher(build)) if has_model(run, "teacher") else None
        generator = engine.prepare(run.generator(build)) if has_model(run, "generator") else None
        if generator is not None and teacher is not None:
            generator = _with_teacher(generator, teacher)
        training, missing, clean = None, "", run.places.cleaner()
        try:
            training = TrainingSet.read(run, data)
        except ValueError as error:  # distilled from a copied teacher, or sent to somebody else
            if data is not None:
                raise
            missing = clean(str(error))
        records = [replace(r, event=r.event and clean(r.event)) for r in run.records()]
        return cls(run, records, training, missing, teacher, generator)


def has_model(run: Run, stage: StageName) -> bool:
    """Whether the model of a stage has been saved."""
    return (run.path / stage / "config.json").exists()


def _with_teacher(generator: Generator, teacher: Teacher) -> Generator:
    """The same generator with a teacher that is loaded, so that it reads none for second calls."""
    return Generator(generator.denoiser, generator.config, lambda: teacher).eval()
