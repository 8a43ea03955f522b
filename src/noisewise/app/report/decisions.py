"""Every setting that a run chose or was given, with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from noisewise.app.report.contents import Contents
from noisewise.app.report.facts import Decision
from noisewise.training.settings.config import DistillConfig
from noisewise.training.settings.recipes import StudentRecipe
from noisewise.training.stages.plan import student_values


def decisions(contents: Contents) -> Iterator[Decision]:
    """The decisions of both stages: training, then sampler, then distillation."""
    info = contents.run.info
    for name, item in info.get("derived", {}).items():
        if not (isinstance(item, Mapping) and {"value", "reason"} <= item.keys()):
            continue  # changed by hand
        value = item["value"]
        if name == "classes" and contents.run.data.kinds:
            yield Decision("kinds", f"{len(value)}", item["reason"])
        else:
            yield Decision(name, _as_text(value), item["reason"])
    teacher, generator = contents.teacher, contents.generator
    if teacher is not None:
        yield Decision("sampler", teacher.sampler.described, teacher.sampler.reason)
        if "distill" in info:
            config = _distill_config(info["distill"])
            for name, item in student_values(config, teacher.config).items():
                yield Decision(f"distillation: {name}", _as_text(item.value), item.reason)
    if generator is not None and generator.config.two_call_sigma is not None:
        yield Decision(
            "distillation: noise before a second call",
            f"{generator.config.two_call_sigma:.3g}",
            "the best of those tried: its pictures are surely nearer to the teacher's",
        )


def listed(names: Sequence[str], most: int = 12) -> str:
    """The first names, and how many more there are.

    Example:
        >>> listed(["a", "b", "c"], 2)
        'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _distill_config(values: Mapping[str, Any]) -> DistillConfig:
    """The settings of a distillation, from run.json: JSON has lists where they have tuples."""
    recipe: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values["recipe"].items()
    }
    rest: dict[str, Any] = {**values, "recipe": StudentRecipe(**recipe)}
    return DistillConfig(**rest)


def _as_text(value: object) -> str:
    """A value as people write it."""
    if isinstance(value, dict):
        return "; ".join(f"{k} {_as_text(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return listed([_as_text(v) for v in value]) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
