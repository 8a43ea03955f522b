"""A run around a teacher that was trained elsewhere: another run's, a folder's, or a model's.

Distillation reads nothing but the teacher, so a teacher that somebody sent is enough.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from noisewise.training.files.atomic import digest_of, file_digest, write_atomic
from noisewise.training.models.model_folder import (
    Build,
    is_whole,
    load_model,
    read_config,
    save_model,
)
from noisewise.training.models.models import Teacher
from noisewise.training.models.networks import network
from noisewise.training.run.begin import check_folder, new_run
from noisewise.training.run.run import Run
from noisewise.training.run.run_json import begun, read_info

_FILES = ("config.json", "model.safetensors")


def borrow(path: str | Path, teacher: Teacher | str | Path, build: Build | None = None) -> Run:
    """Begin a run with a copy of a teacher; a run that has this very teacher is opened.

    Args:
        path: folder of the run, new or made by this call before.
        teacher: a run with a finished teacher, a folder with config.json and model.safetensors, or
            a model.
        build: makes the net from its configuration; None: the package's own nets.

    Raises:
        ValueError: if there is no teacher, or path holds something else or another teacher.
    """
    if isinstance(teacher, Teacher):
        return _borrow_model(Path(path), teacher)
    path, folder = Path(path), _folder_of(Path(teacher))
    model = load_model(folder, build)
    if not isinstance(model, Teacher):
        raise ValueError(f"{folder} holds a {model.config.kind}, not a teacher")
    digest = file_digest(folder / _FILES[1])
    if check_folder(path):
        run = Run(path)
        there = file_digest(path / "teacher" / _FILES[1]) if _complete(path) else None
        if (there or run.info.get("teacher_digest")) != digest:
            raise ValueError(f"{path} has another teacher than {teacher}; name a new folder")
    else:
        known = {**_known(folder, model), "teacher_digest": digest}
        # run.json comes first: a kill then leaves a half copied run of ours, and the same call
        # completes it.
        run = new_run(path, {**begun(0), **known, "teacher_from": str(folder.resolve())})
    if not _complete(path):
        (path / "teacher").mkdir(exist_ok=True)
        for name in reversed(_FILES):  # a teacher is there when its config.json is
            write_atomic(path / "teacher" / name, partial(shutil.copyfile, folder / name))
    return run


def _borrow_model(path: Path, teacher: Teacher) -> Run:
    """The same for a model in memory."""
    weights = network(teacher.denoiser).state_dict()
    digest = digest_of({name: value.cpu() for name, value in weights.items()})
    if check_folder(path):
        run = Run(path)
        there = read_config(path / "teacher")[1] if _complete(path) else None
        if (there or run.info.get("teacher_digest")) != digest:
            raise ValueError(f"{path} has another teacher than the one given; name a new folder")
    else:
        known = {**_card(teacher, "a model given from Python"), "teacher_digest": digest}
        run = new_run(path, {**begun(0), **known, "teacher_from": "a model given from Python"})
    if not _complete(path):
        save_model(path / "teacher", teacher.denoiser, teacher.config)
    return run


def _complete(path: Path) -> bool:
    """Whether a run has a whole teacher; one that was damaged since is copied again."""
    return is_whole(path / "teacher")


def _folder_of(teacher: Path) -> Path:
    if (teacher / _FILES[0]).exists():
        return teacher
    if not (teacher / "run.json").exists():
        raise ValueError(f"{teacher} is neither a run nor a teacher's folder with {_FILES[0]}")
    folder = Run(teacher).path / "teacher"
    if not (folder / _FILES[0]).exists():
        raise ValueError(f"{teacher} has no finished teacher yet")
    return folder


def _known(folder: Path, model: Teacher) -> dict[str, Any]:
    """What is known of a teacher's training: all of it if it lies in its run, else its card."""
    if (folder.parent / "run.json").exists():
        info = read_info(folder.parent)
        kept = {name: info[name] for name in ("seed", "data", "train", "derived")}
        return {**kept, "stages": {"teacher": info["stages"].get("teacher", {})}}
    return _card(model, str(folder.resolve()))


def _card(model: Teacher, source: str) -> dict[str, Any]:
    """What a teacher's own description tells about its training."""
    config, stats = model.config, model.config.stats
    count = stats.get("num_pictures", 0)
    data = {
        "source": source,
        "fingerprint": str(stats.get("fingerprint", "")),
        "num_pictures": count,
        "num_training": count,
        "num_held_out": 0,
        "size": config.size,
        "channels": config.channels,
        "classes": list(config.classes),
        "notes": ["nothing but the teacher is known"],
        "skipped": [],
    }
    stages = {"teacher": {"finished": True, "budget": "unknown"}}
    return {"data": data, "train": {}, "derived": {}, "stages": stages}
