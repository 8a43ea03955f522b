"""Exports to the Hugging Face Hub: the model folder, a model card and sample pictures.

`noisewise.load` reads the folder too. Weights are safetensors, the description is JSON: opening it
runs no code.
"""

from __future__ import annotations

from pathlib import Path

from noisewise.export.card import SAMPLES, hub_card
from noisewise.export.graph import TOLERANCE, DiffersError
from noisewise.export.source import Source, Written
from noisewise.training.files.atomic import write_text
from noisewise.training.files.sample_sheet import png
from noisewise.training.models.diffusers_net import is_of_diffusers
from noisewise.training.models.model_folder import load_model, save_model
from noisewise.training.models.models import Generator

_COMPARED = 3
_SHOWN = 64


def write(source: Source, place: Path) -> Written:
    """Write the folder, load it again and compare its pictures.

    Raises:
        ValueError: if the net is not part of noisewise.
        DiffersError: if the loaded model draws other pictures.
    """
    save(source, place)
    again = load_model(place)
    apart = float((again.sample(_COMPARED) - source.model.sample(_COMPARED)).abs().max())
    if not apart <= TOLERANCE:
        raise DiffersError(f"the model that was written differs by {apart:.2g}; nothing was kept")
    return Written(apart, f"{_COMPARED} pictures of the folder loaded again, for the same seed")


def save(source: Source, place: Path) -> None:
    """Write the files of a folder that exists or not.

    Raises:
        ValueError: if the net is not part of noisewise.
    """
    model = source.model
    if model.config.prediction == "denoiser" and not is_of_diffusers(model.config.net):
        raise ValueError(
            "the net of this model is not part of noisewise, and nobody else could load it; export "
            "it to onnx or pt2, which hold the net itself"
        )
    place.mkdir(parents=True, exist_ok=True)
    teacher = model.second_teacher() if isinstance(model, Generator) else None
    if teacher is not None:
        save_model(place / "teacher", teacher.denoiser, teacher.config)
    save_model(place, model.denoiser, model.config)
    (place / SAMPLES).write_bytes(png(model.grid(_SHOWN)))
    write_text(place / "README.md", source.card or hub_card(source, place.name))
