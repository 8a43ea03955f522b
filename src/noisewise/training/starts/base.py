"""A base: a trained teacher whose weights another training starts from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from noisewise.nets.carry_over import Carried, Trained, carry_over
from noisewise.plain_files import read_plain
from noisewise.plain_text import printable
from noisewise.training.bases import SOURCES, packaged
from noisewise.training.files.atomic import file_digest, read_json
from noisewise.training.files.run_folder import is_run
from noisewise.training.models.model_folder import Build, load_model
from noisewise.training.models.models import Teacher
from noisewise.training.models.networks import network
from noisewise.training.models.picture_sources import checked_sources
from noisewise.training.run.places import public_name
from noisewise.training.run.run import Run
from noisewise.training.stages.plan import TeacherPlan

AUTO = "auto"
_MOST_CARD = 2**20  # bytes of a model card
_LICENSE = re.compile(r"^license(?:_name)?: *\"?([^\"\n]+)\"?\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Base:
    """A teacher to start from.

    Attributes:
        name: for people: of the run, the folder, or the packaged base.
        teacher: on the CPU.
        digest: of its file of weights.
        sources: of its pictures: name, licence, and where they come from, as far as it is known.
    """

    name: str
    teacher: Teacher
    digest: str
    sources: tuple[dict[str, str], ...]

    @property
    def net(self) -> dict[str, Any]:
        """Configuration of its net."""
        return self.teacher.config.net

    def trained(self, same_kinds: bool = False) -> Trained:
        """Its net, as `carry_over` needs it.

        Args:
            same_kinds: whether the new pictures were sorted into the kinds of this base; else a
                kind has no meaning to them, and "kind 1" of one set is not that of another.
        """
        config = self.teacher.config
        classes = config.classes
        if config.stats.get("kinds") and not same_kinds:
            classes = ("",) * len(classes)
        counts = config.label_histogram
        shares = tuple(map(float, counts)) if sum(counts) > 0 else ()
        weights = network(self.teacher.denoiser).state_dict()
        return Trained(config.net, weights, config.sigma_data, classes, shares, self.name)

    def into(self, denoiser: nn.Module, plan: TeacherPlan, same_kinds: bool = False) -> Carried:
        """Carry its weights into a new denoiser for this plan, in place.

        Raises:
            ValueError: if nothing fits.
        """
        base = self.trained(same_kinds)
        return carry_over(base, network(denoiser), plan.sigma_data, plan.classes)


def load_base(given: str | Path, build: Build | None = None) -> Base:
    """Load a base.

    Args:
        given: a run with a finished teacher, or the folder of a teacher.
        build: makes the net from its configuration; None: the nets of noisewise.

    Raises:
        ValueError: if there is no teacher, or its net is not known here.
    """
    folder = _folder_of(Path(given).expanduser())
    model = load_model(folder, build)
    if not isinstance(model, Teacher):
        raise ValueError(f"{folder} contains a {model.config.kind}; a start needs a teacher")
    if model.config.prediction == "denoiser" and build is None:
        raise ValueError(
            f"the net of {folder} is not one of noisewise, and no other net can take its weights; "
            "use another base, or adapt that teacher"
        )
    return base_of(model, folder)


def base_of(teacher: Teacher, folder: Path) -> Base:
    """A teacher that is loaded already, as a base.

    Args:
        teacher: the teacher.
        folder: its folder, which may hold its sources and its licence.
    """
    name = _name_of(folder)
    digest = file_digest(folder / "model.safetensors")
    return Base(name, teacher, digest, tuple(_sources(folder, name, teacher)))


def packaged_bases() -> list[Base]:
    """All packaged bases; empty if there are none.

    Raises:
        ValueError: if one is damaged.
    """
    return [load_base(folder) for folder in packaged()]


def packaged_base(name: str) -> Base | None:
    """The packaged base of this name; None if there is none."""
    return next((load_base(folder) for folder in packaged() if folder.name == name), None)


def _folder_of(given: Path) -> Path:
    """The folder of a teacher: this one, or that of the run."""
    if (given / "config.json").exists():
        return given
    if is_run(given):
        folder = Run(given).path / "teacher"
        if (folder / "config.json").exists():
            return folder
        raise ValueError(
            f"{given} has no finished teacher to start from yet; finish its training first, or "
            "use another base"
        )
    what = "is a file" if given.is_file() else "does not exist"
    if given.is_dir():
        what = "holds neither run.json nor config.json"
    raise ValueError(
        f"{given} is no teacher to start from, because it {what}; give a run, the folder of a "
        "teacher, auto or none"
    )


def _name_of(folder: Path) -> str:
    """What people call it; a word without a place on this machine."""
    real = folder.resolve()
    place = real.parent if real.name == "teacher" and is_run(real.parent) else real
    return printable(public_name(place, "teacher"))


def _sources(folder: Path, name: str, model: Teacher) -> Iterator[dict[str, str]]:
    """What the pictures of a teacher were, and those of the base that it began with itself."""
    own = None
    with suppress(ValueError, OSError):
        own = read_json(folder / SOURCES)
    listed = own.get("sources") if isinstance(own, dict) else None
    if isinstance(listed, list):
        yield from checked_sources(listed)
    else:
        yield {"name": f"the pictures of {name}", "license": _license_of(folder)}
    earlier = model.config.stats.get("start")
    if isinstance(earlier, dict):
        yield from checked_sources(earlier.get("sources"))


def _license_of(folder: Path) -> str:
    """The licence in the header of a model card; "unknown" without one."""
    try:
        text = read_plain(folder / "README.md", _MOST_CARD).decode("utf-8", "replace")
    except (OSError, ValueError):
        return "unknown"
    if not text.startswith("---"):
        return "unknown"
    found = _LICENSE.findall(text.split("\n---", 1)[0])
    return printable(found[-1].strip()) if found else "unknown"
