"""A run with a copy of a teacher from elsewhere: another run, a model folder, or a model in memory.

Distillation reads only the teacher, so a teacher from somebody else is enough to start.
"""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from noisewise.sizes import written
from noisewise.training.files.atomic import digest_of, file_digest, write_atomic
from noisewise.training.files.run_folder import is_run
from noisewise.training.models.diffusers_folder import is_diffusers_folder, read_diffusers
from noisewise.training.models.model_folder import (
    Build,
    is_intact,
    load_model,
    read_config,
    save_model,
)
from noisewise.training.models.models import Teacher
from noisewise.training.models.networks import network
from noisewise.training.run.begin import check_folder, new_run
from noisewise.training.run.places import Places, public_name
from noisewise.training.run.run import Run
from noisewise.training.run.run_json import new_run_info, read_info

_FILES = ("config.json", "model.safetensors")


def borrow(path: str | Path, teacher: Teacher | str | Path, build: Build | None = None) -> Run:
    """Create a run with a copy of a teacher; open the run if it has the same teacher already.

    Args:
        path: folder of the run, new or from an earlier call.
        teacher: a run with a finished teacher, a folder with config.json and model.safetensors, a
            folder of diffusers, or a model.
        build: makes the net from its configuration; None: the nets of noisewise.

    Raises:
        ValueError: if there is no teacher, or path contains other files or another teacher.
    """
    if isinstance(teacher, Teacher):
        return _borrow_model(Path(path), teacher)
    if is_diffusers_folder(Path(teacher)):
        return _borrow_model(Path(path), read_diffusers(Path(teacher)), str(teacher))
    path, folder = Path(path), _folder_of(Path(teacher))
    model = read_teacher(folder, build)
    digest = file_digest(folder / _FILES[1])
    begun = check_folder(path)
    complete = begun and _complete(path)
    if begun:
        run = Run(path)
        there = file_digest(path / "teacher" / _FILES[1]) if complete else None
        if (there or run.info.get("teacher_digest")) != digest:
            raise ValueError(f"{path} has another teacher than {teacher}; choose a new folder")
    else:
        known = {**_known_training(folder, model), "teacher_digest": digest}
        # run.json comes first: if the process is killed now, the next call finds a run and copies
        # the rest.
        run = new_run(path, {**new_run_info(0), **known, "teacher_from": str(folder.resolve())})
    if not complete:
        (path / "teacher").mkdir(exist_ok=True)
        for name in reversed(_FILES):  # config.json last: its presence says that a teacher exists
            write_atomic(path / "teacher" / name, partial(shutil.copyfile, folder / name))
    return run


def read_teacher(teacher: Teacher | str | Path, build: Build | None = None) -> Teacher:
    """The teacher that is meant; nothing is written.

    Args:
        teacher: as for `borrow`.
        build: makes the net from its configuration; None: the nets of noisewise.

    Raises:
        ValueError: if there is none.
    """
    if isinstance(teacher, Teacher):
        return teacher
    if is_diffusers_folder(Path(teacher)):
        return read_diffusers(Path(teacher))
    folder = _folder_of(Path(teacher))
    model = load_model(folder, build)
    if not isinstance(model, Teacher):
        raise ValueError(f"{folder} contains a {model.config.kind}, not a teacher")
    return model


def _borrow_model(path: Path, teacher: Teacher, source: str = "a model given from Python") -> Run:
    """Do the same for a model in memory; source: where it comes from, for people."""
    weights = network(teacher.denoiser).state_dict()
    digest = digest_of({name: value.cpu() for name, value in weights.items()})
    begun = check_folder(path)
    complete = begun and _complete(path)
    if begun:
        run = Run(path)
        there = read_config(path / "teacher")[1] if complete else None
        if (there or run.info.get("teacher_digest")) != digest:
            raise ValueError(f"{path} has another teacher than the one given; choose a new folder")
    else:
        known = {**_from_description(teacher, source), "teacher_digest": digest}
        run = new_run(path, {**new_run_info(0), **known, "teacher_from": source})
    if not complete:
        save_model(path / "teacher", teacher.denoiser, teacher.config)
    return run


def _complete(path: Path) -> bool:
    """Whether a run has an intact teacher; if not, the teacher is copied again."""
    return is_intact(path / "teacher")


def _folder_of(teacher: Path) -> Path:
    if (teacher / _FILES[0]).exists():
        return teacher
    if not is_run(teacher):
        raise ValueError(
            f"{teacher} is neither a run nor a folder of a teacher (of noisewise or diffusers): "
            f"run.json, {_FILES[0]} and model_index.json are missing"
        )
    folder = Run(teacher).path / "teacher"
    if not (folder / _FILES[0]).exists():
        raise ValueError(f"{teacher} has no finished teacher yet")
    return folder


def _known_training(folder: Path, model: Teacher) -> dict[str, Any]:
    """What is known about the teacher's training: from its run, else from its own config.json."""
    if is_run(folder.parent):
        info = read_info(folder.parent)
        kept = {name: info.get(name, {}) for name in ("data", "train", "derived")}
        noted = str(kept["data"].get("source", ""))
        places = Places.read(folder.parent).known("pictures", noted)
        there = next(filter(os.path.exists, places), public_name(Path(noted)))
        kept["data"] = {**kept["data"], "source": str(there)}
        stages = {"teacher": info.get("stages", {}).get("teacher", {})}
        began = {"start": info["start"]} if "start" in info else {}
        return {"seed": info.get("seed", 0), **kept, "stages": stages, **began}
    return _from_description(model, public_name(folder.resolve()))


def _from_description(model: Teacher, source: str) -> dict[str, Any]:
    """What the teacher's own description says about its training."""
    config, stats = model.config, model.config.stats
    count = stats.get("num_pictures", 0)
    data = {
        "source": source,
        "fingerprint": str(stats.get("fingerprint", "")),
        "num_pictures": count,
        "num_training": count,
        "num_held_out": 0,
        "size": written(config.size),
        "channels": config.channels,
        "classes": list(config.classes),
        "notes": ["only the teacher is known, not its pictures"],
        "skipped": [],
    }
    stages = {"teacher": {"finished": True, "budget": "unknown"}}
    return {"data": data, "train": {}, "derived": {}, "stages": stages}
