"""`load` loads a trained model from a run, or from the model's own folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from noisewise.training.devices.engine import Engine
from noisewise.training.files.run_folder import is_run
from noisewise.training.files.run_parts import check_run
from noisewise.training.models.diffusers_folder import is_diffusers_folder, read_diffusers
from noisewise.training.models.model_folder import Build, load_model
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.run.run import Run


def load(
    path: Run | str | Path,
    which: Literal["auto", "generator", "teacher"] = "auto",
    device: str = "cpu",
    build: Build | None = None,
) -> Generator | Teacher:
    """Load a trained model from a run, or from the model's own folder.

    Args:
        path: a run, a folder with config.json and model.safetensors, or a folder of diffusers.
        which: "generator", "teacher", or "auto" (the generator if there is one, else the teacher).
        device: auto, cpu, cuda or mps.
        build: makes the net from its configuration; None: the nets of noisewise.

    Returns:
        A module in eval mode with ``.sample(num_images, seed, label, calls)``.

    Raises:
        ValueError: if there is no such model, or its files are damaged.
    """
    if which not in ("auto", "generator", "teacher"):
        raise ValueError(f"model {which!r} is unknown; use generator, teacher or auto")
    folder = path.path if isinstance(path, Run) else Path(path)
    if is_run(folder):
        check_run(folder)
    engine = Engine.choose(device)
    if is_diffusers_folder(folder):
        if which == "generator":
            raise ValueError(f"{folder} contains a teacher, not a generator")
        return engine.prepare(read_diffusers(folder))
    if (folder / "config.json").exists():
        model = load_model(folder, build)
        if which not in ("auto", model.config.kind):
            raise ValueError(f"{folder} contains a {model.config.kind}, not a {which}")
        return engine.prepare(model)
    run = Run(folder)
    if which == "auto":
        which = "generator" if (folder / "generator" / "config.json").exists() else "teacher"
    model = run.generator(build) if which == "generator" else run.teacher(build)
    return engine.prepare(model)
