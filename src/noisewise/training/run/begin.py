"""Creates a run folder, or finds an existing run with the same settings and pictures."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from noisewise.pictures.request import AUTO
from noisewise.sizes import written
from noisewise.training.files.lock import is_our_file
from noisewise.training.files.run_folder import is_run
from noisewise.training.judge_needs import judge_needs
from noisewise.training.run.kinds_file import kinds_digest
from noisewise.training.run.run import Run
from noisewise.training.run.run_json import OLDER_FRAMING, must_match, new_run_info, write_info

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.settings.config import DistillConfig, TeacherSettings, TrainConfig
    from noisewise.training.stages.plan import TeacherPlan

Settings = TypeVar("Settings", bound="TeacherSettings")


def check_folder(path: str | Path) -> bool:
    """Whether path is already a run.

    Raises:
        ValueError: if path is a file, or a folder with other files.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; choose a new folder with --out")
    if is_run(path):
        return True
    there = path.iterdir() if path.exists() else ()
    others = sorted(p.name for p in there if not is_our_file(p.name))
    if others:
        raise ValueError(
            f"{path} contains other files ({others[0]}); choose a new folder with --out"
        )
    return False


def as_begun(config: Settings, folder: Path | None) -> Settings:
    """Settings in which "auto" is what it was when an existing run began.

    Runs of older versions have no "auto": they cut the centre, and laid pictures on white.

    Args:
        config: of a training or an adaptation.
        folder: of the run; None, or a folder without a run: the settings stay as they are.
    """
    if folder is None or not is_run(folder):
        return config
    before = Run(folder).info.get("train", {})
    kept = {
        name: old
        for name, old in OLDER_FRAMING.items()
        if getattr(config, name) == AUTO and before.get(name, old) == old
    }
    return replace(config, **kept)


def matching_run(path: Path, config: TrainConfig) -> Run | None:
    """Open the existing run; None if there is no run yet.

    Raises:
        ValueError: if it was started with other settings.
    """
    if not is_run(path):
        return None
    run = Run(path)
    # With classes, kinds have no effect; an older version let both be set.
    free = ("batch", "kinds") if config.classes else ("batch",)
    must_match(run.info["train"], config, path, "choose a new folder with --out", free)
    return run


def with_twins(path: Path, pictures: Pictures) -> Pictures:
    """Pictures with the near-twins that their split keeps together, so that a run keeps its split.

    Args:
        path: folder of the run; its own pairs count, in an older version none. If there is no run
            yet, or it has other pictures, they are found now.
        pictures: as read.
    """
    if is_run(path):
        data = Run(path).data
        if data.fingerprint == pictures.fingerprint:
            return pictures.with_twins(data.twins)
    return pictures.with_twins()


def new_run(path: Path, info: dict[str, Any]) -> Run:
    """Create the folder and write the first run.json.

    Args:
        path: the folder; existing files in it are not checked.
        info: `new_run_info` with the entries about pictures and settings.
    """
    path.mkdir(parents=True, exist_ok=True)
    write_info(path, json.loads(json.dumps(info)), damaged=False)
    return Run(path)


def create_run(path: str | Path, config: TrainConfig, plan: TeacherPlan, pictures: Pictures) -> Run:
    """Create a run folder, or open an existing run with the same settings and pictures.

    Raises:
        ValueError: if the folder has other files, or a run with other settings or pictures.
    """
    path = Path(path)
    check_folder(path)
    run = matching_run(path, config)
    if run is not None:
        if run.data.fingerprint != pictures.fingerprint:
            raise ValueError(
                f"{path} was trained on other pictures (it had {run.data.num_pictures}, "
                f"{pictures.source} has {len(pictures)}); undo the change, or choose a new folder "
                "with --out"
            )
        _note_source(run, pictures)
        return run
    if pictures.twins is None:
        pictures = pictures.with_twins()
    training, held_out = pictures.split(config.seed)
    data = {
        "source": str(Path(pictures.source).resolve()),
        "fingerprint": pictures.fingerprint,
        "num_pictures": len(pictures),
        "num_training": len(training),
        "num_held_out": len(held_out),
        "size": written(pictures.size),
        "channels": pictures.channels,
        "classes": list(pictures.classes),
        "kinds": kinds_digest(pictures),
        "twins": pictures.twins,
        "judge_needs": judge_needs(pictures),
        "notes": [note for note in (*pictures.notes, pictures.about_twins()) if note],
        "skipped": [asdict(item) for item in pictures.skipped],
    }
    settings = {"train": asdict(config), "derived": plan.to_dict(), "stages": {}}
    return new_run(path, {**new_run_info(config.seed), "data": data, **settings})


def _note_source(run: Run, pictures: Pictures) -> None:
    """Note where the pictures are now; they may have been moved since the run began."""
    now = Path(pictures.source).resolve()
    if run.source() != now:
        run.info["data"]["source"] = str(now)
        run.write()


def begin_distillation(run: Run, config: DistillConfig) -> None:
    """Write the settings of a distillation; if the teacher has changed, distillation restarts.

    Raises:
        ValueError: if this run has a generator distilled with other settings.
    """
    digest = run.teacher_digest()
    before = run.info.get("distill")
    if before is not None and run.stage("generator").teacher != digest:
        run.checkpoints("generator").clear()
        run.info["stages"].pop("generator", None)
        before = None
    if before is not None and run.checkpoints("generator").paths():
        old = f"{run.path / 'generator'} and {run.path / 'checkpoints'}/generator*"
        must_match(before, config, run.path, f"remove {old}")
    run.info["distill"] = asdict(config)
    run.info["stages"].setdefault("generator", {"finished": False})["teacher"] = digest
    run.write()
