"""The real pictures of a run, for a distillation with data."""

from __future__ import annotations

from noisewise.training.models.model_config import ModelConfig
from noisewise.training.run.run import Run
from noisewise.training.stages.real_batches import RealBatches
from noisewise.training.training_set import TrainingSet


def real_batches(run: Run, teacher: ModelConfig, data: str | None = None) -> RealBatches:
    """Read the pictures that a run's teacher was trained on.

    Args:
        run: the run.
        teacher: what its config.json says.
        data: where the pictures lie now, if they were moved.

    Raises:
        ValueError: if they are missing, have changed, or are not the teacher's.
    """
    try:
        found = TrainingSet.read(run, data)
    except ValueError as error:
        why = str(error).rstrip(".")
        raise ValueError(f"{why}; or leave --data-weight out") from error
    pictures, labelled = found.pictures, bool(teacher.classes)
    if (pictures.size, pictures.channels) != (teacher.size, teacher.channels):
        raise ValueError(
            "the pictures have another size or other channels than the teacher draws; name the "
            "teacher's own with --data, or leave --data-weight out"
        )
    if labelled and (pictures.labels is None or tuple(pictures.classes) != teacher.classes):
        raise ValueError(
            "the classes of the pictures are not those of the teacher; name the teacher's own "
            "pictures with --data, or leave --data-weight out"
        )
    made = run.info.get("derived", {}).get("flips", {}).get("value", False)
    return RealBatches(pictures, found.trained, bool(made), labelled)
