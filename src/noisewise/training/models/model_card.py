"""The model card of a generator: the README.md that is published with its weights."""

from __future__ import annotations

import re
from typing import Any

from noisewise.pictures.alpha import colours
from noisewise.plain_text import printable
from noisewise.quality.verdict import word_by_floors
from noisewise.sizes import sides, spelled
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.picture_sources import start_in_words

_MOST_CLASSES = 20  # names that the card lists
FLOORS_IN_WORDS = (
    "Floors say how far pictures are from others: 1 is as far as these are from each other; lower "
    "is better. For the generator, the others are pictures of its teacher: look at both rows. The "
    "verdict is as real, close, visibly different or poor. noisewise made these numbers; they are "
    "not an FID and cannot be compared with one."
)
LIMITS = (
    "The pictures are generated and can be wrong in detail. They show what the training pictures "
    "show, with the same gaps and biases. Some may closely resemble a training picture.",
    "The licence of the training pictures may limit what you can do with this model and its "
    "pictures.",
)


def model_card(name: str, config: ModelConfig, run: dict[str, Any]) -> str:
    """Write the README.md of a generator: what it is, how to use it, how it was made, how good.

    Args:
        name: name of the run.
        config: description of the generator.
        run: content of run.json.
    """
    colour = colours(config.channels)
    rgba = "" if config.alpha == "none" else ", straight RGBA"
    height, width = sides(config.size)
    shape = f"[64, {config.channels}, {height}, {width}]"
    lines = [
        f"# {_literal(name)}",
        "",
        f"This generator draws {colour} pictures of {spelled(config.size)} pixels in "
        f"{calls_in_words(config)}.",
        "It was made with noisewise: a diffusion model (the teacher) was trained on pictures, then "
        f"the generator was distilled from the teacher{how_distilled(run)}.",
        "",
        "## Use",
        "",
        "```python",
        "import noisewise",
        "",
        'generator = noisewise.load("path/to/this/folder")',
        f"pictures = generator.sample(64, seed=0)  # float32 {shape}, from -1 to 1{rgba}",
        "```",
        "",
        *_options(config, run["data"]),
        *closing_parts(config, run),
    ]
    return "\n".join(lines)


def closing_parts(config: ModelConfig, run: dict[str, Any]) -> list[str]:
    """What every card ends with: the training, how good it is, and its limits.

    Args:
        config: of the model.
        run: content of run.json; empty if the model does not lie in a run.
    """
    return [
        "## Training",
        "",
        "| | |",
        "|---|---|",
        *training_rows(config, run),
        "",
        "## Quality",
        "",
        "| | floors | verdict |",
        "|---|---|---|",
        *quality_rows(config, run.get("stages", {}).get("teacher", {})),
        "",
        FLOORS_IN_WORDS,
        "",
        "## Limits",
        "",
        *LIMITS,
        "",
    ]


def _options(config: ModelConfig, data: dict[str, Any]) -> list[str]:
    """How to draw one class, and how to draw in two calls."""
    lines = []
    if config.classes:
        what = "kind" if data.get("kinds") else "class"
        lines.append(f"* One {what} only: `generator.sample(64, label={config.classes[0]!r})`.")
    if config.two_call_sigma is not None:
        lines.append(
            "* Two calls: `generator.sample(64, calls=2)`. The second call needs the teacher: put "
            "its folder `teacher` into this folder, or next to it."
        )
    return [*lines, ""] if lines else []


def how_distilled(run: dict[str, Any]) -> str:
    """Whether the pictures and guidance had a part in a distillation, after "from the teacher".

    Args:
        run: content of run.json.

    Example:
        >>> how_distilled({}), how_distilled({"distill": {"guidance": 1.5}})
        (', without the pictures', ' with guidance 1.5, without the pictures')
    """
    asked = run.get("distill") or {}
    guidance, weight = asked.get("guidance", 1.0), asked.get("data_weight", 0.0)
    guided = "" if guidance == 1 else f" with guidance {guidance:g}"
    term = asked.get("data_term", "realuid")
    seen = (
        f"and from the pictures ({term}, weight {weight:g})" if weight else ", without the pictures"
    )
    return f"{guided} {seen}" if weight else f"{guided}{seen}"


