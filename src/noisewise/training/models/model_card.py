"""The model card that goes beside a generator's weights."""

from __future__ import annotations

from typing import Any

from noisewise.training.models.model_config import ModelConfig


def model_card(name: str, config: ModelConfig, run: dict[str, Any]) -> str:
    """README.md of a generator: what it is, from what, how good, how to use it.

    Args:
        name: of the run.
        config: of the generator.
        run: run.json.
    """
    data, stages, stats = run["data"], run["stages"], config.stats
    teacher, distilled = stages.get("teacher", {}), stages.get("generator", {})
    colour = "grey" if config.channels == 1 else "colour"
    lines = [
        f"# {name}",
        "",
        f"Draws {colour} pictures of {config.size} x {config.size} pixels in one network call.",
        "",
        "| | |",
        "|---|---|",
        f"| trained on | {data['num_pictures']} pictures, fingerprint {data['fingerprint'][:16]} |",
        f"| classes | {', '.join(config.classes) or 'none'} |",
        f"| teacher | {_spent(teacher)} |",
        f"| generator | {_spent(distilled)}, distilled from the teacher alone |",
        f"| distance, one call | {_number(stats.get('distance'))} to the teacher's own pictures |",
        f"| distance, two calls | {_number(stats.get('distance_two_calls'))} |",
        "",
        "The distance is noisewise's own kernel distance in fixed random features; it is no FID.",
        "",
        "```python",
        "import noisewise",
        "",
        f'generator = noisewise.load("{name}")',
        "pictures = generator.sample(64, seed=0)  # float [64, channels, size, size] in [-1, 1]",
        "```",
        "",
        "The pictures are made by a model: they may be wrong in detail, and carry over what the",
        "training pictures show and leave out. Its licence follows that of the training pictures.",
        "",
    ]
    return "\n".join(lines)


def _spent(stage: dict[str, Any]) -> str:
    if "images" not in stage:
        return "unknown"
    return f"{stage['images']} images seen in {stage['seconds']:.0f} s"


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
