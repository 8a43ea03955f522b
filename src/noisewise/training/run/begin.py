"""How a run begins: its folder is checked, made, or found with the same settings and pictures."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisewise.training.files.lock import lies_before_a_run
from noisewise.training.run.kinds_file import kinds_digest
from noisewise.training.run.run import Run
from noisewise.training.run.run_json import begun, must_match, write_info

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.settings.config import DistillConfig, TrainConfig
    from noisewise.training.stages.plan import TeacherPlan


def check_folder(path: str | Path) -> bool:
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
        raise ValueError(f"{path} holds something else ({others[0]}); name a new folder with --out")
    return False


def matching_run(path: Path, config: TrainConfig) -> Run | None:
    """The run that is there already; None if there is none yet.

    Raises:
        ValueError: if it was begun with other settings.
    """
    if not (path / "run.json").exists():
        return None
    run = Run(path)
    must_match(run.info["train"], config, path, "name a new folder with --out", ("batch",))
    return run


def new_run(path: Path, info: dict[str, Any]) -> Run:
    """Make the folder and write what run.json says at first.

    Args:
        path: of the folder; what lies there is not looked at.
        info: `begun` and what is known of pictures and settings.
    """
    path.mkdir(parents=True, exist_ok=True)
    write_info(path, json.loads(json.dumps(info)), damaged=False)
    return Run(path)


def create_run(path: str | Path, config: TrainConfig, plan: TeacherPlan, pictures: Pictures) -> Run:
    """Make a run folder, or open the one there if it has the same settings and pictures.

    Raises:
        ValueError: if the folder holds something else, or a run with other settings or pictures.
    """
    path = Path(path)
    check_folder(path)
    run = matching_run(path, config)
    if run is not None:
        if run.data.fingerprint != pictures.fingerprint:
            raise ValueError(
                f"{path} was trained on other pictures ({run.data.num_pictures}; now "
                f"{len(pictures)} are found in {pictures.source}): undo the change, or name a new "
                "folder with --out"
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
    settings = {"train": asdict(config), "derived": plan.to_dict(), "stages": {}}
    return new_run(path, {**begun(config.seed), "data": data, **settings})


def begin_distillation(run: Run, config: DistillConfig) -> None:
    """Note the settings of a distillation; with another teacher than before it restarts.

    Raises:
        ValueError: if this run holds a generator distilled with other settings.
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