def calls_in_words(config: ModelConfig) -> str:
    """The network calls of a generator: those that it was trained for."""
    calls = len(config.call_sigmas)
    return "one network call" if calls == 1 else f"{calls} network calls"


def training_rows(config: ModelConfig, run: dict[str, Any]) -> list[str]:
    """Rows of a table about pictures, teacher and generator.

    Args:
        config: description of the model.
        run: content of run.json; what it does not have is unknown.
    """
    data, stages = run.get("data", {}), run.get("stages", {})
    distilled = stages.get("generator", {})
    adapted = ", adapted from another teacher" if run.get("adapt") else ""
    failed = ", not finished because training failed" if distilled.get("failed") else ""
    known = "num_pictures" in data and "fingerprint" in data
    pictures = "unknown"
    if known:
        pictures = f"{data['num_pictures']:,}; fingerprint {data['fingerprint'][:16]}"
    began = start_in_words(run, config.stats)
    rows = [
        f"| training pictures | {pictures} |",
        f"| classes | {_classes(config.classes, bool(data.get('kinds')))} |",
        *([f"| palette | {config.palette.text} |"] if config.palette else []),
        f"| teacher | {_spent(stages.get('teacher', {}), 'images (with repetition)')}{adapted} |",
    ]
    if began:
        rows.append(f"| started from | {_literal(began)} |")
    if config.kind == "generator":
        rows.append(f"| generator | {_spent(distilled, 'generated images')}{failed} |")
    return rows


def quality_rows(config: ModelConfig, teacher: dict[str, Any]) -> list[str]:
    """Rows of a table of floors, and what they mean.

    Args:
        config: description of the model.
        teacher: what run.json says of the stage "teacher".
    """
    against = teacher.get("distance_against") or "real pictures"
    rows = [f"| teacher, from {against} | {_measured(teacher, 'as real')} |"]
    if config.kind == "teacher":
        return rows
    if config.two_call_sigma is not None:
        rows.insert(0, "| generator, two calls | surely fewer than in one call | |")
    one = _measured(config.stats, "as its teacher")
    calls = len(config.call_sigmas)
    drawn = "one call" if calls == 1 else f"{calls} calls"
    return [f"| generator, {drawn}, from its teacher's pictures | {one} |", *rows]


def _classes(names: tuple[str, ...], are_kinds: bool) -> str:
    if are_kinds:
        return f"{len(names)} kinds: groups of similar pictures, found automatically"
    more = f" and {len(names) - _MOST_CLASSES:,} more" if len(names) > _MOST_CLASSES else ""
    return ", ".join(map(_literal, names[:_MOST_CLASSES])) + more or "none"


def _literal(name: str) -> str:
    """A name that Markdown shows as it is."""
    return re.sub(r"([\\`*\[\]<>|#])", r"\\\1", printable(name))


def _spent(stage: dict[str, Any], what: str) -> str:
    if "images" not in stage:
        return "unknown"
    return f"trained on {stage['images']:,} {what} in {stage['seconds']:.0f} s"


def _measured(stats: dict[str, Any], best: str) -> str:
    """Two cells: floors with interval, and the verdict, whose best word is given."""
    floors = stats.get("floors")
    if not isinstance(floors, dict):  # too little time, or an older version
        return "not measured | not measured"
    at, low, high = floors["value"], floors["low"], floors["high"]
    fewest = min(floors["num_images"], floors["num_real"])
    word = word_by_floors(at, low, floors.get("chance", 1.0), fewest).replace("as real", best)
    return f"{max(at, 0.0):.1f} ({max(low, 0.0):.1f} to {max(high, 0.0):.1f}) | {word}"
